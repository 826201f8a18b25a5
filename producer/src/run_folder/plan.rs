//! What the receiver of uploads must know of its bag.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use bagpress_broker::descriptor::{Original, ResultPath, Transfer};
use bagpress_broker::result::{Cause, Failed, TaskResult};
use bagpress_broker::{pack, quote, subjects};
use bagpress_objstore::staging::{InputFile, Own, Plan, Section, Target};
use tracing::warn;

use crate::run_folder::cuts::Cuts;
use crate::run_folder::earlier::Earlier;
use crate::run_folder::extents::Extents;
use crate::run_folder::folder::{INPUTS, MANIFEST, RunFolder, TWINS};
use crate::run_folder::helps::Helps;
use crate::run_folder::inputs::{InputEntry, InputList};
use crate::run_folder::ledger::failure::Failure;
use crate::run_folder::ledger::line::InputNow;
use crate::run_folder::ledger::{Key, Ledger};
use crate::run_folder::of_producer::failure;
use crate::run_folder::specification::{BUCKET_SLACK_BYTES, Data, Specification};
use crate::run_folder::twins::Twins;

/// Specification, list of inputs and ledger of one run.
#[derive(Debug, Clone)]
pub struct BagPlan {
    /// The specification.
    pub specification: Arc<Specification>,
    /// The files of a bag of files.
    pub inputs: Option<Arc<InputList>>,
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// Which files are delivered together, if any are.
    pub(crate) extents: Option<Arc<Extents>>,
    /// Which files are cut into blocks, if any are.
    pub(crate) cuts: Option<Arc<Cuts>>,
    /// Which files seem to have the content of others, if any do.
    pub(crate) twins: Option<Arc<Twins>>,
    /// Which files may have outputs that earlier runs made, if any may.
    pub(crate) earlier: Option<Arc<Earlier>>,
}

/// Opens a run's plan.
///
/// # Errors
///
/// If its files cannot be read; [`crate::error::Usage`] if they are not believed.
pub fn open_plan(folder: &RunFolder, specification: Specification) -> Result<BagPlan> {
    plan_of(folder, specification, |path, tasks, cuts| {
        Ok(Ledger::of(folder.append(MANIFEST)?, path, tasks, cuts)?)
    })
}

/// The same to look at: writes nothing, and the bag may be gathered meanwhile.
pub(crate) fn read_plan(folder: &RunFolder, specification: Specification) -> Result<BagPlan> {
    plan_of(folder, specification, |path, tasks, cuts| {
        let lines = match folder.open(MANIFEST)? {
            Some(lines) => lines,
            // It was never gathered, and has no line.
            None => File::open("/dev/null")?,
        };
        Ok(Ledger::to_read(lines, path, tasks, cuts)?)
    })
}

fn plan_of(
    folder: &RunFolder,
    specification: Specification,
    open: impl FnOnce(&Path, u32, Option<Arc<Cuts>>) -> Result<Ledger>,
) -> Result<BagPlan> {
    let inputs = inputs_of(folder, &specification)?;
    let cuts = cuts_of(folder, &specification, inputs.as_deref())?;
    let path = folder.at(MANIFEST);
    let ledger = open(&path, specification.tasks, cuts.clone());
    let ledger = ledger.with_context(|| format!("open {}", quote::name(&path)))?;
    for bad in ledger.bad_lines() {
        warn!(line = bad.number, why = bad.why, "ledger line skipped");
    }
    let extents = extents_of(folder, &specification, inputs.as_deref())?.map(Arc::new);
    let twins = folder.open(TWINS)?.filter(|_| !specification.codec.stores_nothing());
    let twins = twins.map(|file| Twins::read(file, specification.tasks));
    let twins =
        twins.transpose().with_context(|| format!("read {}", quote::name(folder.at(TWINS))))?;
    let earlier =
        Earlier::of(folder, &specification, inputs.as_deref(), twins.as_ref(), cuts.as_deref())?;
    let (specification, ledger) = (Arc::new(specification), Arc::new(ledger));
    let twins = twins.map(Arc::new);
    Ok(BagPlan { specification, inputs, ledger, extents, cuts, twins, earlier })
}

