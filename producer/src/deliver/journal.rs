//! What became of leases that brought no outcome: told to the broker, and kept in the run folder.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bagpress_broker::ids::BagId;
use bagpress_broker::result::{Cause, Outcome, TaskResult};
use bagpress_broker::{AttemptRecord, Broker, Lease, limits};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tracing::debug;

use crate::run_folder::attempts::HistoryFile;

/// The records of one gatherer. Where tasks wait in a stream, workers write them; here only we know.
///
/// They are in the run folder before a task is offered again, so that the next gatherer knows which attempts were
/// spent: nothing is offered until the journal is [settled](Self::is_settled). A process that is killed loses none of
/// them; a power cut may lose the last few, whose tasks then get an attempt more.
///
/// They are written by a task of their own, one after the other: a disk that hangs holds up offers, and neither the
/// renewal of leases nor outcomes.
#[derive(Debug)]
pub(crate) struct Journal {
    bag: BagId,
    /// Whom they are told to, if it has a stream for them.
    told: Option<Broker>,
    kept: Arc<Kept>,
    /// Wakes the writer, if the file could be opened.
    writer: Option<mpsc::Sender<()>>,
}

#[derive(Debug)]
struct Kept {
    /// Not in the run folder. Bounded: see [`limits::ATTEMPTS_FILE_MAX`].
    unwritten: Mutex<Vec<AttemptRecord>>,
    /// Whether each of them was tried to be written; changed under the lock.
    settled: watch::Sender<bool>,
}

impl Kept {
    fn unwritten(&self) -> MutexGuard<'_, Vec<AttemptRecord>> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is noted, until the journal is dropped.
    async fn write(self: Arc<Self>, mut file: HistoryFile, mut noted: mpsc::Receiver<()>) {
        while noted.recv().await.is_some() {
            let records = self.unwritten().clone();
            let tried = records.len();
            let writing = spawn_blocking(move || {
                let written = file.append(&records);
                (file, written)
            });
            let Ok((back, written)) = writing.await else {
                // The records stay in memory from now on; a note sees that the channel is closed.
                let _noting = self.unwritten();
                drop(noted);
                self.settled.send_replace(true);
                return;
            };
            file = back;
            let mut unwritten = self.unwritten();
            // What came meanwhile has woken us again.
            let all = unwritten.len() == tried;
            match written {
                Ok(()) => {
                    unwritten.drain(..tried);
                }
                Err(error) => debug!(%error, "attempts not written yet"),
            }
            if all {
                self.settled.send_replace(true);
            }
        }
    }
}

impl Journal {
    /// The journal in `file`, if that could be opened; otherwise in memory only.
    pub(crate) fn new(bag: &BagId, told: Option<Broker>, file: Option<HistoryFile>) -> Self {
        let (unwritten, settled) = (Mutex::default(), watch::Sender::new(true));
        let kept = Arc::new(Kept { unwritten, settled });
        let writer = file.map(|file| {
            let (writer, noted) = mpsc::channel(1);
            tokio::spawn(Arc::clone(&kept).write(file, noted));
            writer
        });
        Self { bag: bag.clone(), told, kept, writer }
    }

    /// Notes that a lease ended without an outcome; `planned` give-backs were before it.
    pub(crate) fn lease(&self, lease: &Lease, planned: u32, cause: Cause, message: &str) {
        let delivered = lease.attempt.saturating_add(planned);
        let id = lease.id(&self.bag);
        let mut record = AttemptRecord::new(&id, delivered, planned, cause, &lease.worker);
        record.host.clone_from(&lease.host);
        message.clone_into(&mut record.message);
        record.execution = Some(lease.execution.clone());
        self.note(record);
    }

    /// Notes that the bytes of an outcome vanished; `planned` give-backs were before it.
    pub(crate) fn bytes_lost(&self, result: &TaskResult, planned: u32) {
        let delivered = result.attempt.saturating_add(planned);
        let (id, cause) = (result.id(), Cause::BytesLost);
        let record = AttemptRecord::new(&id, delivered, planned, cause, &result.worker);
        let message = "its output was gone before it got its name".to_owned();
        self.note_of(result, AttemptRecord { message, ..record });
    }

