//! What comes back of a task: exactly one committed result for each task and round.

use bagpress_codec::{Choice, Codec, Digest, EntryPoint};
use serde::{Deserialize, Serialize};

use crate::descriptor::{DecodeError, ResultPath, TaskDescriptor, decode_json};
use crate::ids::{BagId, Execution, TaskId};
use crate::{bounded, limits, subjects};

pub use super::cause::Cause;
pub use super::fidelity::{Fidelity, Figure};

/// Where an output is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// A file of the producer's, which the gatherer moves to its final name.
    Staged,
    /// An object.
    Object {
        /// The bucket.
        #[serde(deserialize_with = "bounded::text")]
        bucket: String,
        /// The object's name in it.
        #[serde(deserialize_with = "bounded::text")]
        object: String,
        /// How many chunks it has: none is empty, so no more than it has bytes.
        #[serde(deserialize_with = "bounded::output_bytes")]
        chunks: u64,
    },
    /// A part of an object: the tar of the outputs of a pack.
    Tar {
        /// The bucket.
        #[serde(deserialize_with = "bounded::text")]
        bucket: String,
        /// The tar's name in it.
        #[serde(deserialize_with = "bounded::text")]
        object: String,
        /// How many chunks the tar has.
        #[serde(deserialize_with = "bounded::output_bytes")]
        chunks: u64,
        /// At which byte of the tar the output begins.
        #[serde(deserialize_with = "bounded::output_bytes")]
        at: u64,
        /// Digest of the whole tar.
        digest: Digest,
    },
    /// Nowhere: the codec stores nothing.
    Nothing,
}

impl Place {
    /// Whether an output of `codec` for the task `id` can be there, where outputs come back by `results`: a *done* without
    /// a place that fits has no bytes that anybody could look at.
    #[must_use]
    pub fn fits(&self, codec: &Codec, results: ResultPath, id: &TaskId) -> bool {
        match (self, results) {
            (Self::Nothing, _) => codec.stores_nothing(),
            _ if codec.stores_nothing() => false,
            (Self::Staged, results) => results == ResultPath::Staged,
            (Self::Object { bucket, object, .. }, results) => {
                results == ResultPath::Objects
                    && *bucket == subjects::bucket(&id.bag)
                    && subjects::is_output(object, id.index)
            }
            (Self::Tar { bucket, object, .. }, results) => {
                let first = subjects::first_of_tar(object).filter(|_| id.round == 0);
                results == ResultPath::Objects
                    && *bucket == subjects::bucket(&id.bag)
                    && first.is_some_and(|first| {
                        (first..first.saturating_add(limits::PACK_FILES_MAX)).contains(&id.index)
                    })
            }
        }
    }

    /// The bucket and the name of the object that has the output, if it is in one.
    #[must_use]
    pub fn object(&self) -> Option<(&str, &str)> {
        match self {
            Self::Object { bucket, object, .. } | Self::Tar { bucket, object, .. } => {
                Some((bucket, object))
            }
            Self::Staged | Self::Nothing => None,
        }
    }
}

/// Where the time of an attempt went, in µs, on the worker's monotonic clock unless said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Published to attempt started; wall clocks, so only within one machine.
    #[serde(deserialize_with = "bounded::time_us")]
    pub queue_us: u64,
    /// Waiting for the input: generating, reading or fetching it.
    #[serde(deserialize_with = "bounded::time_us")]
    pub input_us: u64,
    /// Compressing.
    #[serde(deserialize_with = "bounded::time_us")]
    pub compress_us: u64,
    /// Verifying, and both digests.
    #[serde(deserialize_with = "bounded::time_us")]
    pub verify_us: u64,
    /// Attempt started to output made.
    #[serde(deserialize_with = "bounded::time_us")]
    pub execute_us: u64,
    /// Output made to output durable at its place.
    #[serde(deserialize_with = "bounded::time_us")]
    pub transfer_us: u64,
    /// When this result was made, µs since 1970 by the worker's clock.
    #[serde(deserialize_with = "bounded::time_us")]
    pub made_us: u64,
}

