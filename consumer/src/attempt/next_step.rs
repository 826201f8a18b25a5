//! What the end of an execution means for its task: decides, without a clock and without a wire.

use std::time::Duration;

use bagpress_broker::descriptor::TaskDescriptor;
use bagpress_broker::result::{Cause, Failed, TaskResult};
use bagpress_objstore::Stored;

use crate::slots::{Made, MadeFiles};

/// How an execution ended.
#[expect(clippy::large_enum_variant, reason = "nearly all are outputs that were made")]
#[derive(Debug)]
pub(super) enum Ended {
    /// The output is at its place, which took so long after it was made.
    Made(Made, Stored, Duration),
    /// Of a pack: what came of each file, but for those that had their outcome; what there is of outputs is at its place,
    /// which took so long.
    Pack(MadeFiles, Stored, Duration),
    /// It was executed, and its round has another's outcome.
    Beaten(Box<TaskResult>),
    /// It was executed, at least in part, and its output did not get to its place.
    Unplaced(Failed),
    /// Its round has an outcome already.
    Decided(Box<TaskResult>),
    /// There is no output.
    Failed(Failed),
}

impl Ended {
    /// Whether a slot had the task to its end.
    pub(super) fn was_executed(&self) -> bool {
        matches!(self, Self::Made(..) | Self::Pack(..) | Self::Beaten(_) | Self::Unplaced(_))
    }
}

/// What follows from it.
#[expect(clippy::large_enum_variant, reason = "nearly all are outputs that were made")]
#[derive(Debug)]
pub(super) enum NextStep {
    /// The outcome is the output.
    Done(Made, Stored, Duration),
    /// The outcome is what came of each file of the pack.
    Pack(MadeFiles, Stored, Duration),
    /// The task has this outcome, which the broker may have forgotten.
    HasOutcome {
        /// Which.
        outcome: Box<TaskResult>,
        /// Whether this execution came too late for it: it is recorded as a duplicate.
        duplicate: bool,
        /// Whether to commit it. That of a later round has a delivery of its own.
        commit: bool,
    },
    /// Its gatherer may be gone because the bag is over: the broker knows. If the round has no outcome
    /// there, it is a failure like any other: [`is_final`] decides.
    AskBroker(Failed),
    /// The outcome is the failure.
    Fail(Failed),
    /// Another attempt may succeed.
    GiveBack(Failed),
    /// Nobody waits for the outcome any more.
    Drop,
}

/// Decides about attempt `number` of a task; `dropped`: its bag was cancelled, or its lease is over.
pub(super) fn next_step(
    ended: Ended,
    task: &TaskDescriptor,
    number: u32,
    dropped: bool,
) -> NextStep {
    let duplicate = matches!(ended, Ended::Beaten(_));
    match ended {
        // What is durable counts all the same.
        Ended::Made(made, stored, transfer) => NextStep::Done(made, stored, transfer),
        Ended::Pack(files, stored, transfer) => NextStep::Pack(files, stored, transfer),
        Ended::Decided(outcome) | Ended::Beaten(outcome) if is_answer(&outcome, task) => {
            let commit = outcome.round == task.round;
            NextStep::HasOutcome { outcome, duplicate, commit }
        }
        Ended::Decided(outcome) | Ended::Beaten(outcome) => {
            let text =
                format!("received the outcome of task {}, which was not asked for", outcome.id());
            failure(Failed::new(Cause::TransferError, text), task, number)
        }
        Ended::Failed(_) | Ended::Unplaced(_) if dropped => NextStep::Drop,
        Ended::Unplaced(failed) => NextStep::AskBroker(failed),
        Ended::Failed(failed) => failure(failed, task, number),
    }
}

fn failure(failed: Failed, task: &TaskDescriptor, number: u32) -> NextStep {
    if is_final(failed.cause, task, number) {
        NextStep::Fail(failed)
    } else {
        NextStep::GiveBack(failed)
    }
}

/// Whether a failure is the outcome: no other attempt may succeed, or this one was the last.
pub(super) fn is_final(cause: Cause, task: &TaskDescriptor, number: u32) -> bool {
    !cause.is_planned() && (!cause.is_transient() || number >= task.attempts)
}

/// Whether what its gatherer calls the outcome of a task can be that: anybody may have answered.
fn is_answer(outcome: &TaskResult, task: &TaskDescriptor) -> bool {
    outcome.decides(&task.id()) && outcome.fits(&task.codec, task.results)
}

#[cfg(test)]
mod tests {
    use bagpress_broker::descriptor::ResultPath;
    use bagpress_broker::ids::{Execution, TaskId};
    use bagpress_broker::result::{Place, Times};
    use bagpress_broker::samples;
    use bagpress_codec::Digest;

    use super::*;

    fn task() -> TaskDescriptor {
        TaskDescriptor { attempts: 3, ..samples::task(&samples::bag(), 7, ResultPath::Staged) }
    }

