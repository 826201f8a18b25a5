//! The tree of a bag's files, as the bag's bucket keeps it for whoever restores them without the run's folder: names, modes, times and owners.

use std::fs::{self, File};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::run_folder::inputs::folders::{self, FolderEntry};
use crate::run_folder::inputs::stream::Recorded;
use crate::run_folder::inputs::{InputEntry, read_target, write_path};

/// Most bytes of a line: two for each of a path, and what else is said of it.
const LINE_BYTES_MAX: u64 = 16 * 1024;
/// Most lines of folders for each file, and besides, for those without a file: folders are nested less than that deep on average, by far.
const FOLDERS_EACH: usize = 16;
const FOLDERS_MORE: usize = 1_000_000;

/// One line: a file, of which the first is that of task 0, or a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    /// Where it belongs.
    #[serde(serialize_with = "write_path", deserialize_with = "read_target")]
    target: PathBuf,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    folder: bool,
    /// None of what is no file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attributes: Option<Recorded>,
}

/// What is known of a bag's files.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    /// Where each file belongs, and what it was like, by task.
    pub(crate) files: Vec<(Option<PathBuf>, Option<Recorded>)>,
    /// The folders, the deepest first.
    pub(crate) folders: Vec<FolderEntry>,
}

/// Writes the tree of a list of files, each as it is `now`, and of a list of folders without a file. Blocks.
///
/// # Errors
///
/// If a list cannot be read, or `to` fails.
pub(crate) fn write(
    inputs: impl Iterator<Item = io::Result<InputEntry>>,
    now: impl Fn(u32, InputEntry) -> InputEntry,
    empty: Option<File>,
    mut to: impl Write,
) -> io::Result<()> {
    let mut last = PathBuf::new();
    for (index, entry) in (0..).zip(inputs) {
        let entry = now(index, entry?);
        if entry.is_file() {
            for line in folders_of(&entry, &last) {
                write_line(&mut to, &line)?;
            }
            entry.target.parent().unwrap_or(Path::new("")).clone_into(&mut last);
        }
        let known = entry.is_file() && entry.is_seen();
        let InputEntry { target, mode, mtime_ns, owner, .. } = entry;
        let attributes = known.then_some(Recorded { mode, mtime_ns, owner });
        write_line(&mut to, &Line { target, folder: false, attributes })?;
    }
    for entry in empty.into_iter().flat_map(folders::entries) {
        write_line(&mut to, &folder(entry?))?;
    }
    Ok(())
}

fn write_line(to: &mut impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *to, line)?;
    to.write_all(b"\n")
}

fn folder(entry: FolderEntry) -> Line {
    let FolderEntry { target, mode, mtime_ns, owner, .. } = entry;
    Line { target, folder: true, attributes: Some(Recorded { mode, mtime_ns, owner }) }
}

/// The folders that the file's output is to lie in, as far as those of the file have their names and can be looked at, and that of the file
/// before, which lies in `last`, has not named.
fn folders_of(entry: &InputEntry, last: &Path) -> impl Iterator<Item = Line> {
    let targets = entry.target.ancestors().skip(1);
    let targets = targets.take_while(|folder| !last.starts_with(folder));
    targets.zip(entry.path.ancestors().skip(1)).filter_map(|(target, source)| {
        let same = target.file_name() == source.file_name();
        let metadata = fs::metadata(source).ok().filter(|_| same)?;
        let entry = FolderEntry::new(target.to_owned(), source, &metadata);
        // Its owner must be able to write into it until the end.
        Some(folder(FolderEntry { mode: entry.mode | 0o700, ..entry }))
    })
}

