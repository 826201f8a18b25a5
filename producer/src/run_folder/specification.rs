//! What a bag is: enough to run it again.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bagpress_broker::descriptor::{
    Block, Decode, DeliveryPath, Input, ResultPath, TaskDescriptor, Transfer, Verify,
};
use bagpress_broker::ids::{BagId, Pool, RunName};
use bagpress_broker::result::wall_clock_us;
use bagpress_broker::{limits, quote, subjects};
use bagpress_codec::Codec;
use bagpress_objstore::beneath::below_root;
use bagpress_objstore::staging::{Allowed, Attributes, Own, Section, Target};
use serde::{Deserialize, Serialize};

use crate::error::Usage;
use crate::run_folder::cuts::BlockSize;
pub use crate::run_folder::data::Data;
use crate::run_folder::extents::PackSize;
use crate::run_folder::folder::{RunFolder, SPECIFICATION};
use crate::run_folder::growth::growth_bytes;
use crate::run_folder::inputs::roots::Roots;
use crate::run_folder::inputs::selection::Selected;
use crate::run_folder::inputs::stream::Recorded;
use crate::run_folder::inputs::{Generate, InputEntry, InputList};
use crate::run_folder::ledger::line::InputNow;

/// Bytes that a bag's bucket has beyond what its outputs need: for what runs again, or is made twice for a moment.
pub(crate) const BUCKET_SLACK_BYTES: u64 = 64 << 20;
/// How it is called where a codec is said that a bag restores.
pub(crate) const RESTORE: &str = "restore";

/// What `bag.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Specification {
    /// [`limits::WIRE_VERSION`].
    pub v: u32,
    /// The bag's id.
    pub bag: BagId,
    /// The run's name.
    pub name: RunName,
    /// Whose workers take it.
    pub pool: Pool,
    /// Codec and level. `store` in a restoring bag, whose outputs are not compressed: each file has its own.
    pub codec: Codec,
    /// The codec's library, which the descriptors pin.
    pub library: String,
    /// How the tasks reach the workers.
    #[serde(default)]
    pub delivery: DeliveryPath,
    /// How the outputs come back.
    pub results: ResultPath,
    /// Which process checks them.
    pub verify: Verify,
    /// Whether files may be handed over by path.
    pub transfer: Transfer,
    /// Attempts of each task.
    pub attempts: u32,
    /// How many tasks, not counting blocks: of a bag of files, how many files.
    pub tasks: u32,
    /// Input bytes of all tasks.
    pub input_bytes: u64,
    /// Where the inputs come from.
    pub data: Data,
    /// Folder that receives the outputs, absolute; none: `results/`, or only references.
    pub out: Option<PathBuf>,
    /// Whether objects are fetched as they come.
    pub get: bool,
    /// Whether inputs stay in their bucket when their task is done.
    pub keep_inputs: bool,
    /// Whether an input is removed once the bag has ended and its task is done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remove_source: bool,
    /// Whether `stats_N.json` files are written.
    pub stats: bool,
    /// How large its packs may be; none: each file is delivered by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pack: Option<PackSize>,
    /// How large the blocks of its large files are; none: each file is one task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<BlockSize>,
    /// For how long outputs stay in the bag's bucket, in s; none: until the bag is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
    /// When the bag was made, µs since 1970.
    pub created_us: u64,
    /// What its files were to the outputs that were there, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selected>,
}

/// What every version of a `bag.json` begins with.
#[derive(Deserialize)]
struct Version {
    v: u64,
}

impl Specification {
    /// Reads a run's specification.
    ///
    /// # Errors
    ///
    /// If it is not there, or not readable; [`Usage`] if it is of another version, or not believed.
    pub fn read(folder: &RunFolder) -> Result<Self> {
        let (path, text) = (folder.at(SPECIFICATION), folder.read(SPECIFICATION)?);
        // Before anything else is believed of it.
        if let Ok(Version { v }) = serde_json::from_slice(&text)
            && v != u64::from(limits::WIRE_VERSION)
        {
            return Err(Usage::error(
                format!(
                    "{} is of version {v} of the run folder; this program knows version {}",
                    quote::name(&path),
                    limits::WIRE_VERSION
                ),
                "use the version of bagpress that made it",
            ));
        }
        let read: Self = serde_json::from_slice(&text)
            .with_context(|| format!("read {}", quote::name(&path)))?;
        if let Some(out) = read.out.as_ref().filter(|out| below_root(out).is_err()) {
            return Err(Usage::error(
                format!(
                    "{}: the outputs' folder {} is not an absolute path",
                    quote::name(&path),
                    quote::name(out)
                ),
                "it is written when a run is created; create the run again",
            ));
        }
        Ok(read)
    }

