//! Our terms in those of zfp, and what a stream takes at most.

use bagpress_zfp::{Kind, Parameters as Blocks};

use crate::Error;
use crate::array::Mode;
use crate::error::ArrayFault;
use crate::grid::{Grid, Scalar};

pub(super) const FORMAT: &str = "zfp";

/// The largest layer that is held, in bytes: four planes of the slowest dimension. An encoder, a decoder and a verifier hold about
/// one each.
pub(super) const LAYER_BYTES_MAX: u64 = 64 << 20;
/// Beside four times its input an output of a file of numpy may have so many bytes: one block, whatever is in it.
const NPY_BYTES_MORE: u64 = 2304;

pub(super) fn npy_output_bytes_max(input_bytes: u64) -> u64 {
    input_bytes.saturating_mul(4).saturating_add(NPY_BYTES_MORE)
}

/// The most bytes of a stream: its header, and the most bits of each block, which is filled up where the array ends in it.
pub(super) fn stream_bytes_max(mode: Mode, grid: &Grid) -> u64 {
    let extents = grid.shape.extents();
    let blocks: u64 = extents.iter().map(|extent| extent.div_ceil(4)).product();
    let each = blocks_of(mode, grid).block_bits_max(kind_of(grid.scalar), extents.len());
    let bits = u128::from(blocks) * u128::from(each) + 148;
    u64::try_from(bits.div_ceil(64) * 8).unwrap_or(u64::MAX)
}

/// How blocks are compressed, in zfp's terms.
pub(super) fn blocks_of(mode: Mode, grid: &Grid) -> Blocks {
    let dimensions = grid.shape.extents().len();
    match mode {
        Mode::Reversible => Blocks::reversible(),
        Mode::Rate(rate) => Blocks::rate(rate.get(), kind_of(grid.scalar), dimensions),
        Mode::Precision(planes) => Blocks::precision(planes),
        Mode::Accuracy(tolerance) => Blocks::accuracy(tolerance.get()),
    }
}

pub(super) fn kind_of(scalar: Scalar) -> Kind {
    match scalar {
        Scalar::I32 => Kind::I32,
        Scalar::I64 => Kind::I64,
        Scalar::F32 => Kind::F32,
        Scalar::F64 => Kind::F64,
    }
}

pub(super) fn scalar_of(kind: Kind) -> Scalar {
    match kind {
        Kind::I32 => Scalar::I32,
        Kind::I64 => Scalar::I64,
        Kind::F32 => Scalar::F32,
        Kind::F64 => Scalar::F64,
    }
}

pub(super) fn refused<T>(fault: ArrayFault, reason: String) -> Result<T, Error> {
    Err(Error::Array { fault, reason })
}
