//! What every codec does to a stream of bytes, part by part.

use serde::{Deserialize, Serialize};

use crate::Error;

/// What an encoder that chooses has chosen for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The level of zstd, 1 to 19.
    pub level: u32,
    /// How many bytes the output will have if all of the input is as its first segment; none of a stream of one segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_bytes: Option<u64>,
}

/// Input bytes that a caller hands to [`Encoder::write`] at once: every segment has this size, save
/// the last, which may be shorter.
///
/// Outputs depend on where the segments end, so this number is part of what
/// [`Codec::library`](crate::Codec::library) pins. It is large enough that the flush at the end of each costs nothing to
/// speak of (a few bytes), and small enough to stay in a core's second-level cache.
pub const SEGMENT_BYTES: usize = 256 * 1024;

/// Compresses one stream, segment by segment.
///
/// What is appended is a pure function of the codec and the segments: neither the output's
/// capacity nor the machine changes a byte. Cut at [`SEGMENT_BYTES`], it is thus a pure function of
/// codec and input. The bound [`Codec::output_bytes_max`](crate::Codec::output_bytes_max) is promised for that cut as well; smaller
/// segments stay valid and bounded by 5 bytes for each, but not by that number.
pub trait Encoder: Send {
    /// Says how long the input of this stream is, in bytes, before its first segment. A format that has the length in
    /// front needs it (zstd), and then no other length can be [finished](Self::finish); the others ignore it.
    fn announce(&mut self, _input_bytes: u64) {}

    /// Encodes one segment, of any length; callers give [`SEGMENT_BYTES`], and less only at the end.
    ///
    /// When it returns, everything needed to decode this segment has been appended to `output`.
    /// The bytes already in `output` are not touched; its capacity is used when there is enough.
    ///
    /// # Errors
    ///
    /// [`Error::Finished`] after [`finish`](Self::finish), [`Error::Encoder`] if the library fails, and, where the
    /// length has to be known, [`Error::LengthUnknown`] and [`Error::OtherLength`]. `output` may then have grown by a
    /// part that is of no use.
    fn write(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), Error>;

    /// Ends the stream: appends the trailer, and the header too if nothing was written.
    ///
    /// # Errors
    ///
    /// [`Error::Finished`] if called twice, and those of [`write`](Self::write).
    fn finish(&mut self, output: &mut Vec<u8>) -> Result<(), Error>;

    /// Begins another stream, whose bytes will be those of a new encoder, in the memory of this one. Wherever the last
    /// stream was; but after an error or a panic of this encoder make a new one.
    fn reset(&mut self);

    /// What was chosen for this stream, by an encoder that chooses, once its first segment is encoded.
    fn choice(&self) -> Option<Choice> {
        None
    }
}

/// How far one call of [`Decoder::read_into`] got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// Bytes written to the front of the output.
    pub produced: usize,
}

/// Decompresses one stream, in parts of any size on both sides.
///
/// A decoder reads every stream of its format, whoever made it. All memory it fills is the caller's:
/// a stream that would inflate to terabytes does so only as fast as somebody asks.
pub trait Decoder: Send {
    /// Decodes from the front of `input` into the front of `output`.
    ///
    /// Zero consumed and zero produced means that it needs more input (or, at the end, has none).
    /// Input may be consumed before all it stands for was produced: call again with the rest of the
    /// input, even an empty rest, for as long as `output` comes back full.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::TrailingBytes`], [`Error::WindowTooLarge`] and [`Error::Decoder`]; the stream cannot
    /// be continued.
    fn read_into(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, Error>;

    /// Checks that the stream ended completely, with a right trailer.
    ///
    /// # Errors
    ///
    /// [`Error::EndedEarly`] if there should have been more.
    fn finish(&mut self) -> Result<(), Error>;

    /// Begins another stream, as a new decoder would. Wherever the last stream was; but after an error or a panic of
    /// this decoder make a new one.
    fn reset(&mut self);

    /// As [`read_into`](Self::read_into), but appends to `output`, and at most `output_bytes_max`
    /// bytes. Returns the bytes of `input` consumed.
    ///
    /// # Errors
    ///
    /// Those of [`read_into`](Self::read_into); `output` is then as it was.
    fn read(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
        output_bytes_max: usize,
    ) -> Result<usize, Error> {
        let start = output.len();
        output.resize(start + output_bytes_max, 0);
        let progress = self.read_into(input, &mut output[start..]);
        output.truncate(start + progress.as_ref().map_or(0, |progress| progress.produced));
        Ok(progress?.consumed)
    }
}
