//! A ledger that lost lines, rebuilt from the outputs themselves.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use bagpress_broker::ids::Execution;
use bagpress_broker::result::{
    Done, Failed, FileId, Outcome, Place, TaskResult, Times, wall_clock_us,
};
use bagpress_broker::{limits, quote};
use bagpress_codec::{Digest, Generator, Hasher, SEGMENT_BYTES};
use bagpress_objstore::beneath::Dir;
use bagpress_objstore::staging::{OpenInput, Plan as _, hash_file};

use crate::manifest::Entry;
use crate::plan::BagPlan;
use crate::spec::Data;
use crate::verify::{check_file, open_output};

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
        let file = outputs.metadata(&path).ok().and_then(|metadata| FileId::of(&metadata));
        found.push(Entry::Outcome(Arc::new(result(plan, index, done, file))));
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
    let (output_digest, output_bytes) = hash_file(outputs, path).ok()?;
    let (input_digest, input_bytes) = input(plan, index).ok()?;
    let done = Done {
        input_bytes,
        input_digest,
        output_bytes,
        output_digest,
        place: Place::Staged,
        verified: true,
    };
    let file = open_output(outputs, path).ok()?;
    check_file(&plan.specification.codec, &file, &done).ok().map(|()| done)
}

/// Digest and size of a task's input.
fn input(plan: &BagPlan, index: u32) -> io::Result<(Digest, u64)> {
    if let Data::Generated { data, seed, bytes } = plan.specification.data {
        let mut generator = Generator::new(data, seed, index, bytes);
        let (mut hasher, mut buffer) = (Hasher::new(), vec![0; SEGMENT_BYTES]);
        loop {
            let filled = generator.fill(&mut buffer);
            if filled == 0 {
                return Ok((hasher.finish(), bytes));
            }
            hasher.update(&buffer[..filled]);
        }
    }
    // One that has changed since the bag was made is no witness.
    let failed = |failed: Failed| io::Error::other(failed.message);
    let input = OpenInput::open(plan.input(index)?).map_err(failed)?;
    let (mut hasher, mut bytes, mut piece) = (Hasher::new(), 0, Vec::new());
    loop {
        let ended = input.read_at(bytes, SEGMENT_BYTES, &mut piece).map_err(failed)?;
        hasher.update(&piece);
        bytes += piece.len() as u64;
        if ended {
            return Ok((hasher.finish(), bytes));
        }
    }
}

fn result(plan: &BagPlan, index: u32, done: Done, file: Option<FileId>) -> TaskResult {
    TaskResult {
        v: limits::WIRE_VERSION,
        bag: plan.specification.bag.clone(),
        index,
        round: plan.ledger.round(index),
        execution: Execution::random(),
        attempt: 1,
        worker: "gatherer".to_owned(),
        host: String::new(),
        outcome: Outcome::Done(done),
        times: Times { made_us: wall_clock_us(), ..Times::default() },
        descriptor: None,
        file,
    }
}
