//! What worker and gatherer say to each other on `bag.up.<bag>.…`.

use std::path::PathBuf;

use bagpress_broker::bounded;
use bagpress_broker::descriptor::Pack;
use bagpress_broker::ids::{Execution, TaskId};
use bagpress_broker::result::{Failed, TaskResult};
use bagpress_codec::Digest;
use serde::{Deserialize, Serialize};

use super::input::{InputFile, Section};

/// Header of a chunk: its offset in the output.
pub const OFFSET: &str = "Bag-Offset";
/// Header of a CLOSE: [`Close`] in JSON. Its payload may be the whole output.
pub const CLOSE: &str = "Bag-Close";
/// Header of an input chunk: the CRC-32 of its payload, in hexadecimal.
pub const CRC: &str = "Bag-Crc32";
/// Header of an input chunk that is none: [`Failed`] in JSON.
pub const FAILED: &str = "Bag-Failed";
/// Header of the inputs of a pack, whose bytes are the payload, one after another: for each file a [`PackInput`] in JSON, or null.
pub const FILES: &str = "Bag-Files";

/// "I am about to execute this task." An upload exists only after it, and only at the gatherer that received it: a worker that is told
/// to `open` says the same OPEN again, and goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Version of the wire.
    pub v: u32,
    /// The task's place in its bag.
    #[serde(deserialize_with = "bounded::index")]
    pub index: u32,
    /// Its round.
    #[serde(deserialize_with = "bounded::round")]
    pub round: u32,
    /// The execution that is about to begin.
    pub execution: Execution,
    /// Whether the worker may hand files over by path; then the boot id of its machine.
    pub by_path: Option<String>,
}

/// The answer to [`Open`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Opened {
    /// Execute it.
    Go(Go),
    /// The task's round has an outcome already; commit that.
    HaveIt(Box<TaskResult>),
    /// There is no room now.
    Wait {
        /// Why.
        reason: String,
    },
    /// It can never succeed.
    Refused(Failed),
}

/// Leave to execute a task and to upload its output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Go {
    /// Chunks that may be in flight at a time.
    pub window: usize,
    /// Bytes of this execution's output that have arrived already.
    #[serde(deserialize_with = "bounded::output_bytes")]
    pub offset: u64,
    /// How to hand files over by path.
    pub share: Option<Share>,
    /// Of a pack: places of files that have their outcome.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::each_file"
    )]
    pub decided: Vec<u32>,
}

/// A folder that worker and gatherer may both see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// A file in it.
    pub nonce_file: PathBuf,
    /// What that file contains: a worker that reads the same sees the same folder.
    pub nonce: String,
    /// Where the output is to be written.
    pub part: PathBuf,
    /// Whether both run on one kernel, so that one `syncfs` covers what both wrote.
    pub same_kernel: bool,
    /// The input, if it is a file.
    pub input: Option<SharedInput>,
    /// Of a pack: the input of each file that is open.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::each_file"
    )]
    pub inputs: Vec<Option<SharedInput>>,
}

/// A file that worker and gatherer may both see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedInput {
    /// Its absolute path.
    pub path: PathBuf,
    /// Its size when the bag was made.
    pub bytes: u64,
    /// Its modification time then, ns since 1970.
    pub mtime_ns: i64,
    /// Its inode, which tells the same file from one of the same name.
    pub inode: u64,
    /// What of it the task takes; none: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section: Option<Section>,
}

impl From<InputFile> for SharedInput {
    fn from(InputFile { path, bytes, mtime_ns, inode, section }: InputFile) -> Self {
        Self { path, bytes, mtime_ns, inode, section }
    }
}

impl From<SharedInput> for InputFile {
    fn from(SharedInput { path, bytes, mtime_ns, inode, section }: SharedInput) -> Self {
        Self { path, bytes, mtime_ns, inode, section }
    }
}

