//! What was found in part files behind their CLOSE: an output gets its name only as what its result says that it is.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bagpress_broker::ids::Execution;
use bagpress_broker::limits;
use bagpress_codec::Digest;

use super::parts::{Parts, hash_file, part_name};

/// Digests of part files that were read, or hashed as they came, and have no name yet. One that was forgotten is read.
#[derive(Debug, Default)]
pub(super) struct Closed(Mutex<HashMap<String, Digest>>);

impl Closed {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Digest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found in a part file says nothing of what is being written there now.
    pub(super) fn forget(&self, part: &Path) {
        if let Some(name) = part.to_str() {
            self.lock().remove(name);
        }
    }
}

impl Parts {
    /// Notes what a part file holds, which was complete when that was found.
    pub fn note_closed(&self, index: u32, round: u32, execution: &Execution, digest: Digest) {
        let mut closed = self.closed().lock();
        if closed.len() >= limits::CLOSED_MAX {
            closed.clear();
        }
        closed.insert(part_name(index, round, execution), digest);
    }

    /// Whether the part file of an execution holds `bytes` of this digest: a result says so, and its worker need not have
    /// closed what it began. One that is not there may have its name already.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn holds(
        &self,
        (index, round): (u32, u32),
        execution: &Execution,
        bytes: u64,
        digest: &Digest,
    ) -> io::Result<bool> {
        let name = part_name(index, round, execution);
        let part = Path::new(&name);
        match self.private().metadata(part) {
            Ok(metadata) if !metadata.is_file() || metadata.len() != bytes => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        }
        let known = self.closed().lock().remove(&name);
        match known {
            Some(found) => Ok(found == *digest),
            None => Ok(hash_file(self.private(), part)?.0 == *digest),
        }
    }
}
