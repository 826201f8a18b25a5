//! Outcomes that are handed to the gatherer: those of workers, and the failures that the producer itself finds.

use std::sync::Arc;

use bagpress_broker::ids::{BagId, Execution};
use bagpress_broker::result::{Cause, Failed, Outcome, TaskResult, Times, wall_clock_us};
use bagpress_broker::{Reply, Verdict, limits};
use tokio::sync::OwnedSemaphorePermit;

use crate::run_folder::ledger::Key;

/// The worker named in the outcome of a task that no worker can do anything for.
pub(crate) const PRODUCER: &str = "producer";

/// An outcome, and where its verdict is waited for.
#[derive(Debug, Clone)]
pub(crate) struct Handed {
    pub(crate) result: Arc<TaskResult>,
    pub(crate) reply: Option<Reply>,
    /// Its share of the files that may wait.
    pub(crate) share: Option<Arc<OwnedSemaphorePermit>>,
}

impl Handed {
    pub(crate) async fn answer(&self, verdict: &Verdict) {
        if let Some(reply) = &self.reply {
            reply.answer(verdict).await;
        }
    }
}

/// The outcome of a task that no worker can do anything for.
pub(crate) fn failure(
    bag: &BagId,
    (index, round): Key,
    attempt: u32,
    failed: Failed,
) -> TaskResult {
    TaskResult {
        v: limits::WIRE_VERSION,
        bag: bag.clone(),
        index,
        round,
        execution: Execution::random(),
        attempt,
        worker: PRODUCER.to_owned(),
        host: String::new(),
        outcome: Outcome::Failed(failed),
        times: Times { made_us: wall_clock_us(), ..Times::default() },
        descriptor: None,
        file: None,
        members: Vec::new(),
    }
}

/// What a task fails with whose bytes vanished `times` times.
pub(crate) fn too_often(times: u32) -> Failed {
    let text =
        format!("{times} outcomes arrived, and each time the bytes were gone or did not match");
    Failed::new(Cause::BytesLost, text)
}
