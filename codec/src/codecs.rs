//! The registry of codecs, and one file for each.
//!
//! A new codec is one file in `codecs/` that has an `ENTRY`, its `mod` line here, and its line in [`REGISTRY`]. Help
//! texts, parsing, workers and tests take it from there; what it must keep to is in ADR 0005.

mod auto;
mod gzip;
mod noop;
mod store;
#[cfg(feature = "zfp")]
mod zfp;
mod zlib;
mod zstd;

use crate::Error;
use crate::entry::Entry;

/// Every codec there is, in the order that help texts list them.
#[rustfmt::skip]
pub(crate) static REGISTRY: &[&Entry] = &[
    &zlib::ENTRY,
    &gzip::ENTRY,
    &zstd::ENTRY,
    // Behind zstd, which is what an ending in .zst says.
    &auto::ENTRY,
    #[cfg(feature = "zfp")]
    &zfp::ENTRY,
    &store::ENTRY,
    &noop::ENTRY,
];

/// What is said of a codec that this program could have, and was built without.
pub(crate) fn not_built_in(name: &str) -> Option<Error> {
    let hint = "build with `--features zfp`, which needs cmake and libclang; see docs/zfp.md";
    (!cfg!(feature = "zfp") && name == "zfp").then_some(Error::NotBuiltIn { codec: "zfp", hint })
}
