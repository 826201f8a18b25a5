//! Remembered digests of part files.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bagpress_broker::limits;
use bagpress_codec::Digest;

/// What was found in part files that were read, or hashed as they came. A part file that was forgotten is read.
#[derive(Debug, Default)]
pub(super) struct Digests(Mutex<HashMap<String, Digest>>);

impl Digests {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Digest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, part: String, digest: Digest) {
        let mut digests = self.lock();
        if digests.len() >= limits::CLOSED_MAX {
            digests.clear();
        }
        digests.insert(part, digest);
    }

    pub(super) fn take(&self, part: &str) -> Option<Digest> {
        self.lock().remove(part)
    }

    /// What was found in a part file says nothing of what is being written there now.
    pub(super) fn forget(&self, part: &Path) {
        if let Some(name) = part.to_str() {
            self.lock().remove(name);
        }
    }
}