    fn outcome(id: &TaskId) -> Box<TaskResult> {
        Box::new(samples::done(id, &Execution::random(), b"output", Place::Staged))
    }

    fn failed(cause: Cause) -> Failed {
        Failed::new(cause, "why")
    }

    fn made() -> Ended {
        let digest = Digest::of(b"");
        let made = Made {
            input_bytes: 0,
            input_digest: digest,
            output_bytes: 0,
            output_digest: digest,
            verified: true,
            choice: None,
            fidelity: None,
            entry_points: Vec::new(),
            times: Times::default(),
        };
        Ended::Made(made, Stored::Staged, Duration::ZERO)
    }

    #[test]
    fn an_attempt_that_may_succeed_later_is_given_back_until_the_last() {
        let (task, cause) = (task(), Cause::TransferError);
        for number in 1..3 {
            let next_step = next_step(Ended::Failed(failed(cause)), &task, number, false);
            assert!(matches!(next_step, NextStep::GiveBack(_)), "{next_step:?}");
        }
        let next_step = next_step(Ended::Failed(failed(cause)), &task, 3, false);
        assert!(matches!(next_step, NextStep::Fail(_)), "{next_step:?}");
    }

    #[test]
    fn a_planned_give_back_is_never_the_last_attempt() {
        for cause in [Cause::Full, Cause::GathererAbsent, Cause::Drain, Cause::CodecVersion] {
            let next_step = next_step(Ended::Failed(failed(cause)), &task(), u32::MAX, false);
            assert!(matches!(next_step, NextStep::GiveBack(_)), "{next_step:?}");
        }
    }

    #[test]
    fn what_can_never_succeed_fails_at_the_first_attempt() {
        let next_step = next_step(Ended::Failed(failed(Cause::InputMissing)), &task(), 1, false);
        assert!(matches!(next_step, NextStep::Fail(_)), "{next_step:?}");
    }

    #[test]
    fn of_a_cancelled_bag_only_what_is_durable_counts() {
        let task = task();
        for ended in [
            Ended::Failed(failed(Cause::InputMissing)),
            Ended::Failed(failed(Cause::Full)),
            Ended::Unplaced(failed(Cause::TransferError)),
        ] {
            let next_step = next_step(ended, &task, 1, true);
            assert!(matches!(next_step, NextStep::Drop), "{next_step:?}");
        }
        assert!(matches!(next_step(made(), &task, 1, true), NextStep::Done(..)));
        let decided = Ended::Decided(outcome(&task.id()));
        let next_step = next_step(decided, &task, 1, true);
        assert!(matches!(next_step, NextStep::HasOutcome { .. }), "{next_step:?}");
    }

    #[test]
    fn an_output_that_did_not_get_to_its_place_may_be_that_of_a_bag_that_is_over() {
        let ended = Ended::Unplaced(failed(Cause::GathererAbsent));
        assert!(matches!(next_step(ended, &task(), 3, false), NextStep::AskBroker(_)));
    }

    #[test]
    fn the_outcome_that_a_task_has_is_committed_again_and_a_late_execution_is_a_duplicate() {
        let task = task();
        let verdicts = [Ended::Decided, Ended::Beaten]
            .map(|ended| next_step(ended(outcome(&task.id())), &task, 1, false));
        let [
            NextStep::HasOutcome { duplicate: false, commit: true, .. },
            NextStep::HasOutcome { duplicate: true, commit: true, .. },
        ] = verdicts
        else {
            panic!("{verdicts:?}")
        };
    }

    #[test]
    fn the_outcome_of_a_later_round_is_not_committed_for_this_one() {
        let task = task();
        let later = TaskId { round: task.round + 1, ..task.id() };
        let next_step = next_step(Ended::Decided(outcome(&later)), &task, 1, false);
        assert!(matches!(next_step, NextStep::HasOutcome { commit: false, .. }), "{next_step:?}");
    }

    #[test]
    fn the_outcome_of_another_task_is_no_answer() {
        let task = task();
        let other = TaskId { index: task.index + 1, ..task.id() };
        for ended in [Ended::Decided(outcome(&other)), Ended::Beaten(outcome(&other))] {
            let next_step = next_step(ended, &task, 1, false);
            let NextStep::GiveBack(failed) = next_step else { panic!("{next_step:?}") };
            assert_eq!(failed.cause, Cause::TransferError);
        }
        // An output in a bucket is none of a bag whose outputs are staged.
        let bucket = "bucket".to_owned();
        let place = Place::Object { bucket, object: "out_7.bin".to_owned(), chunks: 1 };
        let elsewhere = samples::done(&task.id(), &Execution::random(), b"output", place);
        let next_step = next_step(Ended::Decided(Box::new(elsewhere)), &task, 3, false);
        assert!(matches!(next_step, NextStep::Fail(_)), "{next_step:?}");
    }
}
