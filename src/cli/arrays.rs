//! What type and shape the inputs of a bag have, by its flags: for codecs of arrays, and for generated fields.

use anyhow::Result;
use bagpress_codec::{Codec, DataKind, Grid, Scalar, Shape, Texture};
use bagpress_producer::Usage;

/// What is said of type and shape.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Said {
    pub(crate) dtype: Option<Scalar>,
    pub(crate) shape: Option<Shape>,
}

/// Codec, data and bytes of each task of a generated bag.
pub(crate) type Generated = (Option<Codec>, DataKind, u64);

impl Said {
    fn is_anything(self) -> bool {
        self.dtype.is_some() || self.shape.is_some()
    }

    /// The codec of a bag of files, for inputs of this type and shape.
    ///
    /// # Errors
    ///
    /// [`Usage`] if the two do not fit, or only one of both is said.
    pub(crate) fn of_files(self, codec: Option<Codec>) -> Result<Option<Codec>> {
        let taking = codec.filter(Codec::takes_arrays);
        match (taking, self.dtype, self.shape) {
            (Some(codec), None, None) if codec.only_decodes() => Err(Usage::error(
                format!("{codec} does not say of what type and shape the files are"),
                "say it, such as --dtype f32 --shape 100x500x500; .npy files need neither, nor `raw`",
            )),
            (_, None, None) => Ok(codec),
            (None, ..) => Err(not_for_arrays(codec)),
            (Some(codec), Some(scalar), Some(shape)) => {
                with_grid(codec, Grid { scalar, shape }).map(Some)
            }
            _ => Err(Usage::error(
                "bare values need both a type and a shape",
                "say both, such as --dtype f32 --shape 100x500x500; .npy files need neither",
            )),
        }
    }

    /// The same of a generated bag, with the kind of data and the bytes of each task: a field or a codec of arrays has a shape by
    /// its bytes where none is said. `bytes` are those that were asked for, and `default` otherwise.
    ///
    /// # Errors
    ///
    /// [`Usage`] if they do not fit.
    pub(crate) fn of_generated(
        self,
        codec: Option<Codec>,
        data: DataArg,
        (bytes, default): (Option<u64>, u64),
    ) -> Result<Generated> {
        let taking = codec.filter(Codec::takes_arrays);
        if let (None, DataArg::Kind(data)) = (taking, data) {
            let bytes = bytes.unwrap_or(default);
            return if self.is_anything() {
                Err(not_for_arrays(codec))
            } else {
                Ok((codec, data, bytes))
            };
        }
        let of_text = taking.and_then(|codec| codec.grid()).or(data.grid());
        let scalar = self.dtype.or(of_text.map(|grid| grid.scalar)).unwrap_or(Scalar::F32);
        let grid = match self.shape.or(of_text.map(|grid| grid.shape)) {
            Some(shape) => Grid { scalar, shape },
            None => Grid::of_bytes(scalar, bytes.unwrap_or(default)).map_err(|why| {
                Usage::error(why.to_string(), "choose other --bytes, such as 2MiB, or --shape")
            })?,
        };
        let codec = match taking {
            Some(codec) => Some(with_grid(codec, grid)?),
            None => codec,
        };
        if let Some(bytes) = bytes.filter(|bytes| *bytes != grid.bytes()) {
            return Err(Usage::error(
                format!("{grid} has {} bytes, and --bytes asks for {bytes}", grid.bytes()),
                "leave --bytes out, or choose another --shape",
            ));
        }
        Ok((codec, data.of(grid), grid.bytes()))
    }
}

/// A codec for inputs of this type and shape; its text may have said the same before, and nothing else.
fn with_grid(codec: Codec, grid: Grid) -> Result<Codec> {
    if let Some(said) = codec.grid().filter(|said| *said != grid) {
        return Err(Usage::error(
            format!("the codec says {said}, and the flags say {grid}"),
            "say it once: leave --dtype and --shape out, or what follows the codec's mode",
        ));
    }
    let refused = |why: bagpress_codec::Error| {
        Usage::error(why.to_string(), "choose another mode, or another --dtype or --shape")
    };
    codec.with_grid(grid).map_err(refused)
}

fn not_for_arrays(codec: Option<Codec>) -> anyhow::Error {
    let name = codec.map_or("gzip", |codec| codec.name());
    Usage::error(
        format!("--dtype and --shape are for arrays, and {name} takes any bytes"),
        "leave them out, choose a codec of arrays such as zfp:accuracy=1e-3, or generate --data field",
    )
}

/// A kind of generated data, whose shape may be said elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataArg {
    /// It has no shape, or says it itself.
    Kind(DataKind),
    /// A field of a type and shape that flags say.
    Field(Texture),
}