    /// Writes a run's specification, durably, in one step.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn write(&self, folder: &RunFolder) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        folder.write_durably(SPECIFICATION, &text)
    }

    /// Whether `other` describes the same work: all but id, time, and how files are delivered.
    #[must_use]
    pub fn same_bag(&self, other: &Self) -> bool {
        let Self { bag, pack, block, created_us, .. } = self.clone();
        let data = other.data.unpacked();
        let mut other = Self { bag, data, pack, block, created_us, ..other.clone() };
        // What is read follows from the list, and is not in every `bag.json`.
        if let (
            Some(roots),
            Data::Files { roots: other, .. }
            | Data::Restored { roots: other, .. }
            | Data::Listed { roots: other, .. },
        ) = (self.data.roots(), &mut other.data)
        {
            other.clone_from(roots);
        }
        other == Self { data: self.data.unpacked(), ..self.clone() }
    }

    /// The descriptor of one task; `entry` is its file in a bag of files.
    #[must_use]
    pub fn descriptor(&self, index: u32, round: u32, entry: Option<&InputEntry>) -> TaskDescriptor {
        let input = match (&self.data, entry) {
            (Data::Generated { data, seed, bytes }, _) => {
                Input::Generate { data: *data, seed: *seed, bytes: *bytes }
            }
            (_, Some(InputEntry { generate: Some(generate), .. })) => {
                let Generate { data, seed, bytes } = *generate;
                Input::Generate { data, seed, bytes }
            }
            (_, Some(InputEntry { reference: Some(reference), path, bytes, .. })) => {
                Input::Object {
                    bucket: reference.object.bucket().to_owned(),
                    object: reference.object.object().to_owned(),
                    name: shown(path),
                    bytes: *bytes,
                    digest: reference.digest,
                    part: reference.part,
                }
            }
            (_, entry) => {
                let bytes = entry.map_or(0, |entry| entry.bytes);
                let name = entry.map(|entry| shown(&entry.path)).unwrap_or_default();
                match self.results {
                    ResultPath::Staged => Input::File { name, bytes },
                    ResultPath::Objects => Input::Object {
                        bucket: subjects::input_bucket(&self.bag),
                        object: subjects::input_name(index),
                        name,
                        bytes,
                        digest: None,
                        part: None,
                    },
                }
            }
        };
        let stream = entry.and_then(|entry| entry.stream.as_ref());
        let task = TaskDescriptor {
            v: limits::WIRE_VERSION,
            bag: self.bag.clone(),
            index,
            round,
            codec: stream.map_or_else(|| self.codec_of(entry), |stream| stream.codec),
            library: String::new(),
            input,
            pack: None,
            tar: None,
            again: None,
            parts: Vec::new(),
            block: None,
            decode: stream.map(|stream| Decode { original: stream.original }),
            results: self.results,
            verify: self.verify,
            transfer: self.transfer,
            attempts: self.attempts,
            published_us: wall_clock_us(),
        };
        self.pinned(task)
    }

    /// The same task with the library that it is pinned to.
    pub(super) fn pinned(&self, task: TaskDescriptor) -> TaskDescriptor {
        TaskDescriptor { library: task.library_of(self.library_of(&task.codec)), ..task }
    }

    /// The descriptor of a block: a section of the file at index `file`, which is `entry`.
    #[must_use]
    pub fn block_descriptor(
        &self,
        (index, round): (u32, u32),
        entry: &InputEntry,
        (file, section): (u32, Section),
    ) -> TaskDescriptor {
        let block = Some(Block { file, at: section.at });
        let part = InputEntry { bytes: section.bytes, ..entry.clone() };
        let task = TaskDescriptor { block, ..self.descriptor(index, round, Some(&part)) };
        self.pinned(task)
    }

    /// Folder of the outputs.
    #[must_use]
    pub fn output_root(&self, folder: &RunFolder) -> PathBuf {
        self.out.clone().unwrap_or_else(|| folder.results())
    }

    /// What workers of a local run may read and write in place: the inputs, and the outputs' folder.
    #[must_use]
    pub fn allowed(&self, folder: &RunFolder) -> Allowed {
        if self.results != ResultPath::Staged || self.transfer == Transfer::Wire {
            return Allowed::default();
        }
        let read = self.data.roots().into_iter().flat_map(Roots::paths);
        let read = read.map(Path::to_owned).collect();
        Allowed { read, write: vec![self.output_root(folder)] }
    }

    /// Whether it restores what was compressed.
    #[must_use]
    pub fn restores(&self) -> bool {
        match self.data {
            Data::Restored { .. } => true,
            Data::Referenced { restored, .. } => restored,
            _ => self.data.has_parts(),
        }
    }

    /// What is done with its files, for people: the codec, or that they are restored.
    #[must_use]
    pub fn work(&self) -> String {
        if self.restores() { RESTORE.to_owned() } else { self.codecs_shown() }
    }

    /// Most bytes that the output of an input of so many can have.
    #[must_use]
    pub fn output_bytes_max(&self, input_bytes: u64) -> u64 {
        // As much as anybody compressed into it.
        if self.restores() {
            limits::OUTPUT_BYTES_MAX
        } else {
            let each = self.codecs().map(|codec| codec.output_bytes_max(input_bytes));
            each.max().unwrap_or(limits::OUTPUT_BYTES_MAX)
        }
    }

    /// Whether outputs become files of ours.
    #[must_use]
    pub fn has_files(&self) -> bool {
        !self.codec.stores_nothing()
            && (self.results == ResultPath::Staged || self.get || self.out.is_some())
    }

    /// Whether outputs become objects.
    #[must_use]
    pub fn has_objects(&self) -> bool {
        !self.codec.stores_nothing() && self.results == ResultPath::Objects
    }

    /// Where a task's output belongs, below the outputs' folder; `now`: its file as a later round takes it.
    ///
    /// # Errors
    ///
    /// If there is no such task.
    pub(crate) fn target(
        &self,
        inputs: Option<&InputList>,
        index: u32,
        now: Option<InputNow>,
    ) -> std::io::Result<Target> {
        if index >= self.tasks {
            return Err(std::io::Error::other(format!("the bag has {} tasks", self.tasks)));
        }
        let Some(inputs) = inputs else {
            let path = subjects::output_name(index).into();
            return Ok(Target { path, attributes: None, replaces: None, own: Own::Nothing });
        };
        let entry = inputs.get(index)?;
        let mut path = entry.target.clone().into_os_string();
        path.push(self.codec_of(Some(&entry)).extension());
        let recorded = entry.stream.as_ref().and_then(|stream| stream.attributes);
        if !entry.is_file() && recorded.is_none() {
            // An object has neither mode nor owner, and what is generated none of both.
            let (path, replaces) = (path.into(), entry.replaces);
            return Ok(Target { path, attributes: None, replaces, own: Own::Nothing });
        }
        let InputEntry { path: source, mode, mtime_ns, owner, replaces, .. } = entry;
        let now = now.map_or((mode, mtime_ns), |now| (now.mode, now.mtime_ns));
        let found = Recorded { mode: now.0, mtime_ns: now.1, owner };
        let Recorded { mode, mtime_ns, owner } = recorded.unwrap_or(found);
        let attributes = Some(Attributes { source, mode, mtime_ns, owner });
        Ok(Target { path: path.into(), attributes, replaces, own: Own::Nothing })
    }

    /// Bytes that the bag's bucket needs, at most.
    #[must_use]
    pub fn bucket_bytes(&self) -> u64 {
        // Each message costs its subject and headers, each object its metadata; what a tar adds is less.
        let blocks = self.block.map_or(0, |size| self.input_bytes / size.bytes.max(1));
        let objects = u64::from(self.tasks) + blocks;
        let chunks = self.input_bytes / limits::CHUNK_BYTES as u64 + 2 * objects;
        let slack = objects * limits::OBJECT_EACH_BYTES + chunks * 256;
        let slack = growth_bytes(self.codecs(), self.tasks, self.input_bytes).saturating_add(slack);
        self.input_bytes.saturating_add(slack).saturating_add(BUCKET_SLACK_BYTES)
    }
}

/// A path for people, cut to what fits in a message.
pub(super) fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    let from = text.ceil_char_boundary(text.len().saturating_sub(limits::TEXT_BYTES_MAX));
    text[from..].to_owned()
}
