//! The files of a bag: found, listed, and looked up by index without being held in memory.
//!
//! ```text
//! find ─► walk | listed ─► finder: left_out, exclude, compressed, existing ─► lists: inputs.jsonl, folders.jsonl
//! ```

pub(crate) mod compressed;
pub(crate) mod existing;
pub(crate) mod find;
pub(crate) mod finder;
pub(crate) mod folders;
mod keys;
pub(crate) mod left_out;
pub(crate) mod listed;
pub(crate) mod lists;
pub(crate) mod refusal;
pub(crate) mod roots;
pub(crate) mod selection;
pub(crate) mod skipped;
pub(crate) mod stream;
mod tasks;
#[cfg(test)]
mod tests;
mod walk;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bagpress_broker::descriptor::Part;
use bagpress_broker::quote;
use bagpress_broker::result::Failed;
use bagpress_codec::{Codec, DataKind, Digest};
use bagpress_objstore::beneath::inside;
use bagpress_objstore::object_ref::Reference;
use bagpress_objstore::staging::{InputFile, Owner, Replaced};
use bagpress_objstore::tarred::Member;
use data_encoding::BASE64;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use self::stream::Stream;
use crate::run_folder::from_start::FromStart;
use crate::run_folder::packable::Packable;

/// Every so many lines the place of one is remembered: 500 KB for a million files.
const STRIDE: u32 = 16;
/// Blocks of so many lines that are kept as they were read: tasks that run at the same time lie close together, and each is
/// looked up several times.
const BLOCKS_KEPT: usize = 16;
/// Entries that are read before they are wanted.
const READ_AHEAD: usize = 256;

/// One file of a bag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputEntry {
    /// Its absolute path, without links.
    #[serde(serialize_with = "write_path", deserialize_with = "read_path")]
    pub path: PathBuf,
    /// Where its output belongs, below the outputs' folder and without the codec's extension.
    #[serde(serialize_with = "write_path", deserialize_with = "read_target")]
    pub target: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its modification time, ns since 1970.
    pub mtime_ns: i64,
    /// Its permission bits.
    pub mode: u32,
    /// Its inode.
    pub inode: u64,
    /// When it was last changed in any way, also of its name, ns since 1970 (`st_ctime`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_ns: Option<i64>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Why it is not run at all: what was known of it when the bag was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Failed>,
    /// The file that had its output's name then, and that the output is to replace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Replaced>,
    /// What it is, in a restoring bag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<Stream>,
    /// The object that it is, in a bag of references: then its path is no file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Referenced>,
    /// What a worker makes, in a bag whose list says so: then its path is no file's either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate: Option<Generate>,
    /// Its codec, if that is another one than the bag's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<Codec>,
}

/// What a worker is to make as a task's input; the task's index selects the stream of the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generate {
    /// What kind of bytes.
    pub data: DataKind,
    /// From which seed.
    pub seed: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// An object that is a task's input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referenced {
    /// Which.
    pub object: Reference,
    /// Digest of its bytes, if it was there when the bag was made, or whoever named it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What of the object it is, if that is not all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

impl Referenced {
    /// A whole object, with the digest of its bytes if that is known.
    pub(crate) fn whole(object: Reference, digest: Option<Digest>) -> Self {
        Self { object, digest, part: None }
    }

    /// Digest of what a worker reads, if it is known.
    pub(crate) fn input_digest(&self) -> Option<Digest> {
        self.part.map(|part| part.digest).or(self.digest)
    }
}

impl InputEntry {
    /// One that nothing is known of but where it is, and where its output belongs.
    pub(crate) fn named(path: PathBuf, target: PathBuf) -> Self {
        Self {
            path,
            target,
            bytes: 0,
            mtime_ns: 0,
            mode: 0,
            inode: 0,
            changed_ns: None,
            owner: None,
            refused: None,
            replaces: None,
            stream: None,
            reference: None,
            generate: None,
            codec: None,
        }
    }

    /// Whether anybody has looked at it: what is refused before that has no inode.
    pub(crate) fn is_seen(&self) -> bool {
        self.inode != 0
    }

    /// Whether its input is a file, and neither an object nor generated.
    pub(crate) fn is_file(&self) -> bool {
        self.reference.is_none() && self.generate.is_none()
    }

    /// What the tar of a pack says of the file at this `place` of it, with that `extension`.
    pub(crate) fn member(&self, place: u32, extension: &str) -> Member {
        let mut name = self.target.clone().into_os_string();
        name.push(extension);
        let mtime = u64::try_from(self.mtime_ns.div_euclid(1_000_000_000)).unwrap_or(0);
        Member { place, name: name.into(), mode: self.mode, mtime }
    }
}

impl From<InputEntry> for InputFile {
    fn from(entry: InputEntry) -> Self {
        // Lists of earlier versions, which have no owners, kept the links that lead to a file.
        let path = match (&entry.owner, entry.path.parent(), entry.path.file_name()) {
            (None, Some(folder), Some(name)) => {
                folder.canonicalize().map_or(entry.path.clone(), |folder| folder.join(name))
            }
            _ => entry.path,
        };
        let InputEntry { bytes, mtime_ns, inode, .. } = entry;
        Self { path, bytes, mtime_ns, inode, section: None }
    }
}

