//! Where a stream can be entered, as far as somebody who decoded all of it has noted that.

use serde::{Deserialize, Serialize};

use crate::Digest;

/// A place of a stream from which it decodes without what is before, if one knows how the stream begins.
///
/// It ends at the next one of its stream, or where the stream does: what lies between is a *section*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryPoint {
    /// The part that begins there, from 0; of an array, a layer of four planes of the slowest dimension.
    pub part: u64,
    /// At which bit of the stream it begins.
    pub bit: u64,
    /// Digest of what its section decodes to. That of the first one includes what is decoded before its first part.
    pub digest: Digest,
}

impl EntryPoint {
    /// The most that a stream has.
    pub const MAX: usize = 64;

    /// Whether these can be those of a stream of so many bytes: the first part begins the first of them, and each begins behind the one
    /// before. None at all can be those of any.
    #[must_use]
    pub fn fit(points: &[Self], stream_bytes: u64) -> bool {
        let is_first = points.first().is_none_or(|first| first.part == 0);
        let ascend =
            points.windows(2).all(|two| two[0].part < two[1].part && two[0].bit < two[1].bit);
        let is_within = points.last().is_none_or(|last| last.bit / 8 < stream_bytes);
        points.len() <= Self::MAX && is_first && ascend && is_within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_points_begin_with_the_first_part_and_ascend_within_their_stream() {
        let fit = |points: &[(u64, u64)]| {
            let digest = Digest::of(b"");
            let points: Vec<_> = points
                .iter()
                .map(|(part, bit)| EntryPoint { part: *part, bit: *bit, digest })
                .collect();
            EntryPoint::fit(&points, 100)
        };
        assert!(fit(&[]) && fit(&[(0, 96)]) && fit(&[(0, 96), (4, 97), (5, 799)]));
        assert!(!fit(&[(1, 96)]), "nothing has the first part");
        assert!(
            !fit(&[(0, 96), (0, 97)])
                && !fit(&[(0, 96), (1, 96)])
                && !fit(&[(0, 96), (2, 99), (1, 100)])
        );
        assert!(!fit(&[(0, 96), (1, 800)]), "it is behind the end");
        let many: Vec<_> = (0..65).map(|at| (at, at)).collect();
        assert!(fit(&many[..64]) && !fit(&many));
    }
}