/// The answer to a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chunked {
    /// So much has arrived, in one piece from the start.
    Next {
        /// Offset of the next byte that is wanted.
        #[serde(deserialize_with = "bounded::output_bytes")]
        offset: u64,
        /// Chunks that may be in flight at a time.
        window: usize,
        /// This chunk found no room in memory, and is to be sent again, however often.
        #[serde(default, skip_serializing_if = "is_false")]
        again: bool,
    },
    /// The task's round has an outcome already.
    HaveIt(Box<TaskResult>),
    /// There is no room now.
    Wait {
        /// Why.
        reason: String,
        /// Nobody opened this upload here: OPEN and this chunk again go on with it.
        #[serde(default, skip_serializing_if = "is_false")]
        open: bool,
    },
    /// It can never be written.
    Refused(Failed),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// "My output is complete."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// Version of the wire.
    pub v: u32,
    /// The task's place in its bag.
    #[serde(deserialize_with = "bounded::index")]
    pub index: u32,
    /// Its round.
    #[serde(deserialize_with = "bounded::round")]
    pub round: u32,
    /// Whose output.
    pub execution: Execution,
    /// Its size.
    #[serde(deserialize_with = "bounded::output_bytes")]
    pub bytes: u64,
    /// Its digest.
    pub digest: Digest,
    /// How it came.
    pub came: Came,
    /// Of a pack: the output of each file that has one. The digest above is then nobody's, and the size that of all.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::each_file"
    )]
    pub files: Vec<Option<ClosedFile>>,
}

/// An output of a pack that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedFile {
    /// Its size.
    #[serde(deserialize_with = "bounded::output_bytes")]
    pub bytes: u64,
    /// Its digest.
    pub digest: Digest,
}

impl Close {
    /// Every output that it closes: of a pack, those of its files, each as if it were closed by itself.
    pub(crate) fn each(&self) -> Vec<Self> {
        if self.files.is_empty() {
            return vec![self.clone()];
        }
        let each = (self.index..).zip(&self.files);
        let closed = |(index, file): (u32, &Option<ClosedFile>)| {
            let ClosedFile { bytes, digest } = (*file)?;
            let (execution, files) = (self.execution.clone(), Vec::new());
            Some(Self { index, execution, bytes, digest, files, ..*self })
        };
        each.filter_map(closed).collect()
    }
}

/// How an output came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Came {
    /// It is this message's payload.
    Inline,
    /// In chunks.
    Chunks,
    /// It was written to the part file by path.
    ByPath,
}

/// The answer to [`Close`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Closed {
    /// It is durable as a part file: commit.
    Durable,
    /// The task's round has an outcome already; the part file is gone.
    HaveIt(Box<TaskResult>),
    /// What arrived is not what was announced, or not all of it; execute again.
    Mismatch {
        /// What is wrong.
        message: String,
    },
    /// It is large, and still being read, or found no room in memory: send the same CLOSE again.
    Reading,
    /// There is no room now.
    Wait {
        /// Why.
        reason: String,
        /// Nobody opened this upload here: OPEN and the same CLOSE again end it.
        #[serde(default, skip_serializing_if = "is_false")]
        open: bool,
    },
    /// It can never be written.
    Refused(Failed),
}

impl Closed {
    pub(crate) fn wait(reason: String) -> Self {
        Self::Wait { reason, open: false }
    }
}

/// "I wrote so much of my output by path, and there was no room for more." Not answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoRoom {
    /// Version of the wire.
    pub v: u32,
    /// The task's place in its bag.
    #[serde(deserialize_with = "bounded::index")]
    pub index: u32,
    /// Its round.
    #[serde(deserialize_with = "bounded::round")]
    pub round: u32,
    /// Bytes that were written.
    #[serde(deserialize_with = "bounded::output_bytes")]
    pub bytes: u64,
    /// Bytes that were free then, while what was written was still there. An earlier version does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<u64>,
}

/// "Give me a part of my input." An answer that is shorter than what was asked for is the end of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRequest {
    /// Version of the wire.
    pub v: u32,
    /// The task's place in its bag.
    #[serde(deserialize_with = "bounded::index")]
    pub index: u32,
    /// From where.
    #[serde(deserialize_with = "bounded::output_bytes")]
    pub offset: u64,
    /// How much at most.
    #[serde(deserialize_with = "bounded::output_bytes")]
    pub bytes: u64,
    /// That the inputs of a pack are wanted, each whole, of which `index` is the first file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pack: Option<Pack>,
}

/// What an answer has of one file of a pack. Null, of one that has its outcome, or that did not fit: it is asked for by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PackInput {
    /// So many bytes: the whole file.
    Bytes(u64),
    /// Why it cannot be had.
    Failed(Failed),
}

/// The (index, round) and execution that an upload's token names.
pub(crate) fn read_xfer(xfer: &str) -> Option<((u32, u32), Execution)> {
    let (id, execution) = xfer.split_once('-')?;
    let (index, round) = id.split_once('_')?;
    Some(((index.parse().ok()?, round.parse().ok()?), execution.parse().ok()?))
}

/// The token of an upload.
#[must_use]
pub(crate) fn xfer(id: &TaskId, execution: &Execution) -> String {
    format!("{}_{}-{execution}", id.index, id.round)
}
