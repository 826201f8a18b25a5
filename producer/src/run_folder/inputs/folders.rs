//! Folders without a file in them, which no output makes: they are made, so that a tree comes back whole.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use bagpress_broker::quote;
use bagpress_objstore::beneath::Dir;
use bagpress_objstore::staging::{Owner, apply_dir_metadata, metadata_of_folders, mtime_ns};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::{read_path, read_target, write_path};
use crate::error::message;

/// One line of `folders.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderEntry {
    /// Where it belongs, below the outputs' folder.
    #[serde(serialize_with = "write_path", deserialize_with = "read_target")]
    pub(crate) target: PathBuf,
    /// The folder that it is made after, absolute. Those above lend their modes to those above it.
    #[serde(default, serialize_with = "write_path", deserialize_with = "read_path")]
    pub(crate) source: PathBuf,
    /// Its permission bits.
    pub(crate) mode: u32,
    /// Its modification time, ns since 1970.
    pub(crate) mtime_ns: i64,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<Owner>,
}

impl FolderEntry {
    /// The folder that is to be as `metadata` says.
    pub(crate) fn new(target: PathBuf, source: &Path, metadata: &fs::Metadata) -> Self {
        let (mode, mtime_ns) = (metadata.mode() & 0o1777, mtime_ns(metadata));
        Self { target, source: source.to_owned(), mode, mtime_ns, owner: Some(Owner::of(metadata)) }
    }
}

/// What making them came to.
#[derive(Debug, Default)]
pub(crate) struct Made {
    /// How many could not be made.
    pub(crate) failed: u64,
    /// The first of these, and why.
    pub(crate) first: Option<String>,
}

/// Makes the folders that no output makes. One that cannot be made is said, and no reason to end.
///
/// # Errors
///
/// If the list cannot be read.
pub(crate) async fn make_or_say(list: Option<File>, root: &Path) -> Result<()> {
    let Some(list) = list else { return Ok(()) };
    let root = Dir::open(root).with_context(|| format!("open {}", quote::name(root)))?;
    let made = spawn_blocking(move || make(list, &root)).await?;
    let Made { failed, first } = made.context("read the list of folders")?;
    if let Some(first) = first {
        message(&format!("note: {failed} empty folders could not be made, such as {first}"));
    }
    Ok(())
}

/// Makes the folders of `list` beneath `root`. Safe to repeat; one that is there stays as it is.
///
/// # Errors
///
/// If the list cannot be read.
pub(crate) fn make(list: File, root: &Dir) -> io::Result<Made> {
    let (mut made, mut implicitly) = (Made::default(), HashSet::new());
    for entry in entries(list) {
        let entry = entry?;
        if let Err(error) = make_one(&entry, root, &mut implicitly) {
            made.failed += 1;
            let why = || format!("{}: {error}", quote::name(&entry.target));
            made.first.get_or_insert_with(why);
        }
    }
    Ok(made)
}

/// Makes one, and those above it, which get their own mode and time when their line comes. No link is followed.
fn make_one(entry: &FolderEntry, root: &Dir, implicitly: &mut HashSet<PathBuf>) -> io::Result<()> {
    let mut missing = Vec::new();
    for folder in above(&entry.target) {
        match root.dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(folder),
            there => {
                there?;
                break;
            }
        }
    }
    for folder in missing.iter().rev() {
        match root.make_dir(folder) {
            // An output came first, and made it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                made?;
                implicitly.insert(folder.to_path_buf());
                let modes = metadata_of_folders(&entry.source.join("entry"), &entry.target);
                if let Some((mode, owner)) = modes.get(folder.components().count() - 1) {
                    apply_dir_metadata(&root.dir(folder)?, *mode, *owner)?;
                }
            }
        }
    }
    if !implicitly.remove(&entry.target) {
        return Ok(());
    }
    let folder = root.dir(&entry.target)?;
    folder.itself()?.set_modified(time(entry.mtime_ns))?;
    apply_dir_metadata(&folder, entry.mode, entry.owner)
}

