//! The files of a bag: found, listed, and looked up by index without being held in memory.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bagpress_broker::limits;
use bagpress_broker::result::Failed;
use bagpress_codec::{Digest, Hasher};
use bagpress_objstore::staging::{PART_DIR, Replaced, mtime_ns};
use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use walkdir::WalkDir;

use crate::Usage;

/// Every so many lines the place of one is remembered: 500 KB for a million files.
const STRIDE: u32 = 16;

/// One file of a bag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputEntry {
    /// Its absolute path.
    #[serde(serialize_with = "write_path", deserialize_with = "read_path")]
    pub path: PathBuf,
    /// Where its output belongs, below the outputs' folder and without the codec's extension.
    #[serde(serialize_with = "write_path", deserialize_with = "read_path")]
    pub target: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its modification time, ns since 1970.
    pub mtime_ns: i64,
    /// Its permission bits.
    pub mode: u32,
    /// Its inode.
    pub inode: u64,
    /// Why it is not run at all: what was known of it when the bag was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Failed>,
    /// The file that had its output's name then, and that the output is to replace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Replaced>,
}

/// A path is a string; one that is not UTF-8 is an object with its bytes in base64.
fn write_path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    match path.to_str() {
        Some(text) => serializer.serialize_str(text),
        None => serializer.collect_map([("base64", BASE64.encode(path.as_os_str().as_bytes()))]),
    }
}

