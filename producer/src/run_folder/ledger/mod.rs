//! What is decided: the manifest, and what of it is needed at hand.

pub(crate) mod line;
#[cfg(feature = "testing")]
pub mod read_back;
pub(crate) mod scan;
pub(crate) mod tally;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bagpress_broker::limits;
use bagpress_broker::result::{Cause, FileId, Outcome, TaskResult};

use crate::run_folder::ledger::line::{BadLine, Entry, InputNow, Manifest};
use crate::run_folder::ledger::tally::Tally;

/// A task and one of its rounds: outcomes are decided for these, one by one.
pub(crate) type Key = (u32, u32);

/// The ledger of one run, open.
#[derive(Debug)]
pub struct Ledger {
    manifest: Manifest,
    tasks: u32,
    state: Mutex<State>,
    /// Lines that could not be used.
    pub bad_lines: Vec<BadLine>,
}

#[derive(Debug)]
struct State {
    done: Bits,
    failed: Bits,
    /// Rounds above 0, of the few tasks that have one.
    rounds: HashMap<u32, u32>,
    /// The highest of them.
    highest: u32,
    /// The files that got the names of their outputs, as far as they were not found to be others since.
    files: HashMap<u32, FileId>,
    /// Inputs that are taken as they were when a round began, of the few tasks that have one.
    inputs: HashMap<u32, InputNow>,
    tally: Tally,
}

