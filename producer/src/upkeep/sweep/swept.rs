//! One thing that is swept, and why.

use std::path::Path;

use bagpress_broker::quote::name;
use serde::Serialize;

/// One thing that no bag owns.
#[derive(Debug, Serialize)]
pub struct Swept {
    /// What it is; a file by its path, as it is.
    pub what: String,
    /// Whether that is a path.
    #[serde(skip)]
    pub is_path: bool,
    /// Why nobody needs it.
    pub why: String,
    /// Whether it was removed, or only found.
    pub removed: bool,
}

impl Swept {
    /// Something on a broker.
    pub(super) fn on_broker(what: String, why: String, dry_run: bool) -> Self {
        Self { what, is_path: false, why, removed: !dry_run }
    }

    /// A file or folder.
    pub(super) fn at(path: &Path, why: &str, dry_run: bool) -> Self {
        let (what, why) = (path.display().to_string(), why.to_owned());
        Self { what, is_path: true, why, removed: !dry_run }
    }

    /// What it is, for people: a path is quoted where it must be.
    #[must_use]
    pub fn named(&self) -> String {
        if self.is_path { name(&self.what) } else { self.what.clone() }
    }
}
