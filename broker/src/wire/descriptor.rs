//! The task as it travels.

use bagpress_codec::{Codec, DataKind, Digest};
use serde::{Deserialize, Serialize};

use crate::ids::{BagId, TaskId};
use crate::{bounded, limits};

pub use super::again::Again;
use super::decode::unknown_codec;
pub use super::decode::{DecodeError, decode_json};
pub use super::restore::{Decode, FilePart, Original, Part};

/// How the outputs of a bag come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResultPath {
    /// A file, moved into the producer's run folder.
    Staged,
    /// An object in the bag's bucket; the result is a reference to it.
    Objects,
}

impl ResultPath {
    /// The word for it, on the command line and in folder names.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Staged => "staged",
            Self::Objects => "objects",
        }
    }
}

impl std::str::FromStr for ResultPath {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "staged" => Ok(Self::Staged),
            "objects" => Ok(Self::Objects),
            _ => Err(format!("{text:?} is not a result path: use staged or objects")),
        }
    }
}

impl std::fmt::Display for ResultPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How the tasks of a bag reach its workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeliveryPath {
    /// They wait in a stream, from which workers pull.
    #[default]
    Jetstream,
    /// The gatherer keeps them and offers them to workers, members of a core queue group.
    QueueGroup,
}

impl DeliveryPath {
    /// The word for it, on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jetstream => "jetstream",
            Self::QueueGroup => "queue-group",
        }
    }
}

impl std::str::FromStr for DeliveryPath {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "jetstream" => Ok(Self::Jetstream),
            "queue-group" => Ok(Self::QueueGroup),
            _ => Err(format!("{text:?} is not a delivery: use jetstream or queue-group")),
        }
    }
}

impl std::fmt::Display for DeliveryPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which process checks that an output decompresses to its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// The worker, while it compresses.
    #[default]
    Worker,
    /// Nobody; every result says so.
    None,
}

/// Whether bytes may be handed over by path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transfer {
    /// By path where worker and gatherer see the same folder, through NATS otherwise.
    #[default]
    Auto,
    /// Always through NATS.
    Wire,
}

/// Where the uncompressed bytes of a task come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Input {
    /// The worker makes them.
    Generate {
        /// What kind of bytes.
        data: DataKind,
        /// Seed of the bag; the task's index selects the stream.
        seed: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// A file that the bag's gatherer reads for the worker.
    File {
        /// Its name, for people: the gatherer knows the file by the task's index.
        name: String,
        /// Its size when the bag was made.
        bytes: u64,
    },
    /// An object.
    Object {
        /// The bucket.
        bucket: String,
        /// The object's name in it.
        object: String,
        /// The file that it was made from, for people.
        name: String,
        /// Its size.
        bytes: u64,
        /// Digest of its bytes, if it was known when the task was published: whatever has the name then is not the input.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<Digest>,
        /// What of the object it is, if that is not all of it: then `bytes` are those of the part.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part: Option<Part>,
    },
}

impl Input {
    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Generate { bytes, .. }
            | Self::File { bytes, .. }
            | Self::Object { bytes, .. } => *bytes,
        }
    }
}

/// What of a descriptor says that it is a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pack {
    /// How many files, at least 2 and at most [`limits::PACK_FILES_MAX`].
    #[serde(deserialize_with = "bounded::pack_files")]
    pub files: u32,
}

/// What of a descriptor says that it is a block of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The file's position in the bag.
    #[serde(deserialize_with = "bounded::index")]
    pub file: u32,
    /// At which byte of the file it begins.
    #[serde(deserialize_with = "bounded::input_bytes")]
    pub at: u64,
}

