//! One file for each codec, and what the registry knows of each.

use crate::{CodecInfo, Decoder, Encoder};

pub(crate) mod gzip;
pub(crate) mod noop;
pub(crate) mod store;
pub(crate) mod zlib;

/// A codec as the registry holds it.
pub(crate) struct Entry {
    /// What help texts show.
    pub(crate) info: CodecInfo,
    /// Library, version and our framing's revision.
    pub(crate) library: &'static str,
    /// Whether its output is nothing, whatever the input.
    pub(crate) stores_nothing: bool,
    /// The most output bytes for so many input bytes.
    pub(crate) output_bytes_max: fn(u64) -> u64,
    /// Makes an encoder of a level, which is in the range that `info` gives.
    pub(crate) encoder: fn(u32) -> Box<dyn Encoder>,
    /// Makes a decoder.
    pub(crate) decoder: fn() -> Box<dyn Decoder>,
}
