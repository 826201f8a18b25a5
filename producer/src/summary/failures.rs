//! The failed tasks of a bag, one by one from its ledger: memory does not grow with their number.

use std::io::{self, Write};

use anyhow::{Context, Result};
use bagpress_broker::quote::name;
use serde::ser::{Error as _, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::run_folder::folder::{FAILED, RunFolder};
use crate::run_folder::helps::Helps;
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
        let first = failures.iter().cloned().map(|failure| plan.with_path(failure)).collect();
        Self { first, all: None }
    }

    /// All of them, in the order in which they failed, read when they are written.
    pub(crate) fn all(self, plan: &BagPlan) -> Self {
        Self { all: Some(plan.clone()), ..self }
    }
}

impl Failures {
    /// What helps, of so many `failed` tasks.
    #[must_use]
    pub fn what_helps(&self, failed: u64) -> Helps {
        Helps::of(&self.first, failed)
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
            see(plan.with_path(failure));
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
