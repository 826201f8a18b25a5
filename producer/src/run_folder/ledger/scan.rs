//! The outcomes that count, read from a ledger's file: nothing is opened for writing, nothing mended.

use std::fs::File;
use std::io;
use std::sync::Arc;

use anyhow::{Context, Result};
use bagpress_broker::quote::name;
use bagpress_broker::result::TaskResult;

use super::counted::Counted;
use super::file::read;
use super::line::Entry;
use super::rounds::Rounds;
use super::tally::Tally;
use crate::run_folder::cuts::Cuts;
use crate::run_folder::folder::{MANIFEST, RunFolder};

/// Shows `see` the outcome of each task that counts by `rounds`, of which none is decided. A line that cannot be read is
/// passed over.
///
/// Blocks: reads the whole file.
///
/// # Errors
///
/// What the system said.
pub(super) fn counted(
    file: &File,
    mut rounds: Rounds,
    mut see: impl FnMut(Arc<TaskResult>),
) -> io::Result<()> {
    let reading = read(file, |_, entry| {
        let key = entry.key();
        if let Entry::Outcome(result) = entry
            && rounds.decide(key)
        {
            see(result);
        }
    });
    reading.map(drop)
}

/// Shows `see` the outcome of each task that counts, in a ledger that another process may be writing, and sums the outcomes
/// up. One that is not there has none.
///
/// Blocks: reads the whole file twice.
///
/// # Errors
///
/// What the system said.
pub(crate) fn outcomes(
    folder: &RunFolder,
    tasks: u32,
    see: impl FnMut(&TaskResult),
) -> Result<Tally> {
    with_blocks(folder, tasks, None, see).map(Counted::into_tally)
}

/// The same, and what is known of the blocks of tasks that are `cut`; `see` is shown none of these.
///
/// Blocks, and fails, as [`outcomes`].
///
/// # Errors
///
/// What the system said.
pub(crate) fn with_blocks(
    folder: &RunFolder,
    tasks: u32,
    cut: Option<Arc<Cuts>>,
    see: impl FnMut(&TaskResult),
) -> Result<Counted> {
    let counted = Counted::new(tasks, cut);
    let Some(file) = folder.open(MANIFEST)? else { return Ok(counted) };
    let read = outcomes_of(&file, tasks, counted, see);
    read.with_context(|| format!("read {}", name(folder.at(MANIFEST))))
}

fn outcomes_of(
    file: &File,
    tasks: u32,
    mut counted: Counted,
    mut see: impl FnMut(&TaskResult),
) -> io::Result<Counted> {
    read(file, |_, entry| counted.note(entry.key()))?;
    read(file, |at, entry| {
        let counts = counted.rounds().is_open(entry.key());
        counted.see(at, &entry, 0);
        if let Entry::Outcome(result) = entry
            && counts
            && result.index < tasks
        {
            see(&result);
        }
    })?;
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use bagpress_broker::ids::Execution;
    use bagpress_broker::limits::WIRE_VERSION;
    use bagpress_broker::result::{Cause, Failed, Outcome, Times};

    use super::*;
    use crate::run_folder::ledger::Ledger;

    fn failed(round: u32, cause: Cause) -> Entry {
        Entry::Outcome(Arc::new(TaskResult {
            v: WIRE_VERSION,
            bag: "demo-abcdefgh".parse().unwrap(),
            index: 0,
            round,
            execution: Execution::random(),
            attempt: 1,
            worker: String::new(),
            host: String::new(),
            outcome: Outcome::Failed(Failed::new(cause, "broken")),
            times: Times::default(),
            descriptor: None,
            file: None,
            twin_of: None,
            members: Vec::new(),
        }))
    }

    /// The line that began round 1 is lost: a look says what the open ledger says.
    #[test]
    fn a_look_counts_what_the_open_ledger_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.jsonl");
        let lines = [failed(0, Cause::InputMissing), failed(1, Cause::CodecError)];
        Ledger::at(&path, 1).unwrap().append(&lines, |_| 0).unwrap();

        let mut seen = Vec::new();
        let (file, counted) = (std::fs::File::open(&path).unwrap(), Counted::new(1, None));
        let counted = outcomes_of(&file, 1, counted, |result| seen.push(result.round)).unwrap();
        let tally = counted.into_tally();
        let opened = Ledger::at(&path, 1).unwrap();

        assert_eq!((seen, tally.failed), (vec![1], 1));
        assert_eq!(tally.failures[0].cause, Cause::CodecError.to_string());
        assert_eq!(opened.tally(|tally| tally.failures.clone()), tally.failures);
        assert_eq!((opened.round(0), opened.tally(|tally| tally.failed)), (1, 1));
    }
}
