//! What the lines of a ledger come to, as far as it is needed at hand. Knows no file.

use std::collections::HashMap;
use std::sync::Arc;

use bagpress_broker::result::{Cause, FileId, Outcome, TaskResult};

use super::bits::Bits;
use super::line::{Entry, InputNow, Key};
use super::rounds::Rounds;
use super::tally::Tally;
use crate::run_folder::cuts::Cuts;

/// What is counted so far: 8 bytes and 2 bits a task, and more of the few that were begun again.
#[derive(Debug)]
pub(crate) struct Counted {
    /// How many tasks are summed up. Behind them are blocks, of which each is a part of a task.
    tasks: u32,
    /// Which tasks are cut into which blocks.
    cuts: Option<Arc<Cuts>>,
    rounds: Rounds,
    /// Of the tasks that are decided, those that failed.
    failed: Bits,
    /// Where the line of a decided task's outcome begins in the file, in bytes.
    places: Vec<u64>,
    /// The files that got the names of outputs, as far as they were not found to be others since.
    files: HashMap<u32, FileId>,
    /// Inputs that are taken as they were when a round began.
    inputs: HashMap<u32, InputNow>,
    tally: Tally,
}

impl Counted {
    pub(super) fn new(tasks: u32, cuts: Option<Arc<Cuts>>) -> Self {
        let all = cuts.as_ref().map_or(tasks, |cuts| cuts.tasks());
        Self::of(Rounds::new(all), tasks, all, cuts)
    }

    fn of(rounds: Rounds, tasks: u32, all: u32, cuts: Option<Arc<Cuts>>) -> Self {
        Self {
            tasks,
            cuts,
            rounds,
            failed: Bits::new(all),
            places: vec![0; all as usize],
            files: HashMap::new(),
            inputs: HashMap::new(),
            tally: Tally::default(),
        }
    }

    /// Nothing counted, and every round known: to read all lines again, as an outcome that counts no more cannot be taken
    /// out of the sums.
    pub(super) fn uncounted(&self) -> Self {
        let (inputs, all) = (self.inputs.clone(), self.places.len());
        let all = u32::try_from(all).unwrap_or(u32::MAX);
        let cuts = self.cuts.clone();
        Self { inputs, ..Self::of(self.rounds.undecided(), self.tasks, all, cuts) }
    }

    /// Takes the place of `before`, which has counted the same lines when they came.
    pub(super) fn replace(mut self, before: &mut Self) {
        self.tally.keep_commit_times(&before.tally);
        *before = self;
    }

    /// Counts a line that begins at byte `at`; `commit_us` says how long its result was on its way.
    pub(super) fn see(&mut self, at: u64, entry: &Entry, commit_us: u64) {
        let key = entry.key();
        let waited = self.waits_for_blocks(key.0);
        let is_new_round = self.rounds.note(key);
        match entry {
            Entry::Begun { index, input, .. } => {
                if let Some(input) = input.filter(|_| is_new_round) {
                    self.inputs.insert(*index, input);
                }
            }
            Entry::Outcome(result) => {
                if self.rounds.has_begun(result.index) {
                    self.note_file(result);
                }
                if self.rounds.decide(key) {
                    self.failed.set(result.index, matches!(result.outcome, Outcome::Failed(_)));
                    if let Some(place) = self.places.get_mut(result.index as usize) {
                        *place = at;
                    }
                    if result.index < self.tasks {
                        self.tally.add(result, commit_us);
                    } else if let Some(done) = result.done() {
                        self.tally.add_block(done);
                        self.add_block(result.index);
                    }
                }
            }
        }
        if waited && !self.waits_for_blocks(key.0) {
            let bytes = self.bytes_of_blocks(key.0);
            self.tally.block_bytes = self.tally.block_bytes.saturating_sub(bytes);
        }
    }

    /// Whether this is a file whose blocks' outcomes count.
    fn waits_for_blocks(&self, file: u32) -> bool {
        let is_cut = self.cuts.as_ref().is_some_and(|cuts| cuts.blocks(file).is_some());
        is_cut && self.rounds.is_open((file, 0))
    }

    fn add_block(&mut self, block: u32) {
        let section = self.cuts.as_ref().and_then(|cuts| cuts.section(block));
        if let Some((_, section)) = section.filter(|(file, _)| self.waits_for_blocks(*file)) {
            self.tally.block_bytes = self.tally.block_bytes.saturating_add(section.bytes);
        }
    }

    fn bytes_of_blocks(&self, file: u32) -> u64 {
        let cuts = self.cuts.as_ref();
        cuts.map_or(0, |cuts| cuts.bytes_of(file, |block| self.is_done(block)))
    }

    /// Notes which round a line names, and nothing else of it.
    pub(super) fn note(&mut self, key: Key) {
        self.rounds.note(key);
    }

    /// The sums.
    pub(crate) fn into_tally(self) -> Tally {
        self.tally
    }

    /// Notes which file got the name of a task's output.
    fn note_file(&mut self, result: &TaskResult) {
        match (&result.outcome, result.file) {
            (Outcome::Done(_), Some(file)) => drop(self.files.insert(result.index, file)),
            // What has the name now is another's, whatever had it before.
            (Outcome::Failed(failed), _) if failed.cause == Cause::OutputExists => {
                self.files.remove(&result.index);
            }
            _ => {}
        }
    }

    pub(crate) fn rounds(&self) -> &Rounds {
        &self.rounds
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(crate) fn is_done(&self, index: u32) -> bool {
        self.rounds.is_decided(index) && !self.failed.get(index)
    }

    pub(crate) fn is_failed(&self, index: u32) -> bool {
        self.rounds.is_decided(index) && self.failed.get(index)
    }

    /// Where the outcome of a task is in the file, if it has one in this round or a later one.
    pub(super) fn place(&self, (index, round): Key) -> Option<u64> {
        let is_there = self.rounds.is_decided(index) && self.rounds.of(index) >= round;
        self.places.get(index as usize).copied().filter(|_| is_there)
    }

    pub(super) fn file(&self, index: u32) -> Option<FileId> {
        self.files.get(&index).copied()
    }

    pub(super) fn inputs(&self) -> &HashMap<u32, InputNow> {
        &self.inputs
    }
}
