//! What a committed result may say: no worker is believed what the bag itself knows better.

use std::sync::Arc;

use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::result::{Cause, Done, Outcome, Place, TaskResult};
use bagpress_broker::{Followed, subjects};

use crate::deliver::handed::PRODUCER;
use crate::run_folder::ledger::Key;
use crate::run_folder::specification::{Data, Specification};

/// Why a result cannot be right, by what the bag is: its bytes would be where nobody looks, or be nowhere.
pub(crate) fn misfit(specification: &Specification, result: &TaskResult) -> Option<&'static str> {
    let done = result.done()?;
    if !result.fits(&specification.codec, specification.results) {
        return Some("its output is where none of this bag can be");
    }
    if let Data::Generated { bytes, .. } = specification.data
        && done.input_bytes != bytes
    {
        return Some("its input has another size");
    }
    let most = specification.codec.output_bytes_max(done.input_bytes);
    (done.output_bytes > most).then_some("its output is larger than any of its codec")
}

/// Whether a worker found no input where we had put one, which the next round does again. What became of a
/// file is known here, and another's failure.
pub(crate) fn lost_its_input(specification: &Specification, result: &TaskResult) -> bool {
    matches!(&result.outcome, Outcome::Failed(failed) if failed.cause == Cause::InputMissing)
        && result.worker != PRODUCER
        && specification.results == ResultPath::Objects
        && matches!(specification.data, Data::Files { .. })
}

/// A result as it counts: its object has its own name by now.
pub(crate) fn by_its_name(result: Arc<TaskResult>) -> Arc<TaskResult> {
    let beside = |done: &Done| matches!(&done.place, Place::Object { object, .. } if subjects::is_beside(object));
    if !result.done().is_some_and(beside) {
        return result;
    }
    let mut named = Arc::unwrap_or_clone(result);
    if let Outcome::Done(Done { place: Place::Object { object, .. }, .. }) = &mut named.outcome {
        *object = subjects::output_name(named.index);
    }
    Arc::new(named)
}

/// The index and round of a result that was followed.
pub(crate) fn key_of(followed: &Followed) -> Key {
    match &followed.result {
        Ok(result) => (result.index, result.round),
        Err((index, round, _)) => (*index, *round),
    }
}
