//! Gives files the outputs that earlier runs made of the same content. Blocks.

use std::collections::HashSet;
use std::io;
use std::time::Instant;

use bagpress_broker::ids::Execution;
use bagpress_broker::result::Place;
use bagpress_objstore::staging::Parts;
use tracing::info;

use crate::check::input_again::digest_of;
use crate::gather::again::{self, Again, Copy};
use crate::run_folder::earlier::Earlier;
use crate::run_folder::plan::BagPlan;

/// Every file that waits for a look at the outputs of earlier runs.
pub(crate) fn files(plan: &BagPlan) -> impl Iterator<Item = u32> + '_ {
    let files = plan.earlier.as_deref().into_iter().flat_map(Earlier::files);
    files.filter(|file| plan.ledger.is_open((*file, 0)))
}

/// Makes the output of `file`, if it waits for that: of what an earlier run made of the very same content, by the digest of all of it,
/// if that is still what it was. `given_up` are those that were found to be run before.
///
/// # Errors
///
/// What the system said of the disk of the outputs: it passes, or ends the run.
pub(crate) fn next(
    plan: &BagPlan,
    parts: &Parts,
    file: u32,
    given_up: &HashSet<u32>,
) -> io::Result<Again> {
    let mut again = Again::default();
    let Some(earlier) = plan.earlier.as_deref().filter(|earlier| earlier.has(file)) else {
        return Ok(again);
    };
    if given_up.contains(&file) || !plan.ledger.is_open((file, 0)) {
        return Ok(again);
    }
    let began = Instant::now();
    let input = digest_of(plan, file).ok();
    let Some(output) = input.and_then(|input| earlier.made_of(input)) else {
        again.run.push(file);
        return Ok(again);
    };
    let execution = Execution::random();
    let from = (&*output.path, output.file, &output.done.output_digest);
    match again::copy(plan, parts, from, (file, &execution))? {
        Copy::Made => {
            let made = (file, execution);
            let result = again::outcome(plan, (file, &output.done), made, Place::Staged, began);
            again.outcomes.push(result);
        }
        Copy::Another | Copy::Unwritable => {
            info!(file, "the output of an earlier run is not to be had, and it is run");
            again.run.push(file);
        }
    }
    Ok(again)
}