impl DataArg {
    fn grid(self) -> Option<Grid> {
        match self {
            Self::Kind(DataKind::Field { grid, .. }) => Some(grid),
            _ => None,
        }
    }

    /// The kind, where arrays have this type and shape.
    fn of(self, grid: Grid) -> DataKind {
        match self {
            Self::Kind(DataKind::Field { texture, .. }) | Self::Field(texture) => {
                DataKind::Field { texture, grid }
            }
            Self::Kind(kind) => kind,
        }
    }
}

impl std::fmt::Display for DataArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kind(kind) => write!(f, "{kind}"),
            Self::Field(texture) => write!(f, "{texture}"),
        }
    }
}

impl std::str::FromStr for DataArg {
    type Err = bagpress_codec::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let texture = Texture::ALL.into_iter().find(|texture| texture.name() == text);
        texture.map_or_else(|| text.parse().map(Self::Kind), |texture| Ok(Self::Field(texture)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(dtype: &str, shape: &str) -> Said {
        Said { dtype: dtype.parse().ok(), shape: shape.parse().ok() }
    }

    fn generated(
        codec: &str,
        data: &str,
        said: Said,
        bytes: Option<u64>,
    ) -> Result<String, String> {
        let codec = (!codec.is_empty()).then(|| codec.parse().unwrap());
        let made = said.of_generated(codec, data.parse().unwrap(), (bytes, 2 << 20));
        let (codec, data, bytes) = made.map_err(|error| error.to_string())?;
        let codec = codec.map_or("-".to_owned(), |codec| codec.to_string());
        Ok(format!("{codec} {data} {bytes}"))
    }

    #[test]
    fn a_generated_field_has_a_shape_by_its_size_or_by_its_flags() {
        let none = Said::default();
        for (given, expected) in [
            (generated("", "random", none, None), "- random 2097152"),
            (generated("zlib:6", "field", none, None), "zlib:6 field:f32,8x256x256 2097152"),
            (generated("", "field-rough", said("f64", ""), Some(80)), "- field-rough:f64,10 80"),
            (generated("", "field", said("i32", "3x4"), None), "- field:i32,3x4 48"),
            (generated("", "field:f32,9", none, Some(36)), "- field:f32,9 36"),
        ] {
            assert_eq!(given.unwrap(), expected);
        }
        for (given, why) in [
            (
                generated("", "field", said("", "3x4"), Some(50)),
                "f32,3x4 has 48 bytes, and --bytes asks for 50",
            ),
            (generated("", "field", none, Some(7)), "7 bytes are not one value"),
            (generated("", "random", said("f32", ""), None), "gzip takes any bytes"),
        ] {
            let refused = given.unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
        assert!(said("f32", "3").of_files(None).is_err());
        assert_eq!(none.of_files("zstd".parse().ok()).unwrap().unwrap().name(), "zstd");
    }

    #[test]
    #[cfg(feature = "zfp")]
    fn a_codec_of_arrays_gets_type_and_shape() {
        let none = Said::default();
        for (given, expected) in [
            (
                generated("zfp:accuracy=1e-3", "field", none, Some(2 << 20)),
                "zfp:accuracy=1e-3,f32,8x256x256 field:f32,8x256x256 2097152",
            ),
            (
                generated("zfp:rate=8,f64,3x4", "field", none, None),
                "zfp:rate=8,f64,3x4 field:f64,3x4 96",
            ),
            (generated("zfp", "random", said("i64", "5"), None), "zfp:reversible,i64,5 random 40"),
        ] {
            assert_eq!(given.unwrap(), expected);
        }
        for (given, why) in [
            (generated("zfp:accuracy=1", "field", said("i32", ""), None), "no mode of i32"),
            (generated("zfp:rate=2", "field", said("f32", "9"), None), "at least 2.25"),
            (
                generated("zfp:rate=8,f64,3x4", "field", said("f32", ""), None),
                "the flags say f32,3x4",
            ),
        ] {
            let refused = given.unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
        let files = |codec: &str, said: Said| {
            let codec = said.of_files(codec.parse().ok()).map_err(|error| error.to_string());
            codec.map(|codec| codec.unwrap().to_string())
        };
        assert_eq!(files("zfp:rate=8", none).unwrap(), "zfp:rate=8");
        assert_eq!(files("zfp:rate=8", said("f32", "5x9")).unwrap(), "zfp:rate=8,f32,5x9");
        assert!(
            files("zfp:rate=8", said("f32", "")).unwrap_err().contains("both a type and a shape")
        );
        assert!(files("zfp:rate=8,raw", none).unwrap_err().contains("does not say"));
        assert!(files("gzip:6", said("f32", "5")).unwrap_err().contains("gzip takes any bytes"));
    }
}
