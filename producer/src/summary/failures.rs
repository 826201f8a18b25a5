//! The failed tasks of a bag, one by one from its ledger: memory does not grow with their number.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use bagpress_broker::quote::{name, words};
use bagpress_broker::result::{Outcome, TaskResult};
use serde::ser::{Error as _, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::run_folder::files::part_of;
use crate::run_folder::folder::{FAILED, RunFolder};
use crate::run_folder::inputs;
use crate::run_folder::plan::BagPlan;

/// One failed task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its place in the bag.
    pub index: u32,
    /// Why, for scripts.
    pub cause: String,
    /// The file that was to be compressed, in a bag of files.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_path",
        deserialize_with = "read_path"
    )]
    pub path: Option<PathBuf>,
    /// Why, for people.
    pub message: String,
}

#[expect(clippy::ref_option, reason = "serde hands it over so")]
fn write_path<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => inputs::write_path(path, serializer),
        None => serializer.serialize_none(),
    }
}

fn read_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    inputs::read_path(deserializer).map(Some)
}

impl Failure {
    /// What a result says, if it says that the task failed.
    pub(crate) fn of(result: &TaskResult) -> Option<Self> {
        let Outcome::Failed(failed) = &result.outcome else { return None };
        let (cause, message) = (failed.cause.to_string(), failed.message.clone());
        Some(Self { index: result.index, cause, path: None, message })
    }

    /// The same, with the path of its input.
    pub(crate) fn with_path(mut self, plan: &BagPlan) -> Self {
        let entry = plan.inputs.as_ref().and_then(|inputs| inputs.get(self.index).ok());
        self.path = entry.map(|entry| entry.path);
        self
    }

    /// A line of `failed.txt`: index, cause, path and message, with tabs between; `-` is no path.
    fn line(&self) -> String {
        let path = self.path.as_ref().map_or_else(|| "-".to_owned(), name);
        let Self { index, cause, message, .. } = self;
        format!("{index}\t{}\t{path}\t{}\n", words(cause), words(message))
    }
}

impl std::fmt::Display for Failure {
    /// For people: whatever its names and messages hold, it is one line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let message = words(&self.message);
        write!(f, "{}: {}: ", self.index, words(&self.cause))?;
        let path = self.path.as_ref().map(name);
        // Most messages name it already.
        if let Some(path) = path.filter(|path| !message.contains(path.as_str())) {
            write!(f, "{path}: ")?;
        }
        f.write_str(&message)
    }
}

/// The failed tasks that a summary lists: the first, or all of them.
#[derive(Debug, Clone, Default)]
pub struct Failures {
    /// Those of the lowest indices, at most 20.
    pub first: Vec<Failure>,
    /// Where all are to be found, if all are to be listed.
    all: Option<BagPlan>,
}

impl Failures {
    /// The first ones of a bag.
    pub(crate) fn first(failures: &[Failure], plan: &BagPlan) -> Self {
        let first = failures.iter().cloned().map(|failure| failure.with_path(plan)).collect();
        Self { first, all: None }
    }

    /// All of them, in the order in which they failed, read when they are written.
    pub(crate) fn all(self, plan: &BagPlan) -> Self {
        Self { all: Some(plan.clone()), ..self }
    }
}

impl PartialEq for Failures {
    fn eq(&self, other: &Self) -> bool {
        self.first == other.first
    }
}

impl Serialize for Failures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(plan) = &self.all else { return self.first.serialize(serializer) };
        let mut list = serializer.serialize_seq(None)?;
        let mut written = Ok(());
        each(plan, |failure| {
            if written.is_ok() {
                written = list.serialize_element(&failure);
            }
        })
        .map_err(S::Error::custom)?;
        written?;
        list.end()
    }
}

impl<'de> Deserialize<'de> for Failures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { first: Vec::deserialize(deserializer)?, all: None })
    }
}

/// Shows `see` every failed task, in the order in which they failed.
fn each(plan: &BagPlan, mut see: impl FnMut(Failure)) -> io::Result<()> {
    plan.ledger.outcomes(|result| {
        if let Some(failure) = Failure::of(&result) {
            see(failure.with_path(plan));
        }
    })
}

/// Writes `failed.txt`, a line for each failed task; where none failed there is none.
///
/// # Errors
///
/// What the system said.
pub fn write_failed(folder: &RunFolder, plan: &BagPlan) -> Result<()> {
    let path = folder.at(FAILED);
    let context = || format!("write {}", name(&path));
    if plan.ledger.tally(|tally| tally.failed) == 0 {
        return folder.remove(FAILED).with_context(|| format!("remove {}", name(&path)));
    }
    let part = part_of(FAILED);
    let mut file = BufWriter::new(folder.create(&part).with_context(context)?);
    let mut written = Ok(());
    each(plan, |failure| {
        if written.is_ok() {
            written = file.write_all(failure.line().as_bytes());
        }
    })
    .with_context(|| format!("read {}", name(plan.ledger.path())))?;
    written.and_then(|()| file.flush()).with_context(context)?;
    file.get_ref().sync_all().with_context(context)?;
    folder.rename(&part, FAILED).with_context(context)
}
