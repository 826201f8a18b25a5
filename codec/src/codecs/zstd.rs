//! The zstd format (RFC 8878) by its own library: one frame, with the input's length in front and a checksum behind.
//!
//! The library runs on the thread of its caller, and each segment ends with a flush, hence with a block. So what it makes
//! follows from the segments alone, and a segment of 256 KiB, which is two blocks of the largest size, costs nothing for
//! its end. The length is in the frame's header, so it has to be known before the first byte.

use zstd_safe::zstd_sys::{ZSTD_EndDirective, ZSTD_ErrorCode};
use zstd_safe::{
    CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer, ResetDirective, compress_bound,
    get_error_name, is_error_kind,
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
        extension: ".zst",
        library: LIBRARY,
        summary: "Zstandard with a checksum, as zstd -d opens",
    },
    stores_nothing: false,
    output_bytes_max,
    may_begin_with: |begin| begin == &[0x28, 0xb5],
    encoder: |parameters| Box::new(ZstdEncoder::new(parameters)),
    decoder: || Box::<ZstdDecoder>::default(),
    seam: |_| Seam::Frames(Frames::new(output_bytes_max)),
};

/// Base-2 logarithm of the largest window, in bytes: what `zstd -d` opens without a flag.
const WINDOW_LOG_MAX: u32 = 27;
/// An encoder or a decoder that is kept for the next stream has no more memory than this, in bytes.
const KEPT_BYTES_MAX: usize = 16 << 20;
/// An encoder's context gets at most so many input bytes, or those of one stream if that has more. Its positions grow from
/// stream to stream, and at 3,500 MiB the library makes them smaller: in no stream earlier than it does in a new context.
const CONTEXT_BYTES_MAX: u64 = 1 << 30;
/// What a header, an empty last block and a checksum take at most, in bytes.
const FRAMING_BYTES_MAX: usize = 18 + 3 + 4;

/// What the library promises for an input at once (`ZSTD_compressBound`), rounded up. In fact noise becomes three bytes
/// larger for every 128 KiB, besides header, last block and checksum. It holds for joined blocks of whole segments too: each
/// has a header and an entry of the table instead.
fn output_bytes_max(input_bytes: u64) -> u64 {
    input_bytes.saturating_add(input_bytes / 256).saturating_add(64)
}

#[derive(PartialEq, Eq)]
enum Stage {
    New,
    Open,
    Finished,
}

struct ZstdEncoder {
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
    fn new(parameters: Parameters) -> Self {
        let (announced, context) = (None, None);
        Self { parameters, announced, taken: 0, stage: Stage::New, context, context_bytes: 0 }
    }

    /// Begins the frame, unless it is begun.
    fn open(&mut self) -> Result<(), Error> {
        match self.stage {
            Stage::Open => return Ok(()),
            Stage::Finished => return Err(Error::Finished { format: FORMAT }),
            Stage::New => {}
        }
        let bytes = self.announced.ok_or(Error::LengthUnknown { format: FORMAT })?;
        self.context_bytes = self.context_bytes.saturating_add(bytes);
        if self.context_bytes > CONTEXT_BYTES_MAX {
            (self.context, self.context_bytes) = (None, bytes);
        }
        let context = match &mut self.context {
            Some(context) => context,
            none => none.insert(new_context(self.parameters)?),
        };
        context.reset(ResetDirective::SessionOnly).map_err(encoder_failed)?;
        context.set_pledged_src_size(Some(bytes)).map_err(encoder_failed)?;
        self.stage = Stage::Open;
        Ok(())
    }

    /// The library would take any length for the one that it was told, if nothing is flushed before the end.
    fn check_length(&self, is_possible: impl Fn(u64) -> bool) -> Result<(), Error> {
        let announced = self.announced.unwrap_or_default();
        let other = Error::OtherLength { format: FORMAT, announced };
        if is_possible(announced) { Ok(()) } else { Err(other) }
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
        let left =
            context.compress_stream2(&mut sink, &mut source, end).map_err(encoder_failed)?;
        if left > 0 || source.pos() < input.len() {
            return Err(refuse(&format!("{} bytes did not fit their bound", input.len())));
        }
        Ok(())
    }
}

fn new_context(parameters: Parameters) -> Result<CCtx<'static>, Error> {
    let no_memory = || Error::Encoder { format: FORMAT, reason: "no memory".to_owned() };
    let mut context = CCtx::try_create().ok_or_else(no_memory)?;
    let level = i32::try_from(parameters.level).unwrap_or(i32::MAX);
    let mut set = vec![CParameter::CompressionLevel(level), CParameter::ChecksumFlag(true)];
    if parameters.has(&LONG) {
        set.push(CParameter::WindowLog(WINDOW_LOG_MAX));
        set.push(CParameter::EnableLongDistanceMatching(true));
    }
    for parameter in set {
        context.set_parameter(parameter).map_err(encoder_failed)?;
    }
    Ok(context)
}

fn encoder_failed(code: usize) -> Error {
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
        self.taken = self.taken.saturating_add(input.len() as u64);
        self.check_length(|announced| self.taken <= announced)?;
        self.run(input, ZSTD_EndDirective::ZSTD_e_flush, output)
    }

    fn finish(&mut self, output: &mut Vec<u8>) -> Result<(), Error> {
        self.open()?;
        self.check_length(|announced| self.taken == announced)?;
        self.run(&[], ZSTD_EndDirective::ZSTD_e_end, output)?;
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
        match hint {
            Ok(0) => (self.position, self.has_frame) = (Position::Ended, true),
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
    }
}
