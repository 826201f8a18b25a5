//! Makes an outcome the task's, then answers: never the other way round.

use bagpress_broker::result::{Cause, Outcome, Place, TaskResult};
use bagpress_broker::{Committed, Error, subjects};
use tracing::warn;

use crate::assignment::Assignment;
use crate::context::Context;

/// What a delivery is answered when its task has an outcome.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    /// Acknowledged.
    Ack,
    /// Terminated: the task failed for good.
    Term,
}

/// Commits an outcome, then answers. An execution that came too late is recorded as a duplicate in
/// between, and an output of its own that no outcome names is removed. Returns whether it is the task's outcome now.
///
/// # Errors
///
/// [`Error::Lost`]: the lease then decides.
pub(super) async fn conclude(
    context: &Context,
    assignment: &Assignment,
    result: &TaskResult,
    answer: Answer,
) -> Result<bool, Error> {
    let answers = context.answers();
    let committed = answers.commit(assignment, result).await?;
    if let Committed::Unreadable(why) = &committed {
        // No other outcome of this round can be committed: its gatherer begins a new one.
        warn!(task = %assignment.id(), why, "the committed result is not readable");
    }
    let is_mine = matches!(committed, Committed::Mine);
    if !is_mine && was_executed(result, answers.worker()) {
        let winner = committed.execution();
        answers.record_duplicate(assignment, &result.execution, winner).await?;
        // The tar of a pack stays: some of its files may count, and others of the winner. One that is made again counts whole.
        if let Some(Place::Object { bucket, object, .. } | Place::Tar { bucket, object, .. }) =
            result.done().map(|done| &done.place)
            && subjects::is_beside(object)
            && (result.round > 0 || subjects::first_of_tar(object).is_none())
        {
            context.store().forget(bucket, object).await;
        }
    }
    match answer {
        Answer::Ack => answers.settle(assignment).await?,
        Answer::Term => answers.discard(assignment, "failed").await?,
    }
    Ok(is_mine)
}

/// Whether `worker` executed what `result` tells: some failures are told without, and the outcome of
/// another worker is passed on.
fn was_executed(result: &TaskResult, worker: &str) -> bool {
    let told = match &result.outcome {
        Outcome::Done(_) => false,
        Outcome::Failed(failed) => matches!(
            failed.cause,
            Cause::BadDescriptor | Cause::ProtocolVersion | Cause::CrashLimit
        ),
    };
    !told && result.worker == worker
}

#[cfg(test)]
mod tests {
    use bagpress_broker::ids::{Execution, TaskId};
    use bagpress_broker::result::Failed;
    use bagpress_broker::samples;

    use super::*;

    #[test]
    fn only_what_this_worker_executed_can_be_its_duplicate() {
        let id = TaskId { bag: samples::bag(), index: 0, round: 0 };
        let mut result = samples::done(&id, &Execution::random(), b"output", Place::Staged);
        let worker = result.worker.clone();
        assert!(was_executed(&result, &worker));
        assert!(!was_executed(&result, "another"));
        result.outcome = Outcome::Failed(Failed::new(Cause::InputMissing, "why"));
        assert!(was_executed(&result, &worker));
        for cause in [Cause::BadDescriptor, Cause::ProtocolVersion, Cause::CrashLimit] {
            result.outcome = Outcome::Failed(Failed::new(cause, "why"));
            assert!(!was_executed(&result, &worker), "{cause}");
        }
    }
}
