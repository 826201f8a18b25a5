//! Several files in one delivery, and what became of each.
//!
//! A pack is a run of consecutive files of a bag. It has the name of its first file, and exists in round 0 only: whatever is run
//! again is run alone. See ADR 0040.

use super::result::{Failed, Outcome, TaskResult};
use crate::limits;

/// A failure of one file of a pack, cut so that a result with [`limits::PACK_FILES_MAX`] of them is a message.
#[must_use]
pub fn cut(mut failed: Failed) -> Failed {
    failed.message.retain(|c| !c.is_control());
    let end = failed.message.floor_char_boundary(limits::MEMBER_MESSAGE_BYTES_MAX);
    failed.message.truncate(end);
    failed
}

impl TaskResult {
    /// What this says of the file at `place` of a pack of which it is the result, as if that had been delivered by itself; none if
    /// it leaves it open: the file is to be run alone.
    #[must_use]
    pub fn member(&self, place: u32) -> Option<Self> {
        let outcome = self.members.get(place as usize)?.clone()?;
        // What the pack took, its files took in equal parts.
        let files = self.members.iter().flatten().count().max(1) as u64;
        let mut times = self.times;
        for time in [
            &mut times.input_us,
            &mut times.compress_us,
            &mut times.verify_us,
            &mut times.execute_us,
        ] {
            *time /= files;
        }
        // Field by field: a copy of the whole would copy all members for each of them.
        Some(Self {
            v: self.v,
            bag: self.bag.clone(),
            index: self.index.checked_add(place)?,
            round: self.round,
            execution: self.execution.clone(),
            attempt: self.attempt,
            worker: self.worker.clone(),
            host: self.host.clone(),
            outcome,
            times,
            descriptor: None,
            file: None,
            members: Vec::new(),
        })
    }
}

/// Whether a failure of one file ends its task; if not, it is left open.
#[must_use]
pub fn decides(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Done(_) => true,
        Outcome::Failed(failed) => !failed.cause.is_transient() && !failed.cause.is_planned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::{Input, Pack, ResultPath, TaskDescriptor};
    use crate::ids::{Execution, TaskId};
    use crate::result::{Cause, Place};
    use crate::samples;

    fn result(members: Vec<Option<Outcome>>) -> TaskResult {
        let id = TaskId { bag: samples::bag(), index: 7, round: 0 };
        let one = samples::done(&id, &Execution::random(), b"output", Place::Staged);
        TaskResult { members, ..one }
    }

    fn done() -> Outcome {
        result(Vec::new()).outcome
    }

    #[test]
    fn a_result_of_a_pack_says_of_each_file_what_became_of_it_or_leaves_it_open() {
        let why = Outcome::Failed(Failed::new(Cause::InputMissing, "gone"));
        let packed = result(vec![Some(done()), None, Some(why.clone())]);
        let of = |place| packed.member(place).map(|of| (of.index, of.outcome, of.execution));
        let execution = packed.execution.clone();
        assert_eq!(of(0), Some((7, done(), execution.clone())));
        assert_eq!(of(1), None);
        assert_eq!(of(2), Some((9, why, execution)));
        assert_eq!(of(3), None);
        assert!(packed.member(0).is_some_and(|of| of.members.is_empty()));
    }

    #[test]
    fn the_result_of_the_largest_pack_is_a_message() {
        let message = "\"\n".repeat(limits::FAILURE_BYTES_MAX / 2);
        let failed = cut(Failed::new(Cause::InputUnreadable, message));
        for outcome in [done(), Outcome::Failed(failed)] {
            let mut packed = result(vec![Some(outcome); limits::PACK_FILES_MAX as usize]);
            packed.worker = "\u{1}".repeat(limits::TEXT_BYTES_MAX);
            packed.host.clone_from(&packed.worker);
            let payload = packed.encode();
            assert!(payload.len() <= limits::MESSAGE_BYTES_MAX, "{}", payload.len());
            assert_eq!(TaskResult::decode(&payload).unwrap(), packed);
            packed.members.push(None);
            assert!(TaskResult::decode(&packed.encode()).is_err());
        }
    }

    #[test]
    fn only_files_of_round_0_that_fit_are_a_pack() {
        let mut task = samples::task(&samples::bag(), 7, ResultPath::Staged);
        task.input = Input::File { name: "f".to_owned(), bytes: limits::PACK_BYTES_MAX };
        task.pack = Some(Pack { files: 2 });
        let decode = |task: &TaskDescriptor| TaskDescriptor::decode(&task.encode(), &task.id());
        assert_eq!(decode(&task).unwrap(), task);
        for files in [0, 1, limits::PACK_FILES_MAX + 1] {
            task.pack = Some(Pack { files });
            assert!(decode(&task).is_err(), "{files}");
        }
        task.pack = Some(Pack { files: 64 });
        assert!(decode(&TaskDescriptor { round: 1, ..task.clone() }).is_err());
        let last = limits::BAG_TASKS_MAX - 1;
        assert!(decode(&TaskDescriptor { index: last, ..task.clone() }).is_err());
        task.input = Input::File { name: "f".to_owned(), bytes: limits::PACK_BYTES_MAX + 1 };
        assert!(decode(&task).is_err());
    }

    #[test]
    fn a_worker_that_knows_no_packs_has_another_library() {
        let task = samples::task(&samples::bag(), 7, ResultPath::Staged);
        let library = |pack| TaskDescriptor::library_of(task.codec.library(), pack);
        assert_eq!(library(None), task.codec.library());
        assert_ne!(library(Some(Pack { files: 2 })), task.codec.library());
    }
}
