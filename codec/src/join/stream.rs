//! One stream of everything: what stands around the blocks' deflate streams goes, and once is made anew.

use std::ops::RangeInclusive;

use super::joined::{Joined, Open};

/// What a format puts around the bytes that joining keeps.
#[derive(Debug, Clone)]
pub(crate) struct StreamSeam {
    /// The format's name, for errors.
    pub(crate) format: &'static str,
    /// What every block of the codec begins with, and the file too.
    pub(crate) header: Vec<u8>,
    /// What stands between the kept bytes and the trailer.
    pub(crate) last_block: &'static [u8],
    /// Length of the trailer.
    pub(crate) trailer_bytes: usize,
    /// The checksum of no bytes.
    pub(crate) checksum: u32,
    /// Reads a trailer of `trailer_bytes`, or nothing if no stream of the format has such a one.
    pub(crate) read_trailer: fn(&[u8]) -> Option<Trailer>,
    /// The checksum of two parts, of the first one's, the second one's, and the second one's length in input bytes.
    pub(crate) combine: fn(u32, u32, u64) -> u32,
    /// Appends the trailer of a checksum and a number of input bytes.
    pub(crate) trailer: fn(u32, u64, &mut Vec<u8>),
    /// How many bytes may be kept of a block of so many input bytes.
    pub(crate) kept_bytes: fn(u64) -> RangeInclusive<u64>,
}

/// What a block's trailer says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trailer {
    pub(crate) checksum: u32,
    /// Input bytes modulo 2^32, if the format has them.
    pub(crate) input_bytes: Option<u32>,
}

impl StreamSeam {
    pub(super) fn tail_bytes(&self) -> usize {
        self.last_block.len() + self.trailer_bytes
    }

    /// The bytes kept of a block, if a block of this codec may have these lengths.
    pub(super) fn kept(&self, bytes: u64, input_bytes: u64) -> Option<u64> {
        let kept = bytes.checked_sub((self.header.len() + self.tail_bytes()) as u64)?;
        (self.kept_bytes)(input_bytes).contains(&kept).then_some(kept)
    }

    /// Takes a piece of a block, which has no more bytes than are missing, and appends what is kept of it.
    pub(super) fn take(
        &self,
        open: &mut Open,
        piece: &[u8],
        is_first: bool,
        output: &mut Vec<u8>,
    ) -> Result<(), &'static str> {
        let header = rest_of(&self.header, open.taken);
        let (begin, rest) = piece.split_at(piece.len().min(header.len()));
        if !header.starts_with(begin) {
            return Err("its header is not that of the codec");
        }
        let header_ends = !begin.is_empty() && begin.len() == header.len();
        if header_ends && is_first {
            output.extend_from_slice(&self.header);
        }
        open.taken += begin.len() as u64;
        let tail_begins = open.bytes - self.tail_bytes() as u64;
        let (kept, tail) = rest.split_at(at_most(rest.len(), tail_begins, open.taken));
        output.extend_from_slice(kept);
        open.tail.extend_from_slice(tail);
        open.taken += rest.len() as u64;
        Ok(())
    }

    /// What the next block, by its last bytes, makes of the checksum, and how many bytes the file gets with it besides those
    /// that are kept.
    pub(super) fn add(
        &self,
        joined: &Joined,
        input_bytes: u64,
        tail: &[u8],
    ) -> Result<(u32, u64), &'static str> {
        let trailer = tail
            .strip_prefix(self.last_block)
            .filter(|trailer| trailer.len() == self.trailer_bytes)
            .ok_or("no empty last block precedes its trailer")?;
        let trailer = (self.read_trailer)(trailer)
            .filter(|trailer| input_bytes > 0 || trailer.checksum == self.checksum)
            .ok_or("its trailer has an impossible checksum")?;
        if trailer.input_bytes.is_some_and(|said| u64::from(said) != input_bytes % (1 << 32)) {
            return Err("its trailer has another length than announced");
        }
        let header = if joined.blocks == 0 { self.header.len() as u64 } else { 0 };
        Ok(((self.combine)(joined.checksum, trailer.checksum, input_bytes), header))
    }

    /// Appends what ends the file.
    pub(super) fn end(&self, joined: &Joined, output: &mut Vec<u8>) {
        if joined.blocks == 0 {
            output.extend_from_slice(&self.header);
        }
        output.extend_from_slice(self.last_block);
        (self.trailer)(joined.checksum, joined.input_bytes, output);
    }
}

/// What remains of `bytes` after the first `taken`.
fn rest_of(bytes: &[u8], taken: u64) -> &[u8] {
    usize::try_from(taken).ok().and_then(|taken| bytes.get(taken..)).unwrap_or_default()
}

/// `bytes`, but no more than lie between `from` and `end`.
fn at_most(bytes: usize, end: u64, from: u64) -> usize {
    usize::try_from(end.saturating_sub(from)).map_or(bytes, |room| bytes.min(room))
}
