//! Gives files that have the content of another one its output, once that has one. Blocks.

use std::collections::HashSet;
use std::io;

use bagpress_broker::ids::Execution;
use bagpress_broker::result::{Done, Outcome, Place, TaskResult, Times, wall_clock_us};
use bagpress_objstore::Trouble;
use bagpress_objstore::staging::{OpenInput, Parts, Plan as _};
use tracing::{info, warn};

use crate::check::input_again::digest_of_file;
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
const TWINS_MAX: usize = 64;

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
    let twins = waiting(plan, first).filter(|twin| !given_up.contains(twin));
    let twins: Vec<_> = twins.collect();
    let mut again = Again::default();
    if twins.is_empty() {
        return Ok(again);
    }
    let Some(result) = plan.ledger.outcome(first, plan.ledger.round(first)) else {
        return Ok(again);
    };
    let Some(done) = result.done() else { return Ok(Again { run: twins, ..again }) };
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
    let began = std::time::Instant::now();
    let same = OpenInput::open(plan.input(twin)?).and_then(|file| digest_of_file(&file));
    let input = (done.input_digest, done.input_bytes);
    if !same.is_ok_and(|found| found == input) {
        info!(twin, first, "its content is another after all, and it is run");
        return Ok(None);
    }
    let execution = Execution::random();
    let (from, to) = (plan.target(first)?.path, plan.target(twin)?);
    match parts.make_again(twin, &execution, (&from, of_first.file), &to, &done.output_digest) {
        Ok(true) => {}
        Ok(false) => {
            warn!(first, twin, "the output of the first is not what it was, the other is run");
            return Ok(None);
        }
        // Whoever names its own output meets what concerns it alone.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || parts.trouble(&error) == Trouble::Own =>
        {
            info!(first, twin, %error, "it cannot have the output of the first, and is run");
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    let outcome = Outcome::Done(Done { place: Place::Staged, choice: None, ..done.clone() });
    let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let times = Times { transfer_us: took, made_us: wall_clock_us(), ..Times::default() };
    let made = of_producer(&plan.specification.bag, (twin, 0), outcome);
    Ok(Some(TaskResult { execution, times, twin_of: Some(first), ..made }))
}
