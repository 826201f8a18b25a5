//! Gives files that have the content of another one its output, once that has one; whose input is the same as another's, wherever
//! outputs are. Blocks.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::time::Instant;

use bagpress_broker::ids::Execution;
use bagpress_broker::result::{Done, FileId, Outcome, Place, TaskResult, Times, wall_clock_us};
use bagpress_codec::Digest;
use bagpress_objstore::Trouble;
use bagpress_objstore::staging::{Parts, Plan as _};
use tracing::{info, warn};

use crate::check::input_again::digest_of;
use crate::run_folder::of_producer::of_producer;
use crate::run_folder::plan::BagPlan;
use crate::run_folder::twins::Twins;

/// What came of a look at the twins of a file.
#[derive(Debug, Default)]
pub(crate) struct Again {
    /// The outcomes of those that have its output now.
    pub(crate) outcomes: Vec<TaskResult>,
    /// These cannot have it, and are run.
    pub(crate) run: Vec<u32>,
}

/// Outputs that are made before their outcomes are accepted, together.
pub(crate) const TWINS_MAX: usize = 64;

/// The files that wait for something to come of `first`.
fn waiting(plan: &BagPlan, first: u32) -> impl Iterator<Item = u32> + '_ {
    let twins = plan.twins.as_deref().into_iter().flat_map(move |twins| twins.of_first(first));
    twins.filter(|twin| plan.waits_for_twin(*twin))
}

/// Every file that others wait for.
pub(crate) fn firsts(plan: &BagPlan) -> impl Iterator<Item = u32> + '_ {
    let firsts = plan.twins.as_deref().into_iter().flat_map(Twins::firsts);
    firsts.filter(|first| waiting(plan, *first).next().is_some())
}

/// What there is to be done for those that wait for one.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Nothing, or not yet.
    Nothing,
    /// They are to be run: there is no output for them.
    Run(Vec<u32>),
    /// The first has this outcome, and is done: these wait for it.
    Output(Box<TaskResult>, Vec<u32>),
}

/// Who waits for `first` and for what of it, but for those that were `given_up`.
pub(crate) fn asked(plan: &BagPlan, first: u32, given_up: &HashSet<u32>) -> Asked {
    let twins: Vec<_> = waiting(plan, first).filter(|twin| !given_up.contains(twin)).collect();
    if twins.is_empty() {
        return Asked::Nothing;
    }
    match plan.ledger.outcome(first, plan.ledger.round(first)) {
        None => Asked::Nothing,
        Some(result) if result.done().is_none() => Asked::Run(twins),
        Some(result) => Asked::Output(Box::new(result), twins),
    }
}

/// Whether the input of a task has the content that another one's `done` tells: a file is read, a generated input is made, and an
/// object stands for its digest.
pub(crate) fn has_input_of(plan: &BagPlan, twin: u32, done: &Done) -> bool {
    let reference = plan.entry(twin).ok().and_then(|entry| Some((entry.reference?, entry.bytes)));
    let input = (done.input_digest, done.input_bytes);
    match reference {
        Some((reference, bytes)) => {
            reference.input_digest().is_some_and(|digest| (digest, bytes) == input)
        }
        None => digest_of(plan, twin).is_ok_and(|found| found == input),
    }
}

/// The outcome of a task whose output is at `place`, with the bytes of the first one's; its own index, if they are those of an output
/// that was there before the bag.
pub(crate) fn outcome(
    plan: &BagPlan,
    (first, done): (u32, &Done),
    (twin, execution): (u32, Execution),
    place: Place,
    began: Instant,
) -> TaskResult {
    let outcome = Outcome::Done(Done { place, choice: None, ..done.clone() });
    let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let times = Times { transfer_us: took, made_us: wall_clock_us(), ..Times::default() };
    let made = of_producer(&plan.specification.bag, (twin, 0), outcome);
    TaskResult { execution, times, twin_of: Some(first), ..made }
}

/// Makes the outputs of files that wait for `first`, if that has an outcome; of some, where there are many. `given_up` are those that
/// were found to be run before. Ends early when it is `stopped`.
///
/// # Errors
///
/// What the system said of the disk of the outputs: it passes, or ends the run.
pub(crate) fn next(
    plan: &BagPlan,
    parts: &Parts,
    first: u32,
    given_up: &HashSet<u32>,
    stopped: impl Fn() -> bool,
) -> io::Result<Again> {
    let mut again = Again::default();
    let (result, twins) = match asked(plan, first, given_up) {
        Asked::Nothing => return Ok(again),
        Asked::Run(run) => return Ok(Again { run, ..again }),
        Asked::Output(result, twins) => (result, twins),
    };
    let Some(done) = result.done() else { return Ok(again) };
    for twin in twins {
        if stopped() || again.outcomes.len() >= TWINS_MAX {
            break;
        }
        match one(plan, parts, (&result, done), twin) {
            Ok(Some(result)) => again.outcomes.push(result),
            Ok(None) => again.run.push(twin),
            // What is made is accepted first.
            Err(_) if !again.outcomes.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(again)
}

/// Makes the output of one; none if it is to be run.
fn one(
    plan: &BagPlan,
    parts: &Parts,
    (of_first, done): (&TaskResult, &Done),
    twin: u32,
) -> io::Result<Option<TaskResult>> {
    let first = of_first.index;
    if plan.codec(first)? != plan.codec(twin)? {
        return Ok(None); // its output would be another, whatever the list of twins says
    }
    let began = Instant::now();
    if !has_input_of(plan, twin, done) {
        info!(twin, first, "its content is another after all, and it is run");
        return Ok(None);
    }
    let execution = Execution::random();
    let from = plan.target(first)?.path;
    let from = (&*from, of_first.file, &done.output_digest);
    match copy(plan, parts, from, (twin, &execution))? {
        Copy::Made => {}
        Copy::Another => {
            warn!(first, twin, "the output of the first is not what it was, the other is run");
            return Ok(None);
        }
        Copy::Unwritable => return Ok(None),
    }
    Ok(Some(outcome(plan, (first, done), (twin, execution), Place::Staged, began)))
}

/// What came of making an output of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copy {
    /// It is there, as a part file.
    Made,
    /// The other is not what it was.
    Another,
    /// It is not there, or cannot be had in this place.
    Unwritable,
}

/// Makes the part file of a task of the output that lies at `from`, the file that a bag named, and has this digest.
///
/// # Errors
///
/// What the system said of the disk of the outputs: it passes, or ends the run.
pub(crate) fn copy(
    plan: &BagPlan,
    parts: &Parts,
    (from, file, digest): (&Path, Option<FileId>, &Digest),
    (twin, execution): (u32, &Execution),
) -> io::Result<Copy> {
    let to = plan.target(twin)?;
    match parts.make_again(twin, execution, (from, file), &to, digest) {
        Ok(true) => Ok(Copy::Made),
        Ok(false) => Ok(Copy::Another),
        // Whoever names its own output meets what concerns it alone.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || parts.trouble(&error) == Trouble::Own =>
        {
            info!(twin, %error, "it cannot have the output of another, and is run");
            Ok(Copy::Unwritable)
        }
        Err(error) => Err(error),
    }
}
