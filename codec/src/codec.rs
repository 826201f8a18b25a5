//! A codec by name: the text `name:level` or `name:level,full`, looked up in the registry.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::codecs::REGISTRY;
use crate::entry::{CodecInfo, Entry};
use crate::join::{Joined, Joiner, Seam};
use crate::stream::{Decoder, Encoder, SEGMENT_BYTES};

/// The switch of a codec that compresses every segment.
const FULL: &str = "full";
/// As it ends a codec's text.
const FULL_SUFFIX: &str = ",full";

/// A codec with its parameters, such as `gzip:6` or `gzip:6,full`.
///
/// # Examples
///
/// ```
/// use bagpress_codec::Codec;
///
/// let codec: Codec = "zlib".parse()?;
/// assert_eq!(codec.to_string(), "zlib:6");
/// assert_eq!(
///     "zlib:10".parse::<Codec>().unwrap_err().to_string(),
///     "level 10 of zlib is out of range: 0 to 9",
/// );
/// # Ok::<(), bagpress_codec::Error>(())
/// ```
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Codec {
    entry: &'static Entry,
    /// In the entry's range; none for a codec without levels.
    level: Option<u32>,
    /// False for a codec that does not take it.
    full: bool,
}

impl Codec {
    /// The codecs there are, for help texts and for what workers say that they have.
    pub fn all() -> impl Iterator<Item = &'static CodecInfo> {
        REGISTRY.iter().map(|entry| &entry.info)
    }

    /// The name without the level: `zlib`, `gzip`, `store` or `noop`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.entry.info.name
    }

    /// The level, or nothing for a codec without levels.
    #[must_use]
    pub fn level(&self) -> Option<u32> {
        self.level
    }

    /// Whether every segment is compressed, also one in which a look finds nothing to win (`,full`): for comparisons
    /// that shall do the same work. Always false for a codec that never stores a segment unread.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// What the name of an output file gets, with its dot: `.zz` for zlib, `.gz` for gzip, nothing
    /// for the others.
    #[must_use]
    pub fn extension(&self) -> &'static str {
        self.entry.info.extension
    }

    /// Whether a file that begins with these two bytes may be an output of this codec; always, for one that has no
    /// format of its own.
    #[must_use]
    pub fn may_begin_with(&self, begin: &[u8; 2]) -> bool {
        (self.entry.may_begin_with)(begin)
    }

    /// The library that makes the bytes, its version, and the revision of our own framing, such as
    /// `zlib-rs/0.6.8+2`.
    ///
    /// Equal text promises equal output for equal input and an equal codec: its name, its level and whether it is
    /// [full](Self::is_full). So `zlib:6` and `zlib:6,full` have the same text, as `zlib:6` and `zlib:9` have, though
    /// their outputs differ. With `full` they are those that revision 1 made. The version is the one that is linked: a
    /// test holds the constant against `Cargo.lock`.
    #[must_use]
    pub fn library(&self) -> String {
        self.entry.info.library.to_owned()
    }

    /// Whether the codec throws its input away (noop): there is an outcome, but never an output.
    #[must_use]
    pub fn stores_nothing(&self) -> bool {
        self.entry.stores_nothing
    }

    /// The most bytes that `input_bytes` can become, framing included, if they are cut at
    /// [`SEGMENT_BYTES`](crate::SEGMENT_BYTES).
    ///
    /// For zlib and gzip that is `input + input/2048 + 64`, at every level; store and noop add
    /// nothing.
    #[must_use]
    pub fn output_bytes_max(&self, input_bytes: u64) -> u64 {
        (self.entry.output_bytes_max)(input_bytes)
    }

    /// Begins to compress a stream.
    #[must_use]
    pub fn encoder(&self) -> Box<dyn Encoder> {
        (self.entry.encoder)(self.level.unwrap_or_default(), self.full)
    }

    /// Begins to decompress a stream; any level's, and any maker's.
    #[must_use]
    pub fn decoder(&self) -> Box<dyn Decoder> {
        (self.entry.decoder)()
    }

    /// Begins to make one file of blocks: of what encoders of this codec made of its parts.
    #[must_use]
    pub fn joiner(&self) -> Joiner {
        Joiner::new(self.seam())
    }

    /// Continues a file that another joiner of an equal codec left at `joined`, and of which
    /// [`Joined::output_bytes`] are there.
    #[must_use]
    pub fn resume_joiner(&self, joined: Joined) -> Joiner {
        Joiner::resume(self.seam(), joined)
    }

    fn seam(&self) -> Seam {
        (self.entry.seam)(self.level.unwrap_or_default())
    }
}

