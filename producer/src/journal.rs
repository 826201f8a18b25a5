//! What came of leases that brought no outcome: told to whoever asks the broker, and kept for the run
//! folder.

use std::sync::{Mutex, PoisonError};

use bagpress_broker::ids::{BagId, TaskId};
use bagpress_broker::result::{Cause, TaskResult};
use bagpress_broker::{AttemptRecord, Broker, Lease, limits};
use tracing::debug;

/// The records of one gatherer. Where tasks wait in a stream, workers write them; here only we know.
#[derive(Debug)]
pub(crate) struct Journal {
    broker: Broker,
    bag: BagId,
    /// Whether the broker has a stream for them.
    told: bool,
    records: Mutex<Vec<AttemptRecord>>,
}

impl Journal {
    pub(crate) fn new(broker: &Broker, bag: &BagId, told: bool) -> Self {
        Self { broker: broker.clone(), bag: bag.clone(), told, records: Mutex::default() }
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

    /// Notes that an outcome came after `winner`'s.
    pub(crate) fn duplicate(&self, result: &TaskResult, winner: &TaskResult) {
        let id: TaskId = result.id();
        let cause = Cause::Duplicate;
        let mut record = AttemptRecord::new(&id, result.attempt, 0, cause, &result.worker);
        record.host.clone_from(&result.host);
        record.message = format!("execution {} came first", winner.execution);
        record.execution = Some(result.execution.clone());
        self.note(record);
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
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.len() < limits::ATTEMPTS_FILE_MAX {
            records.push(record);
        }
    }

    /// Everything noted so far.
    pub(crate) fn records(&self) -> Vec<AttemptRecord> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
