//! The outcomes that count, read from a ledger's file: nothing is opened for writing, nothing mended.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use anyhow::{Context, Result};
use bagpress_broker::quote::name;
use bagpress_broker::result::TaskResult;

use crate::run_folder::folder::{MANIFEST, RunFolder};
use crate::run_folder::ledger::Bits;
use crate::run_folder::ledger::line::{Entry, read};
use crate::run_folder::ledger::tally::Tally;

/// Shows `see` the outcome of each task that has one in the round that counts for it, which `round` says.
/// A line that cannot be read is passed over.
///
/// # Errors
///
/// What the system said.
pub(crate) fn counted(
    file: &File,
    tasks: u32,
    round: impl Fn(u32) -> u32,
    mut see: impl FnMut(Arc<TaskResult>),
) -> io::Result<()> {
    let mut seen = Bits::new(tasks);
    read(file, |entry| {
        let Entry::Outcome(result) = entry else { return };
        let index = result.index;
        if index < tasks && result.round == round(index) && !seen.get(index) {
            seen.set(index, true);
            see(result);
        }
    })
    .map(drop)
}

/// As [`counted`], of a ledger that another process may be writing, and sums the outcomes up. One that is
/// not there has none.
///
/// # Errors
///
/// What the system said.
pub(crate) fn outcomes(
    folder: &RunFolder,
    tasks: u32,
    see: impl FnMut(&TaskResult),
) -> Result<Tally> {
    let Some(file) = folder.open(MANIFEST)? else { return Ok(Tally::default()) };
    let read = outcomes_of(&file, tasks, see);
    read.with_context(|| format!("read {}", name(folder.at(MANIFEST))))
}

fn outcomes_of(file: &File, tasks: u32, mut see: impl FnMut(&TaskResult)) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let mut rounds = HashMap::new();
    read(file, |entry| {
        // The line that began a round may be lost: the highest counts all the same.
        let (index, round) = match entry {
            Entry::Begun { index, round, .. } => (index, round),
            Entry::Outcome(result) => (result.index, result.round),
        };
        if round > 0 {
            let highest = rounds.entry(index).or_insert(round);
            *highest = round.max(*highest);
        }
    })?;
    let round = |index: u32| rounds.get(&index).copied().unwrap_or(0);
    counted(file, tasks, round, |result| {
        tally.add(&result, 0);
        see(&result);
    })?;
    Ok(tally)
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
        let tally =
            outcomes_of(&std::fs::File::open(&path).unwrap(), 1, |result| seen.push(result.round))
                .unwrap();
        let opened = Ledger::at(&path, 1).unwrap();

        assert_eq!((seen, tally.failed), (vec![1], 1));
        assert_eq!(tally.failures[0].cause, Cause::CodecError.to_string());
        assert_eq!(opened.tally(|tally| tally.failures.clone()), tally.failures);
        assert_eq!((opened.round(0), opened.tally(|tally| tally.failed)), (1, 1));
    }
}