impl PartialEq for Codec {
    fn eq(&self, other: &Self) -> bool {
        (self.name(), self.level, self.full) == (other.name(), other.level, other.full)
    }
}

impl Eq for Codec {}

impl Hash for Codec {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.name(), self.level, self.full).hash(state);
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = self.level.map(|level| format!(":{level}")).unwrap_or_default();
        let full = if self.full { FULL_SUFFIX } else { "" };
        formatter.pad(&format!("{}{level}{full}", self.name()))
    }
}

impl fmt::Debug for Codec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Codec({self})")
    }
}

impl FromStr for Codec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (text, switch) = split_once(text, ',');
        let (name, level) = split_once(text, ':');
        let entry = REGISTRY.iter().find(|entry| entry.info.name == name).ok_or_else(|| {
            let known: Vec<_> = Self::all().map(|info| info.name).collect();
            Error::UnknownCodec { name: name.to_owned(), known: known.join(", ") }
        })?;
        Ok(Self {
            entry,
            level: parse_level(&entry.info, level)?,
            full: parse_switch(&entry.info, switch)?,
        })
    }
}

fn split_once(text: &str, separator: char) -> (&str, Option<&str>) {
    text.split_once(separator).map_or((text, None), |(front, back)| (front, Some(back)))
}

fn parse_switch(info: &CodecInfo, switch: Option<&str>) -> Result<bool, Error> {
    let hint = match switch {
        None => return Ok(false),
        Some(FULL) if info.takes_full => return Ok(true),
        Some(FULL) => "it has no look that could be left out",
        Some(_) if info.takes_full => "only `,full` may follow",
        Some(_) => "nothing may follow its name",
    };
    Err(Error::BadSwitch { codec: info.name, switch: switch.unwrap_or_default().to_owned(), hint })
}

fn parse_level(info: &CodecInfo, level: Option<&str>) -> Result<Option<u32>, Error> {
    match (info.levels, level) {
        (Some(levels), None) => Ok(Some(levels.default)),
        (Some(levels), Some(text)) => text
            .parse()
            .ok()
            // One text for one codec: no `+6`, no `06`.
            .filter(|level: &u32| level.to_string() == text)
            .filter(|level| (levels.min..=levels.max).contains(level))
            .map(Some)
            .ok_or_else(|| Error::LevelOutOfRange {
                codec: info.name,
                level: text.to_owned(),
                level_min: levels.min,
                level_max: levels.max,
            }),
        (None, None) => Ok(None),
        (None, Some(text)) => Err(Error::TakesNoLevel { codec: info.name, level: text.to_owned() }),
    }
}

impl TryFrom<String> for Codec {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Codec> for String {
    fn from(codec: Codec) -> Self {
        codec.to_string()
    }
}

/// Decompresses a whole stream that is in memory: a convenience for tests and small data.
///
/// The output is unbounded; for anything from outside use [`Codec::decoder`] and a bound.
///
/// # Errors
///
/// Those of [`Decoder`]: [`Error::Corrupt`], [`Error::EndedEarly`] and [`Error::TrailingBytes`].
pub fn decompress_all(codec: &Codec, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut decoder = codec.decoder();
    let mut output = Vec::new();
    let mut rest = bytes;
    loop {
        let before = output.len();
        let consumed = decoder.read(rest, &mut output, SEGMENT_BYTES)?;
        rest = &rest[consumed..];
        if consumed == 0 && output.len() == before {
            break;
        }
    }
    decoder.finish()?;
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        text.parse::<Codec>().unwrap_err().to_string()
    }

