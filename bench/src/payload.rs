//! What peers are told of a codec of ours.

use anyhow::{Context, Result, bail, ensure};
use bagpress_codec::Codec;

/// A library that peers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Deflate,
    Zstd,
    Zfp,
}

impl Format {
    pub(crate) const ALL: &[Self] = &[Self::Deflate, Self::Zstd, Self::Zfp];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
            Self::Zfp => "zfp",
        }
    }
}

/// A codec as peers are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) format: Format,
    /// Such as `zlib:6`, `zstd:3`, `zfp:accuracy=1e-3,f32,8x256x256`.
    pub(crate) codec: String,
    /// The number of it, of deflate and zstd; the mode of zfp.
    pub(crate) level: String,
}

impl Payload {
    /// The same level of the same library, whatever else the codec does: gzip and zlib are deflate, with `,full` or without.
    ///
    /// # Errors
    ///
    /// The codec has no level, or is one that only ours have.
    pub(crate) fn of(codec: &Codec) -> Result<Self> {
        let text = codec.to_string();
        let (name, settings) = text.split_once(':').unwrap_or((&text, ""));
        let mode = settings.split(',').next().unwrap_or_default();
        let level = || {
            let level = mode.parse::<u8>().ok();
            level.with_context(|| format!("{text} has no level that a peer could use"))
        };
        let (format, codec) = match name {
            "zlib" | "gzip" => {
                ensure!(level()? <= 9, "{text}: peers have levels from 0 to 9");
                (Format::Deflate, format!("zlib:{mode}"))
            }
            "zstd" => {
                level()?;
                ensure!(mode == settings, "{text}: peers have a level of zstd and nothing else");
                (Format::Zstd, text.clone())
            }
            "zfp" => (Format::Zfp, text.clone()),
            _ => bail!("{text} has no level that a peer could use"),
        };
        Ok(Self { format, codec, level: mode.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(codec: &str) -> Result<(Format, String, String)> {
        let Payload { format, codec, level } = Payload::of(&codec.parse()?)?;
        Ok((format, codec, level))
    }

    #[test]
    fn peers_get_the_level_of_a_codec_and_its_library() -> Result<()> {
        for (codec, format, told, level) in [
            ("zlib:6", Format::Deflate, "zlib:6", "6"),
            ("zlib:6,full", Format::Deflate, "zlib:6", "6"),
            ("gzip:9", Format::Deflate, "zlib:9", "9"),
            ("zstd:19", Format::Zstd, "zstd:19", "19"),
        ] {
            assert_eq!(of(codec)?, (format, told.to_owned(), level.to_owned()));
        }
        for (codec, why) in [
            ("store", "store has no level"),
            ("auto", "no level that a peer could use"),
            ("zstd:3,long", "peers have a level of zstd and nothing else"),
        ] {
            let refused = of(codec).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        Ok(())
    }

    #[test]
    #[cfg(feature = "zfp")]
    fn peers_get_the_mode_of_zfp_with_type_and_shape() -> Result<()> {
        let told = "zfp:accuracy=1e-3,f32,8x256x256";
        assert_eq!(of(told)?, (Format::Zfp, told.to_owned(), "accuracy=1e-3".to_owned()));
        Ok(())
    }
}
