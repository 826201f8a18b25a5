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
mod sections;
mod terms;

use bagpress_zfp::Header;

use crate::array::{ArrayParameters, Form, Mode};
use crate::entry::{CodecInfo, Entry, Parameters, PartsOf};
use crate::grid::{Grid, Shape};
use crate::parts::{Layout, Section};
use crate::stream::Decoder;

use self::check::ArrayCheck;
use self::decode::ZfpDecoder;
use self::encode::ZfpEncoder;
use self::layer::Layers;
use self::terms::{FORMAT, blocks_of, npy_output_bytes_max, scalar_of, stream_bytes_max};

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
    made_with: Some(made_with),
    parts: Some(PartsOf { find: layout, decoder: section_decoder }),
    seam: None,
};

/// Whether the header has the mode of these parameters, and their type and shape where they say which.
fn made_with(parameters: Parameters, begin: &[u8]) -> bool {
    let mode = array_of(parameters).mode;
    header_of(parameters, begin)
        .is_some_and(|(header, _, found)| header.parameters == blocks_of(mode, &found))
}

/// Header and grid of a stream that begins so, as far as it is one that these parameters read.
fn header_of(parameters: Parameters, begin: &[u8]) -> Option<(Header, u32, Grid)> {
    let (header, bits) = Header::read(begin)?;
    let shape = Shape::new(&header.shape[..header.dimensions]).ok()?;
    let grid = Grid { scalar: scalar_of(header.kind), shape };
    let fits = match array_of(parameters).form {
        Form::Grid(expected) => grid == expected,
        Form::Npy | Form::Raw => true,
    };
    // What is missing at the end was zeros.
    let is_whole = begin.len() as u64 * 8 >= u64::from(bits);
    (fits && is_whole).then_some((header, bits, grid))
}

/// The parts of a stream are layers. With a fixed rate, every block has the same bits, and so has every layer.
fn layout(parameters: Parameters, begin: &[u8]) -> Option<Layout> {
    let (header, bits, grid) = header_of(parameters, begin)?;
    let block_bits = header.parameters.block_bits().filter(|_| !header.parameters.is_reversible());
    let layers = Layers::new(grid).ok()?;
    let front_bytes = npy::header_bytes(array_of(parameters).form) as u64;
    Some(Layout {
        header_bits: bits.into(),
        part_bits: block_bits.and_then(|bits| layers.layer_blocks().checked_mul(bits.into())),
        front_bytes,
        part_bytes: layers.layer_bytes(),
        bytes: front_bytes.checked_add(grid.bytes())?,
    })
}

fn section_decoder(
    parameters: Parameters,
    begin: &[u8],
    section: &Section,
) -> Option<Box<dyn Decoder>> {
    let (header, _, grid) = header_of(parameters, begin)?;
    let from_start = section.parts.start == 0;
    let layers = (Layers::new(grid).ok()?.only(section.parts.clone()), from_start);
    Some(Box::new(ZfpDecoder::entered(array_of(parameters), (&header, section.bit), layers)?))
}

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
    use crate::Codec;

    #[test]
    fn a_header_says_by_which_mode_and_for_which_arrays_it_was_made() {
        let codecs = [
            "zfp:reversible,f32,8x8",
            "zfp:accuracy=1,f32,8x8",
            "zfp:accuracy=1e-3,f32,8x8",
            "zfp:precision=20,f32,8x8",
            "zfp:rate=8,f32,8x8",
            "zfp:rate=16,f64,4x8",
        ];
        let codecs = codecs.map(|text| text.parse::<Codec>().unwrap());
        for made in &codecs {
            let (mut encoder, mut output) = (made.encoder(), Vec::new());
            encoder.write(&[0; 256], &mut output).unwrap();
            encoder.finish(&mut output).unwrap();
            let begin = &output[..output.len().min(Codec::BEGIN_BYTES)];
            for asked in &codecs {
                assert_eq!(asked.may_have_made(begin), asked == made, "{asked} of {made}");
            }
            let (mode, _) = made
                .to_string()
                .split_once(',')
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
                .unwrap();
            assert!(mode.parse::<Codec>().unwrap().may_have_made(begin), "{mode} of {made}");
            assert!(!made.may_have_made(&begin[..8]));
        }
    }

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
