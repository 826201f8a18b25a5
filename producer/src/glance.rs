//! A look at a ledger that another process may be writing: nothing is opened for writing, nothing mended.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;

use bagpress_broker::result::TaskResult;

use crate::ledger::Bits;
use crate::manifest::{Entry, read};
use crate::tally::Tally;

/// Shows `see` the outcome of each task that has one in its highest round, and sums them up. A ledger that
/// is not there has none. A line that cannot be read is passed over: it may be half written.
///
/// # Errors
///
/// What the system said.
pub(crate) fn outcomes(
    path: &Path,
    tasks: u32,
    mut see: impl FnMut(&TaskResult),
) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(tally),
        opened => opened?,
    };
    let mut rounds = HashMap::new();
    read(&file, |entry| {
        if let Entry::Begun { index, round } = entry {
            rounds.insert(index, round);
        }
    })?;
    let mut seen = Bits::new(tasks);
    read(&file, |entry| {
        let Entry::Outcome(result) = entry else { return };
        let round = rounds.get(&result.index).copied().unwrap_or(0);
        if result.round == round && result.index < tasks && !seen.get(result.index) {
            seen.set(result.index, true);
            tally.add(&result, 0);
            see(&result);
        }
    })?;
    Ok(tally)
}
