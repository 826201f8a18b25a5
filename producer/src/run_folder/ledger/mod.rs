//! The ledger: what is decided of a bag, in a file that is appended to, and what of it is needed at hand.
//!
//! ```text
//! Ledger ─► file: lines appended, read ─► line: one line as text
//!        └► counted ─► rounds: which outcome counts · tally: sums
//! scan: the same for who only looks, and may not write
//! ```

mod bits;
pub(crate) mod choices;
mod counted;
pub(crate) mod failure;
pub(crate) mod file;
pub(crate) mod follow;
pub(crate) mod line;
#[cfg(feature = "testing")]
pub mod read_back;
mod rounds;
pub(crate) mod scan;
pub(crate) mod tally;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bagpress_broker::limits;
use bagpress_broker::result::{FileId, TaskResult};
use tracing::warn;

pub(crate) use self::bits::Bits;
use self::counted::Counted;
use self::file::{BadLine, LedgerFile};
pub(crate) use self::line::Key;
use self::line::{Entry, InputNow};
use self::tally::Tally;
use crate::run_folder::cuts::Cuts;

/// The ledger of one run, open.
///
/// Opening, appending, beginning rounds and reading outcomes read and write the file: they block. Whatever else is asked is
/// known at hand.
#[derive(Debug)]
pub struct Ledger {
    file: LedgerFile,
    tasks: u32,
    /// Held from a line's write until it is counted.
    writing: Mutex<()>,
    counted: Mutex<Counted>,
    bad_lines: Vec<BadLine>,
}

