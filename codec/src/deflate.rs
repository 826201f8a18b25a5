//! The encoder that zlib and gzip share: deflate (RFC 1951) that never expands.
//!
//! One raw deflate stream by zlib-rs. Each segment ends with a sync flush, hence on a byte. Where a
//! segment came out larger than in stored blocks, it is replaced by stored blocks: a decoder's
//! window is the uncompressed history, which is the same either way, and the flush left no bits
//! behind in the compressor, so it never notices. Thus an output is bounded however badly a level
//! expands, with no more memory than one segment's.
//!
//! A segment in which a look finds nothing to win is stored without that attempt (ADR 0036). The compressor knows
//! nothing of it, so what it knew of the stream before is forgotten: no distance may reach back over what it did not
//! see. Level 0 stores everything, and `full` deflates everything.

use std::ops::RangeInclusive;

use flate2::{Compress, Compression, FlushCompress};

use crate::Error;
use crate::entry::{FULL, Levels, Parameters};
use crate::incompressible::Probe;
use crate::stream::Encoder;

/// The library that deflates, held against `Cargo.lock` by a test, and the revision of what this
/// file makes of it: raise it when an output changes a byte. With `full` the outputs are those of revision 1.
pub(crate) const LIBRARY: &str = "zlib-rs/0.6.8+2";

/// zlib's levels.
pub(crate) const LEVELS: Levels = Levels { min: 0, max: 9, default: 6 };

/// The most that a stored block holds, in bytes (RFC 1951 §3.2.4).
const STORED_BYTES_MAX: usize = 65_535;
/// BFINAL and BTYPE in a byte, LEN, NLEN.
const STORED_HEADER_BYTES: usize = 5;
/// A last block with fixed codes and nothing but its end in it. Every stream ends with it, and on a byte before it.
pub(crate) const FINAL_BLOCK: [u8; 2] = [0x03, 0x00];

/// What a format puts around a deflate stream. The default is that of a new stream.
pub(crate) trait Framing: Send + Default {
    /// The format's name, for errors.
    const FORMAT: &'static str;
    /// Appends the header.
    fn header(&self, level: u32, output: &mut Vec<u8>);
    /// Takes uncompressed bytes into the checksum.
    fn update(&mut self, input: &[u8]);
    /// Appends the trailer.
    fn trailer(&self, output: &mut Vec<u8>);
}

#[derive(PartialEq, Eq)]
enum Stage {
    New,
    Open,
    Finished,
}

pub(crate) struct DeflateEncoder<F> {
    level: u32,
    framing: F,
    /// Decides which segments are stored unread; none where all are stored (level 0) or all deflated (`full`).
    probe: Option<Probe>,
    /// Made for the first segment that is deflated: it is larger than many inputs.
    deflate: Option<Compress>,
    /// Whether the stream has bytes that `deflate` did not see, or begins anew: then it is reset before its next use.
    stale: bool,
    state: Stage,
}

impl<F: Framing> DeflateEncoder<F> {
    pub(crate) fn new(parameters: Parameters) -> Self {
        let (level, full) = (parameters.level, parameters.has(&FULL));
        let probe = (level > 0 && !full).then(Probe::default);
        let (framing, state) = (F::default(), Stage::New);
        Self { level, framing, probe, deflate: None, stale: false, state }
    }

    /// Whether the segment shall be stored unread.
    fn skips(&mut self, input: &[u8]) -> bool {
        self.level == 0 || self.probe.as_mut().is_some_and(|probe| probe.skips(input))
    }

    /// The compressor, which knows what this stream had since the last segment that was skipped.
    fn compressor(&mut self) -> &mut Compress {
        if std::mem::take(&mut self.stale)
            && let Some(deflate) = &mut self.deflate
        {
            deflate.reset();
        }
        let new = || Compress::new(Compression::new(self.level), false);
        self.deflate.get_or_insert_with(new)
    }

