//! Streams whose parts all have the same length, which their header says: each can be entered without what is before it.

use std::ops::Range;

/// How a stream is cut, as its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Bits before the first part.
    pub(crate) header_bits: u64,
    /// Bits of a part.
    pub(crate) part_bits: u64,
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
    /// The bytes that they decode to.
    pub decoded: Range<u64>,
}

impl Parts {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        (self.bytes - self.front_bytes).div_ceil(self.part_bytes)
    }

    /// Bytes of all that is decoded.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
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
        let part_of = |byte: u64| byte.saturating_sub(self.front_bytes) / self.part_bytes;
        let last = part_of(to.min(self.bytes).saturating_sub(1)).min(self.count() - 1);
        let first = part_of(from).min(last);
        let decoded = |part: u64| (self.front_bytes + part * self.part_bytes).min(self.bytes);
        let begins = if first == 0 { 0 } else { decoded(first) };
        let word = self.bits_before(first) / 64 * 8;
        Section {
            parts: first..last + 1,
            stream: word..self.bits_before(last + 1).div_ceil(64) * 8,
            decoded: begins..decoded(last + 1),
        }
    }

    /// Bits of the stream before a part.
    pub(crate) fn bits_before(&self, part: u64) -> u64 {
        self.header_bits.saturating_add(part.saturating_mul(self.part_bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_of_a_range_begins_and_ends_on_words_and_has_the_range() {
        let (header_bits, part_bits, front_bytes, part_bytes) = (96, 100, 128, 10);
        let parts = Parts { header_bits, part_bits, front_bytes, part_bytes, bytes: 128 + 35 };
        assert_eq!((parts.count(), parts.stream_bytes()), (4, 64));
        let section = |from, to| {
            let Section { parts, stream, decoded } = parts.section(from, to);
            (parts, stream, decoded)
        };
        assert_eq!(section(0, 1), (0..1, 8..32, 0..138));
        assert_eq!(section(128, 138), (0..1, 8..32, 0..138));
        assert_eq!(section(137, 139), (0..2, 8..40, 0..148));
        assert_eq!(section(138, 139), (1..2, 24..40, 138..148));
        assert_eq!(section(160, 163), (3..4, 48..64, 158..163));
        assert_eq!(section(140, u64::MAX), (1..4, 24..64, 138..163));
    }
}
