//! What a removal is asked to do, and what came of it.

use std::path::PathBuf;

use bagpress_broker::ids::BagId;
use bagpress_broker::quote::{name, words};
use serde::Serialize;

/// What is to be removed, and whether it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct How {
    /// A bag that somebody gathers too: it is cancelled first.
    pub force: bool,
    /// The outputs too that the bag wrote to its `--out` folder.
    pub outputs: bool,
    /// Only look: nothing is removed, and nothing cancelled.
    pub dry_run: bool,
}

/// What was removed, or would be.
#[derive(Debug, Default, Serialize)]
pub struct Removed {
    /// The bag.
    pub bag: String,
    /// Whether it was removed, or only found.
    pub removed: bool,
    /// Messages on the broker, the bag's line included.
    pub messages: u64,
    /// Buckets on the broker.
    pub buckets: Vec<String>,
    /// Files of the run folder, and outputs.
    pub files: u64,
    /// Those of them that are outputs in the `--out` folder.
    pub outputs: u64,
    /// Outputs that were to be removed and stay: other files have their names, or somebody has changed them.
    pub outputs_left: u64,
    /// The run folder, if it was named.
    pub folder: Option<String>,
    /// What stays, and why.
    pub kept: Vec<Kept>,
}

/// A file or folder that stays.
#[derive(Debug)]
pub struct Kept {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", name(&self.path), words(&self.why))
    }
}

impl Serialize for Kept {
    /// As it is: a program that reads JSON has no terminal to protect.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}: {}", self.path.display(), self.why))
    }
}

impl Removed {
    pub(super) fn of(bag: &BagId, how: How) -> Self {
        Self { bag: bag.to_string(), removed: !how.dry_run, ..Self::default() }
    }

    pub(super) fn keep(&mut self, path: impl Into<PathBuf>, why: impl Into<String>) {
        self.kept.push(Kept { path: path.into(), why: why.into() });
    }
}
