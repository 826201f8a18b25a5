//! The result of a pack as results of its files: each counts, or is left open, as if it had been delivered by itself.

use std::sync::Arc;

use bagpress_broker::{Followed, limits};
use bagpress_objstore::staging::Plan as _;

use crate::gather::judge::key_of;
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
        if files == 1 {
            unpacked.results.push(followed);
            continue;
        }
        for place in 0..files {
            let result = followed.result.as_ref().ok();
            match result.and_then(|result| result.member(place)) {
                Some(member) => {
                    unpacked.results.push(Followed { result: Ok(Arc::new(member)), bytes: 0 });
                }
                None if plan.ledger.is_open((index + place, round)) => {
                    unpacked.open.push(index + place);
                }
                None => {}
            }
        }
    }
    unpacked
}