/// A bit a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    pub(crate) fn new(tasks: u32) -> Self {
        Self(vec![0; (tasks as usize).div_ceil(64)])
    }

    pub(crate) fn get(&self, index: u32) -> bool {
        self.0.get(index as usize / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    pub(crate) fn set(&mut self, index: u32, to: bool) {
        if let Some(word) = self.0.get_mut(index as usize / 64) {
            let bit = 1 << (index % 64);
            *word = if to { *word | bit } else { *word & !bit };
        }
    }
}

impl State {
    fn round(&self, index: u32) -> u32 {
        self.rounds.get(&index).copied().unwrap_or(0)
    }

    fn decided(&self, index: u32) -> bool {
        self.done.get(index) || self.failed.get(index)
    }

    fn begin(&mut self, index: u32, round: u32) {
        self.done.set(index, false);
        self.failed.set(index, false);
        self.rounds.insert(index, round);
        self.highest = round.max(self.highest);
    }

    fn see(&mut self, entry: &Entry, commit_us: u64) {
        match entry {
            Entry::Begun { index, round, input } if *round > self.round(*index) => {
                self.begin(*index, *round);
                if let Some(input) = input {
                    self.inputs.insert(*index, *input);
                }
            }
            Entry::Begun { .. } => {}
            Entry::Outcome(result) => {
                if self.rounds.contains_key(&result.index) {
                    note_file(&mut self.files, result);
                }
                if result.round > self.round(result.index) {
                    // The line that began its round was lost: the highest round counts all the same.
                    self.begin(result.index, result.round);
                }
                if result.round < self.round(result.index) || self.decided(result.index) {
                    return;
                }
                match result.outcome {
                    Outcome::Done(_) => self.done.set(result.index, true),
                    Outcome::Failed(_) => self.failed.set(result.index, true),
                }
                self.tally.add(result, commit_us);
            }
        }
    }
}

/// Notes which file got the name of a task's output.
fn note_file(files: &mut HashMap<u32, FileId>, result: &TaskResult) {
    match (&result.outcome, result.file) {
        (Outcome::Done(_), Some(file)) => drop(files.insert(result.index, file)),
        // What has the name now is another's, whatever had it before.
        (Outcome::Failed(failed), _) if failed.cause == Cause::OutputExists => {
            files.remove(&result.index);
        }
        _ => {}
    }
}

impl Ledger {
    /// The ledger of a bag of `tasks`, in a file that was opened to append to it, and is called `path`.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn of(file: File, path: &Path, tasks: u32) -> io::Result<Self> {
        let mut state = State {
            done: Bits::new(tasks),
            failed: Bits::new(tasks),
            rounds: HashMap::new(),
            highest: 0,
            files: HashMap::new(),
            inputs: HashMap::new(),
            tally: Tally::default(),
        };
        let (manifest, bad_lines) = Manifest::of(file, path, |entry| state.see(&entry, 0))?;
        let ledger = Self { manifest, tasks, state: Mutex::new(state), bad_lines };
        if ledger.with(|state| !state.rounds.is_empty()) {
            ledger.recount()?;
        }
        Ok(ledger)
    }

    /// The ledger at `path`, made if it is not there.
    #[cfg(test)]
    pub(crate) fn at(path: &Path, tasks: u32) -> io::Result<Self> {
        let file = File::options().read(true).append(true).create(true).open(path)?;
        Self::of(file, path, tasks)
    }

    /// Counts again when rounds were begun: only the outcome of the highest round counts.
    fn recount(&self) -> io::Result<()> {
        let mut tally = Tally::default();
        self.outcomes(|result| tally.add(&result, 0))?;
        let begun = self.with(|state| state.rounds.clone());
        let mut files = HashMap::new();
        self.manifest.read(|entry| {
            if let Entry::Outcome(result) = entry
                && begun.contains_key(&result.index)
            {
                note_file(&mut files, &result);
            }
        })?;
        self.with(|state| {
            tally.keep_commit_times(&state.tally);
            (state.tally, state.files) = (tally, files);
        });
        Ok(())
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Appends lines, durably, then counts them; `commit_us` says how long a result was on its way.
    ///
    /// # Errors
    ///
    /// What the system said: nothing was counted.
    pub(crate) fn append(
        &self,
        entries: &[Entry],
        commit_us: impl Fn(&TaskResult) -> u64,
    ) -> io::Result<()> {
        self.manifest.append(entries)?;
        self.with(|state| {
            for entry in entries {
                let took = match entry {
                    Entry::Outcome(result) => commit_us(result),
                    Entry::Begun { .. } => 0,
                };
                state.see(entry, took);
            }
        });
        Ok(())
    }

    /// Begins new rounds: the lines come first, before anything of the old rounds is touched. `inputs` has the files that
    /// are taken as they are now.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn begin(
        &self,
        indices: &[u32],
        inputs: &HashMap<u32, InputNow>,
    ) -> io::Result<Vec<(u32, u32)>> {
        let mut begun: Vec<_> =
            indices.iter().map(|index| (*index, self.next_round(*index))).collect();
        begun.sort_unstable();
        begun.dedup();
        self.begin_rounds(&begun, inputs)?;
        Ok(begun)
    }

    /// Begins rounds of tasks, each at most once; a round that is not above the task's own is left out.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn begin_rounds(
        &self,
        begun: &[(u32, u32)],
        inputs: &HashMap<u32, InputNow>,
    ) -> io::Result<()> {
        let begun = begun.iter().filter(|(index, round)| *round > self.round(*index));
        let begun: Vec<_> = begun.copied().collect();
        let counted = begun.iter().any(|(index, _)| self.is_decided(*index));
        let lines: Vec<_> = begun
            .iter()
            .map(|(index, round)| {
                let input = inputs.get(index).copied();
                Entry::Begun { index: *index, round: *round, input }
            })
            .collect();
        self.append(&lines, |_| 0)?;
        // What the old outcomes added to each sum is in the file alone.
        if counted { self.recount() } else { Ok(()) }
    }

    /// The round behind that of a task; the last one has none behind it.
    fn next_round(&self, index: u32) -> u32 {
        self.round(index).saturating_add(1).min(limits::ROUND_MAX)
    }

    /// What its file is called.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.manifest.path()
    }

    /// The round of a task that counts.
    #[must_use]
    pub fn round(&self, index: u32) -> u32 {
        self.with(|state| state.round(index))
    }

    /// Whether a task has an outcome in the round that counts.
    #[must_use]
    pub fn is_decided(&self, index: u32) -> bool {
        self.with(|state| state.decided(index))
    }

    /// Whether an outcome of this task and round would count: the round is the task's, and has none yet.
    pub(crate) fn is_open(&self, (index, round): Key) -> bool {
        index < self.tasks
            && self.with(|state| state.round(index) == round && !state.decided(index))
    }

    /// Whether a task is done.
    pub(crate) fn is_done(&self, index: u32) -> bool {
        self.with(|state| state.done.get(index))
    }

    /// The highest round that was begun of any task.
    pub(crate) fn highest_round(&self) -> u32 {
        self.with(|state| state.highest)
    }

    /// The tasks of which a round above 0 was begun, in order.
    pub(crate) fn begun(&self) -> Vec<u32> {
        let mut begun: Vec<_> = self.with(|state| state.rounds.keys().copied().collect());
        begun.sort_unstable();
        begun
    }

    /// The file that got the name of a task's output in an earlier round.
    #[must_use]
    pub(crate) fn file(&self, index: u32) -> Option<FileId> {
        self.with(|state| state.files.get(&index).copied())
    }

    /// The input of a task as its round takes it, where that is not how it was when the bag was made.
    #[must_use]
    pub(crate) fn input_now(&self, index: u32) -> Option<InputNow> {
        self.with(|state| state.inputs.get(&index).copied())
    }

    /// All of those inputs.
    pub(crate) fn inputs_now(&self) -> Vec<(u32, InputNow)> {
        self.with(|state| state.inputs.iter().map(|(index, now)| (*index, *now)).collect())
    }

    /// Whether a task failed.
    #[must_use]
    pub fn is_failed(&self, index: u32) -> bool {
        self.with(|state| state.failed.get(index))
    }

    /// The outcome of a task, if it has one in `round` or a later one.
    #[must_use]
    pub fn outcome(&self, index: u32, round: u32) -> Option<TaskResult> {
        if !self.is_decided(index) || self.round(index) < round {
            return None;
        }
        self.manifest.outcome(index)
    }

    /// Shows `see` the outcome that counts of each task that has one, from the file.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn outcomes(&self, see: impl FnMut(Arc<TaskResult>)) -> io::Result<()> {
        scan::counted(self.manifest.file(), self.tasks, |index| self.round(index), see)
    }

    /// Looks at the counts.
    pub fn tally<T>(&self, look: impl FnOnce(&Tally) -> T) -> T {
        self.with(|state| look(&state.tally))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bagpress_broker::ids::Execution;
    use bagpress_broker::result::{Cause, Done, Failed, Place, Times};
    use bagpress_codec::Digest;

    use super::*;

    fn result(index: u32, round: u32, fails: bool) -> Entry {
        let done = Done {
            input_bytes: 10,
            input_digest: Digest::of(b"in"),
            output_bytes: 5,
            output_digest: Digest::of(b"out"),
            place: Place::Staged,
            verified: true,
        };
        let failed = Failed::new(Cause::CodecError, "broken");
        Entry::Outcome(Arc::new(TaskResult {
            v: 1,
            bag: "demo-abcdefgh".parse().unwrap(),
            index,
            round,
            execution: Execution::random(),
            attempt: 1,
            worker: String::new(),
            host: String::new(),
            outcome: if fails { Outcome::Failed(failed) } else { Outcome::Done(done) },
            times: Times { execute_us: 100, ..Times::default() },
            descriptor: None,
            file: None,
        }))
    }

    #[test]
    fn an_outcome_counts_once_whatever_comes_after() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.jsonl");
        let ledger = Ledger::at(&path, 3).unwrap();
        ledger
            .append(&[result(0, 0, false), result(0, 0, true), result(1, 0, true)], |_| 0)
            .unwrap();
        assert_eq!(ledger.tally(|t| (t.done, t.failed, t.input_bytes)), (1, 1, 10));
        assert!(ledger.is_decided(0) && !ledger.is_decided(2) && ledger.is_failed(1));
        drop(ledger);
        let again = Ledger::at(&path, 3).unwrap();
        assert_eq!(again.tally(|t| (t.done, t.failed, t.input_bytes)), (1, 1, 10));
    }

    #[test]
    fn a_round_may_take_its_file_as_it_is_now_and_so_do_later_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.jsonl");
        let ledger = Ledger::at(&path, 2).unwrap();
        ledger.append(&[result(0, 0, true), result(1, 0, true)], |_| 0).unwrap();
        let now = InputNow { bytes: 7, mtime_ns: -1, mode: 0o600, inode: 3 };
        ledger.begin(&[0, 1], &HashMap::from([(0, now)])).unwrap();
        ledger.begin(&[0], &HashMap::new()).unwrap();
        ledger.append(&[result(0, 2, false)], |_| 0).unwrap();
        drop(ledger);
        let ledger = Ledger::at(&path, 2).unwrap();
        assert_eq!((ledger.input_now(0), ledger.input_now(1)), (Some(now), None));
    }

    #[test]
    fn the_file_that_got_a_name_is_known_in_later_rounds_until_somebody_else_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.jsonl");
        let ledger = Ledger::at(&path, 2).unwrap();
        let with_file = |index, round, inode| {
            let Entry::Outcome(done) = result(index, round, false) else { panic!("no outcome") };
            let file = Some(FileId { inode, born_ns: 7 });
            Entry::Outcome(Arc::new(TaskResult { file, ..(*done).clone() }))
        };
        ledger.append(&[with_file(0, 0, 1), with_file(1, 0, 2)], |_| 0).unwrap();
        ledger.begin(&[0], &HashMap::new()).unwrap();
        let file = |ledger: &Ledger, index| ledger.file(index).map(|file| file.inode);
        assert_eq!(file(&ledger, 0), Some(1));
        ledger.append(&[with_file(0, 1, 3)], |_| 0).unwrap();
        ledger.begin(&[0], &HashMap::new()).unwrap();
        drop(ledger);
        let ledger = Ledger::at(&path, 2).unwrap();
        assert_eq!(file(&ledger, 0), Some(3));
        let Entry::Outcome(taken) = result(0, 2, true) else { panic!("no outcome") };
        let outcome = Outcome::Failed(Failed::new(Cause::OutputExists, "it is there"));
        let taken = TaskResult { outcome, ..(*taken).clone() };
        ledger.append(&[Entry::Outcome(Arc::new(taken))], |_| 0).unwrap();
        assert_eq!(file(&ledger, 0), None);
        drop(ledger);
        assert_eq!(file(&Ledger::at(&path, 2).unwrap(), 0), None);
    }

    #[test]
    fn a_begun_round_takes_the_old_outcome_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.jsonl");
        let ledger = Ledger::at(&path, 2).unwrap();
        ledger.append(&[result(0, 0, true), result(1, 0, false)], |_| 0).unwrap();
        assert_eq!(ledger.begin(&[0], &HashMap::new()).unwrap(), [(0, 1)]);
        assert_eq!(ledger.tally(|t| (t.done, t.failed, t.failures.len())), (1, 0, 0));
        // A late result of the old round is nothing.
        ledger.append(&[result(0, 0, true)], |_| 0).unwrap();
        assert!(!ledger.is_decided(0));
        assert!(ledger.outcome(0, 0).is_none());
        ledger.append(&[result(0, 1, false)], |_| 0).unwrap();
        assert_eq!(ledger.outcome(0, 0).unwrap().round, 1);
        drop(ledger);
        let again = Ledger::at(&path, 2).unwrap();
        assert_eq!(again.tally(|t| (t.done, t.failed, t.input_bytes)), (2, 0, 20));
        assert_eq!((again.round(0), again.round(1)), (1, 0));
    }
}
