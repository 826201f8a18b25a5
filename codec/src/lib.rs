//! The codecs, the input generator and the digests of Bagpress: bytes in, bytes out.
//!
//! Nothing here does I/O, reads a clock or runs asynchronously, and everything is bounded: an
//! encoder holds its window, a decoder fills at most what the caller allows, and neither grows with
//! the size of the stream.
//!
//! - [`Codec`] parses `zlib:6` and makes an [`Encoder`] or a [`Decoder`].
//! - [`Verifier`] decodes what an encoder has just made and compares it with the input.
//! - [`Decoded`] is what a piece of a stream decodes to, part by part.
//! - [`SeekTable`] says where the frames of a zstd file are.
//! - [`Joiner`] makes one file of the outputs of its parts, without decoding them.
//! - [`Generator`] draws the input of generated bags from a seed.
//! - [`Digest`] and [`Hasher`] are SHA-256.
//!
//! A new codec is one file in `codecs/` and its two lines in `codecs.rs`, `mod` and registry.
//!
//! # Examples
//!
//! ```
//! use bagpress_codec::{Codec, SEGMENT_BYTES, Verifier, decompress_all};
//!
//! let codec: Codec = "gzip:6".parse()?;
//! let input = b"the same bytes, again and again and again".repeat(20_000);
//! let mut encoder = codec.encoder();
//! let mut verifier = Verifier::new(&codec);
//! let (mut file, mut part) = (Vec::new(), Vec::new());
//! for segment in input.chunks(SEGMENT_BYTES) {
//!     part.clear();
//!     encoder.write(segment, &mut part)?;
//!     verifier.check(segment, &part)?;
//!     file.extend_from_slice(&part);
//! }
//! part.clear();
//! encoder.finish(&mut part)?;
//! verifier.finish(&part)?;
//! file.extend_from_slice(&part);
//! assert_eq!(decompress_all(&codec, &file)?, input);
//! # Ok::<(), bagpress_codec::Error>(())
//! ```

mod array;
mod check;
mod codec;
mod codecs;
mod decoded;
mod deflate;
mod digest;
mod entry;
mod entry_point;
mod error;
mod fidelity;
mod field;
mod generator;
mod grid;
mod incompressible;
mod inflate;
mod join;
mod keystream;
mod parse;
mod parts;
mod reuse;
mod seek_table;
mod stream;
mod text;
mod verifier;

pub use codec::{Codec, decompress_all};
pub use decoded::Decoded;
pub use digest::{Digest, Hasher};
pub use entry::{CodecInfo, Levels, Switch};
pub use entry_point::EntryPoint;
pub use error::{ArrayFault, Error};
pub use fidelity::Fidelity;
pub use field::Texture;
pub use generator::{DataKind, Generator};
pub use grid::{Grid, Scalar, Shape};
pub use incompressible::Probe;
pub use join::{Joined, Joiner};
pub use parts::{Parts, Section};
pub use reuse::Reuse;
pub use seek_table::{SeekFrame, SeekTable};
pub use stream::{Choice, Decoder, Encoder, Progress, SEGMENT_BYTES};
pub use verifier::Verifier;
