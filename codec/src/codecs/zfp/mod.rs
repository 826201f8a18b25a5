//! LLNL's zfp: arrays of numbers, of one to four dimensions, bit for bit or to a bound, as the stock `zfp` opens.
//!
//! A stream is a full header and then the array's blocks of 4 values in each dimension, in raster order, bit after bit without a
//! gap. So it is made and read *layer* by layer, of four planes of the slowest dimension, and nothing holds the array: what comes
//! out is what zfp makes of the whole at once.

mod check;
mod decode;
mod encode;
mod layer;
mod npy;

use bagpress_zfp::{Kind, Parameters as Blocks};

use crate::Error;
use crate::array::{ArrayParameters, Form, Mode};
use crate::entry::{CodecInfo, Entry, Parameters};
use crate::error::ArrayFault;
use crate::grid::{Grid, Scalar};

use self::check::ArrayCheck;
use self::decode::ZfpDecoder;
use self::encode::ZfpEncoder;

/// The library that compresses, held against what is linked by a test, and the revision of how it is called here: raise it when
/// an output changes a byte.
const LIBRARY: &str = "zfp/1.0.1+1";

const FORMAT: &str = "zfp";

pub(crate) static ENTRY: Entry = Entry {
    info: CodecInfo {
        name: FORMAT,
        levels: None,
        switches: &[],
        takes_arrays: true,
        extension: ".zfp",
        library: LIBRARY,
        summary: "arrays of i32, i64, f32 or f64, as zfp -h opens; MODE is reversible, accuracy=1e-3 (largest error), \
                  precision=20 (bit planes) or rate=8 (bits a value); .npy files say type and shape, others need \
                  DTYPE,SHAPE such as f32,100x500x500, the slowest dimension first",
    },
    stores_nothing: false,
    length_in_front: false,
    output_bytes_max,
    may_begin_with: |begin| begin == b"zf",
    encoder: |parameters| Box::new(ZfpEncoder::new(array_of(parameters))),
    decoder: |parameters| Box::new(ZfpDecoder::new(array_of(parameters))),
    check: Some(|parameters| Box::new(ArrayCheck::new(array_of(parameters)))),
    seam: None,
};

/// The largest layer that is held, in bytes: four planes of the slowest dimension. An encoder, a decoder and a verifier hold about
/// one each.
pub(super) const LAYER_BYTES_MAX: u64 = 64 << 20;
/// Beside four times its input an output of a file of numpy may have so many bytes: one block, whatever is in it.
const NPY_BYTES_MORE: u64 = 2304;

/// A codec of arrays always has its parameters; without, it would be the one that loses nothing.
fn array_of(parameters: Parameters) -> ArrayParameters {
    parameters.array.unwrap_or(ArrayParameters { mode: Mode::Reversible, form: Form::Npy })
}

fn output_bytes_max(parameters: Parameters, input_bytes: u64) -> u64 {
    let array = array_of(parameters);
    match array.form {
        Form::Grid(grid) => stream_bytes_max(array.mode, &grid),
        Form::Npy | Form::Raw => npy_output_bytes_max(input_bytes),
    }
}

fn npy_output_bytes_max(input_bytes: u64) -> u64 {
    input_bytes.saturating_mul(4).saturating_add(NPY_BYTES_MORE)
}

/// The most bytes of a stream: its header, and the most bits of each block, which is filled up where the array ends in it.
fn stream_bytes_max(mode: Mode, grid: &Grid) -> u64 {
    let extents = grid.shape.extents();
    let blocks: u64 = extents.iter().map(|extent| extent.div_ceil(4)).product();
    let each = blocks_of(mode, grid).block_bits_max(kind_of(grid.scalar), extents.len());
    let bits = u128::from(blocks) * u128::from(each) + 148;
    u64::try_from(bits.div_ceil(64) * 8).unwrap_or(u64::MAX)
}

/// How blocks are compressed, in zfp's terms.
fn blocks_of(mode: Mode, grid: &Grid) -> Blocks {
    let dimensions = grid.shape.extents().len();
    match mode {
        Mode::Reversible => Blocks::reversible(),
        Mode::Rate(rate) => Blocks::rate(rate.get(), kind_of(grid.scalar), dimensions),
        Mode::Precision(planes) => Blocks::precision(planes),
        Mode::Accuracy(tolerance) => Blocks::accuracy(tolerance.get()),
    }
}

fn kind_of(scalar: Scalar) -> Kind {
    match scalar {
        Scalar::I32 => Kind::I32,
        Scalar::I64 => Kind::I64,
        Scalar::F32 => Kind::F32,
        Scalar::F64 => Kind::F64,
    }
}

fn scalar_of(kind: Kind) -> Scalar {
    match kind {
        Kind::I32 => Scalar::I32,
        Kind::I64 => Scalar::I64,
        Kind::F32 => Scalar::F32,
        Kind::F64 => Scalar::F64,
    }
}

fn refused<T>(fault: ArrayFault, reason: String) -> Result<T, Error> {
    Err(Error::Array { fault, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_the_one_that_is_linked() {
        assert_eq!(LIBRARY.split('+').next().unwrap(), format!("zfp/{}", bagpress_zfp::version()));
    }

    #[test]
    fn reversible_grows_by_no_more_than_a_seventh() {
        for (grid, per_mille) in [
            ("f32,400000", 1141),
            ("f32,512x512x512", 1039),
            ("f64,512x512x512", 1021),
            ("i32,400000", 1063),
            ("i64,400000", 1036),
            ("f64,400000", 1087),
        ] {
            let grid: Grid = grid.parse().unwrap();
            let most = stream_bytes_max(Mode::Reversible, &grid);
            assert!(most * 1000 <= grid.bytes() * per_mille + 32_000, "{grid}: {most}");
        }
    }
}
