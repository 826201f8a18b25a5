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
    made: AtomicU64,
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

    /// How many bytes of its input it has taken, of a pack those of all its files.
    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// How many bytes it has worked on: a little input may give so much that writing it takes longer than reading.
    pub(crate) fn worked_on(&self) -> u64 {
        self.read().max(self.made.load(Ordering::Relaxed))
    }

    pub(super) fn add_read(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Notes what it has restored.
    pub(super) fn add_made(&self, bytes: usize) {
        self.made.fetch_add(bytes as u64, Ordering::Relaxed);
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

    #[test]
    fn what_is_read_of_one_file_after_another_adds_up_and_what_is_made_is_worked_on_too() {
        let handle = Handle::default();
        handle.add_read(3);
        handle.add_read(4);
        assert_eq!((handle.read(), handle.worked_on()), (7, 7));
        handle.add_made(1000);
        assert_eq!((handle.read(), handle.worked_on()), (7, 1000));
    }
}