/// A folder, and those above it, the lowest first.
fn above(target: &Path) -> impl Iterator<Item = &Path> {
    target.ancestors().take_while(|folder| !folder.as_os_str().is_empty())
}

fn time(mtime_ns: i64) -> SystemTime {
    let (seconds, nanos) = (mtime_ns.div_euclid(1_000_000_000), mtime_ns.rem_euclid(1_000_000_000));
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
    time + Duration::from_nanos(nanos.unsigned_abs())
}

/// Removes the folders of `list` beneath `root` that are empty.
///
/// # Errors
///
/// If the list cannot be read.
pub(crate) fn remove_empty(list: File, root: &Dir) -> io::Result<()> {
    for entry in entries(list) {
        remove_while_empty(&entry?.target, root);
    }
    Ok(())
}

/// Removes a folder beneath `root`, and those above it, as long as they are empty.
pub(crate) fn remove_while_empty(folder: &Path, root: &Dir) {
    for folder in above(folder) {
        // One that has something in it stays, and those above it with it.
        if root.remove_dir(folder).is_err() {
            return;
        }
    }
}

/// The lines of a list.
pub(crate) fn entries(list: File) -> impl Iterator<Item = io::Result<FolderEntry>> {
    let lines = BufReader::new(list).lines();
    lines.map(|line| serde_json::from_str(&line?).map_err(io::Error::other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Owner { uid, gid }
    }

    #[test]
    fn folders_are_made_once_with_mode_and_time_and_removed_if_empty() {
        let place = tempfile::tempdir().unwrap();
        let (list, out) = (place.path().join("folders.jsonl"), place.path().join("out"));
        fs::create_dir(&out).unwrap();
        let (listed, root) = (|| File::open(&list).unwrap(), Dir::open(&out).unwrap());
        let long_ago = -1_500_000_000;
        let lines: Vec<_> = ["a/b/c", "a/b", "a"]
            .map(|target| FolderEntry {
                target: target.into(),
                source: PathBuf::new(),
                mode: 0o750,
                mtime_ns: long_ago,
                owner: Some(owner()),
            })
            .map(|entry| serde_json::to_string(&entry).unwrap())
            .into();
        fs::write(&list, lines.join("\n")).unwrap();
        for _ in 0..2 {
            assert_eq!(make(listed(), &root).unwrap().failed, 0);
            for folder in ["a", "a/b", "a/b/c"] {
                let metadata = fs::metadata(out.join(folder)).unwrap();
                assert_eq!(metadata.mode() & 0o777, 0o750);
                assert_eq!(mtime_ns(&metadata), long_ago, "{folder}");
            }
        }
        fs::write(out.join("a/file"), b"somebody's").unwrap();
        remove_empty(listed(), &root).unwrap();
        assert!(out.join("a/file").exists() && !out.join("a/b").exists());
    }

    #[test]
    fn a_folder_that_cannot_be_made_does_not_stop_the_others() {
        let place = tempfile::tempdir().unwrap();
        let (list, out) = (place.path().join("folders.jsonl"), place.path().join("out"));
        fs::create_dir(&out).unwrap();
        fs::write(out.join("a"), b"a file in the way").unwrap();
        let lines = ["a/b", "c"]
            .map(|target| FolderEntry {
                target: target.into(),
                source: PathBuf::new(),
                mode: 0o755,
                mtime_ns: 0,
                owner: None,
            })
            .map(|entry| serde_json::to_string(&entry).unwrap());
        fs::write(&list, lines.join("\n")).unwrap();
        let made = make(File::open(&list).unwrap(), &Dir::open(&out).unwrap()).unwrap();
        assert_eq!(made.failed, 1);
        assert!(made.first.unwrap().contains("a/b") && out.join("c").is_dir());
    }
}
