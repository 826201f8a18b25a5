//! Rejects results that the specification shows to be impossible: place, input size, output bound.

use std::sync::Arc;

use bagpress_broker::descriptor::{ResultPath, TaskDescriptor};
use bagpress_broker::result::{Cause, Done, Failed, Outcome, Place, TaskResult};
use bagpress_broker::{Followed, subjects};
use bagpress_codec::EntryPoint;

use crate::run_folder::ledger::Key;
use crate::run_folder::of_producer::PRODUCER;
use crate::run_folder::plan::BagPlan;
use crate::run_folder::specification::{Data, Specification};

/// Why a result cannot be right, by what the bag and its task are: its bytes would be where nobody looks, or be nowhere.
pub(crate) fn misfit(plan: &BagPlan, result: &TaskResult) -> Option<&'static str> {
    misfit_of_bag(&plan.specification, result).or_else(|| misfit_of_task(plan, result))
}

/// The same by its own line of the list, where that says more than the bag does.
fn misfit_of_task(plan: &BagPlan, result: &TaskResult) -> Option<&'static str> {
    let Data::Listed { .. } = plan.specification.data else { return None };
    let done = result.done()?;
    let made = plan.entry(result.index).ok().and_then(|entry| entry.generate);
    if made.is_some_and(|made| made.bytes != done.input_bytes) {
        return Some(OTHER_SIZE);
    }
    let most = plan.codec(result.index).ok()?.output_bytes_max(done.input_bytes);
    (done.output_bytes > most).then_some(TOO_LARGE)
}

/// The input of a generated task has the size that the bag says.
const OTHER_SIZE: &str = "its input has another size";
/// The output of a codec has a bound.
const TOO_LARGE: &str = "its output exceeds the bound of its codec";

fn misfit_of_bag(specification: &Specification, result: &TaskResult) -> Option<&'static str> {
    let done = result.done()?;
    // What was made here of other outputs is a file, also where these travel as objects.
    let is_made_here =
        result.worker == PRODUCER && done.place == Place::Staged && specification.has_files();
    if !is_made_here && !result.fits(&specification.codec, specification.results) {
        return Some("its output is at a place where outputs of this bag cannot be");
    }
    if let Data::Generated { bytes, .. } = specification.data
        && done.input_bytes != bytes
    {
        return Some(OTHER_SIZE);
    }
    let restored = |task: &TaskDescriptor| task.decode.is_some();
    if specification.restores() && !result.descriptor.as_deref().is_some_and(restored) {
        return Some("its worker does not say that it restored");
    }
    if !EntryPoint::fit(&done.entry_points, done.output_bytes) {
        return Some("its output cannot be entered where its worker says");
    }
    let most = specification.output_bytes_max(done.input_bytes);
    (done.output_bytes > most).then_some(TOO_LARGE)
}

/// Whether its output is an object of another name than that of its task in this round.
pub(crate) fn is_elsewhere(plan: &BagPlan, result: &TaskResult) -> bool {
    let object = result.done().and_then(|done| done.place.object());
    // What has the output of another one never was in a pack.
    let is_own = |name| plan.is_twin(result.index) && name == subjects::output_name(result.index);
    object
        .map(|(_, object)| subjects::name_of(object))
        .is_some_and(|name| name != plan.object_of(result.index) && !is_own(name))
}

/// A result that this producer or an earlier one has committed for a task that has the output of another one: that is no
/// part of what is committed.
pub(crate) fn with_first(plan: &BagPlan, followed: Followed) -> Followed {
    let first = |result: &TaskResult| {
        let is_made_here =
            result.worker == PRODUCER && result.round == 0 && result.done().is_some();
        plan.twins.as_ref().filter(|_| is_made_here)?.first_of(result.index)
    };
    let with = |result: Arc<TaskResult>| match first(&result) {
        None => result,
        twin_of => Arc::new(TaskResult { twin_of, ..Arc::unwrap_or_clone(result) }),
    };
    Followed { result: followed.result.map(with), ..followed }
}

/// Whether it is that of a block and says nothing of it: its input has another size; or a worker was told by another gatherer
/// that nobody waits for it.
pub(crate) fn is_of_no_use(plan: &BagPlan, result: &TaskResult) -> bool {
    let Some((_, section)) = plan.section(result.index) else { return false };
    match &result.outcome {
        Outcome::Done(done) => done.input_bytes != section.bytes,
        Outcome::Failed(failed) => failed.cause == Cause::Cancelled,
    }
}