/// The list of a bag's files, if it has files. Blocks.
///
/// # Errors
///
/// If it cannot be read; [`crate::error::Usage`] if it is not believed.
pub(crate) fn inputs_of(
    folder: &RunFolder,
    specification: &Specification,
) -> Result<Option<Arc<InputList>>> {
    if let Data::Generated { .. } = specification.data {
        return Ok(None);
    }
    let context = || format!("read {}", quote::name(folder.at(INPUTS)));
    let absent = || io::Error::from(io::ErrorKind::NotFound);
    let file = folder.open(INPUTS)?.ok_or_else(absent).with_context(context)?;
    Ok(Some(Arc::new(InputList::of(file).with_context(context)?)))
}

/// Which files of a bag are cut, if any are. Blocks.
///
/// # Errors
///
/// If the list cannot be read.
pub(crate) fn cuts_of(
    folder: &RunFolder,
    specification: &Specification,
    inputs: Option<&InputList>,
) -> Result<Option<Arc<Cuts>>> {
    let (Some(size), Some(list)) = (specification.block, inputs) else { return Ok(None) };
    let cuts = Cuts::of(size, specification.tasks, list.packable());
    cuts.map(|cuts| Some(Arc::new(cuts)))
        .with_context(|| format!("read {}", quote::name(folder.at(INPUTS))))
}

/// Which files of a bag are delivered together, if any are. Blocks.
///
/// # Errors
///
/// If the list cannot be read.
pub(crate) fn extents_of(
    folder: &RunFolder,
    specification: &Specification,
    inputs: Option<&InputList>,
) -> Result<Option<Extents>> {
    let (Some(size), Some(list)) = (specification.pack, inputs) else { return Ok(None) };
    let extents = Extents::of(size, specification.tasks, list.packable());
    Ok(Some(extents.with_context(|| format!("read {}", quote::name(folder.at(INPUTS))))?))
}

impl BagPlan {
    /// The file of a task, as its round takes it.
    ///
    /// # Errors
    ///
    /// If there is none, or the list of inputs cannot be read.
    pub(crate) fn entry(&self, index: u32) -> io::Result<InputEntry> {
        let inputs = self.inputs.as_ref();
        let inputs = inputs.ok_or_else(|| io::Error::other("the bag's inputs are no files"))?;
        inputs.get(index).map(|entry| self.now(index, entry))
    }

    /// What the file of a task was made of, in a restoring bag, if that was recorded.
    ///
    /// # Errors
    ///
    /// If the list of inputs cannot be read.
    pub(crate) fn original(&self, index: u32) -> io::Result<Option<Original>> {
        if !self.specification.restores() {
            return Ok(None);
        }
        Ok(self.entry(index)?.stream.and_then(|stream| stream.original))
    }

    /// A failure with the path of its input, in a bag of files.
    pub(crate) fn with_path(&self, failure: Failure) -> Failure {
        let entry = self.inputs.as_ref().and_then(|inputs| inputs.get(failure.index).ok());
        failure.with_path(entry.map(|entry| entry.path))
    }

    /// What helps the tasks that failed.
    pub(crate) fn what_helps(&self) -> Helps {
        let (first, failed) = self.ledger.tally(|tally| (tally.failures.clone(), tally.failed));
        let first: Vec<_> = first.into_iter().map(|failure| self.with_path(failure)).collect();
        Helps::of(&first, failed)
    }

    /// Bytes by which inputs have grown that rounds take as they are now, with those that run again beside the tar that they
    /// were in and for which a bucket has no space yet, and the largest of those inputs. Blocks.
    pub(crate) fn growth(&self) -> (u64, u64) {
        let Some(inputs) = &self.inputs else { return (0, 0) };
        let (mut more, mut largest) = (0_u64, 0);
        for (index, now) in self.ledger.inputs_now() {
            let before = inputs.get(index).map_or(0, |entry| entry.bytes);
            more = more.saturating_add(now.bytes.saturating_sub(before));
            largest = now.bytes.max(largest);
        }
        let beside = self.ledger.begun().into_iter().filter(|index| self.may_be_packed(*index));
        let beside = beside.map(|index| inputs.get(index).map_or(0, |entry| entry.bytes));
        let beside = beside.fold(0, u64::saturating_add);
        (more.saturating_add(beside.saturating_sub(BUCKET_SLACK_BYTES / 2)), largest)
    }

