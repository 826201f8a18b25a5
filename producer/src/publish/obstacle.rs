//! Why publishing waits, for whoever asks.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What stands in the way of publishing, if anything does.
#[derive(Debug, Default)]
pub(super) struct Obstacle(Mutex<Option<String>>);

impl Obstacle {
    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self) -> Option<String> {
        self.lock().clone()
    }

    pub(super) fn set(&self, why: String) {
        *self.lock() = Some(why);
    }

    pub(super) fn clear(&self) {
        *self.lock() = None;
    }
}
