//! Why deliveries were given back: kept in the run folder, so that it outlives the server that knew.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader, Write};

use anyhow::{Context, Result};
use bagpress_broker::ids::BagId;
use bagpress_broker::result::Cause;
use bagpress_broker::{AttemptRecord, Broker, limits};
use tracing::{debug, warn};

use crate::folder::RunFolder;

/// What the give-backs of a bag come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// Executions that came too late.
    pub(crate) duplicates: u64,
    /// Deliveries that were given back, by cause.
    pub(crate) given_back: BTreeMap<Cause, u64>,
}

impl History {
    pub(crate) fn count(&mut self, record: &AttemptRecord) {
        if record.cause == Cause::Duplicate {
            self.duplicates += 1;
        } else {
            *self.given_back.entry(record.cause).or_default() += 1;
        }
    }
}

/// Adds what the broker knows, and `ours`, to the run folder's `attempts.jsonl`, and counts all of it. A
/// history that cannot be had is no reason to fail a bag.
pub(crate) async fn keep(
    broker: &Broker,
    bag: &BagId,
    folder: &RunFolder,
    ours: Vec<AttemptRecord>,
) -> History {
    let mut records = ours;
    let reading = broker.attempts(bag, None, |record| {
        if records.len() < limits::ATTEMPTS_FILE_MAX {
            records.push(record);
        }
    });
    match tokio::time::timeout(limits::RETRY_WAIT * 4, reading).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "attempts not read"),
        Err(_) => debug!("attempts not read in time"),
    }
    if records.is_empty() && !folder.attempts().is_file() {
        return History::default();
    }
    let folder = folder.clone();
    let adding = tokio::task::spawn_blocking(move || add(&folder, &records)).await;
    match adding.map_err(anyhow::Error::from).and_then(|added| added) {
        Ok(history) => history,
        Err(error) => {
            warn!(error = format!("{error:#}"), "attempts not kept");
            History::default()
        }
    }
}

fn add(folder: &RunFolder, records: &[AttemptRecord]) -> Result<History> {
    let path = folder.attempts();
    let (mut history, mut known) = (History::default(), HashSet::new());
    read(folder, |record| {
        known.insert(fingerprint(&record));
        history.count(&record);
    })?;
    let context = || format!("write {}", path.display());
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).append(true).open(&path).with_context(context)?;
    let mut lines = Vec::new();
    for record in records {
        if known.len() >= limits::ATTEMPTS_FILE_MAX || !known.insert(fingerprint(record)) {
            continue;
        }
        history.count(record);
        serde_json::to_writer(&mut lines, record)?;
        lines.push(b'\n');
    }
    file.write_all(&lines).and_then(|()| file.sync_data()).with_context(context)?;
    Ok(history)
}

fn fingerprint(record: &AttemptRecord) -> u64 {
    let mut hasher = DefaultHasher::new();
    (record.index, record.round, record.delivered, record.cause, record.at_us).hash(&mut hasher);
    record.worker.hash(&mut hasher);
    hasher.finish()
}

/// Reads what a run folder has of the history; lines that cannot be read are passed over.
///
/// # Errors
///
/// What the system said. A file that is not there is no error.
pub(crate) fn read(folder: &RunFolder, mut see: impl FnMut(AttemptRecord)) -> io::Result<()> {
    let file = match std::fs::File::open(folder.attempts()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    for line in BufReader::new(file).split(b'\n') {
        if let Ok(record) = serde_json::from_slice(&line?) {
            see(record);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bagpress_broker::ids::{RunName, TaskId};

    use super::*;

    #[test]
    fn what_was_kept_before_is_kept_once() {
        let place = tempfile::tempdir().unwrap();
        let name: RunName = "t".parse().unwrap();
        let folder =
            RunFolder::of(place.path(), &name, bagpress_broker::descriptor::ResultPath::Staged);
        folder.create().unwrap();
        let id = TaskId { bag: "t-abcdefgh".parse().unwrap(), index: 3, round: 0 };
        let lost = AttemptRecord::new(&id, 1, 0, Cause::WorkerLost, "W");
        let late = AttemptRecord::new(&id, 2, 0, Cause::Duplicate, "W");
        let first = add(&folder, std::slice::from_ref(&lost)).unwrap();
        assert_eq!((first.duplicates, &first.given_back), (0, &[(Cause::WorkerLost, 1)].into()));
        let again = add(&folder, &[lost.clone(), late.clone()]).unwrap();
        assert_eq!((again.duplicates, &again.given_back), (1, &[(Cause::WorkerLost, 1)].into()));
        let mut kept = Vec::new();
        read(&folder, |record| kept.push(record)).unwrap();
        assert_eq!(kept, [lost, late]);
    }
}
