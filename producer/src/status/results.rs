//! The outcomes of a run as lines of JSON, read from its ledger, while another process may write that. `docs/jsonl.md` has
//! their form.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result};
use bagpress_broker::quote;
use bagpress_broker::result::{Cause, Outcome, Place, TaskResult};
use bagpress_codec::Digest;
use serde::Serialize;

use crate::run_folder::folder::{MANIFEST, RunFolder};
use crate::run_folder::inputs::{InputList, write_path};
use crate::run_folder::ledger::follow::Follower;
use crate::run_folder::plan::{cuts_of, inputs_of};
use crate::run_folder::specification::Specification;

/// Version of the form of a line.
const VERSION: u32 = 1;

/// A line: the outcome of a task.
#[derive(Debug, Serialize)]
pub struct OutcomeLine {
    v: u32,
    index: u32,
    round: u32,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<String>,
    /// Of an output that is an object of its own: what `--refs` takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    #[serde(flatten)]
    ended: Ended,
    attempt: u32,
    worker: String,
    host: String,
    execute_us: u64,
    made_us: u64,
}

/// A path, as the list of inputs has it.
#[derive(Debug, Serialize)]
struct Name(#[serde(serialize_with = "write_path")] PathBuf);

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Ended {
    Done {
        input_bytes: u64,
        input_digest: Digest,
        output_bytes: u64,
        output_digest: Digest,
        verified: bool,
    },
    Failed {
        cause: Cause,
        message: String,
    },
}

/// The outcomes of a run, as they come.
#[derive(Debug)]
pub struct Results {
    folder: RunFolder,
    specification: Specification,
    inputs: Option<std::sync::Arc<InputList>>,
    ledger: Option<File>,
    follower: Follower,
    failed: bool,
}

impl Results {
    /// Begins with the first line of the ledger, which need not be there yet. Blocks.
    ///
    /// # Errors
    ///
    /// [`crate::Usage`] if the folder is not believed; if its files cannot be read.
    pub fn open(folder: RunFolder) -> Result<Self> {
        let specification = Specification::read(&folder)?;
        let inputs = inputs_of(&folder, &specification)?;
        let cuts = cuts_of(&folder, &specification, inputs.as_deref())?;
        let tasks = cuts.map_or(specification.tasks, |cuts| cuts.tasks());
        let (ledger, follower) = (None, Follower::new(tasks));
        Ok(Self { folder, specification, inputs, ledger, follower, failed: false })
    }

    /// Shows `see` the outcomes that came since this was last asked. Blocks.
    ///
    /// # Errors
    ///
    /// What the system said, or `see`.
    pub fn look(&mut self, mut see: impl FnMut(&OutcomeLine) -> io::Result<()>) -> Result<()> {
        if self.ledger.is_none() {
            self.ledger = self.folder.open(MANIFEST)?;
        }
        let Some(ledger) = &self.ledger else { return Ok(()) };
        let (tasks, mut failed) = (self.specification.tasks, false);
        let (specification, folder, inputs) = (&self.specification, &self.folder, &self.inputs);
        let looked = self.follower.look(ledger, |result| {
            if result.index >= tasks {
                return Ok(()); // a block of a file
            }
            failed |= result.done().is_none();
            see(&line(specification, folder, inputs.as_deref(), &result)?)
        });
        self.failed |= failed;
        // What `see` said stays to be recognised.
        looked.with_context(|| format!("read {}", quote::name(self.folder.at(MANIFEST))))
    }

    /// Whether every task has an outcome by what was seen.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        (0..self.specification.tasks).all(|index| self.follower.is_decided(index))
    }

    /// Whether any outcome that was seen is that of a task that failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// The run's folder.
    #[must_use]
    pub fn folder(&self) -> &RunFolder {
        &self.folder
    }
}

fn line(
    specification: &Specification,
    folder: &RunFolder,
    inputs: Option<&InputList>,
    result: &TaskResult,
) -> io::Result<OutcomeLine> {
    let file = inputs.map(|inputs| inputs.get(result.index)).transpose()?;
    let (mut output, mut object, mut reference) = (None, None, None);
    let (outcome, ended) = match &result.outcome {
        Outcome::Done(done) => {
            if specification.has_files() {
                let target = specification.target(inputs, result.index, None)?;
                output = Some(Name(specification.output_root(folder).join(target.path)));
            }
            let found = done.place.object();
            object = found.map(|(bucket, object)| format!("obj://{bucket}/{object}"));
            reference = object.clone().filter(|_| matches!(done.place, Place::Object { .. }));
            let (input_bytes, input_digest) = (done.input_bytes, done.input_digest);
            let (output_bytes, output_digest) = (done.output_bytes, done.output_digest);
            let verified = done.verified;
            (
                "done",
                Ended::Done { input_bytes, input_digest, output_bytes, output_digest, verified },
            )
        }
        Outcome::Failed(failed) => {
            let (cause, message) = (failed.cause, failed.message.clone());
            ("failed", Ended::Failed { cause, message })
        }
    };
    Ok(OutcomeLine {
        v: VERSION,
        index: result.index,
        round: result.round,
        outcome,
        file: file.filter(|entry| entry.generate.is_none()).map(|entry| Name(entry.path)),
        output,
        object,
        reference,
        ended,
        attempt: result.attempt,
        worker: result.worker.clone(),
        host: result.host.clone(),
        execute_us: result.times.execute_us,
        made_us: result.times.made_us,
    })
}
