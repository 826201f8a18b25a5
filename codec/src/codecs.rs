//! The registry of codecs, and one file for each.
//!
//! A new codec is one file in `codecs/` that has an `ENTRY`, its `mod` line here, and its line in [`REGISTRY`]. Help
//! texts, parsing, workers and tests take it from there; what it must keep to is in ADR 0005.

mod auto;
mod gzip;
mod noop;
mod store;
mod zlib;
mod zstd;

use crate::entry::Entry;

/// Every codec there is, in the order that help texts list them.
#[rustfmt::skip]
pub(crate) static REGISTRY: &[&Entry] = &[
    &zlib::ENTRY,
    &gzip::ENTRY,
    &zstd::ENTRY,
    // Behind zstd, which is what an ending in .zst says.
    &auto::ENTRY,
    &store::ENTRY,
    &noop::ENTRY,
];