    #[test]
    fn every_codec_parses_as_it_prints() {
        for info in Codec::all() {
            let bare: Codec = info.name.parse().unwrap();
            assert_eq!(bare.level(), info.levels.map(|levels| levels.default));
            let levels = info.levels.map_or(vec![], |levels| (levels.min..=levels.max).collect());
            for level in levels {
                let text = format!("{}:{level}", info.name);
                let codec: Codec = text.parse().unwrap();
                assert_eq!(codec.to_string(), text);
                assert_eq!(codec.level(), Some(level));
                let full: Codec = format!("{text},full").parse().unwrap();
                assert_eq!(full.to_string(), format!("{text},full"));
                assert_eq!((full.level(), full.is_full()), (Some(level), true));
                assert!(!codec.is_full() && codec != full);
            }
        }
    }

    #[test]
    fn a_name_without_a_level_means_six() {
        assert_eq!("zlib".parse::<Codec>(), "zlib:6".parse());
        assert_eq!("gzip".parse::<Codec>(), "gzip:6".parse());
        assert_eq!("gzip,full".parse::<Codec>().unwrap().to_string(), "gzip:6,full");
    }

    #[test]
    fn a_refusal_says_what_would_do() {
        assert_eq!(refusal("zlib:10"), "level 10 of zlib is out of range: 0 to 9");
        assert_eq!(refusal("gzip:fast"), "level fast of gzip is out of range: 0 to 9");
        assert_eq!(refusal("zlib:"), "level  of zlib is out of range: 0 to 9");
        assert_eq!(refusal("zlib:06"), "level 06 of zlib is out of range: 0 to 9");
        assert_eq!(refusal("lzma"), "unknown codec `lzma`: known are zlib, gzip, store, noop");
        assert_eq!(refusal("store:3"), "codec store takes no level, but was given `3`");
        assert_eq!(refusal("zlib:10,full"), "level 10 of zlib is out of range: 0 to 9");
        assert_eq!(refusal("zlib:6,fast"), "codec zlib takes no `,fast`: only `,full` may follow");
        assert_eq!(refusal("zlib:6,"), "codec zlib takes no `,`: only `,full` may follow");
        assert_eq!(
            refusal("gzip,full,full"),
            "codec gzip takes no `,full,full`: only `,full` may follow"
        );
        for name in ["store", "noop"] {
            assert_eq!(
                refusal(&format!("{name},full")),
                format!("codec {name} takes no `,full`: it has no look that could be left out")
            );
        }
        assert_eq!(refusal("store,x"), "codec store takes no `,x`: nothing may follow its name");
    }

    #[test]
    fn full_is_part_of_what_makes_codecs_equal() {
        let codecs: Vec<Codec> =
            ["zlib:6", "zlib:6,full", "gzip:6,full"].map(|text| text.parse().unwrap()).into();
        let set: std::collections::HashSet<_> = codecs.iter().chain(&codecs).collect();
        assert_eq!(set.len(), 3);
    }

    #[test]
    fn help_lists_names_and_ranges() {
        let help: Vec<_> = Codec::all().map(ToString::to_string).collect();
        assert_eq!(help, ["zlib:0..9[,full]", "gzip:0..9[,full]", "store", "noop"]);
    }

    #[test]
    fn library_is_the_one_that_is_linked() {
        let lock = include_str!("../../Cargo.lock");
        let version = lock
            .split("[[package]]")
            .find(|package| package.contains("name = \"zlib-rs\""))
            .and_then(|package| package.split("version = \"").nth(1))
            .and_then(|rest| rest.split('"').next())
            .unwrap();
        let library = "zlib".parse::<Codec>().unwrap().library();
        assert_eq!(library.split('+').next().unwrap(), format!("zlib-rs/{version}"));
    }

    #[test]
    fn an_invalid_codec_cannot_arrive_from_the_wire() {
        use serde::de::IntoDeserializer;
        use serde::de::value::{Error as Invalid, StrDeserializer};

        let read = |text: &'static str| {
            let text: StrDeserializer<'_, Invalid> = text.into_deserializer();
            Codec::deserialize(text)
        };
        assert_eq!(read("gzip:9").unwrap(), "gzip:9".parse().unwrap());
        assert!(read("gzip:9,full").unwrap().is_full());
        assert!(read("noop,full").unwrap_err().to_string().contains("takes no `,full`"));
        assert!(read("zlib:10").unwrap_err().to_string().contains("out of range: 0 to 9"));
    }
}