/// A path is a string; one that is not UTF-8 is an object with its bytes in base64.
pub(crate) fn write_path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    match path.to_str() {
        Some(text) => serializer.serialize_str(text),
        None => serializer.collect_map([("base64", BASE64.encode(path.as_os_str().as_bytes()))]),
    }
}

pub(crate) fn read_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
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

/// Where something belongs below the outputs' folder: a path that leads out of it is none.
pub(crate) fn read_target<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let target = read_path(deserializer)?;
    inside(&target).map_err(|_| {
        let target = quote::name(&target);
        serde::de::Error::custom(format!("the target {target} leads out of the outputs' folder"))
    })?;
    Ok(target)
}

/// The list of a bag's files, on disk.
#[derive(Debug)]
pub struct InputList {
    file: Arc<File>,
    /// Where every [`STRIDE`]th line begins, and where the last one ends.
    places: Vec<u64>,
    /// Each at its number modulo [`BLOCKS_KEPT`].
    kept: [Mutex<Option<Block>>; BLOCKS_KEPT],
}

/// [`STRIDE`] lines of the list, and which.
#[derive(Debug, Clone)]
struct Block {
    number: usize,
    lines: Arc<[u8]>,
}

impl InputList {
    /// The list in a file that was opened to read it.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn of(file: File) -> io::Result<Self> {
        let file = Arc::new(file);
        let mut reader = BufReader::with_capacity(256 * 1024, FromStart::of(file.clone()));
        let (mut places, mut at, mut line) = (Vec::new(), 0, 0);
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            let read = reader.read_until(b'\n', &mut buffer)?;
            if read == 0 {
                places.push(at);
                return Ok(Self { file, places, kept: Default::default() });
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
        let block = self.block((index / STRIDE) as usize)?.ok_or_else(none)?;
        let line = block.split(|byte| *byte == b'\n').nth((index % STRIDE) as usize);
        let line = line.filter(|line| !line.is_empty()).ok_or_else(none)?;
        serde_json::from_slice(line).map_err(io::Error::other)
    }

    /// A block's lines; none behind the last one.
    fn block(&self, number: usize) -> io::Result<Option<Arc<[u8]>>> {
        let kept =
            || self.kept[number % BLOCKS_KEPT].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = kept().as_ref().filter(|block| block.number == number) {
            return Ok(Some(block.lines.clone()));
        }
        let Some([from, to]) = self.places.get(number..number + 2) else { return Ok(None) };
        let mut lines = vec![0; usize::try_from(to - from).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut lines, *from)?;
        let block = Block { number, lines: lines.into() };
        let lines = block.lines.clone();
        *kept() = Some(block);
        Ok(Some(lines))
    }

    /// All files, in order, read by a thread of their own.
    pub(crate) fn stream(&self) -> mpsc::Receiver<io::Result<InputEntry>> {
        let (entries, receiver) = mpsc::channel(READ_AHEAD);
        let mut list = self.entries();
        // Ends early when nobody wants the rest.
        spawn_blocking(move || list.all(|entry| entries.blocking_send(entry).is_ok()));
        receiver
    }

    /// What of all files decides which are delivered together, in order.
    pub(crate) fn packable(&self) -> impl Iterator<Item = io::Result<Packable>> + use<> {
        #[derive(Deserialize)]
        struct InObject {
            digest: Option<Digest>,
            part: Option<IgnoredAny>,
        }
        #[derive(Default, Deserialize)]
        struct Line {
            bytes: u64,
            refused: Option<IgnoredAny>,
            stream: Option<Stream>,
            reference: Option<InObject>,
            generate: Option<IgnoredAny>,
            codec: Option<Codec>,
        }
        let reader = BufReader::with_capacity(256 * 1024, FromStart::of(self.file.clone()));
        reader.split(b'\n').map(|line| {
            // A line that is damaged damages no pack: its file is by itself.
            let line: Line = serde_json::from_slice(&line?)
                .unwrap_or(Line { refused: Some(IgnoredAny), ..Line::default() });
            let of_output =
                line.stream.as_ref().map_or(0, |stream| stream.output_bytes(line.bytes));
            let part_of = line.reference.as_ref().filter(|of| of.part.is_some());
            Ok(Packable {
                part_of: part_of.and_then(|of| of.digest),
                bytes: line.bytes.max(of_output),
                refused: line.refused.is_some(),
                is_file: line.reference.is_none() && line.generate.is_none(),
                codec: line.stream.map(|stream| stream.codec).or(line.codec),
            })
        })
    }

    /// All files, in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = io::Result<InputEntry>> + use<> {
        let reader = BufReader::with_capacity(64 * 1024, FromStart::of(self.file.clone()));
        reader.lines().map(|line| serde_json::from_str(&line?).map_err(io::Error::other))
    }
}
