//! What the keys of a line of `--from-jsonl` may be: each says which it is, and what would do, where something else is there.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use bagpress_codec::{Codec, DataKind, Digest};
use bytesize::ByteSize;
use data_encoding::BASE64;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// What a line wants to be generated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) data: DataKind,
    pub(super) seed: u64,
    pub(super) bytes: Option<Size>,
}

/// A number of bytes, or a text such as `2MiB`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size(pub(super) u64);

/// Reads a text, or says what is wrong with it.
type Read<T> = fn(&str) -> Result<T, String>;

/// A value that is a text, a number or an object; of anything else it says what was expected.
struct Expected<T> {
    /// The key, and what it may be.
    what: &'static str,
    text: Option<Read<T>>,
    number: Option<fn(u64) -> T>,
}

impl<T> Expected<T> {
    fn text(what: &'static str, text: Read<T>) -> Self {
        Self { what, text: Some(text), number: None }
    }
}

impl<T> Visitor<'_> for Expected<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        let Some(read) = self.number else {
            return Err(E::invalid_type(serde::de::Unexpected::Unsigned(number), &self));
        };
        Ok(read(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let Some(read) = self.text else {
            return Err(E::invalid_type(serde::de::Unexpected::Str(text), &self));
        };
        read(text).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let what = "\"bytes\" to be a number from 0 on, or a text such as \"2MiB\"";
        let text = |text: &str| {
            let size: Result<ByteSize, _> = text.parse();
            let refused =
                |_| format!("\"bytes\" is {text:?}, which is no size such as \"2MiB\", from 0 on");
            Ok(Self(size.map_err(refused)?.as_u64()))
        };
        deserializer.deserialize_any(Expected { what, text: Some(text), number: Some(Self) })
    }
}

fn seed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let what = "\"seed\" to be a number from 0 on";
    deserializer.deserialize_any(Expected { what, text: None, number: Some(|seed| seed) })
}

fn data<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DataKind, D::Error> {
    let what = "\"data\" to be a text: \"random\", \"text\", \"zeros\", or a field such as \"field:f32,8x256x256\"";
    let read = |text: &str| {
        text.parse().map_err(|why: bagpress_codec::Error| {
            if text.starts_with("field") && !text.contains(':') {
                return format!(
                    "\"data\" is {text:?}, which needs its type and shape: \"{text}:f32,8x256x256\""
                );
            }
            format!("\"data\" is {text:?}: {why}")
        })
    };
    deserializer.deserialize_any(Expected::text(what, read))
}

/// What is to be generated, as an object.
struct WantedVisitor;

impl<'de> Visitor<'de> for WantedVisitor {
    type Value = Wanted;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "\"generate\" to be an object such as {\"data\":\"text\",\"seed\":7,\"bytes\":\"2MiB\"}",
        )
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Wanted, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            #[serde(deserialize_with = "data")]
            data: DataKind,
            #[serde(default, deserialize_with = "seed")]
            seed: u64,
            bytes: Option<Size>,
        }
        let Written { data, seed, bytes } = Written::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Wanted { data, seed, bytes })
    }
}

impl<'de> Deserialize<'de> for Wanted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WantedVisitor)
    }
}

/// A codec, by what the command line takes.
pub(super) fn codec<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Codec>, D::Error> {
    let what = "\"codec\" to be a text such as \"zstd:9\"";
    let read = |text: &str| {
        let refused = |why| format!("\"codec\" is {text:?}: {why}");
        text.parse().map(Some).map_err(refused)
    };
    deserializer.deserialize_any(OrNull(Expected::text(what, read)))
}

/// Takes `null` for a key that is not there.
struct OrNull<T>(Expected<Option<T>>);

impl<T> Visitor<'_> for OrNull<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_unit<E: Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Option<T>, E> {
        self.0.visit_str(text)
    }
}

/// The path of a key: a text, or an object with its bytes.
struct PathVisitor {
    what: &'static str,
    key: &'static str,
}

impl<'de> Visitor<'de> for PathVisitor {
    type Value = Option<PathBuf>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            base64: String,
        }
        let key = self.key;
        let refused = |why: String| A::Error::custom(format!("\"{key}\" is no path: {why}"));
        let written = Written::deserialize(MapAccessDeserializer::new(map));
        let Written { base64 } = written.map_err(|why| refused(why.to_string()))?;
        let bytes = BASE64.decode(base64.as_bytes());
        let bytes = bytes.map_err(|why| refused(format!("{base64:?} is no base64: {why}")))?;
        Ok(Some(OsString::from_vec(bytes).into()))
    }
}

pub(super) fn file<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<PathBuf>, D::Error> {
    let what = "\"file\" to be a path, or {\"base64\":\"…\"} of one that is not UTF-8";
    deserializer.deserialize_any(PathVisitor { what, key: "file" })
}

pub(super) fn to<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let what = "\"to\" to be a path, or {\"base64\":\"…\"} of one that is not UTF-8";
    deserializer.deserialize_any(PathVisitor { what, key: "to" })
}

pub(super) fn reference<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let what = "\"reference\" to be a text such as \"obj://BUCKET/NAME\"";
    let read = |text: &str| Ok(Some(text.to_owned()));
    deserializer.deserialize_any(OrNull(Expected::text(what, read)))
}

pub(super) fn digest<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Digest>, D::Error> {
    let what = "\"digest\" to be a text such as \"sha256:…\", with 64 hexadecimal digits";
    let read = |text: &str| {
        let digest: Result<Digest, bagpress_codec::Error> = text.parse();
        digest.map(Some).map_err(|why| format!("\"digest\" is {text:?}: {why}"))
    };
    deserializer.deserialize_any(OrNull(Expected::text(what, read)))
}