    /// Writes the header if nothing was written yet.
    fn open(&mut self, output: &mut Vec<u8>) -> Result<(), Error> {
        match self.state {
            Stage::New => {
                self.framing.header(self.level, output);
                self.state = Stage::Open;
                Ok(())
            }
            Stage::Open => Ok(()),
            Stage::Finished => Err(Error::Finished { format: F::FORMAT }),
        }
    }
}

impl<F: Framing> Encoder for DeflateEncoder<F> {
    fn write(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), Error> {
        self.open(output)?;
        if input.is_empty() {
            return Ok(());
        }
        self.framing.update(input);
        if self.skips(input) {
            self.stale = true;
            store_segment(input, output);
            return Ok(());
        }
        let start = output.len();
        deflate_segment(self.compressor(), input, output)
            .map_err(|reason| Error::Encoder { format: F::FORMAT, reason })?;
        if output.len() - start > stored_bytes(input.len()) {
            output.truncate(start);
            store_segment(input, output);
        }
        Ok(())
    }

    fn finish(&mut self, output: &mut Vec<u8>) -> Result<(), Error> {
        self.open(output)?;
        output.extend_from_slice(&FINAL_BLOCK);
        self.framing.trailer(output);
        self.state = Stage::Finished;
        Ok(())
    }

    fn reset(&mut self) {
        self.framing = F::default();
        if let Some(probe) = &mut self.probe {
            probe.reset();
        }
        self.stale = true;
        self.state = Stage::New;
    }
}

/// The most that zlib and gzip make of `input_bytes`, cut at `SEGMENT_BYTES`.
pub(crate) fn output_bytes_max(input_bytes: u64) -> u64 {
    input_bytes.saturating_add(input_bytes / 2048).saturating_add(64)
}

/// How many bytes there are between header and [`FINAL_BLOCK`] for so many input bytes, cut at `SEGMENT_BYTES`.
pub(crate) fn kept_bytes(input_bytes: u64) -> RangeInclusive<u64> {
    if input_bytes == 0 { 0..=0 } else { 1..=output_bytes_max(input_bytes) }
}

/// Appends the deflated segment, flushed to a byte.
///
/// There is always more room than it can need: blocks end where their symbols do, not where a
/// buffer does, so the output's capacity cannot change a byte; and a flush marker is never repeated.
fn deflate_segment(
    deflate: &mut Compress,
    input: &[u8],
    output: &mut Vec<u8>,
) -> Result<(), String> {
    output.reserve(deflated_bytes_max(input.len()));
    let consumed = deflate.total_in();
    deflate.compress_vec(input, output, FlushCompress::Sync).map_err(|error| error.to_string())?;
    if deflate.total_in() - consumed != input.len() as u64 || output.len() == output.capacity() {
        return Err(format!("{} bytes did not fit their bound", input.len()));
    }
    Ok(())
}

/// No level spends more than nine bits on a byte (the longest fixed code); the rest is the heads and
/// ends of blocks, at least a thousand symbols each, and what an earlier segment left to say.
fn deflated_bytes_max(input_bytes: usize) -> usize {
    input_bytes + input_bytes / 8 + input_bytes / 128 + 256
}

fn stored_bytes(input_bytes: usize) -> usize {
    input_bytes + input_bytes.div_ceil(STORED_BYTES_MAX) * STORED_HEADER_BYTES
}

/// Appends the segment in stored blocks, none of them the last.
fn store_segment(input: &[u8], output: &mut Vec<u8>) {
    output.reserve(stored_bytes(input.len()));
    for block in input.chunks(STORED_BYTES_MAX) {
        #[expect(clippy::cast_possible_truncation, reason = "a block's length fits: see chunks")]
        let bytes = block.len() as u16;
        output.push(0); // BFINAL 0, BTYPE 00, padding
        output.extend_from_slice(&bytes.to_le_bytes());
        output.extend_from_slice(&(!bytes).to_le_bytes());
        output.extend_from_slice(block);
    }
}
