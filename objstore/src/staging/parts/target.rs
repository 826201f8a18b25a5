//! Where an output belongs, and which file that has its name already it may replace or move aside.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use bagpress_broker::result::FileId;
use serde::{Deserialize, Serialize};

use super::attributes::Attributes;

/// Where a task's output belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Below the outputs' root.
    pub path: PathBuf,
    /// What it takes from the file that it was made from.
    pub attributes: Option<Attributes>,
    /// The file that has its name already, and that it is to replace.
    pub replaces: Option<Replaced>,
    /// What may be moved aside if it has the name, and is not what it should be.
    pub own: Own,
}

/// Which file under an output's name is the bag's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// None: the bag has given that name to nothing.
    Nothing,
    /// The one that its ledger says.
    File(FileId),
    /// Whatever is there: the folder is the run's own.
    Everything,
}

/// A file that somebody asked to be replaced, as it was then: another one that has its name meanwhile is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// Its size.
    pub bytes: u64,
    /// Its modification time, ns since 1970.
    pub mtime_ns: i64,
    /// Its inode.
    pub inode: u64,
}

impl Replaced {
    /// What is to be known of a file to recognise it.
    #[must_use]
    pub fn of(metadata: &fs::Metadata) -> Self {
        Self { bytes: metadata.len(), mtime_ns: mtime_ns(metadata), inode: metadata.ino() }
    }

    pub(super) fn is(&self, metadata: &fs::Metadata) -> bool {
        *self == Self::of(metadata)
    }
}

/// Modification time of a file, ns since 1970.
#[must_use]
pub fn mtime_ns(metadata: &fs::Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}
