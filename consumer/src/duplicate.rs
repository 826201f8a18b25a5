//! An execution that came too late says so, durably, before its delivery is answered.

use bagpress_broker::ids::Execution;
use bagpress_broker::result::{Cause, Outcome, TaskResult};
use bagpress_broker::{AttemptRecord, Error};
use tracing::info;

use crate::handed::Handed;
use crate::worker::Shared;

/// Records that `execution` lost its round to `winner`, or to an outcome that nobody can read.
///
/// # Errors
///
/// [`Error::Lost`]: the lease then brings the task to somebody who finds it decided.
pub(crate) async fn record(
    worker: &Shared,
    handed: &Handed,
    execution: &Execution,
    winner: Option<&Execution>,
) -> Result<(), Error> {
    let unknown = "an outcome that cannot be read".to_owned();
    let winner = winner.map_or(unknown, |winner| format!("execution {winner}"));
    info!(task = %handed.id(), winner, "another execution came first, this one is a duplicate");
    if matches!(handed, Handed::Offered(_)) {
        // Who decided that it came too late has counted it.
        return Ok(());
    }
    let holder = worker.holdings.holder();
    let (id, by) = (handed.id(), &holder.worker);
    let mut record = AttemptRecord::new(id, handed.delivered(), 0, Cause::Duplicate, by);
    record.message = format!("{winner} came first");
    record.execution = Some(execution.clone());
    record.host.clone_from(&holder.host);
    worker.broker.record_attempt(&id.bag, &record).await
}

/// Whether this worker executed what `result` tells: some failures are told without.
pub(crate) fn was_executed(worker: &Shared, result: &TaskResult) -> bool {
    let told = match &result.outcome {
        Outcome::Done(_) => false,
        Outcome::Failed(failed) => matches!(
            failed.cause,
            Cause::BadDescriptor | Cause::ProtocolVersion | Cause::CrashLimit
        ),
    };
    !told && result.worker == worker.holdings.holder().worker
}
