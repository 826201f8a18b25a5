//! What the registry knows of a codec.

use std::fmt;

use crate::array::ArrayParameters;
use crate::check::Check;
use crate::join::Seam;
use crate::parts::{Layout, Section};
use crate::stream::{Decoder, Encoder};

/// A codec as the registry holds it.
pub(crate) struct Entry {
    /// What help texts show.
    pub(crate) info: CodecInfo,
    /// Whether its output is nothing, whatever the input.
    pub(crate) stores_nothing: bool,
    /// Whether the input's length is in front of an output.
    pub(crate) length_in_front: bool,
    /// The most output bytes for so many input bytes.
    pub(crate) output_bytes_max: fn(Parameters, u64) -> u64,
    /// Whether an output may begin with these bytes.
    pub(crate) may_begin_with: fn(&[u8; 2]) -> bool,
    /// Makes an encoder of a level and switches that `info` has.
    pub(crate) encoder: fn(Parameters) -> Box<dyn Encoder>,
    /// Makes a decoder.
    pub(crate) decoder: fn(Parameters) -> Box<dyn Decoder>,
    /// Makes what compares outputs with their inputs; none, where they have to be equal, segment by segment.
    pub(crate) check: Option<fn(Parameters) -> Box<dyn Check>>,
    /// Whether a file that begins so was made with these parameters, where its header says with which.
    pub(crate) made_with: Option<fn(Parameters, &[u8]) -> bool>,
    /// How streams are entered in their middle; none, if they cannot be.
    pub(crate) parts: Option<PartsOf>,
    /// How the blocks of such a level and such switches are joined; none, if a file is not cut.
    pub(crate) seam: Option<fn(Parameters) -> Seam>,
}

/// How a codec's streams are entered.
pub(crate) struct PartsOf {
    /// The parts of a stream that begins so; none, if it is no stream of these parameters.
    pub(crate) find: fn(Parameters, &[u8]) -> Option<Layout>,
    /// A decoder of some of them, which takes the section that has them, and nothing more.
    pub(crate) decoder: SectionDecoder,
}

/// Makes a decoder of a section of a stream that begins so.
type SectionDecoder = fn(Parameters, &[u8], &Section) -> Option<Box<dyn Decoder>>;

/// What follows a codec's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Parameters {
    /// In the codec's range; 0 for a codec without levels.
    pub(crate) level: u32,
    /// The bits of the switches that are on.
    switches: u8,
    /// For a codec of arrays.
    pub(crate) array: Option<ArrayParameters>,
}

impl Parameters {
    pub(crate) fn of_level(level: u32) -> Self {
        Self { level, ..Self::default() }
    }

    pub(crate) fn of_array(array: ArrayParameters) -> Self {
        Self { array: Some(array), ..Self::default() }
    }

    pub(crate) fn has(self, switch: &Switch) -> bool {
        self.switches & switch.bit != 0
    }

    pub(crate) fn with(self, switch: &Switch) -> Self {
        Self { switches: self.switches | switch.bit, ..self }
    }
}

/// Every segment is compressed.
pub(crate) const FULL: Switch = Switch {
    name: "full",
    summary: "compresses also what a look finds incompressible",
    bit: 1 << 0,
    alone: false,
};

/// Repetitions are found far back.
pub(crate) const LONG: Switch = Switch {
    name: "long",
    summary: "finds repetitions up to 128 MiB back, for up to 410 MiB of memory a slot",
    bit: 1 << 1,
    alone: false,
};

/// Small outputs before all.
pub(crate) const RATIO: Switch = Switch {
    name: "ratio",
    summary: "takes the time that small outputs need, and 89 MiB of memory a slot",
    bit: 1 << 2,
    alone: true,
};

/// Speed before all.
pub(crate) const SPEED: Switch =
    Switch { name: "speed", summary: "takes the fastest level", bit: 1 << 3, alone: true };

/// What a help text and a worker say about a codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CodecInfo {
    /// The name, such as `zlib`.
    pub name: &'static str,
    /// The levels it takes, or nothing.
    pub levels: Option<Levels>,
    /// What may follow the level, each after a comma, each once, in this order.
    pub switches: &'static [Switch],
    /// Whether its inputs are arrays: then `:MODE` and perhaps `,DTYPE,SHAPE` follow the name.
    pub takes_arrays: bool,
    /// What the name of an output file gets, with its dot; may be empty.
    pub extension: &'static str,
    /// Library, version and our framing's revision.
    pub library: &'static str,
    /// One line, no full stop.
    pub summary: &'static str,
}

/// The levels that a codec takes, ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    /// The lowest and fastest.
    pub min: u32,
    /// The highest and smallest.
    pub max: u32,
    /// The one that a name without a level means.
    pub default: u32,
}

/// A word behind a codec's level that changes what it makes, such as `full` in `zlib:6,full`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Switch {
    /// The word.
    pub name: &'static str,
    /// What the codec does with it, in one line, no full stop.
    pub summary: &'static str,
    /// Its own bit in [`Parameters`].
    bit: u8,
    /// Whether no other may stand beside it.
    pub(crate) alone: bool,
}

impl fmt::Display for CodecInfo {
    /// Writes `zlib:0..9[,full]`, `auto[,ratio|,speed]`, `zfp:MODE[,DTYPE,SHAPE]`, or the bare name of a codec without levels.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)?;
        if self.takes_arrays {
            formatter.write_str(":MODE[,DTYPE,SHAPE]")?;
        }
        if let Some(levels) = self.levels {
            write!(formatter, ":{}..{}", levels.min, levels.max)?;
        }
        let mut names = self.switches.iter().map(|switch| format!(",{}", switch.name));
        if self.switches.iter().any(|switch| switch.alone) {
            return write!(formatter, "[{}]", names.collect::<Vec<_>>().join("|"));
        }
        names.try_for_each(|name| write!(formatter, "[{name}]"))
    }
}