impl Times {
    /// Adds what another execution of the same delivery took in its slot.
    pub fn add(&mut self, other: &Self) {
        let Self { input_us, compress_us, verify_us, execute_us, .. } = other;
        self.input_us += input_us;
        self.compress_us += compress_us;
        self.verify_us += verify_us;
        self.execute_us += execute_us;
    }
}

/// A task that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Bytes of the input.
    #[serde(deserialize_with = "bounded::input_bytes")]
    pub input_bytes: u64,
    /// Digest of the input.
    pub input_digest: Digest,
    /// Bytes of the output.
    #[serde(deserialize_with = "bounded::output_bytes")]
    pub output_bytes: u64,
    /// Digest of the output.
    pub output_digest: Digest,
    /// Where the output is.
    pub place: Place,
    /// Whether the output was decompressed and gave its input again, or what is as near to it as was asked.
    pub verified: bool,
    /// What a codec that chooses has chosen; not of a file that was joined of blocks, of which each has its own.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::choice"
    )]
    pub choice: Option<Choice>,
    /// How near, where it was not asked to be equal and somebody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fidelity: Option<Fidelity>,
    /// Where the output can be entered, if whoever decoded it has noted that, besides what it says itself.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::entry_points"
    )]
    pub entry_points: Vec<EntryPoint>,
}

impl Done {
    /// Digest of what the output decodes to; none, if nobody decoded an output of `codec` that may give other bytes than its
    /// input's.
    #[must_use]
    pub fn decoded_digest(&self, codec: &Codec) -> Option<Digest> {
        // Of any other codec's output, what a worker says here is not asked.
        if codec.is_lossy() {
            return self.fidelity.map(|fidelity| fidelity.decoded_digest);
        }
        Some(self.input_digest)
    }
}

/// A task that was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Why, for scripts.
    pub cause: Cause,
    /// Why, for people.
    #[serde(deserialize_with = "bounded::message")]
    pub message: String,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::large_enum_variant, reason = "nearly all are done")]
pub enum Outcome {
    /// Its output is at its place.
    Done(Done),
    /// It has none.
    Failed(Failed),
}

/// The one committed outcome of a task's round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskResult {
    /// [`limits::WIRE_VERSION`].
    pub v: u32,
    /// The bag.
    pub bag: BagId,
    /// Position in the bag, from 0.
    #[serde(deserialize_with = "bounded::index")]
    pub index: u32,
    /// The round.
    #[serde(deserialize_with = "bounded::round")]
    pub round: u32,
    /// The execution that made it.
    pub execution: Execution,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// The worker's id.
    #[serde(deserialize_with = "bounded::text")]
    pub worker: String,
    /// The worker's host.
    #[serde(deserialize_with = "bounded::text")]
    pub host: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Where the time went.
    pub times: Times,
    /// The descriptor, so that a lost object can be made again when its producer is long gone. Absent
    /// where the output is a file: the run folder has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<Box<TaskDescriptor>>,
    /// The file that got the output's name: only the gatherer knows, and its ledger says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileId>,
    /// The task whose output it got, because both inputs have the same content; itself, if that output was there before the bag.
    /// Only the gatherer does that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twin_of: Option<u32>,
    /// Of a pack: what became of each of its files, in order, where it has an outcome now. Then nothing counts but this.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::each_file"
    )]
    pub members: Vec<Option<Outcome>>,
}

/// Which file it is, on its file system: another one of the same name is never the same, nor is one that got the same
/// inode later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// Its inode.
    pub inode: u64,
    /// When it was made, ns since 1970.
    pub born_ns: u64,
}

impl FileId {
    /// That of a file, if its file system notes when files are made.
    #[must_use]
    pub fn of(metadata: &std::fs::Metadata) -> Option<Self> {
        let born = metadata.created().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        let inode = std::os::unix::fs::MetadataExt::ino(metadata);
        Some(Self { inode, born_ns: u64::try_from(born.as_nanos()).ok()? })
    }
}

