//! The failed tasks of a bag, one by one from its ledger: memory does not grow with their number.

use std::io::{self, Write};

use anyhow::{Context, Result};
use bagpress_broker::quote::name;
use bagpress_broker::result::Cause;
use rustix::io::Errno;
use serde::ser::{Error as _, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::run_folder::folder::{FAILED, RunFolder};
use crate::run_folder::ledger::failure::Failure;
use crate::run_folder::plan::BagPlan;

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
        let first = failures.iter().cloned().map(|failure| with_path(failure, plan)).collect();
        Self { first, all: None }
    }

    /// All of them, in the order in which they failed, read when they are written.
    pub(crate) fn all(self, plan: &BagPlan) -> Self {
        Self { all: Some(plan.clone()), ..self }
    }
}

/// What helps failed tasks, as far as the first ones tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Helps {
    /// To run them again.
    pub retry: bool,
    /// Only another bag: what they are of is not in this one, or cannot be made under the name that it has in it.
    pub new_run: bool,
}

impl Failures {
    /// What helps, of so many `failed` tasks. Looks where the inputs are: a folder that could not be read is one task, which no
    /// repetition makes files of.
    #[must_use]
    pub fn what_helps(&self, failed: u64) -> Helps {
        let new_run = self.first.iter().filter(|failure| needs_new_run(failure)).count() as u64;
        Helps { retry: new_run < failed, new_run: new_run > 0 }
    }
}

fn needs_new_run(failure: &Failure) -> bool {
    let Some(path) = &failure.path else { return false };
    let too_long = io::Error::from(Errno::NAMETOOLONG).to_string();
    failure.message.contains(&too_long)
        || failure.cause == Cause::InputUnreadable.to_string() && path.is_dir()
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
            see(with_path(failure, plan));
        }
    })
}

/// A failure with the path of its input, in a bag of files.
fn with_path(failure: Failure, plan: &BagPlan) -> Failure {
    let entry = plan.inputs.as_ref().and_then(|inputs| inputs.get(failure.index).ok());
    failure.with_path(entry.map(|entry| entry.path))
}

/// Writes `failed.txt`, a line for each failed task; where none failed there is none.
///
/// # Errors
///
/// What the system said.
pub fn write_failed(folder: &RunFolder, plan: &BagPlan) -> Result<()> {
    let path = folder.at(FAILED);
    if plan.ledger.tally(|tally| tally.failed) == 0 {
        return folder.remove(FAILED).with_context(|| format!("remove {}", name(&path)));
    }
    folder.write_durably_by(FAILED, |file| {
        let mut written = Ok(());
        let reading = each(plan, |failure| {
            if written.is_ok() {
                written = file.write_all(failure.line().as_bytes());
            }
        });
        reading.with_context(|| format!("read {}", name(plan.ledger.path())))?;
        written.with_context(|| format!("write {}", name(&path)))
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn failed(cause: Cause, path: PathBuf, message: &str) -> Failure {
        let message = message.to_owned();
        Failure { index: 0, cause: cause.to_string(), path: Some(path), message }
    }

    #[test]
    fn to_run_them_again_helps_no_closed_folder_and_no_name_that_is_too_long() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("a");
        let closed = failed(Cause::InputUnreadable, folder.path().to_owned(), "Permission denied");
        let long =
            failed(Cause::OutputUnwritable, inside.clone(), "a: File name too long (os error 36)");
        let missing = failed(Cause::InputMissing, inside, "No such file or directory");
        let helps = |first: &[&Failure]| {
            let (failed, first) = (first.len() as u64, first.iter().map(|&f| f.clone()).collect());
            let Helps { retry, new_run } = Failures { first, all: None }.what_helps(failed);
            (retry, new_run)
        };
        assert_eq!(helps(&[&closed]), (false, true));
        assert_eq!(helps(&[&long, &closed]), (false, true));
        assert_eq!(helps(&[&missing]), (true, false));
        assert_eq!(helps(&[&closed, &missing]), (true, true));
        let listed = Failures { first: vec![closed], all: None };
        assert!(listed.what_helps(2).retry, "what is not listed may be helped");
    }
}
