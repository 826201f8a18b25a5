//! The zstd format (RFC 8878) by its own library: one frame, with the input's length in front and a checksum behind.
//!
//! The library runs on the thread of its caller, and each segment ends with a flush, hence with a block. So what it makes follows from
//! the segments alone, and a segment of 256 KiB, which is two blocks of the largest size, costs nothing for its end. The length is in
//! the frame's header, so it has to be known before the first byte, and the frame ends with the segment that completes it.

use zstd_safe::zstd_sys::{ZSTD_EndDirective, ZSTD_ErrorCode};
use zstd_safe::{
    CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer, ResetDirective, compress_bound,
    get_error_name, get_frame_content_size, is_error_kind,
};

use crate::Error;
use crate::entry::{CodecInfo, Entry, LONG, Levels, Parameters};
use crate::join::{Frames, Seam};
use crate::stream::{Decoder, Encoder, Progress};

/// The library that compresses, held against `Cargo.lock` and against what is linked by a test, and the revision of how it
/// is called here: raise it when an output changes a byte.
const LIBRARY: &str = "zstd/1.5.7+1";

const FORMAT: &str = "zstd";

pub(crate) static ENTRY: Entry = Entry {
    info: CodecInfo {
        name: FORMAT,
        // Above 19 a slot takes up to a gigabyte, and `zstd` itself wants to be asked twice.
        levels: Some(Levels { min: 1, max: 19, default: 3 }),
        switches: &[LONG],
        takes_arrays: false,
        extension: ".zst",
        library: LIBRARY,
        summary: "Zstandard with a checksum, as zstd -d opens",
    },
    stores_nothing: false,
    length_in_front: true,
    output_bytes_max: |_, input_bytes| output_bytes_max(input_bytes),
    may_begin_with: MAY_BEGIN_WITH,
    encoder: |parameters| Box::new(ZstdEncoder::new(parameters)),
    decoder: |_| decoder(),
    check: None,
    made_with: None,
    parts: None,
    seam: Some(seam),
};

pub(super) const MAY_BEGIN_WITH: fn(&[u8; 2]) -> bool = |begin| begin == &[0x28, 0xb5];

pub(super) fn decoder() -> Box<dyn Decoder> {
    Box::<ZstdDecoder>::default()
}

pub(super) fn seam(_: Parameters) -> Seam {
    Seam::Frames(Frames::new(output_bytes_max))
}

/// Base-2 logarithm of the largest window, in bytes: what `zstd -d` opens without a flag.
const WINDOW_LOG_MAX: u32 = 27;
/// An encoder or a decoder that is kept for the next stream has no more memory than this, in bytes.
const KEPT_BYTES_MAX: usize = 16 << 20;
/// An encoder's context gets at most so many input bytes, or those of one stream if that has more. Its positions grow from
/// stream to stream, and at 3,500 MiB the library makes them smaller: in no stream earlier than it does in a new context.
const CONTEXT_BYTES_MAX: u64 = 1 << 30;
/// The longest header of a frame, in bytes (RFC 8878 §3.1.1.1), with its magic number.
const HEADER_BYTES_MAX: usize = 18;
/// What a header, an empty last block and a checksum take at most, in bytes.
const FRAMING_BYTES_MAX: usize = HEADER_BYTES_MAX + 3 + 4;

/// What the library promises for an input at once (`ZSTD_compressBound`), rounded up. In fact noise becomes three bytes
/// larger for every 128 KiB, besides header and checksum. It holds for joined blocks of whole segments too: each
/// has a header and an entry of the table instead.
pub(super) fn output_bytes_max(input_bytes: u64) -> u64 {
    input_bytes.saturating_add(input_bytes / 256).saturating_add(64)
}

#[derive(PartialEq, Eq)]
enum Stage {
    New,
    Open,
    /// All of the announced input is in the frame, which is whole.
    Ended,
    Finished,
}