impl TaskResult {
    /// Which task this is the outcome of.
    #[must_use]
    pub fn id(&self) -> TaskId {
        TaskId { bag: self.bag.clone(), index: self.index, round: self.round }
    }

    /// The same within its bag: index and round.
    #[must_use]
    pub fn key(&self) -> (u32, u32) {
        (self.index, self.round)
    }

    /// Whether this decides about the round of `id`: it is the outcome of that round, or of a later one of that task.
    #[must_use]
    pub fn decides(&self, id: &TaskId) -> bool {
        self.bag == id.bag && self.index == id.index && self.round >= id.round
    }

    /// Whether it failed, or its output is where one of `codec` and `results` can be.
    #[must_use]
    pub fn fits(&self, codec: &Codec, results: ResultPath) -> bool {
        self.done().is_none_or(|done| done.place.fits(codec, results, &self.id()))
    }

    /// What was done, if it was.
    #[must_use]
    pub fn done(&self) -> Option<&Done> {
        match &self.outcome {
            Outcome::Done(done) => Some(done),
            Outcome::Failed(_) => None,
        }
    }

    /// Reads a result from the payload of a message.
    ///
    /// # Errors
    ///
    /// [`DecodeError`], always permanent.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let result: Self = decode_json(payload)?;
        result.check()?;
        Ok(Self { twin_of: None, ..result })
    }

    fn check(&self) -> Result<(), DecodeError> {
        let Some(task) = &self.descriptor else { return Ok(()) };
        if task.v != limits::WIRE_VERSION {
            return Err(DecodeError::Version { found: u64::from(task.v) });
        }
        task.check()?;
        if task.id() != self.id() {
            let (payload, subject) = (task.id().to_string(), self.id().to_string());
            return Err(DecodeError::OtherTask { payload, subject });
        }
        Ok(())
    }

    /// The message's payload.
    #[must_use]
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "plain data with text keys always serialises"
    )]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a result serialises")
    }
}

impl Failed {
    /// A failure; its message is cut to [`limits::FAILURE_BYTES_MAX`].
    #[must_use]
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        if message.len() > limits::FAILURE_BYTES_MAX {
            let end = message.floor_char_boundary(limits::FAILURE_BYTES_MAX);
            message.truncate(end);
        }
        Self { cause, message }
    }
}

/// Microseconds since 1970 by this machine's wall clock; for people and for labels.
#[must_use]
pub fn wall_clock_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_format_is_pinned() {
        let result = TaskResult {
            v: 1,
            bag: "demo-abcdefgh".parse().unwrap(),
            index: 7,
            round: 0,
            execution: "0123456789abcdef01234567".parse().unwrap(),
            attempt: 1,
            worker: "W".to_owned(),
            host: "h".to_owned(),
            outcome: Outcome::Failed(Failed::new(Cause::InputMissing, "gone")),
            times: Times::default(),
            descriptor: None,
            file: None,
            twin_of: None,
            members: Vec::new(),
        };
        let payload = result.encode();
        assert_eq!(TaskResult::decode(&payload).unwrap(), result);
        insta::assert_snapshot!(String::from_utf8(payload).unwrap(), @r#"{"v":1,"bag":"demo-abcdefgh","index":7,"round":0,"execution":"0123456789abcdef01234567","attempt":1,"worker":"W","host":"h","outcome":{"failed":{"cause":"input-missing","message":"gone"}},"times":{"queue_us":0,"input_us":0,"compress_us":0,"verify_us":0,"execute_us":0,"transfer_us":0,"made_us":0}}"#);
    }

    #[test]
    fn a_long_failure_is_cut_at_a_character() {
        let failed = Failed::new(Cause::CodecError, "é".repeat(2000));
        assert_eq!(failed.message.len(), limits::FAILURE_BYTES_MAX);
    }
}
