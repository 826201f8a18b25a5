//! What no walk takes for inputs: what runs themselves write. Known by what it is, not by where it lies.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bagpress_broker::ids::{BagId, RunName};
use bagpress_objstore::beneath::Dir;
use bagpress_objstore::staging::PART_DIR;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::skipped::Kind;
use crate::run_folder::folder::SPECIFICATION;

/// Largest `bag.json` that is looked into.
const SPECIFICATION_BYTES_MAX: u64 = 64 * 1024;
/// How many folders are remembered.
const REMEMBERED: usize = 4096;

/// A file or a folder, whatever path leads to it: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity(u64, u64);

impl Identity {
    /// Of what is there.
    pub(crate) fn of(metadata: &fs::Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }

    /// Of what a path leads to, if it leads anywhere.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().as_ref().map(Self::of)
    }
}

/// Why a folder is not walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It is this run's own, which nobody put there.
    Own,
    /// It is named, and of this kind.
    Kind(Kind),
}

/// The folders that no walk enters.
#[derive(Debug)]
pub(crate) struct LeftOut {
    own: Option<Identity>,
    out: Option<Identity>,
    /// Of folders above listed files: whether they are left out.
    known: HashMap<PathBuf, Option<Why>>,
}

impl LeftOut {
    /// This run's own folder, and the one that receives outputs.
    pub(crate) fn new(own: Option<&Path>, out: Option<&Path>) -> Self {
        let at = |path: Option<&Path>| path.and_then(Identity::at);
        Self { own: at(own), out: at(out), known: HashMap::new() }
    }

    /// Whether a folder is left out.
    pub(crate) fn has(&self, path: &Path, metadata: &fs::Metadata) -> Option<Why> {
        let identity = Some(Identity::of(metadata));
        if identity == self.own {
            return Some(Why::Own);
        }
        if identity == self.out {
            return Some(Why::Kind(Kind::OutFolder));
        }
        if path.file_name().is_some_and(|name| name == PART_DIR) {
            return Some(Why::Kind(Kind::PartFolder));
        }
        (is_run(path) || is_run_in_the_making(path)).then_some(Why::Kind(Kind::RunFolder))
    }

    /// Whether a folder above `path` is left out. Not for being where the outputs go: a file that is named is meant, and outputs
    /// of ours are known by their names.
    pub(crate) fn has_run_above(&mut self, path: &Path) -> Option<Why> {
        let parent = path.parent()?;
        if let Some(known) = self.known.get(parent) {
            return *known;
        }
        let here = fs::metadata(parent).ok().and_then(|metadata| self.has(parent, &metadata));
        let here = here.filter(|why| *why != Why::Kind(Kind::OutFolder));
        let found = here.or_else(|| self.has_run_above(parent));
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(parent.to_owned(), found);
        found
    }
}

/// Whether a folder holds a `bag.json` that is a bag's, of whatever version.
fn is_run(path: &Path) -> bool {
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "that they are there and can be read is what counts")]
    struct Marks {
        v: u32,
        bag: BagId,
        name: RunName,
        codec: String,
        results: String,
        tasks: u32,
        data: IgnoredAny,
    }
    let specification = Dir::open(path).and_then(|dir| dir.file(Path::new(SPECIFICATION)));
    let Ok(Some(file)) = specification else { return false };
    let mut text = Vec::new();
    let read = file.take(SPECIFICATION_BYTES_MAX).read_to_end(&mut text);
    read.is_ok() && serde_json::from_slice::<Marks>(&text).is_ok()
}

/// Whether a folder is as another run makes it before it has its `bag.json`.
fn is_run_in_the_making(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    (name == "staged" || name == "objects")
        && path.join(".lock").is_file()
        && path.join("results").is_dir()
        && path.join("logs").is_dir()
}
