//! Tasks whose inputs are objects that are not there yet.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::publish::obstacle::Obstacle;
use crate::run_folder::inputs::InputEntry;

/// Tasks whose inputs are not there yet.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    tasks: Mutex<BTreeMap<u32, (u32, InputEntry)>>,
    /// Why they wait, as long as nothing else is to be published.
    pub(super) why: Obstacle,
    /// Bytes of those that came, for which the bag's bucket had no room reserved.
    pub(super) came: AtomicU64,
}

impl Awaited {
    pub(super) fn tasks(&self) -> MutexGuard<'_, BTreeMap<u32, (u32, InputEntry)>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn clear(&self) {
        self.tasks().clear();
    }

    /// What is waited for, for people.
    pub(super) fn text(&self, of: u32) -> Option<String> {
        let tasks = self.tasks();
        let (_, (_, first)) = tasks.first_key_value()?;
        Some(format!(
            "{} of {of} inputs are not there yet, such as {}",
            tasks.len(),
            first.path.display()
        ))
    }
}
