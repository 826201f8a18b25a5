//! Joins the blocks of one file to one file of their format, without decoding them.
//!
//! A deflate stream of ours is a row of blocks which ends on a byte after each segment, and then an empty last block
//! ([`deflate`](crate::deflate)). None of it refers to anything before the stream. So the streams of several blocks, each
//! without its empty last block, are in a row one deflate stream (RFC 1951 §3.2.3): it wants one header before it, one
//! empty last block after it, and the checksum of everything, which follows from the blocks' checksums and lengths
//! ([`stream`]). Frames of zstd are joined as they are, and a table of them is written behind ([`frames`]).

mod frame;
mod frames;
mod joined;
mod stream;

use std::ops::RangeInclusive;

use crate::Error;

pub(crate) use frames::Frames;
pub use joined::Joined;
use joined::Open;
pub(crate) use stream::{StreamSeam, Trailer};

/// How a codec's blocks are joined.
#[derive(Debug, Clone)]
pub(crate) enum Seam {
    /// To one stream, of what is within the blocks.
    Stream(StreamSeam),
    /// To a row of frames, which are the blocks.
    Frames(Frames),
}

impl Seam {
    /// Of a codec whose files are their blocks in a row.
    pub(crate) fn without_framing(
        format: &'static str,
        kept_bytes: fn(u64) -> RangeInclusive<u64>,
    ) -> Self {
        Self::Stream(StreamSeam {
            format,
            header: Vec::new(),
            last_block: &[],
            trailer_bytes: 0,
            checksum: 0,
            read_trailer: |_| Some(Trailer { checksum: 0, input_bytes: None }),
            combine: |_, _, _| 0,
            trailer: |_, _, _| (),
            kept_bytes,
        })
    }

    /// The most input bytes of a block.
    pub(crate) fn block_bytes_max(&self) -> u64 {
        match self {
            Self::Stream(_) => u64::MAX,
            Self::Frames(_) => Frames::INPUT_BYTES_MAX,
        }
    }

    /// What the file and every block begin with, and is in the file only once.
    pub(crate) fn header(&self) -> Vec<u8> {
        match self {
            Self::Stream(stream) => stream.header.clone(),
            Self::Frames(_) => Vec::new(),
        }
    }

    fn format(&self) -> &'static str {
        match self {
            Self::Stream(stream) => stream.format,
            Self::Frames(_) => Frames::FORMAT,
        }
    }

    fn tail_bytes(&self) -> usize {
        match self {
            Self::Stream(stream) => stream.tail_bytes(),
            Self::Frames(_) => Frames::TAIL_BYTES,
        }
    }

    /// The bytes kept of a block, if a block of this codec may have these lengths.
    pub(crate) fn kept(&self, bytes: u64, input_bytes: u64) -> Option<u64> {
        match self {
            Self::Stream(stream) => stream.kept(bytes, input_bytes),
            Self::Frames(frames) => frames.fits(bytes, input_bytes).then_some(bytes),
        }
    }

    /// Notes the next block, by its lengths and its last bytes. Returns the checksum with it, and how many bytes the file
    /// gets besides those that are kept.
    fn add(
        &mut self,
        joined: &Joined,
        (bytes, input_bytes): (u64, u64),
        tail: &[u8],
    ) -> Result<(u32, u64), &'static str> {
        match self {
            Self::Stream(stream) => stream.add(joined, input_bytes, tail),
            Self::Frames(frames) => Ok((frames.add(joined, (bytes, input_bytes), tail)?, 0)),
        }
    }
}

/// Makes one file of blocks, given in order and piece by piece; see [`Codec::joiner`](crate::Codec::joiner).
///
/// A *block* is a whole output of the codec's encoder for a part of the file. Cut the parts at a multiple of
/// [`SEGMENT_BYTES`](crate::SEGMENT_BYTES), and the file keeps the bound of
/// [`Codec::output_bytes_max`](crate::Codec::output_bytes_max). The file is one stream of its format, not a concatenation
/// of several: a single gzip member or a single zlib stream, with one header, one trailer and the checksum of
/// everything. For `store` it is the concatenation, for `noop` nothing. For zstd it is the frames in a row, and behind two
/// and more of them the table of zstd's seekable format.
///
/// Nothing is decoded, and no more than the last ten bytes of a block are held, with 12 bytes a block for zstd. What is
/// checked is what stands around the kept bytes: header, last block, trailer and lengths. Whether the kept bytes are those of the encoder only a
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