pub(super) struct ZstdEncoder {
    parameters: Parameters,
    /// Length of the input, once it is known.
    announced: Option<u64>,
    /// Input bytes of this stream.
    taken: u64,
    stage: Stage,
    context: Option<CCtx<'static>>,
    /// Input bytes of the streams that were begun in `context`.
    context_bytes: u64,
}

impl ZstdEncoder {
    pub(super) fn new(parameters: Parameters) -> Self {
        let (announced, context) = (None, None);
        Self { parameters, announced, taken: 0, stage: Stage::New, context, context_bytes: 0 }
    }

    /// The level of the frames that are begun from now on, also in a context that had another.
    pub(super) fn set_level(&mut self, level: u32) {
        self.parameters.level = level;
    }

    /// Begins the frame, unless it is begun.
    fn open(&mut self) -> Result<(), Error> {
        match self.stage {
            Stage::Open | Stage::Ended => return Ok(()),
            Stage::Finished => return Err(Error::Finished { format: FORMAT }),
            Stage::New => {}
        }
        // The library has a meaning of its own for the largest numbers, which no input has.
        let announced = self.announced.filter(|bytes| i64::try_from(*bytes).is_ok());
        let bytes = announced.ok_or(Error::LengthUnknown { format: FORMAT })?;
        self.context_bytes = self.context_bytes.saturating_add(bytes);
        if self.context_bytes > CONTEXT_BYTES_MAX {
            (self.context, self.context_bytes) = (None, bytes);
        }
        let context = match &mut self.context {
            Some(context) => context,
            none => none.insert(new_context(self.parameters)?),
        };
        context.reset(ResetDirective::SessionOnly).map_err(encoder_failed)?;
        context.set_parameter(level(self.parameters)).map_err(encoder_failed)?;
        context.set_pledged_src_size(Some(bytes)).map_err(encoder_failed)?;
        self.stage = Stage::Open;
        Ok(())
    }

    /// Takes the next part of the input, and ends the frame with the last one.
    fn take(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), Error> {
        let announced = self.announced.unwrap_or_default();
        self.taken = self.taken.saturating_add(input.len() as u64);
        if self.taken > announced {
            return Err(Error::OtherLength { format: FORMAT, announced });
        }
        if self.taken < announced {
            return self.run(input, ZSTD_EndDirective::ZSTD_e_flush, output);
        }
        self.run(input, ZSTD_EndDirective::ZSTD_e_end, output)?;
        self.stage = Stage::Ended;
        Ok(())
    }

    /// Compresses all of `input`, to a block's end or to the frame's.
    ///
    /// There is always more room than it can need: so the library writes straight into it, and the output's capacity
    /// cannot change a byte.
    fn run(
        &mut self,
        input: &[u8],
        end: ZSTD_EndDirective,
        output: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let refuse = |reason: &str| Error::Encoder { format: FORMAT, reason: reason.to_owned() };
        let context = self.context.as_mut().ok_or_else(|| refuse("it has no context"))?;
        output.reserve(compress_bound(input.len()) + FRAMING_BYTES_MAX);
        let start = output.len();
        let (mut source, mut sink) =
            (InBuffer::around(input), OutBuffer::around_pos(output, start));
        let left = context.compress_stream2(&mut sink, &mut source, end).map_err(encoder_failed)?;
        if left > 0 || source.pos() < input.len() {
            return Err(refuse(&format!("{} bytes did not fit their bound", input.len())));
        }
        Ok(())
    }
}

fn level(parameters: Parameters) -> CParameter {
    CParameter::CompressionLevel(i32::try_from(parameters.level).unwrap_or(i32::MAX))
}

fn new_context(parameters: Parameters) -> Result<CCtx<'static>, Error> {
    let no_memory = || Error::Encoder { format: FORMAT, reason: "no memory".to_owned() };
    let mut context = CCtx::try_create().ok_or_else(no_memory)?;
    context.set_parameter(CParameter::ChecksumFlag(true)).map_err(encoder_failed)?;
    if parameters.has(&LONG) {
        let far = CParameter::EnableLongDistanceMatching(true);
        context.set_parameter(CParameter::WindowLog(WINDOW_LOG_MAX)).map_err(encoder_failed)?;
        context.set_parameter(far).map_err(encoder_failed)?;
    }
    Ok(context)
}

