//! Why an object was not made again.

use bagpress_broker::ids::BagId;
use serde::Serialize;

/// Why an object was not made again, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Nobody knows what it was made of: it was put, its bag's results are gone, or those of an earlier version do not say it.
    NoLineage,
    /// What it was made of was freed.
    InputFreed,
    /// What it was made of is not there, and never was as far as anybody knows.
    InputGone,
    /// What it was made of has other bytes now, or what was made of it has.
    OtherBytes,
    /// More tasks would have to run one after the other than may.
    TooDeep,
    /// More tasks would have to run than may.
    OverBudget,
    /// No worker would run the task.
    NoWorkers,
    /// The bag was cancelled or removed, so workers drop its tasks.
    CalledOff,
    /// The task was run and failed.
    TaskFailed,
    /// The task had no outcome within the deadline.
    TooLate,
}

/// The same, with words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotMade {
    /// Why.
    pub why: Why,
    /// The same for people.
    pub text: String,
}

impl Why {
    pub(crate) fn because(self, text: impl Into<String>) -> NotMade {
        NotMade { why: self, text: text.into() }
    }
}

pub(super) fn called_off(bag: &BagId) -> NotMade {
    let text = format!("bag {bag} was cancelled or removed, so workers drop its tasks");
    Why::CalledOff.because(text)
}

/// The command that makes what a bag lost again, with its run folder where `run` puts it.
pub(super) fn repair(bag: &BagId) -> String {
    let run = bag.run_name().map_or("RUN".to_owned(), |run| format!("runs/{run}/objects"));
    format!("`bagpress gather {run} --repair`")
}