    /// A file of the list, as the task's round takes it.
    pub(crate) fn now(&self, index: u32, entry: InputEntry) -> InputEntry {
        match self.ledger.input_now(index) {
            None => entry,
            Some(InputNow { bytes, mtime_ns, mode, inode }) => {
                // It was not noted when that one was changed.
                InputEntry { bytes, mtime_ns, mode, inode, changed_ns: None, ..entry }
            }
        }
    }

    /// How many tasks the bag has, with those that are blocks.
    pub(crate) fn tasks(&self) -> u32 {
        self.cuts.as_ref().map_or(self.specification.tasks, |cuts| cuts.tasks())
    }

    /// The file that a task is a block of, and what of it, if it is one.
    pub(crate) fn section(&self, index: u32) -> Option<(u32, Section)> {
        self.cuts.as_ref()?.section(index)
    }

    /// The blocks of a file, if it is cut in the round that counts.
    pub(crate) fn blocks(&self, file: u32) -> Option<Range<u32>> {
        let blocks = self.cuts.as_ref()?.blocks(file)?;
        (self.ledger.round(file) == 0).then_some(blocks)
    }

    /// A task, and the blocks for which nobody waits once it has its outcome.
    pub(crate) fn over_with(&self, index: u32) -> impl Iterator<Item = u32> + use<> {
        let blocks = self.cuts.as_ref().and_then(|cuts| cuts.blocks(index));
        std::iter::once(index).chain(blocks.into_iter().flatten())
    }

    /// The blocks of a file, if it is cut, whose outcomes would count.
    pub(crate) fn open_blocks(&self, file: u32) -> impl Iterator<Item = u32> + '_ {
        let blocks = self.blocks(file).into_iter().flatten();
        blocks.filter(|block| self.is_task_open((*block, self.ledger.round(*block))))
    }

    /// Whether the outcome of this one task would count: of a block none does whose file has an outcome, or is run whole.
    pub(crate) fn is_task_open(&self, key: Key) -> bool {
        self.ledger.is_open(key) && !self.is_over(key.0)
    }

    /// Whether a task whose bytes are gone is to be run again: it has no outcome, or is a block that was counted and is not joined.
    pub(crate) fn may_run_again(&self, (index, round): Key) -> bool {
        let waits = self.section(index).is_some() && !self.is_over(index);
        self.is_task_open((index, round)) || waits && self.ledger.round(index) == round
    }

    /// Whether a task is a block of which nobody waits for the outcome any more.
    fn is_over(&self, index: u32) -> bool {
        let file = self.section(index).map(|(file, _)| file);
        file.is_some_and(|file| self.ledger.is_decided(file) || self.ledger.round(file) > 0)
    }

    /// The revisions of packs and blocks that tasks without an outcome are delivered by: what a worker must know.
    pub(crate) fn open_revisions(&self) -> Vec<&'static str> {
        let is_open = |index: &u32| !self.ledger.is_decided(*index);
        let mut files = (0..self.specification.tasks).filter(is_open);
        let in_pack = self.extents.is_some() && files.any(|index| self.is_of_a_pack(index));
        let packs = match (self.specification.results, &self.specification.data) {
            (_, Data::PackedParts { .. }) => pack::PACKED_PARTS,
            (ResultPath::Staged, _) => pack::STAGED,
            (ResultPath::Objects, _) => pack::OBJECTS,
        };
        let mut cut = self.cuts.iter().flat_map(|cuts| cuts.files()).filter(is_open);
        let in_blocks = cut.any(|file| self.open_blocks(file).next().is_some());
        let in_restore = self.specification.restores().then_some(pack::RESTORE);
        let in_parts = self.specification.data.has_parts().then_some(pack::PARTS);
        let in_blocks = in_blocks.then_some(pack::BLOCKS);
        let found = [in_pack.then_some(packs), in_blocks, in_restore, in_parts];
        found.into_iter().flatten().collect()
    }

    /// Whether a file is delivered with others in round 0.
    pub(crate) fn may_be_packed(&self, index: u32) -> bool {
        let alone = |extents: &Extents| extents.begins(index) && extents.files(index) == 1;
        let is_file = index < self.specification.tasks;
        is_file && self.extents.as_ref().is_some_and(|extents| !alone(extents))
    }

    /// Whether a file is delivered with others, in the round that counts.
    pub(crate) fn is_of_a_pack(&self, index: u32) -> bool {
        self.may_be_packed(index) && self.ledger.round(index) == 0
    }

    /// The first file of what is delivered with a file in round 0.
    pub(crate) fn first_of(&self, index: u32) -> u32 {
        self.extents.as_ref().map_or(index, |extents| extents.first(index))
    }

    /// Name of the object that has the output of a task in the round that counts, if outputs are objects.
    pub(crate) fn object_of(&self, index: u32) -> String {
        if self.is_of_a_pack(index) {
            subjects::tar_name(self.first_of(index))
        } else {
            subjects::output_name(index)
        }
    }

    /// Whether an output of a pack was counted already: what has the name of its tar may be what counts.
    pub(crate) fn has_counted(&self, first: u32) -> bool {
        let mut files = first..first + self.files(first, 0);
        files.any(|file| self.ledger.round(file) == 0 && self.ledger.is_done(file))
    }

    /// Whether the tar of the outputs of a pack is nobody's any more: each file runs again alone, or has no output.
    pub(crate) fn is_nobodys(&self, first: u32) -> bool {
        let mut files = first..first + self.files(first, 0);
        files.all(|file| self.ledger.round(file) > 0 || self.ledger.is_failed(file))
    }

    /// Whether a file is delivered to nobody for now, because it gets the output of another one when that has one, or that of an
    /// earlier run.
    pub(crate) fn waits_for_twin(&self, index: u32) -> bool {
        let may_have = || self.earlier.as_ref().is_some_and(|earlier| earlier.has(index));
        self.ledger.is_open((index, 0)) && (self.is_twin(index) || may_have())
    }

    /// Whether its input seems to be that of an earlier task.
    pub(crate) fn is_twin(&self, index: u32) -> bool {
        self.twins.as_ref().is_some_and(|twins| twins.first_of(index).is_some())
    }

    /// Whether a pack is delivered by this name of which any file has no outcome.
    pub(crate) fn is_open_pack(&self, key: Key) -> bool {
        self.files(key.0, key.1) > 1 && self.is_open(key)
    }

    /// Whether something that is delivered by this name would count: the outcome of a task, or of any file of a pack.
    pub(crate) fn is_open(&self, (index, round): Key) -> bool {
        let mut files = index..index + self.files(index, round);
        files.any(|file| self.is_task_open((file, round)))
    }
}

