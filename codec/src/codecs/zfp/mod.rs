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
mod terms;

use crate::array::{ArrayParameters, Form, Mode};
use crate::entry::{CodecInfo, Entry, Parameters};

use self::check::ArrayCheck;
use self::decode::ZfpDecoder;
use self::encode::ZfpEncoder;
use self::terms::{FORMAT, npy_output_bytes_max, stream_bytes_max};

/// The library that compresses, held against what is linked by a test, and the revision of how it is called here: raise it when
/// an output changes a byte.
const LIBRARY: &str = "zfp/1.0.1+1";

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::Grid;

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
