//! What a person is told: lines at the terminal, and what ends a command with which exit code.

use std::io::Write;

/// An error of usage, which a person can mend before anything has started.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Usage {
    /// What is wrong, naming the thing.
    pub message: String,
    /// What to try.
    pub hint: String,
}

impl Usage {
    /// As an `anyhow` error.
    pub fn error(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
        Self { message: message.into(), hint: hint.into() }.into()
    }
}

/// A file is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Damaged(pub String);

/// Somebody cancelled the bag.
#[derive(Debug, thiserror::Error)]
#[error("bag {bag} was cancelled: {done} of {tasks} tasks were done, {failed} failed")]
pub struct Cancelled {
    /// The bag.
    pub bag: String,
    /// How many tasks it has.
    pub tasks: u32,
    /// How many were done by then.
    pub done: u32,
    /// How many had failed by then.
    pub failed: u32,
}

impl Cancelled {
    pub(crate) fn of(line: &bagpress_broker::BagLine) -> Self {
        let (tasks, done, failed) = (line.tasks, line.done, line.failed);
        Self { bag: line.bag.to_string(), tasks, done, failed }
    }
}

/// The bag stands still, or is past its deadline.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Stalled(pub String);

/// Nothing of the run can be written any more.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unwritable(pub String);

impl Unwritable {
    /// The next thing a person at a terminal should try.
    pub const HINT: &str = "restore the folder and make it writable; then the bag continues";
}

/// Somebody pressed Ctrl-C, or sent SIGTERM.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; `bagpress gather {folder}` continues it")]
pub struct Interrupted {
    /// The run folder.
    pub folder: String,
}

/// Says something to the person at the terminal, on stderr.
///
/// It is one line whatever is in it: nothing that others have named moves the cursor or forges another.
pub fn message(line: &str) {
    // A stderr that nobody can write to has nobody to tell.
    writeln!(std::io::stderr(), "{}", bagpress_broker::quote::words(line)).ok();
}