impl Plan for BagPlan {
    fn decided(&self, index: u32, round: u32) -> Option<TaskResult> {
        let mut files = index..index + self.files(index, round);
        if !files.all(|file| self.is_file_decided(file, round)) {
            return None;
        }
        let outcome = self.ledger.outcome(index, round);
        let over = || {
            let text = "its file has an outcome, or is run again as a whole";
            let failed = Failed::new(Cause::Cancelled, text);
            failure(&self.specification.bag, (index, round), 1, failed)
        };
        outcome.or_else(|| self.is_over(index).then(over))
    }

    fn files(&self, index: u32, round: u32) -> u32 {
        let extents = self.extents.as_ref().filter(|_| round == 0);
        extents.map_or(1, |extents| extents.files(index))
    }

    fn is_file_decided(&self, index: u32, round: u32) -> bool {
        !self.is_task_open((index, round)) || round == 0 && self.waits_for_twin(index)
    }

    fn target(&self, index: u32) -> io::Result<Target> {
        let index = self.section(index).map_or(index, |(file, _)| file);
        let now = self.ledger.input_now(index);
        let mut target = self.specification.target(self.inputs.as_deref(), index, now)?;
        target.own = match (&self.specification.out, self.ledger.file(index)) {
            // What lies in the run's own folder was put there by nobody else.
            (None, _) => Own::Everything,
            (Some(_), Some(file)) => Own::File(file),
            (Some(_), None) => Own::Nothing,
        };
        Ok(target)
    }

    fn input(&self, index: u32) -> io::Result<InputFile> {
        match self.section(index) {
            None => self.entry(index).map(InputFile::from),
            Some((file, section)) => {
                let whole = self.entry(file).map(InputFile::from)?;
                Ok(InputFile { section: Some(section), ..whole })
            }
        }
    }

    fn by_path(&self) -> bool {
        self.specification.transfer == Transfer::Auto
    }

    fn output_bytes_max(&self, index: u32, input_bytes: u64) -> u64 {
        let original = self.original(index).ok().flatten();
        let most = || self.specification.output_bytes_max(input_bytes);
        original.map_or_else(most, |original| original.bytes)
    }
}