impl Joiner {
    pub(crate) fn new(seam: Seam) -> Self {
        let checksum = match &seam {
            Seam::Stream(stream) => stream.checksum,
            Seam::Frames(_) => 0,
        };
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

    /// Tells a joiner that [goes on](crate::Codec::resume_joiner) what the first [`Joined::output_bytes`] of the file are,
    /// from the first on, in pieces of any length. Only zstd needs it, before the next block and before the end: its table
    /// follows from them.
    ///
    /// # Errors
    ///
    /// [`Error::Unjoinable`] if these are not frames in a row, or more bytes than were joined.
    pub fn recall(&mut self, piece: &[u8]) -> Result<(), Error> {
        match &mut self.seam {
            Seam::Stream(_) => Ok(()),
            Seam::Frames(frames) => frames.recall(&self.joined, piece).map_err(|e| self.refuse(e)),
        }
    }

    /// Whether a block of these lengths can be the next one.
    ///
    /// # Errors
    ///
    /// [`Error::Unjoinable`] if the block before is not whole, or if no output of the codec has these lengths.
    pub fn check(&self, bytes: u64, input_bytes: u64) -> Result<(), Error> {
        self.kept(bytes, input_bytes).map(|_| ())
    }

    /// Announces the next block: `bytes` are its length, `input_bytes` what it decodes to.
    ///
    /// # Errors
    ///
    /// [`Error::Unjoinable`] if the block before is not whole, or if no output of the codec has these lengths. It is
    /// permanent, as all errors of a joiner are: the same bytes will never do.
    pub fn block(&mut self, bytes: u64, input_bytes: u64) -> Result<(), Error> {
        let kept_bytes = self.kept(bytes, input_bytes)?;
        if let Seam::Frames(frames) = &mut self.seam {
            frames.begin();
        }
        let open = Open { bytes, input_bytes, kept_bytes, taken: 0, tail: Vec::new() };
        self.open = Some(open);
        self.close_if_whole()
    }

    /// Takes the next piece, of any length, of the block that was announced, and appends to `output` what is kept of it.
    ///
    /// # Errors
    ///
    /// [`Error::Unjoinable`] if the block is longer than announced, begins otherwise than every block of the codec, or
    /// ends otherwise: without the empty last block, or with a trailer that contradicts the announced length. For zstd, if
    /// it is not one frame. `output` may then have grown by a part that is of no use, and the joiner is of no more use.
    pub fn write(&mut self, piece: &[u8], output: &mut Vec<u8>) -> Result<(), Error> {
        let left = self.open.as_ref().map_or(0, |open| open.bytes - open.taken);
        if piece.len() as u64 > left {
            return Err(self.refuse("it has more bytes than announced"));
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        let taken = match &mut self.seam {
            Seam::Stream(stream) => stream.take(open, piece, self.joined.blocks == 0, output),
            Seam::Frames(frames) => frames.take(open, piece, output),
        };
        taken.map_err(|reason| self.refuse(reason))?;
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
        match &self.seam {
            Seam::Stream(stream) => stream.end(&self.joined, output),
            Seam::Frames(frames) => frames.end(output).map_err(|reason| self.refuse(reason))?,
        }
        Ok(self.joined.output_bytes + (output.len() - start) as u64)
    }

    fn kept(&self, bytes: u64, input_bytes: u64) -> Result<u64, Error> {
        self.check_whole()?;
        self.seam.kept(bytes, input_bytes).ok_or_else(|| {
            self.refuse(format!("no block of {bytes} bytes decodes to {input_bytes}"))
        })
    }

    /// Whether everything before is there and known.
    fn check_whole(&self) -> Result<(), Error> {
        if let Some(Open { taken, bytes, .. }) = self.open {
            return Err(self.refuse(format!("it ended after {taken} of {bytes} bytes")));
        }
        match &self.seam {
            Seam::Stream(_) => Ok(()),
            Seam::Frames(frames) => frames.check_known(&self.joined).map_err(|e| self.refuse(e)),
        }
    }

    fn close_if_whole(&mut self) -> Result<(), Error> {
        if let Some(open) = self.open.take_if(|open| open.taken == open.bytes) {
            let lengths = (open.bytes, open.input_bytes);
            self.joined = self.with_block(open.kept_bytes, lengths, &open.tail)?;
        }
        Ok(())
    }

    /// What is joined with one block more, of which `kept` bytes were written.
    fn with_block(&mut self, kept: u64, lengths: (u64, u64), tail: &[u8]) -> Result<Joined, Error> {
        let joined = self.joined;
        let added = self.seam.add(&joined, lengths, tail);
        let (checksum, header) = added.map_err(|reason| self.refuse(reason))?;
        let sum =
            |a: u64, b: u64| a.checked_add(b).ok_or_else(|| self.refuse("the file is too long"));
        Ok(Joined {
            blocks: sum(joined.blocks, 1)?,
            input_bytes: sum(joined.input_bytes, lengths.1)?,
            output_bytes: sum(sum(joined.output_bytes, header)?, kept)?,
            checksum,
        })
    }

    fn refuse(&self, reason: impl Into<String>) -> Error {
        let (format, block) = (self.seam.format(), self.joined.blocks);
        Error::Unjoinable { format, block, reason: reason.into() }
    }
}
