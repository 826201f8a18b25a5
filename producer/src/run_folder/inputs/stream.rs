//! A file that is to be restored: a stream of a codec, and what is known of what it was made of.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bagpress_broker::descriptor::Original;
use bagpress_codec::Codec;
use bagpress_objstore::staging::Owner;
use serde::{Deserialize, Serialize};

/// How many times as long as its stream a text usually is.
const USUAL_RATIO: u64 = 4;

/// What a file of a restoring bag is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// The codec that reads it.
    pub codec: Codec,
    /// What it was made of, if its run recorded that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Original>,
    /// Mode, time and owner of what it was made of, if its run recorded them. Otherwise they are the file's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Recorded>,
}

/// What a run recorded of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Its permission bits.
    pub mode: u32,
    /// Its modification time, ns since 1970.
    pub mtime_ns: i64,
    /// Whose it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

impl Stream {
    /// That of a file of which nothing is known but its codec.
    pub(crate) fn of(codec: Codec) -> Self {
        Self { codec, original: None, attributes: None }
    }

    /// How many bytes come of it, if so many are in it: as recorded, or about as many as usual. More come alone.
    pub(crate) fn output_bytes(&self, bytes: u64) -> u64 {
        self.original.map_or(bytes.saturating_mul(USUAL_RATIO), |original| original.bytes)
    }
}

/// The codec that a file's name ends in, and the name without that; none, if no codec has such an ending.
pub(crate) fn by_name(path: &Path) -> Option<(Codec, PathBuf)> {
    let name = path.file_name()?.as_bytes();
    Codec::all().filter(|codec| !codec.extension.is_empty()).find_map(|codec| {
        let before = name.strip_suffix(codec.extension.as_bytes())?;
        let codec: Codec = codec.name.parse().ok()?;
        let codec = codec.of_restored(OsStr::from_bytes(before));
        let is_a_name = !matches!(before, b"" | b"." | b"..");
        is_a_name.then(|| (codec, path.with_file_name(OsStr::from_bytes(before))))
    })
}

/// A file beside `path`, which `codec` reads, whose name without the ending of another codec is the same: only one of them
/// can come back.
pub(crate) fn twin(path: &Path, codec: &Codec) -> Option<PathBuf> {
    let (_, restored) = by_name(path)?;
    let others = Codec::all().map(|other| other.extension);
    let others = others.filter(|other| !other.is_empty() && *other != codec.extension());
    let mut twins = others.map(|ending| {
        let mut name = restored.clone().into_os_string();
        name.push(ending);
        PathBuf::from(name)
    });
    twins.find(|twin| twin.is_file())
}

/// The endings that [`by_name`] knows, for people.
pub(crate) fn endings() -> String {
    let all: Vec<_> = Codec::all().map(|codec| codec.extension).collect();
    all.into_iter().filter(|ending| !ending.is_empty()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_name_says_which_codec_and_what_it_was_called() {
        let of = |path: &str| {
            let (codec, path) = by_name(Path::new(path))?;
            Some(format!("{} {}", codec.name(), path.display()))
        };
        assert_eq!(of("in/a.txt.gz").as_deref(), Some("gzip in/a.txt"));
        assert_eq!(of("a.gz.zz").as_deref(), Some("zlib a.gz"));
        assert_eq!(of(".a.gz").as_deref(), Some("gzip .a"));
        for none in ["a.txt", "a.GZ", "gz", ".gz", "in/.gz", "...gz", "a.gz/b", ""] {
            assert_eq!(of(none), None, "{none}");
        }
        assert!(endings().starts_with(".zz, .gz"), "{}", endings());
    }
}