/// Whether a worker read other bytes than the reference stood for that is its input: another program put them there.
pub(crate) fn is_of_another_input(plan: &BagPlan, result: &TaskResult) -> bool {
    if !plan.specification.data.has_references() {
        return false;
    }
    let Some(done) = result.done() else { return false };
    let reference = plan.entry(result.index).ok().and_then(|entry| entry.reference);
    let digest = reference.and_then(|reference| reference.input_digest());
    digest.is_some_and(|digest| digest != done.input_digest)
}

/// Where a worker found no input, or other bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InputOf {
    /// In the bag's own bucket: we had put it.
    Put,
    /// At a reference.
    Reference,
    /// Nowhere that it could be lost.
    Elsewhere,
}

impl InputOf {
    fn of(plan: &BagPlan, index: u32) -> Self {
        let has_objects = plan.specification.results == ResultPath::Objects;
        let put = if has_objects { Self::Put } else { Self::Elsewhere };
        match plan.specification.data {
            Data::Files { .. } => put,
            Data::Referenced { .. } | Data::Parts { .. } | Data::PackedParts { .. } => {
                Self::Reference
            }
            Data::Listed { .. } if plan.section(index).is_some() => put,
            Data::Listed { .. } => match plan.entry(index) {
                Ok(entry) if entry.reference.is_some() => Self::Reference,
                Ok(entry) if entry.is_file() => put,
                _ => Self::Elsewhere,
            },
            Data::Generated { .. } | Data::Restored { .. } => Self::Elsewhere,
        }
    }
}

/// Whether a worker found no input where we had put one, which the next round does again; or not the bytes of a reference, which
/// are made again before the next round, or fail the task. What became of a file is known here, and another's failure.
pub(crate) fn lost_its_input(plan: &BagPlan, result: &TaskResult) -> bool {
    may_have_lost_its_input(result) && is_lost(InputOf::of(plan, result.index), result)
}

/// What needs no look at the list.
fn may_have_lost_its_input(result: &TaskResult) -> bool {
    result.worker != PRODUCER && matches!(result.outcome, Outcome::Failed(_))
}

fn is_lost(input: InputOf, result: &TaskResult) -> bool {
    let Outcome::Failed(Failed { cause, .. }) = &result.outcome else { return false };
    match input {
        InputOf::Put => *cause == Cause::InputMissing,
        InputOf::Reference => matches!(cause, Cause::InputMissing | Cause::InputDigest),
        InputOf::Elsewhere => false,
    }
}

