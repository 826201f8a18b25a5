//! Generated data as it is typed: a field, and a codec of arrays, may leave type and shape to the bytes of a task.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result};
use bagpress_codec::{Codec, DataKind, Error, Grid, Scalar, Texture};

/// A kind of generated data, perhaps without its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Data {
    /// It has no shape, or says it itself.
    Kind(DataKind),
    /// A field of the shape that the codec says, or that follows from the bytes.
    Field(Texture),
}

impl Data {
    /// The codec and the data of tasks of so many bytes, that both say the same type and shape, where they have one.
    ///
    /// # Errors
    ///
    /// The bytes of a task are no array, or the codec has no such mode.
    pub(crate) fn of(self, codec: Codec, bytes: u64) -> Result<(Codec, DataKind)> {
        let is_array = codec.takes_arrays();
        let of_data = match self {
            Self::Kind(DataKind::Field { grid, .. }) => Some(grid),
            Self::Kind(_) | Self::Field(_) => None,
        };
        if let (Self::Kind(kind), false) = (self, is_array) {
            return Ok((codec, kind));
        }
        let grid = match codec.grid().or(of_data) {
            Some(grid) => grid,
            None => Grid::of_bytes(Scalar::F32, bytes)
                .with_context(|| format!("make an array of {bytes} bytes"))?,
        };
        let codec = if is_array { with_grid(codec, grid)? } else { codec };
        let data = match self {
            Self::Kind(kind) => kind,
            Self::Field(texture) => DataKind::Field { texture, grid },
        };
        Ok((codec, data))
    }
}

fn with_grid(codec: Codec, grid: Grid) -> Result<Codec> {
    if codec.grid() == Some(grid) {
        return Ok(codec);
    }
    codec.with_grid(grid).with_context(|| format!("compress {grid} with {codec}"))
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => write!(f, "{kind}"),
            Self::Field(texture) => write!(f, "{texture}"),
        }
    }
}

impl FromStr for Data {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let texture = Texture::ALL.into_iter().find(|texture| texture.name() == text);
        texture.map_or_else(|| text.parse().map(Self::Kind), |texture| Ok(Self::Field(texture)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(codec: &str, data: &str, bytes: u64) -> String {
        let made = data.parse::<Data>().unwrap().of(codec.parse().unwrap(), bytes);
        made.map_or_else(|e| format!("{e:#}"), |(codec, data)| format!("{codec} {data}"))
    }

    #[test]
    fn a_field_has_the_shape_that_follows_from_its_bytes() {
        assert_eq!(of("zlib:6", "random", 7), "zlib:6 random");
        assert_eq!(of("zstd:3", "field", 2 << 20), "zstd:3 field:f32,8x256x256");
        assert_eq!(of("zlib:6", "field-rough:f64,10", 80), "zlib:6 field-rough:f64,10");
        assert!(of("zlib:6", "field", 7).contains("make an array of 7 bytes"));
    }

    #[test]
    #[cfg(feature = "zfp")]
    fn a_codec_of_arrays_has_the_shape_of_its_data() {
        let expected = "zfp:accuracy=1e-3,f32,8x256x256 field:f32,8x256x256";
        assert_eq!(of("zfp:accuracy=1e-3", "field", 2 << 20), expected);
        assert_eq!(of("zfp:rate=8,f64,3x4", "field", 96), "zfp:rate=8,f64,3x4 field:f64,3x4");
        assert_eq!(of("zfp", "field:i32,9", 36), "zfp:reversible,i32,9 field:i32,9");
        assert_eq!(of("zfp", "random", 2 << 20), "zfp:reversible,f32,8x256x256 random");
        assert!(of("zfp:rate=2", "field:f32,9", 36).contains("compress f32,9 with zfp:rate=2"));
    }
}
