//! Why deliveries were given back: kept in the run folder, so that it outlives the server that knew.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader, Read, Write};

use anyhow::{Context, Result};
use bagpress_broker::ids::BagId;
use bagpress_broker::ids::Execution;
use bagpress_broker::quote::name;
use bagpress_broker::result::Cause;
use bagpress_broker::{AttemptRecord, Broker, limits};
use tracing::{debug, warn};

use crate::error::Usage;
use crate::run_folder::folder::{ATTEMPTS, RunFolder};
use crate::run_folder::ledger::Key;
use crate::run_folder::ledger::file::whole_or_nothing;
use crate::run_folder::ledger::line::{seal, sealed};

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

/// Counts by cause, for people.
pub(crate) fn by_cause(counts: &BTreeMap<Cause, u64>) -> String {
    let counts: Vec<_> = counts.iter().map(|(cause, n)| format!("{cause} {n}")).collect();
    counts.join(", ")
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
    if records.is_empty() && !folder.has(ATTEMPTS) {
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
    let path = folder.at(ATTEMPTS);
    let (mut history, mut known) = (History::default(), HashSet::new());
    let context = || format!("write {}", name(&path));
    let opened = HistoryFile::open(folder, |record| {
        known.insert(fingerprint(&record));
        history.count(&record);
    });
    let mut file = opened?;
    let mut new = Vec::new();
    for record in records {
        if known.len() < limits::ATTEMPTS_FILE_MAX && known.insert(fingerprint(record)) {
            history.count(record);
            new.push(record.clone());
        }
    }
    file.append(&new).and_then(|()| file.file.sync_data()).with_context(context)?;
    Ok(history)
}

fn fingerprint(record: &AttemptRecord) -> u64 {
    let mut hasher = DefaultHasher::new();
    (record.index, record.round, record.delivered, record.cause, record.at_us).hash(&mut hasher);
    record.worker.hash(&mut hasher);
    hasher.finish()
}

/// The open `attempts.jsonl` of a run: a checksummed line a record.
#[derive(Debug)]
pub(crate) struct HistoryFile {
    file: File,
    lines: usize,
}

impl HistoryFile {
    /// Opens it, and reads what it has.
    ///
    /// # Errors
    ///
    /// [`Usage`] if it is not believed; what the system said.
    pub(crate) fn open(folder: &RunFolder, see: impl FnMut(AttemptRecord)) -> Result<Self> {
        let read = Self::of(folder.append(ATTEMPTS)?, see);
        read.with_context(|| format!("read {}", name(folder.at(ATTEMPTS))))
    }

    fn of(file: File, mut see: impl FnMut(AttemptRecord)) -> io::Result<Self> {
        let mut lines = 0;
        let whole = read_lines(&file, |record| {
            lines += 1;
            see(record);
        })?;
        if !whole {
            // A torn last line must not swallow the next one.
            (&file).write_all(b"\n")?;
        }
        Ok(Self { file, lines })
    }

    /// Appends records, up to [`limits::ATTEMPTS_FILE_MAX`]; a process that is killed afterwards loses
    /// none of them.
    ///
    /// # Errors
    ///
    /// What the system said: none of them is there.
    pub(crate) fn append(&mut self, records: &[AttemptRecord]) -> io::Result<()> {
        let room = limits::ATTEMPTS_FILE_MAX.saturating_sub(self.lines);
        let records = &records[..records.len().min(room)];
        let mut text = Vec::new();
        for record in records {
            let mut line = serde_json::to_vec(record)?;
            line.pop();
            text.extend_from_slice(&seal(line));
            text.push(b'\n');
        }
        whole_or_nothing(&self.file, |mut file| file.write_all(&text))?;
        self.lines += records.len();
        Ok(())
    }
}

/// Reads every line that is whole; whether the last one ends.
fn read_lines(file: &File, mut see: impl FnMut(AttemptRecord)) -> io::Result<bool> {
    let mut reader = BufReader::new(file);
    let (mut line, mut whole) = (Vec::new(), true);
    loop {
        line.clear();
        let most = limits::MESSAGE_BYTES_MAX as u64;
        if reader.by_ref().take(most).read_until(b'\n', &mut line)? == 0 {
            return Ok(whole);
        }
        whole = line.ends_with(b"\n");
        let record = sealed(line.strip_suffix(b"\n").unwrap_or(&line)).map(serde_json::from_slice);
        if let Some(Ok(record)) = record {
            see(record);
        }
    }
}

/// Reads what a run folder has of the history; lines that are torn or flipped are passed over.
///
/// # Errors
///
/// [`Usage`] if it is not believed; what the system said. A file that is not there is no error.
pub(crate) fn read(folder: &RunFolder, see: impl FnMut(AttemptRecord)) -> Result<()> {
    let Some(file) = folder.open(ATTEMPTS)? else { return Ok(()) };
    let read = read_lines(&file, see).map(drop);
    read.with_context(|| format!("read {}", name(folder.at(ATTEMPTS))))
}

/// What came of a task's round so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Past {
    /// Attempts that ended without an outcome.
    pub(crate) spent: u32,
    /// Times that it was given back as planned.
    pub(crate) planned: u32,
    /// How many of those because an output's bytes had vanished.
    pub(crate) bytes_lost: u32,
    /// The execution that spent the last attempt: whatever else becomes of it spends no second one.
    pub(crate) spender: Option<Execution>,
    /// The execution that was given back last: a renewal that was on its way then holds nothing.
    pub(crate) given_back: Option<Execution>,
}

