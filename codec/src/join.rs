//! Joins the blocks of one file to one file of their format, without decoding them.
//!
//! A deflate stream of ours is a row of blocks which ends on a byte after each segment, and then an empty last block
//! ([`deflate`](crate::deflate)). None of it refers to anything before the stream. So the streams of several blocks, each
//! without its empty last block, are in a row one deflate stream (RFC 1951 §3.2.3): it wants one header before it, one
//! empty last block after it, and the checksum of everything, which follows from the blocks' checksums and lengths.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::Error;

/// What a format puts around the bytes that joining keeps.
#[derive(Debug, Clone)]
pub(crate) struct Seam {
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

impl Seam {
    /// Of a codec whose files are their blocks in a row.
    pub(crate) fn without_framing(
        format: &'static str,
        kept_bytes: fn(u64) -> RangeInclusive<u64>,
    ) -> Self {
        Self {
            format,
            header: Vec::new(),
            last_block: &[],
            trailer_bytes: 0,
            checksum: 0,
            read_trailer: |_| Some(Trailer { checksum: 0, input_bytes: None }),
            combine: |_, _, _| 0,
            trailer: |_, _, _| (),
            kept_bytes,
        }
    }

    fn tail_bytes(&self) -> usize {
        self.last_block.len() + self.trailer_bytes
    }

    /// The bytes kept of a block, if a block of this codec may have these lengths.
    fn kept(&self, bytes: u64, input_bytes: u64) -> Option<u64> {
        let kept = bytes.checked_sub((self.header.len() + self.tail_bytes()) as u64)?;
        (self.kept_bytes)(input_bytes).contains(&kept).then_some(kept)
    }
}

/// How far a file is joined: all that a joiner knows after a whole block, hence enough to go on from there.
///
/// It is 32 bytes, and may be written down: [`Codec::resume_joiner`](crate::Codec::resume_joiner) takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    blocks: u64,
    input_bytes: u64,
    output_bytes: u64,
    checksum: u32,
}

impl Joined {
    /// Whole blocks so far.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Uncompressed bytes of these blocks.
    #[must_use]
    pub fn input_bytes(&self) -> u64 {
        self.input_bytes
    }

    /// Bytes of the file that are written with these blocks: its header, and what is kept of them.
    #[must_use]
    pub fn output_bytes(&self) -> u64 {
        self.output_bytes
    }
}

/// Makes one file of blocks, given in order and piece by piece; see [`Codec::joiner`](crate::Codec::joiner).
///
/// A *block* is a whole output of the codec's encoder for a part of the file. Cut the parts at a multiple of
/// [`SEGMENT_BYTES`](crate::SEGMENT_BYTES), and the file keeps the bound of
/// [`Codec::output_bytes_max`](crate::Codec::output_bytes_max). The file is one stream of its format, not a concatenation
/// of several: a single gzip member or a single zlib stream, with one header, one trailer and the checksum of
/// everything. For `store` it is the concatenation, for `noop` nothing.
///
/// Nothing is decoded, and no more than the last ten bytes of a block are held. What is checked is what stands around
/// the kept bytes: header, last block, trailer and lengths. Whether the kept bytes are those of the encoder only a
/// decoder can say, and only a checksum of the whole file says that it was the right block: verify the blocks before.
///
/// # Examples
///
/// ```
/// use bagpress_codec::{Codec, decompress_all};
///
/// let codec: Codec = "gzip:6".parse()?;
/// let (mut joiner, mut file) = (codec.joiner(), Vec::new());
/// for part in ["one ", "and another"] {
///     let (mut encoder, mut block) = (codec.encoder(), Vec::new());
///     encoder.write(part.as_bytes(), &mut block)?;
///     encoder.finish(&mut block)?;
///     joiner.block(block.len() as u64, part.len() as u64)?;
///     for piece in block.chunks(7) {
///         joiner.write(piece, &mut file)?;
///     }
/// }
/// assert_eq!(joiner.finish(&mut file)?, file.len() as u64);
/// assert_eq!(decompress_all(&codec, &file)?, b"one and another");
/// # Ok::<(), bagpress_codec::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Joiner {
    seam: Seam,
    joined: Joined,
    open: Option<Open>,
}

/// A block that is not yet whole.
#[derive(Debug, Clone)]
struct Open {
    bytes: u64,
    input_bytes: u64,
    kept_bytes: u64,
    /// Bytes of it that were given.
    taken: u64,
    /// Its last bytes, as far as they were given.
    tail: Vec<u8>,
}

impl Joiner {
    pub(crate) fn new(seam: Seam) -> Self {
        let checksum = seam.checksum;
        Self::resume(seam, Joined { blocks: 0, input_bytes: 0, output_bytes: 0, checksum })
    }

    pub(crate) fn resume(seam: Seam, joined: Joined) -> Self {
        Self { seam, joined, open: None }
    }

    /// How far it is, in whole blocks. An error does not change it: with the file cut to
    /// [`Joined::output_bytes`], [`Codec::resume_joiner`](crate::Codec::resume_joiner) goes on from there.
    #[must_use]
    pub fn joined(&self) -> Joined {
        self.joined
    }

