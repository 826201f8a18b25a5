//! Gives files that have the content of another one its output, once that has one. Blocks.

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
#[derive(Debug)]
pub(crate) enum Again {
    /// The outcomes of some.
    Outcomes(Vec<TaskResult>),
    /// These cannot have its output, and are run.
    Run(Vec<u32>),
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

/// Makes the outputs of files that wait for `first`, if that has an outcome; of some, where there are many. Ends early when it is
/// `stopped`.
///
/// # Errors
///
/// What the system said of the disk of the outputs: it passes, or ends the run.
pub(crate) fn next(
    plan: &BagPlan,
    parts: &Parts,
    first: u32,
    stopped: impl Fn() -> bool,
) -> io::Result<Option<Again>> {
    let twins: Vec<_> = waiting(plan, first).collect();
    if twins.is_empty() {
        return Ok(None);
    }
    let Some(result) = plan.ledger.outcome(first, plan.ledger.round(first)) else {
        return Ok(None);
    };
    let Some(done) = result.done() else { return Ok(Some(Again::Run(twins))) };
    let mut made = Vec::new();
    for twin in twins.into_iter().take(TWINS_MAX) {
        if stopped() {
            break;
        }
        match one(plan, parts, (first, done), twin) {
            Ok(Some(result)) => made.push(result),
            // What is made is accepted first.
            Ok(None) if made.is_empty() => return Ok(Some(Again::Run(vec![twin]))),
            Err(error) if made.is_empty() => return Err(error),
            Ok(None) | Err(_) => break,
        }
    }
    Ok((!made.is_empty()).then_some(Again::Outcomes(made)))
}

/// Makes the output of one; none if it is to be run.
fn one(
    plan: &BagPlan,
    parts: &Parts,
    (first, done): (u32, &Done),
    twin: u32,
) -> io::Result<Option<TaskResult>> {
    let began = std::time::Instant::now();
    let same = OpenInput::open(plan.input(twin)?).and_then(|file| digest_of_file(&file));
    let input = (done.input_digest, done.input_bytes);
    if !same.is_ok_and(|found| found == input) {
        info!(twin, first, "its content is another after all, and it is run");
        return Ok(None);
    }
    let execution = Execution::random();
    let (from, to) = (plan.target(first)?, plan.target(twin)?);
    match parts.make_again(twin, &execution, &from, &to, &done.output_digest) {
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
