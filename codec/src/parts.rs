//! Streams that can be entered in their middle: their parts, and sections of some parts each that are decoded without what is before.

use std::ops::Range;

use crate::EntryPoint;

/// How a stream is cut, as its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Bits before the first part.
    pub(crate) header_bits: u64,
    /// Bits of a part, if all have the same.
    pub(crate) part_bits: Option<u64>,
    /// Bytes of what is decoded before that of the first part.
    pub(crate) front_bytes: u64,
    /// Bytes that a part decodes to; the last one may have fewer.
    pub(crate) part_bytes: u64,
    /// Bytes of all that is decoded.
    pub(crate) bytes: u64,
}

/// Some of the parts that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Which parts.
    pub parts: Range<u64>,
    /// The bytes of the stream that have them, from the start of a word of 64 bits to the end of one.
    pub stream: Range<u64>,
    /// At which bit of these the first part begins: one of the first word.
    pub bit: u32,
    /// The bytes that they decode to.
    pub decoded: Range<u64>,
}

impl Layout {
    /// How many parts there are.
    fn count(&self) -> u64 {
        (self.bytes - self.front_bytes).div_ceil(self.part_bytes)
    }

    pub(crate) fn parts(self) -> Option<Parts> {
        Some(Parts { layout: self, part_bits: self.part_bits? })
    }

    /// The sections between these points of a stream of so many bytes; none, if they do not fit.
    pub(crate) fn sections(
        &self,
        points: &[EntryPoint],
        stream_bytes: u64,
    ) -> Option<Vec<Section>> {
        let (first, last) = (points.first()?, points.last()?);
        let fit = EntryPoint::fit(points, stream_bytes)
            && first.bit == self.header_bits
            && last.part < self.count();
        let ends = points[1..].iter().map(|point| (point.part, point.bit.div_ceil(64) * 8));
        let ends = ends.chain([(self.count(), stream_bytes)]);
        let sections = points.iter().zip(ends).map(|(point, (part, end))| {
            self.section(point.part..part, point.bit, end.min(stream_bytes))
        });
        fit.then(|| sections.collect())
    }

    /// Parts that begin at bit `bit`, and are within the bytes up to `end`.
    fn section(&self, parts: Range<u64>, bit: u64, end: u64) -> Section {
        let decoded = |part: u64| (self.front_bytes + part * self.part_bytes).min(self.bytes);
        let begins = if parts.start == 0 { 0 } else { decoded(parts.start) };
        let decoded = begins..decoded(parts.end);
        let in_word = (bit % 64) as u32;
        Section { parts, stream: bit / 64 * 8..end, bit: in_word, decoded }
    }
}

/// How a stream is cut whose parts all have the same length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    layout: Layout,
    part_bits: u64,
}

impl Parts {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.layout.count()
    }

    /// Bytes of all that is decoded.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.layout.bytes
    }

    /// Bytes of a stream that has them all, up to the end of its last word.
    #[must_use]
    pub fn stream_bytes(&self) -> u64 {
        self.bits_before(self.count()).div_ceil(64) * 8
    }

    /// The parts that have the bytes from `from` up to, and without, `to` of what is decoded: one at least, and the first if any of
    /// what is before it is wanted.
    #[must_use]
    pub fn section(&self, from: u64, to: u64) -> Section {
        let Layout { front_bytes, part_bytes, bytes, .. } = self.layout;
        let part_of = |byte: u64| byte.saturating_sub(front_bytes) / part_bytes;
        let last = part_of(to.min(bytes).saturating_sub(1)).min(self.count() - 1);
        let first = part_of(from).min(last);
        let end = self.bits_before(last + 1).div_ceil(64) * 8;
        self.layout.section(first..last + 1, self.bits_before(first), end)
    }

    /// Bits of the stream before a part.
    fn bits_before(&self, part: u64) -> u64 {
        self.layout.header_bits.saturating_add(part.saturating_mul(self.part_bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    const LAYOUT: Layout = Layout {
        header_bits: 96,
        part_bits: Some(100),
        front_bytes: 128,
        part_bytes: 10,
        bytes: 128 + 35,
    };

    #[test]
    fn the_section_of_a_range_begins_and_ends_on_words_and_has_the_range() {
        let parts = LAYOUT.parts().unwrap();
        assert_eq!((parts.count(), parts.stream_bytes()), (4, 64));
        let section = |from, to| {
            let Section { parts, stream, decoded, .. } = parts.section(from, to);
            (parts, stream, decoded)
        };
        assert_eq!(section(0, 1), (0..1, 8..32, 0..138));
        assert_eq!(section(128, 138), (0..1, 8..32, 0..138));
        assert_eq!(section(137, 139), (0..2, 8..40, 0..148));
        assert_eq!(section(138, 139), (1..2, 24..40, 138..148));
        assert_eq!(section(160, 163), (3..4, 48..64, 158..163));
        assert_eq!(section(140, u64::MAX), (1..4, 24..64, 138..163));
        assert_eq!(parts.section(138, 139).bit, 196 % 64);
    }

    #[test]
    fn sections_reach_from_point_to_point_and_points_that_do_not_fit_have_none() {
        let layout = Layout { part_bits: None, ..LAYOUT };
        assert_eq!(layout.parts(), None);
        let sections = |points: &[(u64, u64)], stream_bytes| {
            let digest = Digest::of(b"");
            let point = |(part, bit): &(u64, u64)| EntryPoint { part: *part, bit: *bit, digest };
            let points: Vec<_> = points.iter().map(point).collect();
            layout.sections(&points, stream_bytes)
        };
        let found = sections(&[(0, 96), (1, 192), (3, 321)], 59).unwrap();
        let expected = [
            Section { parts: 0..1, stream: 8..24, bit: 32, decoded: 0..138 },
            Section { parts: 1..3, stream: 24..48, bit: 0, decoded: 138..158 },
            Section { parts: 3..4, stream: 40..59, bit: 1, decoded: 158..163 },
        ];
        assert_eq!(found, expected);
        assert_eq!(sections(&[(0, 96), (1, 192), (3, 321)], 44).unwrap()[2].stream, 40..44);
        assert_eq!(sections(&[(0, 97)], 59), None, "the header ends before");
        assert_eq!(sections(&[(0, 96), (4, 192)], 59), None, "there are four parts");
        assert_eq!(sections(&[(0, 96), (1, 192), (2, 192)], 59), None);
        assert_eq!(sections(&[(0, 96), (1, 500)], 59), None, "it is behind the end");
        assert_eq!(sections(&[], 59), None);
    }
}