/// One task: take an input, compress it or restore what it was made of, hand the output over.
///
/// Equal descriptors give byte-identical output on every worker, so a task may be executed more than
/// once and still counts once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDescriptor {
    /// [`limits::WIRE_VERSION`].
    pub v: u32,
    /// The bag this task belongs to.
    pub bag: BagId,
    /// Position in the bag, from 0.
    pub index: u32,
    /// 0, and one more each time somebody runs the task again.
    pub round: u32,
    /// Codec and level; of a task that restores, that of the input, whose level means nothing.
    pub codec: Codec,
    /// The codec's library and its version: another one could make other bytes.
    pub library: String,
    /// Where the bytes come from that are to be compressed, or restored; of a pack, all of them.
    pub input: Input,
    /// Whether more files than this one are delivered with it, and their outputs are staged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pack: Option<Pack>,
    /// The same of a bag of objects: the input is one tar, and so is the output. By another name, so that whoever knows
    /// only the former can read it, and gives it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tar: Option<Pack>,
    /// The same of a pack that is run again for its tar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<Box<Again>>,
    /// The same of a pack that restores: what of the object that is its input each file is. By another name, too.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::each_file"
    )]
    pub parts: Vec<FilePart>,
    /// Whether the input is a part of a file. The gatherer joins the outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<Block>,
    /// Whether the input is to be restored, and not to be compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode: Option<Decode>,
    /// How the output comes back.
    pub results: ResultPath,
    /// Which process checks the output.
    #[serde(default)]
    pub verify: Verify,
    /// Whether bytes may be handed over by path.
    #[serde(default)]
    pub transfer: Transfer,
    /// How many attempts before the task is reported failed.
    pub attempts: u32,
    /// When it was published, µs since 1970 by the producer's clock; for people and for *wait*.
    pub published_us: u64,
}

impl TaskDescriptor {
    /// Which task this is.
    #[must_use]
    pub fn id(&self) -> TaskId {
        TaskId { bag: self.bag.clone(), index: self.index, round: self.round }
    }

    /// Reads the descriptor of task `id` from the payload of a message.
    ///
    /// # Errors
    ///
    /// [`DecodeError`], always permanent: not JSON, another version, out of bounds, or of another
    /// task than `id`, the one that the message's subject names.
    pub fn decode(payload: &[u8], id: &TaskId) -> Result<Self, DecodeError> {
        let task = Self::decode_any(payload)?;
        if task.index != id.index || task.round != id.round || task.bag != id.bag {
            let (payload, subject) = (task.id().to_string(), id.to_string());
            return Err(DecodeError::OtherTask { payload, subject });
        }
        Ok(task)
    }

    /// Reads a descriptor from a message whose subject names no task.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode), without an expected task.
    pub fn decode_any(payload: &[u8]) -> Result<Self, DecodeError> {
        let task: Self = decode_json(payload).map_err(|error| match error {
            DecodeError::Json(_) => unknown_codec(payload).unwrap_or(error),
            error => error,
        })?;
        task.check()?;
        Ok(task)
    }