impl Past {
    /// Counts an execution that ended without an outcome. Returns whether it had not been counted before.
    pub(crate) fn count(&mut self, execution: &Execution, cause: Cause) -> bool {
        if cause.is_planned() {
            self.planned += 1;
            self.bytes_lost += u32::from(cause == Cause::BytesLost);
            return true;
        }
        if self.spender.as_ref() == Some(execution) {
            return false;
        }
        self.spent += 1;
        self.spender = Some(execution.clone());
        true
    }
}

/// Opens the history of a bag that is offered, and adds up what came of the rounds that are not
/// decided. One that cannot be had is no reason to fail a bag; one that is not believed is.
///
/// A lost input spends nothing: its round ends, and the next one puts it again.
///
/// An execution whose end nobody saw, because its gatherer died first, is not in it and spends nothing:
/// it may go on, and its outcome is as good as any.
///
/// # Errors
///
/// [`Usage`] if it is not believed.
pub(crate) fn past(
    folder: &RunFolder,
    is_open: impl Fn(Key) -> bool,
) -> Result<(Option<HistoryFile>, HashMap<Key, Past>)> {
    let mut past: HashMap<Key, Past> = HashMap::new();
    let opened = HistoryFile::open(folder, |record| {
        let key = (record.index, record.round);
        if let Some(execution) = &record.execution
            && !matches!(record.cause, Cause::Duplicate | Cause::InputMissing)
            && is_open(key)
        {
            past.entry(key).or_default().count(execution, record.cause);
        }
    });
    match opened {
        Err(error) if error.is::<Usage>() => Err(error),
        Err(error) => {
            warn!(error = format!("{error:#}"), "the attempts so far are not known");
            Ok((None, past))
        }
        Ok(file) => Ok((Some(file), past)),
    }
}

#[cfg(test)]
mod tests {
    use bagpress_broker::descriptor::ResultPath;
    use bagpress_broker::ids::{Execution, RunName, TaskId};

    use super::*;
    use crate::run_folder::trust::Trust;

    fn run_folder() -> (tempfile::TempDir, RunFolder) {
        let place = tempfile::tempdir().unwrap();
        let name: RunName = "t".parse().unwrap();
        let folder = RunFolder::make(place.path(), &name, ResultPath::Staged, Trust::Ours).unwrap();
        (place, folder)
    }

    #[test]
    fn what_was_kept_before_is_kept_once() {
        let (_place, folder) = run_folder();
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

    #[test]
    fn who_gathers_next_knows_the_attempts_that_were_spent() {
        let (_place, folder) = run_folder();
        let (mut file, past) = past(&folder, |_| true).unwrap();
        assert!(past.is_empty());
        let note = |file: &mut HistoryFile, index, cause, execution: &Execution| {
            let id = TaskId { bag: "t-abcdefgh".parse().unwrap(), index, round: 0 };
            let record = AttemptRecord::new(&id, 1, 0, cause, "W");
            file.append(&[AttemptRecord { execution: Some(execution.clone()), ..record }]).unwrap();
        };
        let executions = [(); 3].map(|()| Execution::random());
        let file = file.as_mut().unwrap();
        note(file, 1, Cause::WorkerLost, &executions[0]);
        // It was renewed, and lost again: one attempt.
        note(file, 1, Cause::WorkerLost, &executions[0]);
        note(file, 1, Cause::Drain, &executions[1]);
        note(file, 1, Cause::BytesLost, &executions[1]);
        note(file, 1, Cause::Duplicate, &executions[1]);
        note(file, 1, Cause::TransferError, &executions[2]);
        note(file, 1, Cause::InputMissing, &Execution::random());
        note(file, 2, Cause::WorkerLost, &executions[2]);
        let (_, past) = super::past(&folder, |(index, _)| index == 1).unwrap();
        assert_eq!(past.len(), 1, "what is decided is of no interest");
        let past = &past[&(1, 0)];
        assert_eq!((past.spent, past.planned, past.bytes_lost), (2, 2, 1));
    }

    #[test]
    fn a_history_that_is_longer_than_its_bound_takes_no_more_and_fails_nothing() {
        let (_place, folder) = run_folder();
        let id = TaskId { bag: "t-abcdefgh".parse().unwrap(), index: 3, round: 0 };
        let lost = AttemptRecord::new(&id, 1, 0, Cause::WorkerLost, "W");
        let mut file = HistoryFile::open(&folder, |_| {}).unwrap();
        file.lines = limits::ATTEMPTS_FILE_MAX + 1;
        file.append(&[lost]).unwrap();
        read(&folder, |record| panic!("{record:?}")).unwrap();
    }

    #[test]
    fn a_record_that_is_torn_or_flipped_is_not_believed_and_swallows_none() {
        let (_place, folder) = run_folder();
        let id = TaskId { bag: "t-abcdefgh".parse().unwrap(), index: 3, round: 0 };
        let lost = AttemptRecord::new(&id, 1, 0, Cause::WorkerLost, "W");
        add(&folder, std::slice::from_ref(&lost)).unwrap();
        let line = std::fs::read(folder.at(ATTEMPTS)).unwrap();
        let flipped =
            String::from_utf8(line.clone()).unwrap().replace(r#""index":3"#, r#""index":7"#);
        let torn = &line[..line.len() / 2];
        std::fs::write(folder.at(ATTEMPTS), [&line, flipped.as_bytes(), torn].concat()).unwrap();
        let late = AttemptRecord::new(&id, 2, 0, Cause::Duplicate, "W");
        let history = add(&folder, std::slice::from_ref(&late)).unwrap();
        assert_eq!(
            (history.duplicates, &history.given_back),
            (1, &[(Cause::WorkerLost, 1)].into())
        );
        let mut kept = Vec::new();
        read(&folder, |record| kept.push(record)).unwrap();
        assert_eq!(kept, [lost, late]);
    }
}
