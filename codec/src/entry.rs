//! What the registry knows of a codec.

use std::fmt;

use crate::join::Seam;
use crate::stream::{Decoder, Encoder};

/// A codec as the registry holds it.
pub(crate) struct Entry {
    /// What help texts show.
    pub(crate) info: CodecInfo,
    /// Whether its output is nothing, whatever the input.
    pub(crate) stores_nothing: bool,
    /// The most output bytes for so many input bytes.
    pub(crate) output_bytes_max: fn(u64) -> u64,
    /// Whether an output may begin with these bytes.
    pub(crate) may_begin_with: fn(&[u8; 2]) -> bool,
    /// Makes an encoder of a level, which is in the range that `info` gives, and of `full`, if `info` takes that.
    pub(crate) encoder: fn(u32, bool) -> Box<dyn Encoder>,
    /// Makes a decoder.
    pub(crate) decoder: fn() -> Box<dyn Decoder>,
    /// What joining takes from a block of a level and puts around a file.
    pub(crate) seam: fn(u32) -> Seam,
}

/// What a help text and a worker say about a codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CodecInfo {
    /// The name, such as `zlib`.
    pub name: &'static str,
    /// The levels it takes, or nothing.
    pub levels: Option<Levels>,
    /// Whether it takes `,full`: it stores segments unread that a look finds incompressible, unless it is told not to.
    pub takes_full: bool,
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

impl fmt::Display for CodecInfo {
    /// Writes `zlib:0..9[,full]`, or the bare name of a codec without levels.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)?;
        if let Some(levels) = self.levels {
            write!(formatter, ":{}..{}", levels.min, levels.max)?;
        }
        formatter.write_str(if self.takes_full { "[,full]" } else { "" })
    }
}
