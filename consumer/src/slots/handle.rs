//! What an attempt knows of its execution in a slot, and can do to it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

const WAITING: u8 = 0;
const STARTED: u8 = 1;
const REVOKED: u8 = 2;

/// One execution, from outside and from inside its slot.
#[derive(Debug, Default)]
pub(crate) struct Handle {
    state: AtomicU8,
    stop: AtomicBool,
    read: AtomicU64,
}

impl Handle {
    /// Takes the job back; false if it has started.
    pub(crate) fn revoke(&self) -> bool {
        self.leave_waiting_for(REVOKED)
    }

    /// Starts it; false if it was taken back.
    pub(super) fn start(&self) -> bool {
        self.leave_waiting_for(STARTED)
    }

    fn leave_waiting_for(&self, state: u8) -> bool {
        self.state.compare_exchange(WAITING, state, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether it has started.
    pub(crate) fn started(&self) -> bool {
        self.state.load(Ordering::Acquire) == STARTED
    }

    /// Ends it at its next segment.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Bytes of the input that it has compressed.
    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    pub(super) fn set_read(&self, bytes: u64) {
        self.read.store(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_either_started_or_taken_back() {
        let started = Handle::default();
        assert!(!started.started());
        assert!(started.start() && started.started() && !started.revoke());
        let revoked = Handle::default();
        assert!(revoked.revoke() && !revoked.start() && !revoked.started());
    }
}
