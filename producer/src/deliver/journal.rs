//! What came of leases that brought no outcome: told to whoever asks the broker, and kept for the run
//! folder.

use std::sync::{Mutex, PoisonError};

use bagpress_broker::ids::BagId;
use bagpress_broker::result::{Cause, Outcome, TaskResult};
use bagpress_broker::{AttemptRecord, Broker, Lease, limits};
use tracing::debug;

use crate::run_folder::attempts::HistoryFile;

/// The records of one gatherer. Where tasks wait in a stream, workers write them; here only we know.
///
/// They are in the run folder before a task is offered again, so that whoever gathers next knows which
/// attempts were spent. A process that is killed loses none of them; a power cut may lose the last few,
/// whose tasks then get an attempt more.
#[derive(Debug)]
pub(crate) struct Journal {
    broker: Broker,
    bag: BagId,
    /// Whether the broker has a stream for them.
    told: bool,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// None where it cannot be written now.
    file: Option<HistoryFile>,
    unwritten: Vec<AttemptRecord>,
}

impl Kept {
    fn write(&mut self) {
        let Some(file) = &mut self.file else { return };
        match file.append(&self.unwritten) {
            Ok(()) => self.unwritten.clear(),
            Err(error) => debug!(%error, "attempts not written yet"),
        }
    }
}

impl Journal {
    /// The journal in `file`, if that could be opened; otherwise in memory only.
    pub(crate) fn new(broker: &Broker, bag: &BagId, told: bool, file: Option<HistoryFile>) -> Self {
        let kept = Mutex::new(Kept { file, unwritten: Vec::new() });
        Self { broker: broker.clone(), bag: bag.clone(), told, kept }
    }

    /// Notes that a lease came to nothing; `planned` give-backs were before it.
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
        let message = "its output was not there any more when it was to get its name".to_owned();
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

    fn note(&self, record: AttemptRecord) {
        if self.told {
            let (broker, bag, record) = (self.broker.clone(), self.bag.clone(), record.clone());
            tokio::spawn(async move {
                if let Err(error) = broker.record_attempt(&bag, &record).await {
                    debug!(%error, "it is kept in the run folder only");
                }
            });
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.unwritten.len() < limits::ATTEMPTS_FILE_MAX {
            kept.unwritten.push(record);
        }
        kept.write();
    }

    /// What is not in the run folder.
    pub(crate) fn unwritten(&self) -> Vec<AttemptRecord> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).unwritten.clone()
    }
}
