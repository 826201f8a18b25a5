//! Which disk operations have begun and not ended: a disk that hangs is found out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When each of the things began that a disk has not done yet. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Waits(Arc<Mutex<Vec<Instant>>>);

/// Something that the disk was asked for and has not done; until it is dropped.
#[derive(Debug)]
pub struct UnderWay {
    waits: Waits,
    since: Instant,
}

impl Waits {
    fn lock(&self) -> MutexGuard<'_, Vec<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self) -> UnderWay {
        let since = Instant::now();
        self.lock().push(since);
        UnderWay { waits: self.clone(), since }
    }

    /// How long the disk has not done what it has had to do for longest.
    pub(super) fn longest(&self) -> Option<Duration> {
        self.lock().iter().min().map(Instant::elapsed)
    }
}

impl UnderWay {
    /// Notes that the disk has done a part of it: one that only has much to do does not hang.
    pub(crate) fn goes_on(&mut self) {
        let mut all = self.waits.lock();
        if let Some(since) = all.iter_mut().find(|since| **since == self.since) {
            self.since = Instant::now();
            *since = self.since;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut all = self.waits.lock();
        if let Some(at) = all.iter().position(|since| *since == self.since) {
            all.swap_remove(at);
        }
    }
}
