//! Looks at the beginning of an input, and makes a zstd frame by the level that suits it and the goal.
//!
//! What is chosen follows from the goal, the input's length and its first segment, and from no clock: the same task gives
//! the same bytes on every machine. ADR 0052 says why the format is always zstd's.

use zstd_safe::compress_bound;

use super::zstd::{self, ZstdEncoder};
use crate::Error;
use crate::entry::{CodecInfo, Entry, Parameters, RATIO, SPEED};
use crate::incompressible::Probe;
use crate::stream::{Choice, Encoder, SEGMENT_BYTES};

/// What makes the frames, and the revision of the rules below: raise it when another level is chosen.
const LIBRARY: &str = "zstd/1.5.7+1/auto1";

pub(crate) static ENTRY: Entry = Entry {
    info: CodecInfo {
        name: "auto",
        levels: None,
        takes_arrays: false,
        switches: &[RATIO, SPEED],
        extension: ".zst",
        library: LIBRARY,
        summary: "zstd by a level that suits the input; what does not shrink is stored",
    },
    stores_nothing: false,
    length_in_front: true,
    output_bytes_max: |_, input_bytes| zstd::output_bytes_max(input_bytes),
    may_begin_with: zstd::MAY_BEGIN_WITH,
    encoder: |parameters| Box::new(AutoEncoder::new(parameters)),
    decoder: |_| zstd::decoder(),
    check: None,
    made_with: None,
    parts: None,
    seam: Some(zstd::seam),
};

/// What is wanted of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Speed,
    Balanced,
    Ratio,
}

impl Goal {
    fn of(parameters: Parameters) -> Self {
        match (parameters.has(&RATIO), parameters.has(&SPEED)) {
            (true, _) => Self::Ratio,
            (false, true) => Self::Speed,
            (false, false) => Self::Balanced,
        }
    }
}

/// The fastest level. Noise goes through it at the speed of a copy, into blocks that are stored.
const FAST: u32 = 1;
/// Where a higher level begins to cost more time than all else that is done to an input. Of 4 KiB to one segment, level 4
/// makes 1 to 3 % less in hardly more time; of more it makes what 3 does, and of less it takes longer for next to nothing.
const BALANCED: u32 = 3;
const BALANCED_SHORT: u32 = 4;
const SHORT_BYTES_MIN: u64 = 4096;
/// The smallest, and what may do nearly as well in a fraction of its time.
const SMALL: u32 = 19;
const NEARLY: [u32; 3] = [3, 6, 12];
/// A faster level will do if it makes a sample larger by at most one part in so many, or by what is nothing in 64 KiB.
const NEARLY_PART: usize = 100;
const NEARLY_BYTES: usize = 32;
/// Bytes of a sample: pieces in equal distances of the first segment.
const SAMPLE_BYTES: usize = 64 * 1024;
const SAMPLE_PIECES: usize = 4;
/// How many times as long as a sample an input is for which one is tried: the trial then takes 6 % of the time at most.
const SAMPLED_PART: u64 = 16;

struct AutoEncoder {
    goal: Goal,
    announced: Option<u64>,
    frame: ZstdEncoder,
    choice: Option<Choice>,
}

impl AutoEncoder {
    fn new(parameters: Parameters) -> Self {
        let frame = ZstdEncoder::new(Parameters::of_level(BALANCED));
        Self { goal: Goal::of(parameters), announced: None, frame, choice: None }
    }

    /// Chooses by the first segment, and hands it over.
    fn begin(&mut self, segment: &[u8], output: &mut Vec<u8>) -> Result<(), Error> {
        let announced = self.announced.unwrap_or_default();
        let level = level(self.goal, segment, announced)?;
        self.frame.set_level(level);
        let before = output.len();
        self.frame.write(segment, output)?;
        let made = output.len() - before;
        let predicted_bytes = predicted(announced, segment.len(), made);
        self.choice = Some(Choice { level, predicted_bytes });
        Ok(())
    }
}

/// The level for an input of so many bytes that begins with `segment`.
fn level(goal: Goal, segment: &[u8], bytes: u64) -> Result<u32, Error> {
    let is_short = bytes <= SEGMENT_BYTES as u64;
    match goal {
        Goal::Speed => return Ok(FAST),
        // To look for noise takes longer than these levels take to store it.
        Goal::Balanced if is_short && bytes >= SHORT_BYTES_MIN => return Ok(BALANCED_SHORT),
        Goal::Balanced if is_short => return Ok(BALANCED),
        Goal::Balanced | Goal::Ratio => {}
    }
    if Probe::default().skips(segment) {
        return Ok(FAST);
    }
    if goal == Goal::Balanced {
        return Ok(BALANCED);
    }
    if segment.len() < SAMPLE_BYTES || bytes / SAMPLED_PART < SAMPLE_BYTES as u64 {
        return Ok(SMALL);
    }
    let sample = sample(segment);
    let smallest = trial(SMALL, &sample)?;
    let enough = smallest + (smallest / NEARLY_PART).max(NEARLY_BYTES);
    for level in NEARLY {
        if trial(level, &sample)? <= enough {
            return Ok(level);
        }
    }
    Ok(SMALL)
}

/// The bytes that a sample becomes.
fn trial(level: u32, sample: &[u8]) -> Result<usize, Error> {
    let mut frame = Vec::with_capacity(compress_bound(sample.len()));
    let level = i32::try_from(level).unwrap_or(i32::MAX);
    zstd_safe::compress(&mut frame, sample, level).map_err(zstd::encoder_failed)
}

/// Pieces of a segment, which is not shorter than they are together.
fn sample(segment: &[u8]) -> Vec<u8> {
    let piece = SAMPLE_BYTES / SAMPLE_PIECES;
    let stride = (segment.len() - piece) / (SAMPLE_PIECES - 1);
    let pieces = (0..SAMPLE_PIECES).map(|place| &segment[place * stride..][..piece]);
    pieces.collect::<Vec<_>>().concat()
}

/// The bytes of an output of which `segment` bytes became `made`; none if that is all of it, and known.
fn predicted(announced: u64, segment: usize, made: usize) -> Option<u64> {
    let (segment, made) = (segment as u128, made as u128);
    let is_a_part = u128::from(announced) > segment;
    let all = || u128::from(announced) * made / segment.max(1);
    is_a_part.then(|| u64::try_from(all()).unwrap_or(u64::MAX))
}

impl Encoder for AutoEncoder {
    fn announce(&mut self, input_bytes: u64) {
        self.announced = Some(input_bytes);
        self.frame.announce(input_bytes);
    }

    fn write(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), Error> {
        if self.choice.is_some() || input.is_empty() {
            return self.frame.write(input, output);
        }
        self.begin(input, output)
    }

    fn finish(&mut self, output: &mut Vec<u8>) -> Result<(), Error> {
        self.frame.finish(output)
    }

    fn reset(&mut self) {
        (self.announced, self.choice) = (None, None);
        self.frame.reset();
    }

    fn choice(&self) -> Option<Choice> {
        self.choice
    }
}