/// Reads a tree that is to have so many files.
///
/// # Errors
///
/// `InvalidData` if it is none, or that of another bag.
pub(crate) fn read(mut from: impl BufRead, files: u32) -> io::Result<Tree> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
    let (mut tree, mut line) = (Tree::default(), Vec::new());
    let folders_max = files as usize * FOLDERS_EACH + FOLDERS_MORE;
    loop {
        line.clear();
        let read = io::Read::take(&mut from, LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        let Line { target, folder, attributes } = serde_json::from_slice(&line)?;
        // None runs as somebody else.
        let attributes = attributes.map(|of| Recorded { mode: of.mode & 0o1777, ..of });
        if target.file_name().is_none() {
            return Err(invalid("a name in it is none"));
        }
        if !folder {
            tree.files.push((Some(target), attributes));
        } else if let Some(Recorded { mode, mtime_ns, owner }) = attributes {
            let source = PathBuf::new();
            tree.folders.push(FolderEntry { target, source, mode, mtime_ns, owner });
        }
        if tree.files.len() > files as usize || tree.folders.len() > folders_max {
            return Err(invalid("it has more files or folders than the bag has tasks"));
        }
    }
    if tree.files.len() < files as usize {
        return Err(invalid("it has fewer files than the bag has tasks"));
    }
    // A folder comes as often as the files before it were in another one.
    let depth = |folder: &FolderEntry| folder.target.components().count();
    tree.folders.sort_by(|a, b| depth(b).cmp(&depth(a)).then_with(|| a.target.cmp(&b.target)));
    tree.folders.dedup_by(|again, first| again.target == first.target);
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::run_folder::inputs::Generate;

    #[test]
    fn a_tree_has_every_file_with_its_mode_and_time_and_every_folder_once() {
        let place = tempfile::tempdir().unwrap();
        let place = place.path();
        fs::create_dir_all(place.join("in/a/b")).unwrap();
        fs::set_permissions(place.join("in/a"), fs::Permissions::from_mode(0o550)).unwrap();
        let file = |path: &str, mode| {
            let entry = InputEntry::named(place.join(path), PathBuf::from(path));
            InputEntry { mode, mtime_ns: 1_500_000_000_123_456_789, inode: 1, ..entry }
        };
        let generated = Generate { data: bagpress_codec::DataKind::Zeros, seed: 0, bytes: 1 };
        let entries = [
            file("in/a/b/1", 0o640),
            file("in/a/2", 0o444),
            file("in/a/b/3", 0o600),
            InputEntry { generate: Some(generated), ..file("made", 0) },
            InputEntry::named(place.join("in/refused"), "in/refused".into()),
            InputEntry::named(place.join("in/mended"), "in/mended".into()),
        ];
        let empty = FolderEntry {
            target: "in/empty".into(),
            source: PathBuf::new(),
            mode: 0o555,
            mtime_ns: -5,
            owner: None,
        };
        let folders = place.join("folders");
        fs::write(&folders, serde_json::to_string(&empty).unwrap() + "\n").unwrap();
        let mut written = Vec::new();
        // What was refused, and could be read later, is as it was then.
        let now = |index, entry| match index {
            5 => InputEntry { mode: 0o604, mtime_ns: 7, inode: 1, ..entry },
            _ => entry,
        };
        let inputs = entries.into_iter().map(Ok);
        write(inputs, now, Some(File::open(folders).unwrap()), &mut written).unwrap();
        let lines = String::from_utf8(written.clone()).unwrap();
        assert_eq!(lines.matches(r#""target":"in/a","folder""#).count(), 1, "{lines}");
        let tree = read(&written[..], 6).unwrap();
        let files: Vec<_> = tree
            .files
            .iter()
            .map(|(target, of)| {
                let target = target.as_ref().unwrap();
                (target.to_str().unwrap(), of.map(|of| (of.mode, of.mtime_ns)))
            })
            .collect();
        let time = 1_500_000_000_123_456_789;
        let expected = [
            ("in/a/b/1", Some((0o640, time))),
            ("in/a/2", Some((0o444, time))),
            ("in/a/b/3", Some((0o600, time))),
            ("made", None),
            ("in/refused", None),
            ("in/mended", Some((0o604, 7))),
        ];
        assert_eq!(files, expected);
        let folders: Vec<_> =
            tree.folders.iter().map(|of| (of.target.to_str().unwrap(), of.mode & 0o770)).collect();
        let expected = [("in/a/b", 0o750), ("in/a", 0o750), ("in/empty", 0o550), ("in", 0o750)];
        assert_eq!(folders, expected);
        // That of another bag, or what leads out of the folder, is none.
        assert!(read(&written[..], 5).is_err() && read(&written[..], 7).is_err());
    }

    #[test]
    fn what_leads_out_of_the_folder_or_is_no_line_is_no_tree() {
        for line in [r#"{"target":"../x"}"#, r#"{"target":"x""#, "x", r#"{"target":"."}"#] {
            assert!(read(line.as_bytes(), 1).is_err(), "{line}");
        }
    }
}
