//! A ledger that lost lines, rebuilt from the outputs themselves.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use bagpress_broker::quote;
use bagpress_broker::result::{Done, Outcome, Place, TaskResult};
use bagpress_objstore::beneath::Dir;
use bagpress_objstore::staging::{OpenInput, Plan as _, hash_file};

use crate::check::input_again;
use crate::check::verify::{check_file, open_output};
use crate::run_folder::ledger::line::Entry;
use crate::run_folder::of_producer::of_producer;
use crate::run_folder::plan::BagPlan;

/// Lines that share one write.
const BATCH: usize = 64;

/// Writes a line for each task without an outcome whose output is there, under its final name below
/// `root`, and decompresses to the task's input, byte for byte. Returns how many.
///
/// # Errors
///
/// If the ledger cannot be written, or the list of inputs cannot be read.
pub(crate) fn from_outputs(plan: &BagPlan, root: &Path) -> Result<usize> {
    let (mut found, mut rebuilt) = (Vec::new(), 0);
    let outputs = match Dir::open(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        outputs => outputs.with_context(|| format!("open {}", quote::name(root)))?,
    };
    for index in 0..plan.specification.tasks {
        if plan.ledger.is_decided(index) {
            continue;
        }
        let path = plan.target(index).context("find the output's name")?.path;
        let Some(done) = examine(plan, index, &outputs, &path) else { continue };
        found.push(Entry::Outcome(Arc::new(result(plan, index, done))));
        if found.len() == BATCH {
            rebuilt += append(plan, &mut found)?;
        }
    }
    Ok(rebuilt + append(plan, &mut found)?)
}

fn append(plan: &BagPlan, found: &mut Vec<Entry>) -> Result<usize> {
    plan.ledger.append(found, |_| 0).context("append to the ledger")?;
    Ok(std::mem::take(found).len())
}

/// What an output is worth: nothing, unless it gives its input again.
fn examine(plan: &BagPlan, index: u32, outputs: &Dir, path: &Path) -> Option<Done> {
    let codec = plan.codec(index).ok()?;
    if codec.is_lossy() {
        // How near it is to its input only who made it has measured.
        return None;
    }
    let (output_digest, output_bytes) = hash_file(outputs, path).ok()?;
    let (input_digest, input_bytes) = input_again::digest_of(plan, index).ok()?;
    let done = Done {
        input_bytes,
        input_digest,
        output_bytes,
        output_digest,
        place: Place::Staged,
        verified: true,
        choice: None,
        fidelity: None,
        entry_points: Vec::new(),
    };
    let file = open_output(outputs, path).ok()?;
    check_file(&codec, &file, &done).ok()?;
    if !plan.specification.restores() {
        return Some(done);
    }
    if let Some(original) = plan.original(index).ok()? {
        original.compare(output_bytes, &output_digest).ok()?;
    }
    // It is what its input gives; the line has the input itself.
    let input = OpenInput::open(plan.input(index).ok()?).ok()?;
    let (input_digest, input_bytes) = input_again::digest_of_file(&input).ok()?;
    Some(Done { input_bytes, input_digest, ..done })
}

/// In a folder that other bags write to, the file may be another's with the same bytes: the line says of none that it is ours.
fn result(plan: &BagPlan, index: u32, done: Done) -> TaskResult {
    let key = (index, plan.ledger.round(index));
    let result = of_producer(&plan.specification.bag, key, Outcome::Done(done));
    TaskResult { worker: "gatherer".to_owned(), ..result }
}