pub(super) fn encoder_failed(code: usize) -> Error {
    Error::Encoder { format: FORMAT, reason: get_error_name(code).to_owned() }
}

impl Encoder for ZstdEncoder {
    fn announce(&mut self, input_bytes: u64) {
        if self.stage == Stage::New {
            self.announced = Some(input_bytes);
        }
    }

    fn write(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), Error> {
        self.open()?;
        if input.is_empty() {
            return Ok(());
        }
        self.take(input, output)
    }

    fn finish(&mut self, output: &mut Vec<u8>) -> Result<(), Error> {
        self.open()?;
        if self.taken == 0 {
            self.take(&[], output)?;
        }
        if self.stage != Stage::Ended {
            let announced = self.announced.unwrap_or_default();
            return Err(Error::OtherLength { format: FORMAT, announced });
        }
        self.stage = Stage::Finished;
        self.context.take_if(|context| context.sizeof() > KEPT_BYTES_MAX);
        Ok(())
    }

    fn reset(&mut self) {
        (self.announced, self.taken, self.stage) = (None, 0, Stage::New);
    }
}

#[derive(Default, PartialEq, Eq)]
enum Position {
    /// Before the first frame.
    #[default]
    Begin,
    /// Within a frame, or within the bytes that may be the next one's first.
    Inside,
    /// After a frame. Another one may follow.
    Ended,
}

/// Reads frames in a row, and passes over those that are to be skipped.
#[derive(Default)]
struct ZstdDecoder {
    context: Option<DCtx<'static>>,
    position: Position,
    /// Whether a frame has ended.
    has_frame: bool,
    /// Whether it may have more to give without further input.
    is_full: bool,
    /// The first bytes of the frame, and how many it decoded to so far.
    header: Vec<u8>,
    produced: u64,
}

impl ZstdDecoder {
    /// What is wrong, once the stream is of no more use.
    fn error(&self, code: usize) -> Error {
        let (format, reason) = (FORMAT, get_error_name(code).to_lowercase());
        let is = |kind| is_error_kind(code, kind);
        if is(ZSTD_ErrorCode::ZSTD_error_prefix_unknown) && self.has_frame {
            Error::TrailingBytes { format }
        } else if is(ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge) {
            Error::WindowTooLarge { format, most: 1 << WINDOW_LOG_MAX }
        } else if is(ZSTD_ErrorCode::ZSTD_error_memory_allocation) {
            Error::Decoder { format, reason }
        } else {
            Error::Corrupt { format, reason }
        }
    }

    /// Checks that the frame that has ended is as long as its header says: where its last block is empty, the library does
    /// not. Another frame may follow.
    fn end_frame(&mut self) -> Result<(), Error> {
        let said = get_frame_content_size(&self.header).ok().flatten();
        if said.is_some_and(|said| said != self.produced) {
            let reason = "its content has another length than its header says".to_owned();
            return Err(Error::Corrupt { format: FORMAT, reason });
        }
        (self.position, self.has_frame) = (Position::Ended, true);
        self.begin_frame();
        Ok(())
    }

    fn begin_frame(&mut self) {
        self.header.clear();
        self.produced = 0;
    }

    /// Gives up memory that the next stream may not need.
    fn shrink(&mut self) {
        self.context.take_if(|context| context.sizeof() > KEPT_BYTES_MAX);
    }
}

fn new_decoder() -> Result<DCtx<'static>, Error> {
    let failed = |reason: &str| Error::Decoder { format: FORMAT, reason: reason.to_owned() };
    let mut context = DCtx::try_create().ok_or_else(|| failed("no memory"))?;
    let window = DParameter::WindowLogMax(WINDOW_LOG_MAX);
    context.set_parameter(window).map_err(|code| failed(get_error_name(code)))?;
    Ok(context)
}