    /// Notes that a worker found no input; `planned` give-backs were before it.
    pub(crate) fn input_lost(&self, result: &TaskResult, planned: u32) {
        let Outcome::Failed(failed) = &result.outcome else { return };
        let delivered = result.attempt.saturating_add(planned);
        let (id, cause, worker) = (result.id(), failed.cause, &result.worker);
        let record = AttemptRecord::new(&id, delivered, planned, cause, worker);
        self.note_of(result, AttemptRecord { message: failed.message.clone(), ..record });
    }

    /// Notes that an outcome came after `winner`'s.
    pub(crate) fn duplicate(&self, result: &TaskResult, winner: &TaskResult) {
        let (id, cause) = (result.id(), Cause::Duplicate);
        let record = AttemptRecord::new(&id, result.attempt, 0, cause, &result.worker);
        let message = format!("execution {} came first", winner.execution);
        self.note_of(result, AttemptRecord { message, ..record });
    }

    fn note_of(&self, result: &TaskResult, record: AttemptRecord) {
        let (host, execution) = (result.host.clone(), Some(result.execution.clone()));
        self.note(AttemptRecord { host, execution, ..record });
    }

    /// Does not wait.
    fn note(&self, record: AttemptRecord) {
        if let Some(broker) = self.told.clone() {
            let (bag, record) = (self.bag.clone(), record.clone());
            tokio::spawn(async move {
                if let Err(error) = broker.record_attempt(&bag, &record).await {
                    debug!(%error, "it is kept in the run folder only");
                }
            });
        }
        let mut unwritten = self.kept.unwritten();
        if unwritten.len() < limits::ATTEMPTS_FILE_MAX {
            unwritten.push(record);
        }
        if let Some(writer) = &self.writer
            && !writer.is_closed()
        {
            self.kept.settled.send_replace(false);
            // If it is full the writer is about to look.
            writer.try_send(()).ok();
        }
    }

    /// Whether every record is in the run folder, as far as its disk takes them.
    pub(crate) fn is_settled(&self) -> bool {
        *self.kept.settled.borrow()
    }

    /// Waits until that is so. Cancel-safe.
    pub(crate) async fn settled(&self) {
        // Its sender is in `self`.
        self.kept.settled.subscribe().wait_for(|settled| *settled).await.ok();
    }

    /// The records that are not in the run folder.
    pub(crate) fn unwritten(&self) -> Vec<AttemptRecord> {
        self.kept.unwritten().clone()
    }
}

#[cfg(test)]
mod tests {
    use bagpress_broker::descriptor::ResultPath;
    use bagpress_broker::ids::{Execution, RunName};
    use bagpress_broker::samples;

    use super::*;
    use crate::run_folder::attempts;
    use crate::run_folder::folder::RunFolder;
    use crate::run_folder::trust::Trust;

    fn lease(index: u32) -> Lease {
        Lease {
            v: limits::WIRE_VERSION,
            index,
            round: 0,
            execution: Execution::random(),
            attempt: 1,
            worker: "w".to_owned(),
            host: "h".to_owned(),
            pid: 1,
            more: None,
        }
    }

    fn note(journal: &Journal, index: u32) {
        journal.lease(&lease(index), 0, Cause::WorkerLost, "the worker died");
    }

    #[tokio::test]
    async fn what_is_noted_is_in_the_run_folder_once_the_journal_is_settled() {
        let place = tempfile::tempdir().unwrap();
        let name: RunName = "t".parse().unwrap();
        let folder = RunFolder::make(place.path(), &name, ResultPath::Staged, Trust::Ours).unwrap();
        let file = HistoryFile::open(&folder, |_| {}).unwrap();
        let journal = Journal::new(&samples::bag(), None, Some(file));
        assert!(journal.is_settled());
        for index in 0..3 {
            note(&journal, index);
            assert!(!journal.is_settled());
        }
        journal.settled().await;
        assert!(journal.unwritten().is_empty());
        let mut written = Vec::new();
        attempts::read(&folder, |record| written.push(record.index)).unwrap();
        assert_eq!(written, [0, 1, 2]);
        note(&journal, 3);
        journal.settled().await;
        let (_, past) = attempts::past(&folder, |_| true).unwrap();
        assert_eq!(past.len(), 4);
    }

    #[tokio::test]
    async fn without_a_file_nothing_is_waited_for_and_all_is_known_at_the_end() {
        let journal = Journal::new(&samples::bag(), None, None);
        note(&journal, 0);
        assert!(journal.is_settled());
        assert_eq!(journal.unwritten().len(), 1);
    }
}