/// A result as it counts: its object has this name by now.
pub(crate) fn by_its_name(result: Arc<TaskResult>, name: String) -> Arc<TaskResult> {
    let object = result.done().and_then(|done| done.place.object());
    if object.is_none_or(|(_, object)| *object == name) {
        return result;
    }
    let mut named = Arc::unwrap_or_clone(result);
    if let Outcome::Done(Done {
        place: Place::Object { object, .. } | Place::Tar { object, .. },
        ..
    }) = &mut named.outcome
    {
        *object = name;
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

#[cfg(test)]
mod tests {
    use bagpress_broker::descriptor::{Decode, DeliveryPath, Transfer, Verify};
    use bagpress_broker::ids::Execution;
    use bagpress_broker::result::Times;
    use bagpress_codec::{DataKind, Digest};

    use super::*;

    fn specification(results: ResultPath, data: Data) -> Specification {
        Specification {
            v: 1,
            bag: "demo-abcdefgh".parse().unwrap(),
            name: "demo".parse().unwrap(),
            pool: "default".parse().unwrap(),
            codec: "zlib:6".parse().unwrap(),
            library: String::new(),
            results,
            delivery: DeliveryPath::Jetstream,
            verify: Verify::Worker,
            transfer: Transfer::Wire,
            attempts: 3,
            tasks: 8,
            input_bytes: 0,
            data,
            out: None,
            get: false,
            keep_inputs: false,
            remove_source: false,
            stats: false,
            pack: None,
            block: None,
            ttl_s: None,
            created_us: 0,
            selection: None,
        }
    }

    fn generated() -> Specification {
        let data = Data::Generated { data: DataKind::Random, seed: 0, bytes: 1_000 };
        specification(ResultPath::Staged, data)
    }

    fn result(worker: &str, outcome: Outcome) -> TaskResult {
        TaskResult {
            v: 1,
            bag: "demo-abcdefgh".parse().unwrap(),
            index: 3,
            round: 0,
            execution: Execution::random(),
            attempt: 1,
            worker: worker.to_owned(),
            host: "h".to_owned(),
            outcome,
            times: Times::default(),
            descriptor: None,
            file: None,
            twin_of: None,
            members: Vec::new(),
        }
    }

    fn done(input_bytes: u64, output_bytes: u64, place: Place) -> TaskResult {
        let digest = Digest::of(b"");
        let (input_digest, output_digest) = (digest, digest);
        let (verified, choice, fidelity) = (true, None, None);
        let done = Done {
            input_bytes,
            input_digest,
            output_bytes,
            output_digest,
            place,
            verified,
            choice,
            fidelity,
            entry_points: Vec::new(),
        };
        result("W", Outcome::Done(done))
    }

    #[test]
    fn a_result_that_cannot_be_right_is_told_by_what_the_bag_is() {
        let bag = generated();
        assert_eq!(misfit_of_bag(&bag, &done(1_000, 900, Place::Staged)), None);
        let size = misfit_of_bag(&bag, &done(999, 900, Place::Staged)).unwrap();
        assert!(size.contains("another size"), "{size}");
        let most = bag.codec.output_bytes_max(1_000);
        assert_eq!(misfit_of_bag(&bag, &done(1_000, most, Place::Staged)), None);
        let large = misfit_of_bag(&bag, &done(1_000, most + 1, Place::Staged)).unwrap();
        assert!(large.contains("exceeds the bound"), "{large}");
        let entered = |places: &[(u64, u64)]| {
            let digest = Digest::of(b"");
            let point = |(part, bit): &(u64, u64)| EntryPoint { part: *part, bit: *bit, digest };
            let mut result = done(1_000, 900, Place::Staged);
            let Outcome::Done(done) = &mut result.outcome else { panic!("it is done") };
            done.entry_points = places.iter().map(point).collect();
            misfit_of_bag(&bag, &result)
        };
        assert_eq!(entered(&[(0, 96), (3, 7_199)]), None);
        for places in [&[(0, 96), (3, 7_200)][..], &[(0, 96), (3, 95)], &[(1, 96)]] {
            assert!(entered(places).unwrap().contains("cannot be entered"), "{places:?}");
        }
        let nowhere = misfit_of_bag(&bag, &done(1_000, 900, Place::Nothing)).unwrap();
        assert!(nowhere.contains("outputs of this bag"), "{nowhere}");
    }

    #[test]
    fn a_worker_that_restored_says_so_and_any_size_may_be_right() {
        let roots = crate::run_folder::inputs::roots::Roots::default();
        let data = Data::Restored { list: Digest::of(b""), largest: 0, roots };
        let bag = Specification {
            codec: "store".parse().unwrap(),
            ..specification(ResultPath::Staged, data)
        };
        let silent = done(100, 100_000, Place::Staged);
        assert!(misfit_of_bag(&bag, &silent).unwrap().contains("does not say that it restored"));
        let task = bag.descriptor(3, 0, None);
        let said = |decode| {
            let descriptor = Some(Box::new(TaskDescriptor { decode, ..task.clone() }));
            misfit_of_bag(&bag, &TaskResult { descriptor, ..silent.clone() })
        };
        assert!(said(None).is_some());
        assert_eq!(said(Some(Decode { original: None })), None);
    }

    #[test]
    fn an_input_is_lost_only_where_one_was_put_and_its_worker_says_so() {
        let missing = || Outcome::Failed(Failed::new(Cause::InputMissing, "it is not there"));
        let damaged = || Outcome::Failed(Failed::new(Cause::InputDigest, "it is corrupt"));
        let is_lost = |input, worker, outcome| {
            let result = result(worker, outcome);
            may_have_lost_its_input(&result) && is_lost(input, &result)
        };
        assert!(is_lost(InputOf::Put, "W", missing()));
        assert!(!is_lost(InputOf::Put, "W", damaged()), "another attempt may do better");
        assert!(is_lost(InputOf::Reference, "W", missing()));
        assert!(is_lost(InputOf::Reference, "W", damaged()));
        assert!(!is_lost(InputOf::Elsewhere, "W", missing()), "nothing was put");
        for input in [InputOf::Put, InputOf::Reference] {
            assert!(!is_lost(input, PRODUCER, missing()), "it was looked for");
        }
        let other = Outcome::Failed(Failed::new(Cause::CodecError, "broken"));
        assert!(!is_lost(InputOf::Put, "W", other));
    }
}
