//! A safe way to LLNL's zfp, block by block: the only code of Bagpress that calls C by itself.
//!
//! A zfp stream is a header and then the blocks of an array, of 4 values in each dimension, bit after bit without a gap.
//! [`Writer`] and [`Reader`] write and read such a stream in pieces of any size, so that nobody has to hold it whole; in what
//! order the blocks come, and how an array is cut into them, is the caller's business.
//!
//! zfp itself checks no bounds: it writes on wherever its buffer ends. So here it only ever sees a buffer that has more room
//! before each block than the largest block takes ([`BLOCK_BYTES_MAX`]), and the position behind each is checked.

#![expect(unsafe_code, reason = "this crate is where C is called, and nothing else")]

#[cfg(target_endian = "big")]
compile_error!("zfp's words are read and written as little-endian bytes");

mod buffer;
mod header;
mod reader;
mod value;
mod writer;

pub use header::{BLOCK_BYTES_MAX, HEADER_BYTES_MAX, Header, Kind, Parameters};
pub use reader::{NoHeader, Reader};
pub use value::Value;
pub use writer::Writer;

/// The version of zfp that is linked, such as `1.0.1`.
#[must_use]
pub fn version() -> String {
    let [major, minor, patch] =
        [zfp_sys::ZFP_VERSION_MAJOR, zfp_sys::ZFP_VERSION_MINOR, zfp_sys::ZFP_VERSION_PATCH];
    format!("{major}.{minor}.{patch}")
}