impl Decoder for ZstdDecoder {
    fn read_into(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, Error> {
        // The library takes it for an error to be asked again and again for nothing.
        if output.is_empty() || input.is_empty() && !self.is_full {
            return Ok(Progress { consumed: 0, produced: 0 });
        }
        let context = match &mut self.context {
            Some(context) => context,
            none => none.insert(new_decoder()?),
        };
        let room = output.len();
        let (mut source, mut sink) = (InBuffer::around(input), OutBuffer::around(output));
        let hint = context.decompress_stream(&mut sink, &mut source);
        let (consumed, produced) = (source.pos(), sink.pos());
        let rest_of_header = consumed.min(HEADER_BYTES_MAX - self.header.len());
        self.header.extend_from_slice(&input[..rest_of_header]);
        self.produced += produced as u64;
        match hint {
            Ok(0) => self.end_frame()?,
            Ok(_) if consumed > 0 => self.position = Position::Inside,
            Ok(_) => {}
            Err(code) => return Err(self.error(code)),
        }
        self.is_full = produced == room;
        Ok(Progress { consumed, produced })
    }

    fn finish(&mut self) -> Result<(), Error> {
        if self.position != Position::Ended {
            return Err(Error::EndedEarly { format: FORMAT });
        }
        self.shrink();
        Ok(())
    }

    fn reset(&mut self) {
        self.shrink();
        // One that cannot be reset is made anew.
        self.context.take_if(|context| context.reset(ResetDirective::SessionOnly).is_err());
        (self.position, self.has_frame, self.is_full) = (Position::Begin, false, false);
        self.begin_frame();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::SEGMENT_BYTES;

    /// An encoder of a long stream, at its first segment.
    fn begun(level: u32, long: bool) -> ZstdEncoder {
        let parameters = Parameters::of_level(level);
        let parameters = if long { parameters.with(&LONG) } else { parameters };
        let mut encoder = ZstdEncoder::new(parameters);
        encoder.announce(1 << 40);
        encoder.write(&vec![7; SEGMENT_BYTES], &mut Vec::new()).unwrap();
        encoder
    }

    #[test]
    fn an_encoder_takes_no_more_memory_than_is_said() {
        // docs/operations.md says it, and of a decoder 128 MiB more with `long`, and up to 8 MiB without.
        for (levels, most, most_long) in [(1..=4, 5, 140), (5..=9, 16, 156), (10..=19, 96, 280)] {
            for level in levels {
                for (long, most) in [(false, most), (true, most_long)] {
                    let taken = begun(level, long).context.unwrap().sizeof() >> 20;
                    assert!(taken <= most, "{level}, long: {long}: {taken} MiB");
                }
            }
        }
    }

    #[test]
    fn what_is_kept_for_the_next_stream_is_small() {
        for (level, long) in [(1, false), (3, false), (19, false), (1, true), (19, true)] {
            let mut encoder = begun(level, long);
            encoder.reset();
            encoder.announce(0);
            encoder.finish(&mut Vec::new()).unwrap();
            let kept = encoder.context.map_or(0, |context| context.sizeof());
            assert!(kept <= KEPT_BYTES_MAX, "{level} {long}: {kept}");
        }
    }

    #[test]
    fn a_context_that_had_much_is_made_anew() {
        let mut encoder = begun(1, false);
        for (bytes, had, expected) in [
            (5, 0, 5),
            (5, CONTEXT_BYTES_MAX - 5, CONTEXT_BYTES_MAX),
            (5, CONTEXT_BYTES_MAX - 4, 5),
            (1 << 40, 7, 1 << 40),
            (5, u64::MAX, 5),
        ] {
            encoder.reset();
            encoder.context_bytes = had;
            encoder.announce(bytes);
            encoder.write(b"12345", &mut Vec::new()).unwrap();
            assert_eq!(encoder.context_bytes, expected, "{bytes} after {had}");
        }
    }
}