    /// Announces the next block: `bytes` are its length, `input_bytes` what it decodes to.
    ///
    /// # Errors
    ///
    /// [`Error::Unjoinable`] if the block before is not whole, or if no output of the codec has these lengths. It is
    /// permanent, as all errors of a joiner are: the same bytes will never do.
    pub fn block(&mut self, bytes: u64, input_bytes: u64) -> Result<(), Error> {
        self.check_whole()?;
        let kept_bytes = self.seam.kept(bytes, input_bytes).ok_or_else(|| {
            self.refuse(format!("no block of {bytes} bytes decodes to {input_bytes}"))
        })?;
        let open = Open { bytes, input_bytes, kept_bytes, taken: 0, tail: Vec::new() };
        self.open = Some(open);
        self.close_if_whole()
    }

    /// Takes the next piece, of any length, of the block that was announced, and appends to `output` what is kept of it.
    ///
    /// # Errors
    ///
    /// [`Error::Unjoinable`] if the block is longer than announced, begins otherwise than every block of the codec, or
    /// ends otherwise: without the empty last block, or with a trailer that contradicts the announced length.
    /// `output` may then have grown by a part that is of no use, and the joiner is of no more use.
    pub fn write(&mut self, piece: &[u8], output: &mut Vec<u8>) -> Result<(), Error> {
        let left = self.open.as_ref().map_or(0, |open| open.bytes - open.taken);
        if piece.len() as u64 > left {
            return Err(self.refuse("it has more bytes than announced".to_owned()));
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        let header = rest_of(&self.seam.header, open.taken);
        let (begin, rest) = piece.split_at(piece.len().min(header.len()));
        if !header.starts_with(begin) {
            return Err(self.refuse("its header is not that of the codec".to_owned()));
        }
        let header_ends = !begin.is_empty() && begin.len() == header.len();
        if header_ends && self.joined.blocks == 0 {
            output.extend_from_slice(&self.seam.header);
        }
        open.taken += begin.len() as u64;
        let tail_begins = open.bytes - self.seam.tail_bytes() as u64;
        let (kept, tail) = rest.split_at(at_most(rest.len(), tail_begins, open.taken));
        output.extend_from_slice(kept);
        open.tail.extend_from_slice(tail);
        open.taken += rest.len() as u64;
        self.close_if_whole()
    }

    /// Length of what follows the kept bytes of a block: at most ten bytes.
    #[must_use]
    pub fn tail_bytes(&self) -> usize {
        self.seam.tail_bytes()
    }

    /// Ends the file, and returns its length in bytes. Without a block it is the file of no bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Unjoinable`] if the last block is not whole.
    pub fn finish(self, output: &mut Vec<u8>) -> Result<u64, Error> {
        self.check_whole()?;
        let start = output.len();
        if self.joined.blocks == 0 {
            output.extend_from_slice(&self.seam.header);
        }
        output.extend_from_slice(self.seam.last_block);
        (self.seam.trailer)(self.joined.checksum, self.joined.input_bytes, output);
        Ok(self.joined.output_bytes + (output.len() - start) as u64)
    }

    fn check_whole(&self) -> Result<(), Error> {
        self.open.as_ref().map_or(Ok(()), |open| {
            let (taken, bytes) = (open.taken, open.bytes);
            Err(self.refuse(format!("it ended after {taken} of {bytes} bytes")))
        })
    }

    fn close_if_whole(&mut self) -> Result<(), Error> {
        if let Some(open) = self.open.take_if(|open| open.taken == open.bytes) {
            self.joined = self.with_block(open.kept_bytes, open.input_bytes, &open.tail)?;
        }
        Ok(())
    }

    /// What is joined with one block more, of which `kept` bytes were written.
    fn with_block(&self, kept: u64, input_bytes: u64, tail: &[u8]) -> Result<Joined, Error> {
        let refuse = |reason: &str| self.refuse(reason.to_owned());
        let (seam, joined) = (&self.seam, self.joined);
        let trailer = tail
            .strip_prefix(seam.last_block)
            .filter(|trailer| trailer.len() == seam.trailer_bytes)
            .ok_or_else(|| refuse("no empty last block precedes its trailer"))?;
        let trailer = (seam.read_trailer)(trailer)
            .filter(|trailer| input_bytes > 0 || trailer.checksum == seam.checksum)
            .ok_or_else(|| refuse("its trailer has an impossible checksum"))?;
        if trailer.input_bytes.is_some_and(|said| u64::from(said) != input_bytes % (1 << 32)) {
            return Err(refuse("its trailer has another length than announced"));
        }
        let header = if joined.blocks == 0 { seam.header.len() as u64 } else { 0 };
        let sum = |a: u64, b: u64| a.checked_add(b).ok_or_else(|| refuse("the file is too long"));
        Ok(Joined {
            blocks: sum(joined.blocks, 1)?,
            input_bytes: sum(joined.input_bytes, input_bytes)?,
            output_bytes: sum(sum(joined.output_bytes, header)?, kept)?,
            checksum: (seam.combine)(joined.checksum, trailer.checksum, input_bytes),
        })
    }

    fn refuse(&self, reason: String) -> Error {
        Error::Unjoinable { format: self.seam.format, block: self.joined.blocks, reason }
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