fn read_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Bytes { base64: String },
    }
    match Written::deserialize(deserializer)? {
        Written::Text(text) => Ok(text.into()),
        Written::Bytes { base64 } => {
            let bytes = BASE64.decode(base64.as_bytes()).map_err(serde::de::Error::custom)?;
            Ok(OsString::from_vec(bytes).into())
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// How many files.
    pub(crate) files: u32,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Bytes of the largest.
    pub(crate) largest: u64,
    /// Symbolic links, special files and folders of part files that were left out.
    pub(crate) skipped: u64,
    /// Digest of the list.
    pub(crate) list: Digest,
}

/// Finds the files of `paths` and writes their list to `list`.
///
/// Paths map as `cp -r` does: a folder keeps its last component. `out`, where the outputs go, is left
/// out if it lies inside a folder. The order is the file names' own, so that equal folders make equal
/// lists.
///
/// # Errors
///
/// [`Usage`]: no such path, nothing to do, two inputs with one target, too many files.
pub(crate) fn find(paths: &[PathBuf], list: &Path, out: Option<&Path>) -> Result<Found> {
    let file = File::create(list)
        .with_context(|| format!("write {}", bagpress_broker::quote::name(list)))?;
    let mut finder = Finder {
        writer: BufWriter::new(file),
        hasher: Hasher::new(),
        targets: HashMap::new(),
        found: Found { files: 0, bytes: 0, largest: 0, skipped: 0, list: Digest::of(b"") },
        out: out.map(Path::to_owned),
    };
    for path in paths {
        finder.walk(path)?;
    }
    let Finder { mut writer, hasher, mut found, .. } = finder;
    writer.flush().with_context(|| format!("write {}", bagpress_broker::quote::name(list)))?;
    writer
        .get_ref()
        .sync_all()
        .with_context(|| format!("write {}", bagpress_broker::quote::name(list)))?;
    if found.files == 0 {
        return Err(Usage::error(
            "there is no regular file in what was named",
            "name files, or folders with files in them",
        ));
    }
    found.list = hasher.finish();
    Ok(found)
}

/// Refuses before anything is read: a million files are not walked to find a typing error.
pub(crate) fn check_roots(paths: &[PathBuf]) -> Result<()> {
    let mut targets: HashMap<OsString, &Path> = HashMap::new();
    for path in paths {
        fs::symlink_metadata(path).map_err(|error| {
            Usage::error(
                format!("no such input: {}: {error}", bagpress_broker::quote::name(path)),
                "name files and folders that exist",
            )
        })?;
        if let Some(other) = targets.insert(last_component(path)?, path) {
            return Err(same_target(other, path));
        }
    }
    Ok(())
}

fn same_target(one: &Path, other: &Path) -> anyhow::Error {
    Usage::error(
        format!(
            "{} and {} would have the same output",
            bagpress_broker::quote::name(one),
            bagpress_broker::quote::name(other)
        ),
        "give them to different runs, or name a folder above both",
    )
}

/// The name that an input keeps below the outputs' folder; also of `.` and `..`.
fn last_component(path: &Path) -> Result<OsString> {
    if let Some(name) = path.file_name() {
        return Ok(name.to_owned());
    }
    let absolute = path
        .canonicalize()
        .with_context(|| format!("find {}", bagpress_broker::quote::name(path)))?;
    Ok(absolute.file_name().unwrap_or_else(|| "root".as_ref()).to_owned())
}

struct Finder {
    writer: BufWriter<File>,
    hasher: Hasher,
    /// Targets of files that were named one by one; those below one folder cannot collide.
    targets: HashMap<PathBuf, PathBuf>,
    found: Found,
    out: Option<PathBuf>,
}

impl Finder {
    fn walk(&mut self, root: &Path) -> Result<()> {
        let absolute = std::path::absolute(root)
            .with_context(|| format!("find {}", bagpress_broker::quote::name(root)))?;
        let name = PathBuf::from(last_component(root)?);
        let out = self.out.clone();
        // The root itself may be a link: who names one means what it leads to.
        let followed = fs::metadata(&absolute).is_ok_and(|m| m.is_file());
        let walker = WalkDir::new(&absolute).follow_root_links(true).sort_by_file_name();
        let mut walker = walker
            .into_iter()
            .filter_entry(move |entry| out.as_ref().is_none_or(|out| entry.path() != out));
        while let Some(entry) = walker.next() {
            let entry = entry.map_err(|error| {
                Usage::error(
                    format!("an input folder cannot be read: {error}"),
                    "give yourself permission, or leave that folder out",
                )
            })?;
            if entry.file_type().is_dir() {
                // What another bag has not finished there is nobody's file yet.
                if entry.depth() > 0 && entry.file_name() == PART_DIR {
                    self.found.skipped += 1;
                    walker.skip_current_dir();
                }
                continue;
            }
            let named = followed && entry.depth() == 0;
            if !(entry.file_type().is_file() || named) {
                self.found.skipped += 1;
                continue;
            }
            let relative = entry.path().strip_prefix(&absolute).unwrap_or(entry.path());
            let target =
                if relative.as_os_str().is_empty() { name.clone() } else { name.join(relative) };
            let metadata = fs::metadata(entry.path());
            let metadata = metadata.with_context(|| {
                format!("look at {}", bagpress_broker::quote::name(entry.path()))
            })?;
            self.add(entry.path(), target, &metadata)?;
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, target: PathBuf, metadata: &fs::Metadata) -> Result<()> {
        if target.components().count() == 1
            && let Some(other) = self.targets.insert(target.clone(), path.to_owned())
        {
            return Err(same_target(&other, path));
        }
        if metadata.len() > limits::INPUT_BYTES_MAX {
            return Err(Usage::error(
                format!(
                    "{} has {} bytes; at most {} are allowed",
                    bagpress_broker::quote::name(path),
                    metadata.len(),
                    limits::INPUT_BYTES_MAX
                ),
                "split it, or leave it out",
            ));
        }
        if self.found.files >= limits::BAG_TASKS_MAX {
            return Err(Usage::error(
                format!("there are more than {} files", limits::BAG_TASKS_MAX),
                "give them to several runs",
            ));
        }
        let entry = InputEntry {
            path: path.to_owned(),
            target,
            bytes: metadata.len(),
            mtime_ns: mtime_ns(metadata),
            mode: metadata.mode() & 0o7777,
            inode: metadata.ino(),
            refused: None,
            replaces: None,
        };
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        self.hasher.update(&line);
        self.writer.write_all(&line).context("write the list of inputs")?;
        self.found.files += 1;
        self.found.bytes += entry.bytes;
        self.found.largest = self.found.largest.max(entry.bytes);
        Ok(())
    }
}

/// The list of a bag's files, on disk.
#[derive(Debug)]
pub struct InputList {
    path: PathBuf,
    file: File,
    /// Where every [`STRIDE`]th line begins, and where the last one ends.
    places: Vec<u64>,
}

impl InputList {
    /// Opens the list.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut reader = BufReader::with_capacity(256 * 1024, &file);
        let (mut places, mut at, mut line) = (Vec::new(), 0, 0);
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            let read = reader.read_until(b'\n', &mut buffer)?;
            if read == 0 {
                places.push(at);
                return Ok(Self { path: path.to_owned(), file, places });
            }
            if line % STRIDE == 0 {
                places.push(at);
            }
            at += read as u64;
            line += 1;
        }
    }

    /// The file of task `index`.
    ///
    /// # Errors
    ///
    /// If there is none, or the list cannot be read.
    pub fn get(&self, index: u32) -> io::Result<InputEntry> {
        let none = || io::Error::other(format!("the list has no file {index}"));
        let at = (index / STRIDE) as usize;
        let [from, to] = self.places.get(at..at + 2).ok_or_else(none)? else { return Err(none()) };
        let mut block = vec![0; usize::try_from(to - from).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut block, *from)?;
        let line = block.split(|byte| *byte == b'\n').nth((index % STRIDE) as usize);
        let line = line.filter(|line| !line.is_empty()).ok_or_else(none)?;
        serde_json::from_slice(line).map_err(io::Error::other)
    }

    /// All files, in order.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn entries(
        &self,
    ) -> io::Result<impl Iterator<Item = io::Result<InputEntry>> + use<>> {
        let reader = BufReader::with_capacity(64 * 1024, File::open(&self.path)?);
        Ok(reader.lines().map(|line| serde_json::from_str(&line?).map_err(io::Error::other)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("doc/deep er")).unwrap();
        fs::write(root.join("doc/a.txt"), b"a").unwrap();
        fs::write(root.join("doc/deep er/ü.txt"), b"").unwrap();
        fs::write(root.join("doc").join(OsString::from_vec(b"bad\xff".to_vec())), b"xy").unwrap();
        symlink("a.txt", root.join("doc/link")).unwrap();
        fs::write(root.join("single"), b"s").unwrap();
        folder
    }

    #[test]
    fn folders_keep_their_last_component_and_every_name_reads_back() {
        let folder = tree();
        let list = folder.path().join("list");
        let paths = [folder.path().join("doc"), folder.path().join("single")];
        let found = find(&paths, &list, None).unwrap();
        assert_eq!((found.files, found.bytes, found.skipped, found.largest), (4, 4, 1, 2));
        let inputs = InputList::open(&list).unwrap();
        let entries: Vec<_> = inputs.entries().unwrap().map(Result::unwrap).collect();
        let targets: Vec<_> =
            entries.iter().map(|entry| entry.target.as_os_str().as_bytes()).collect();
        let wanted: [&[u8]; 4] =
            [b"doc/a.txt", b"doc/bad\xff", "doc/deep er/ü.txt".as_bytes(), b"single"];
        assert_eq!(targets, wanted);
        for (index, entry) in entries.iter().enumerate() {
            assert_eq!(inputs.get(u32::try_from(index).unwrap()).unwrap(), *entry);
        }
        assert!(inputs.get(4).is_err());
    }

    #[test]
    fn every_index_of_a_long_list_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("many");
        fs::create_dir(&root).unwrap();
        for number in 0..100 {
            fs::write(root.join(format!("{number:03}")), vec![0; number]).unwrap();
        }
        let list = folder.path().join("list");
        assert_eq!(find(&[root], &list, None).unwrap().files, 100);
        let inputs = InputList::open(&list).unwrap();
        for index in [0, 1, 15, 16, 17, 63, 64, 99] {
            assert_eq!(inputs.get(index).unwrap().bytes, u64::from(index));
        }
        assert!(inputs.get(100).is_err() && inputs.get(112).is_err());
    }

    #[test]
    fn the_output_folder_is_left_out_of_its_own_input() {
        let folder = tree();
        let out = folder.path().join("doc/deep er");
        let list = folder.path().join("list");
        let found = find(&[folder.path().join("doc")], &list, Some(&out)).unwrap();
        assert_eq!(found.files, 2);
    }

    #[test]
    fn part_files_of_a_bag_that_is_not_finished_are_no_inputs() {
        let folder = tree();
        let (doc, list) = (folder.path().join("doc"), folder.path().join("list"));
        let before = find(std::slice::from_ref(&doc), &list, None).unwrap();
        let parts = doc.join("deep er").join(PART_DIR).join("other-abcdefgh");
        fs::create_dir_all(&parts).unwrap();
        fs::write(parts.join("0.0-x"), b"half").unwrap();
        let found = find(&[doc], &list, None).unwrap();
        assert_eq!(found, Found { skipped: before.skipped + 1, ..before });
    }

    #[test]
    fn one_target_for_two_inputs_is_refused_with_both_names() {
        let folder = tree();
        let other = folder.path().join("deep");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("single"), b"other").unwrap();
        let paths = [folder.path().join("single"), other.join("single")];
        let error = check_roots(&paths).unwrap_err().to_string();
        assert!(paths.iter().all(|p| error.contains(p.to_str().unwrap())), "{error}");
    }
}