    /// The message's payload.
    #[must_use]
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "plain data with text keys always serialises"
    )]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a descriptor serialises")
    }

    /// Checks every bound that this version of the protocol has.
    pub(crate) fn check(&self) -> Result<(), DecodeError> {
        for text in self.texts() {
            let (bytes, max) = (text.len(), limits::TEXT_BYTES_MAX);
            if bytes > max {
                return Err(DecodeError::Bounds(format!("a text of {bytes} bytes; at most {max}")));
            }
        }
        let bytes = self.input.bytes();
        if bytes > limits::INPUT_BYTES_MAX {
            let max = limits::INPUT_BYTES_MAX;
            return Err(DecodeError::Bounds(format!("input of {bytes} bytes; at most {max}")));
        }
        if self.index >= limits::BAG_TASKS_MAX {
            let max = limits::BAG_TASKS_MAX - 1;
            return Err(DecodeError::Bounds(format!("index {}; at most {max}", self.index)));
        }
        if self.round > limits::ROUND_MAX {
            let max = limits::ROUND_MAX;
            return Err(DecodeError::Bounds(format!("round {}; at most {max}", self.round)));
        }
        if self.published_us > limits::TIME_US_MAX {
            let (at, max) = (self.published_us, limits::TIME_US_MAX);
            return Err(DecodeError::Bounds(format!("published at {at} µs; at most {max}")));
        }
        if !(1..=limits::ATTEMPTS_MAX).contains(&self.attempts) {
            let max = limits::ATTEMPTS_MAX;
            return Err(DecodeError::Bounds(format!("{} attempts; 1 to {max}", self.attempts)));
        }
        self.misfit().map_or(Ok(()), |text| Err(DecodeError::Bounds(text.to_owned())))
    }

    /// Every text that has no form of its own.
    fn texts(&self) -> impl Iterator<Item = &str> {
        let of_input = match &self.input {
            Input::Generate { .. } => [None; 3],
            Input::File { name, .. } => [Some(name), None, None],
            Input::Object { bucket, object, name, .. } => [Some(bucket), Some(object), Some(name)],
        };
        of_input.into_iter().flatten().map(String::as_str).chain([self.library.as_str()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    fn task() -> TaskDescriptor {
        TaskDescriptor {
            bag: "demo-abcdefgh".parse().unwrap(),
            codec: "zlib:6".parse().unwrap(),
            library: "zlib-rs/0".to_owned(),
            input: Input::Generate { data: DataKind::Random, seed: 0, bytes: 2 << 20 },
            transfer: Transfer::Auto,
            published_us: 1,
            ..samples::task(&samples::bag(), 7, ResultPath::Staged)
        }
    }

    #[test]
    fn wire_format_is_pinned() {
        insta::assert_snapshot!(String::from_utf8(task().encode()).unwrap(), @r#"{"v":1,"bag":"demo-abcdefgh","index":7,"round":0,"codec":"zlib:6","library":"zlib-rs/0","input":{"generate":{"data":"random","seed":0,"bytes":2097152}},"results":"staged","verify":"worker","transfer":"auto","attempts":3,"published_us":1}"#);
    }

    #[test]
    fn a_descriptor_reads_back() {
        assert_eq!(TaskDescriptor::decode(&task().encode(), &task().id()).unwrap(), task());
    }

    #[test]
    fn another_version_is_named_as_such() {
        for payload in [&br#"{"v":2}"#[..], br#"{"later":true,"v":2,"bag":[]}"#] {
            let error = TaskDescriptor::decode(payload, &task().id()).unwrap_err();
            assert!(matches!(error, DecodeError::Version { found: 2 }), "{error}");
        }
    }

    #[test]
    fn junk_and_other_tasks_are_refused() {
        let id = task().id();
        let error = |payload: &[u8], id| TaskDescriptor::decode(payload, id).unwrap_err();
        assert!(matches!(error(b"junk", &id), DecodeError::Json(_)));
        let by = |codec: &str| {
            let encoded = String::from_utf8(task().encode()).unwrap();
            error(encoded.replace("zlib:6", codec).as_bytes(), &id)
        };
        for later in ["lzma:9", "zlib:6,later"] {
            let error = by(later);
            assert!(matches!(error, DecodeError::Codec { .. }), "{error}");
        }
        // No version has it, or will.
        assert!(matches!(by("zlib:10"), DecodeError::Json(_)));
        assert!(matches!(error(&vec![b'x'; 70_000], &id), DecodeError::TooLong { bytes: 70_000 }));
        let other = TaskId { index: 8, ..id.clone() };
        assert!(matches!(error(&task().encode(), &other), DecodeError::OtherTask { .. }));
    }

    #[test]
    fn out_of_bounds_is_refused() {
        let mut large = task();
        large.input = Input::Generate { data: DataKind::Zeros, seed: 0, bytes: 2 << 40 };
        let error = TaskDescriptor::decode(&large.encode(), &large.id()).unwrap_err();
        assert!(matches!(error, DecodeError::Bounds(_)), "{error}");
        let mut wordy = task();
        wordy.library = "x".repeat(limits::TEXT_BYTES_MAX + 1);
        let error = TaskDescriptor::decode(&wordy.encode(), &wordy.id()).unwrap_err();
        assert!(matches!(error, DecodeError::Bounds(_)), "{error}");
    }
}