impl Ledger {
    /// The ledger of a bag of `tasks` and the blocks of those that are `cut`, in a file that was opened to append to it, and is called
    /// `path`.
    ///
    /// Blocks: reads the whole file.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn of(
        file: File,
        path: &Path,
        tasks: u32,
        cut: Option<Arc<Cuts>>,
    ) -> io::Result<Self> {
        let ledger = Self::to_read(file, path, tasks, cut)?;
        ledger.file.end_last_line()?;
        Ok(ledger)
    }

    /// The same to look at, which may be written by another process meanwhile.
    pub(crate) fn to_read(
        file: File,
        path: &Path,
        tasks: u32,
        cut: Option<Arc<Cuts>>,
    ) -> io::Result<Self> {
        let mut counted = Counted::new(tasks, cut);
        let (file, bad_lines) = LedgerFile::of(file, path, |at, entry| counted.see(at, &entry, 0))?;
        let is_begun = counted.rounds().highest() > 0;
        let (writing, counted) = (Mutex::new(()), Mutex::new(counted));
        let ledger = Self { file, tasks, writing, counted, bad_lines };
        if is_begun {
            ledger.recount()?;
        }
        Ok(ledger)
    }

    /// The ledger at `path`, made if it is not there.
    #[cfg(test)]
    pub(crate) fn at(path: &Path, tasks: u32) -> io::Result<Self> {
        let file = File::options().read(true).append(true).create(true).open(path)?;
        Self::of(file, path, tasks, None)
    }

    /// Lines that could not be used when it was opened.
    #[must_use]
    pub fn bad_lines(&self) -> &[BadLine] {
        &self.bad_lines
    }

    /// Counts again from the file: what outcomes that count no more have added to the sums is known there alone.
    fn recount(&self) -> io::Result<()> {
        let mut again = self.with(|counted| counted.uncounted());
        file::read(self.file.file(), |at, entry| again.see(at, &entry, 0))?;
        self.with(|counted| again.replace(counted));
        Ok(())
    }

    fn with<T>(&self, look: impl FnOnce(&mut Counted) -> T) -> T {
        look(&mut self.counted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Appends lines, durably, then counts them; `commit_us` says how long a result was on its way, in µs.
    ///
    /// Blocks: writes and syncs.
    ///
    /// # Errors
    ///
    /// What the system said: nothing was counted.
    pub(crate) fn append(
        &self,
        entries: &[Entry],
        commit_us: impl Fn(&TaskResult) -> u64,
    ) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.append_only(entries, commit_us)
    }

    fn append_only(
        &self,
        entries: &[Entry],
        commit_us: impl Fn(&TaskResult) -> u64,
    ) -> io::Result<()> {
        let places = self.file.append(entries)?;
        self.with(|counted| {
            for (at, entry) in places.into_iter().zip(entries) {
                let took = match entry {
                    Entry::Outcome(result) => commit_us(result),
                    Entry::Begun { .. } => 0,
                };
                counted.see(at, entry, took);
            }
        });
        Ok(())
    }

    /// Begins new rounds: the lines come first, before anything of the old rounds is touched. `inputs` has the files that
    /// are taken as they are now, and `taken` the rounds that are not to be begun.
    ///
    /// Blocks: writes and syncs, and reads the whole file if one of the tasks had an outcome.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn begin(
        &self,
        indices: &[u32],
        inputs: &HashMap<u32, InputNow>,
        taken: &HashSet<Key>,
    ) -> io::Result<Vec<Key>> {
        let mut begun: Vec<_> =
            indices.iter().map(|index| (*index, self.next_round(*index, taken))).collect();
        begun.sort_unstable();
        begun.dedup();
        self.begin_rounds(&begun, inputs)?;
        Ok(begun)
    }

    /// Begins rounds of tasks, each at most once; a round that is not above the task's own is left out.
    ///
    /// Blocks, as [`begin`](Self::begin).
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn begin_rounds(
        &self,
        begun: &[Key],
        inputs: &HashMap<u32, InputNow>,
    ) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let begun: Vec<_> =
            begun.iter().copied().filter(|(index, round)| *round > self.round(*index)).collect();
        let takes_back = begun.iter().any(|(index, _)| self.is_decided(*index));
        let line =
            |(index, round): Key| Entry::Begun { index, round, input: inputs.get(&index).copied() };
        let lines: Vec<_> = begun.into_iter().map(line).collect();
        self.append_only(&lines, |_| 0)?;
        if takes_back { self.recount() } else { Ok(()) }
    }

    /// The first round behind that of a task that is not taken; the last one has none behind it.
    fn next_round(&self, index: u32, taken: &HashSet<Key>) -> u32 {
        let mut next = self.round(index).saturating_add(1).min(limits::ROUND_MAX);
        while next < limits::ROUND_MAX && taken.contains(&(index, next)) {
            next += 1;
        }
        next
    }

    /// What its file is called.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The round of a task that counts.
    #[must_use]
    pub fn round(&self, index: u32) -> u32 {
        self.with(|counted| counted.rounds().of(index))
    }

    /// Whether a task has an outcome in the round that counts.
    #[must_use]
    pub fn is_decided(&self, index: u32) -> bool {
        self.with(|counted| counted.rounds().is_decided(index))
    }

    /// Whether an outcome of this task and round would count: the round is the task's, and has none yet.
    pub(crate) fn is_open(&self, key: Key) -> bool {
        self.with(|counted| counted.rounds().is_open(key))
    }

    /// Whether a task is done.
    pub(crate) fn is_done(&self, index: u32) -> bool {
        self.with(|counted| counted.is_done(index))
    }

    /// Whether a task failed.
    #[must_use]
    pub fn is_failed(&self, index: u32) -> bool {
        self.with(|counted| counted.is_failed(index))
    }

    /// The highest round that was begun of any task.
    pub(crate) fn highest_round(&self) -> u32 {
        self.with(|counted| counted.rounds().highest())
    }

    /// The tasks of which a round above 0 was begun, in order.
    pub(crate) fn begun(&self) -> Vec<u32> {
        let mut begun: Vec<_> = self.with(|counted| counted.rounds().begun().collect());
        begun.sort_unstable();
        begun
    }

    /// The file that got the name of a task's output in an earlier round.
    #[must_use]
    pub(crate) fn file(&self, index: u32) -> Option<FileId> {
        self.with(|counted| counted.file(index))
    }

    /// The input of a task as its round takes it, where that is not how it was when the bag was made.
    #[must_use]
    pub(crate) fn input_now(&self, index: u32) -> Option<InputNow> {
        self.with(|counted| counted.inputs().get(&index).copied())
    }

    /// All of those inputs.
    pub(crate) fn inputs_now(&self) -> Vec<(u32, InputNow)> {
        self.with(|counted| counted.inputs().iter().map(|(index, now)| (*index, *now)).collect())
    }

    /// The outcome of a task, if it has one in `round` or a later one, read from its line.
    ///
    /// Blocks: reads one line. A line that cannot be read any more is none: a late worker is then not told of it.
    #[must_use]
    pub fn outcome(&self, index: u32, round: u32) -> Option<TaskResult> {
        let at = self.with(|counted| counted.place((index, round)))?;
        match self.file.entry_at(at) {
            Ok(Entry::Outcome(result)) if result.index == index => {
                Some(Arc::unwrap_or_clone(result))
            }
            Ok(_) => None,
            Err(error) => {
                warn!(%error, index, at, "ledger line not read");
                None
            }
        }
    }

    /// Shows `see` the outcome that counts of each task that has one and is no block, from the file.
    ///
    /// Blocks: reads the whole file.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn outcomes(&self, mut see: impl FnMut(Arc<TaskResult>)) -> io::Result<()> {
        let rounds = self.with(|counted| counted.rounds().undecided());
        scan::counted(self.file.file(), rounds, |result| {
            if result.index < self.tasks {
                see(result);
            }
        })
    }

    /// Looks at the counts.
    pub fn tally<T>(&self, look: impl FnOnce(&Tally) -> T) -> T {
        self.with(|counted| look(counted.tally()))
    }
}

#[cfg(test)]
mod tests;
