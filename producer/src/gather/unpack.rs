//! The result of a pack as results of its files: each counts, or is left open, as if it had been delivered by itself.

use std::sync::Arc;

use bagpress_broker::{Followed, limits};
use bagpress_objstore::staging::Plan as _;

use crate::gather::judge::{key_of, with_first};
use crate::run_folder::ledger::Key;
use crate::run_folder::plan::BagPlan;

/// Results of files.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    pub(crate) results: Vec<Followed>,
    /// Files of packs whose result is here, and says nothing of them: each is run alone, in its next round. No other result of this
    /// round can be committed for them.
    pub(crate) open: Vec<u32>,
}

/// Takes off what is not accepted in one go: a few packs have thousands of results.
pub(crate) fn split_off(results: &mut Vec<Followed>) -> Vec<Followed> {
    results.split_off(results.len().min(limits::GATHER_BATCH))
}

/// Unpacks the results of packs, which are to be accepted once: what comes out are results of files.
pub(crate) fn unpack(plan: &BagPlan, batch: impl Iterator<Item = Followed>) -> Unpacked {
    let mut unpacked = Unpacked::default();
    for followed in batch {
        let (index, round) = key_of(&followed);
        let files = plan.files(index, round);
        let is_open = |key: Key| plan.ledger.is_open(key) && !plan.waits_for_twin(key.0);
        unpacked.take(with_first(plan, followed), files, is_open);
    }
    unpacked
}

impl Unpacked {
    /// Takes the result of what was delivered by one name, of so many files.
    fn take(&mut self, followed: Followed, files: u32, is_open: impl Fn(Key) -> bool) {
        if files == 1 {
            return self.results.push(followed);
        }
        let (index, round) = key_of(&followed);
        let result = followed.result.as_ref().ok();
        for place in 0..files {
            match result.and_then(|result| result.member(place)) {
                Some(member) => {
                    self.results.push(Followed { result: Ok(Arc::new(member)), bytes: 0 });
                }
                None if is_open((index + place, round)) => self.open.push(index + place),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bagpress_broker::ids::{Execution, TaskId};
    use bagpress_broker::result::{Cause, Failed, Outcome, Place, TaskResult};
    use bagpress_broker::samples;

    use super::*;

    /// What comes out of the result of a pack of files 5 to 8, of which 8 is decided: indices of results, and those left open.
    fn taken(result: Result<TaskResult, (u32, u32, String)>) -> (Vec<u32>, Vec<u32>) {
        let mut unpacked = Unpacked::default();
        let followed = Followed { result: result.map(Arc::new), bytes: 0 };
        unpacked.take(followed, 4, |key| key != (8, 0));
        let results = unpacked.results.iter().map(|followed| key_of(followed).0).collect();
        (results, unpacked.open)
    }

    fn result(members: Vec<Option<Outcome>>) -> TaskResult {
        let id = TaskId { bag: samples::bag(), index: 5, round: 0 };
        let done = samples::done(&id, &Execution::random(), b"output", Place::Staged);
        TaskResult { members, ..done }
    }

    #[test]
    fn files_that_a_result_says_nothing_of_are_left_open_unless_they_are_decided() {
        let done = result(Vec::new()).outcome;
        let failed = Outcome::Failed(Failed::new(Cause::InputMissing, "gone"));
        let members = vec![Some(done.clone()), None, Some(failed), None];
        assert_eq!(taken(Ok(result(members))), (vec![5, 7], vec![6]));
        assert_eq!(taken(Ok(result(vec![Some(done); 9]))), (vec![5, 6, 7, 8], vec![]));
    }

    #[test]
    fn a_pack_that_failed_as_a_whole_or_cannot_be_read_fails_no_file() {
        assert_eq!(taken(Ok(result(Vec::new()))), (vec![], vec![5, 6, 7]));
        assert_eq!(taken(Err((5, 0, "junk".to_owned()))), (vec![], vec![5, 6, 7]));
    }
}
