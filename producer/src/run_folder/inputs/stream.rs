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

/// Endings that stand for two, that of a tar and that of a codec: ending, codec, what remains.
const OF_TARS: [(&str, &str, &str); 2] = [(".tgz", "gzip", ".tar"), (".tzst", "zstd", ".tar")];

/// Every ending, its codec, and what is in its place once the file is restored.
fn known() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let codecs = Codec::all().filter(|codec| !codec.extension.is_empty());
    codecs.map(|codec| (codec.extension, codec.name, "")).chain(OF_TARS)
}

/// The codec that a file's name ends in, and the name without that; none, if no codec has such an ending.
pub(crate) fn by_name(path: &Path) -> Option<(Codec, PathBuf)> {
    let name = path.file_name()?.as_bytes();
    known().find_map(|(ending, codec, instead)| {
        let before = name.strip_suffix(ending.as_bytes())?;
        let codec: Codec = codec.parse().ok()?;
        let codec = codec.of_restored(OsStr::from_bytes(before));
        let is_a_name = !matches!(before, b"" | b"." | b"..");
        let restored = [before, instead.as_bytes()].concat();
        is_a_name.then(|| (codec, path.with_file_name(OsStr::from_bytes(&restored))))
    })
}

/// A file beside `path` that would come back by the same name: only one of them can.
pub(crate) fn twin(path: &Path) -> Option<PathBuf> {
    let (_, restored) = by_name(path)?;
    let name = restored.file_name()?.as_bytes();
    let mut twins = known().filter_map(|(ending, _, instead)| {
        let before = name.strip_suffix(instead.as_bytes()).filter(|before| !before.is_empty())?;
        Some(path.with_file_name(OsStr::from_bytes(&[before, ending.as_bytes()].concat())))
    });
    twins.find(|twin| twin != path && twin.is_file())
}

/// The endings that [`by_name`] knows, for people.
pub(crate) fn endings() -> String {
    let mut all: Vec<_> = known().map(|(ending, _, _)| ending).collect();
    // `zstd` and `auto`, which stand together, have one.
    all.dedup();
    all.join(", ")
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
        assert_eq!(of("in/a.tgz").as_deref(), Some("gzip in/a.tar"));
        assert_eq!(of("a.b.tzst").as_deref(), Some("zstd a.b.tar"));
        for none in ["a.txt", "a.GZ", "gz", ".gz", "in/.gz", "...gz", "a.gz/b", "", ".tgz"] {
            assert_eq!(of(none), None, "{none}");
        }
        assert!(endings().starts_with(".zz, .gz"), "{}", endings());
    }

    #[test]
    fn files_that_would_come_back_by_one_name_are_twins() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["a.gz", "b.tgz", "b.tar.zst", "c.tzst", "c.zst"] {
            std::fs::write(at(name), name).unwrap();
        }
        assert_eq!(twin(&at("b.tgz")), Some(at("b.tar.zst")));
        assert_eq!(twin(&at("b.tar.zst")), Some(at("b.tgz")));
        for alone in ["a.gz", "c.tzst", "c.zst"] {
            assert_eq!(twin(&at(alone)), None, "{alone}");
        }
    }
}
