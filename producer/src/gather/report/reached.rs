//! How far a bag has come, with what workers have read of tasks that are not done.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::gather::pace::Amount;
use crate::run_folder::ledger::Key;

/// The farthest that was seen. A task that is begun again takes nothing back: it has to come as far as that first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reached {
    bytes: u64,
    /// What workers had read when that last changed.
    read: u64,
    changed: Instant,
}

impl Reached {
    pub(crate) fn new(before: &Amount, now: Instant) -> Self {
        Self { bytes: before.bytes, read: 0, changed: now }
    }

    /// Notes what is `done` of `all`, and how much of tasks without an outcome workers have `read`. All that is done must have
    /// been counted before: a task that ends between the two counts once.
    pub(crate) fn note(&mut self, all: &Amount, done: &Amount, read: u64, now: Instant) {
        if read != self.read {
            (self.read, self.changed) = (read, now);
        }
        let with_read = done.bytes.saturating_add(read);
        // Nobody may know how large a bag is; if somebody does, nothing that a worker says exceeds it.
        let most = if all.bytes == 0 { u64::MAX } else { all.bytes.max(done.bytes) };
        self.bytes = self.bytes.max(with_read.min(most));
    }

    /// What is to be shown of a bag of which so much is `done`. At its end, what failed is not done.
    pub(crate) fn shown(&self, all: &Amount, done: Amount) -> Amount {
        if done.tasks >= all.tasks {
            return done;
        }
        Amount { bytes: done.bytes.max(self.bytes), ..done }
    }

    /// For how long no worker reported to have read anything.
    pub(crate) fn still_for(&self, now: Instant) -> Duration {
        now - self.changed
    }
}

/// The sum of what was `read` of tasks that are open.
pub(crate) fn read_of_open(read: &HashMap<Key, u64>, is_open: impl Fn(Key) -> bool) -> u64 {
    let open = read.iter().filter(|(key, _)| is_open(**key));
    open.fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tasks: u64, bytes: u64) -> Amount {
        Amount { tasks, failed: 0, bytes }
    }

    /// What is shown after each of these: tasks and bytes done, and bytes read of others.
    fn shown(all: Amount, seen: &[(u64, u64, u64)]) -> Vec<u64> {
        let now = Instant::now();
        let mut reached = Reached::new(&Amount::default(), now);
        let each = seen.iter().map(|(tasks, bytes, read)| {
            let done = of(*tasks, *bytes);
            reached.note(&all, &done, *read, now);
            reached.shown(&all, done).bytes
        });
        each.collect()
    }

    #[test]
    fn a_file_that_is_read_in_part_counts_in_part() {
        let seen = [(0, 0, 0), (0, 0, 40), (0, 0, 90), (1, 100, 0), (1, 100, 7)];
        assert_eq!(shown(of(2, 150), &seen), [0, 40, 90, 100, 107]);
    }

    #[test]
    fn what_is_read_again_takes_nothing_back_and_counts_once() {
        let seen = [(0, 0, 80), (0, 0, 0), (0, 0, 30), (0, 0, 95), (1, 100, 0)];
        assert_eq!(shown(of(2, 200), &seen), [80, 80, 80, 95, 100]);
    }

    #[test]
    fn nothing_that_workers_say_exceeds_what_there_is() {
        let seen = [(0, 0, u64::MAX), (1, 100, u64::MAX)];
        assert_eq!(shown(of(2, 150), &seen), [150, 150]);
        // A file may have grown, and the size of an object may not be known.
        assert_eq!(shown(of(2, 50), &[(1, 100, 7)]), [100]);
        assert_eq!(shown(of(2, 0), &[(0, 0, 7), (1, 100, 7)]), [7, 107]);
    }

    #[test]
    fn what_failed_is_not_done_at_the_end() {
        assert_eq!(shown(of(1, 100), &[(0, 0, 90), (1, 0, 0)]), [90, 0]);
    }

    #[test]
    fn what_has_an_outcome_is_not_counted_as_read() {
        let read = [((1, 0), 5), ((2, 0), 6), ((3, 1), u64::MAX)].into();
        assert_eq!(read_of_open(&read, |(index, _)| index == 2), 6);
        assert_eq!(read_of_open(&read, |_| true), u64::MAX);
    }

    #[test]
    fn bytes_that_change_in_whatever_direction_are_a_sign_of_work() {
        let (began, all) = (Instant::now(), of(1, 100));
        let mut reached = Reached::new(&Amount::default(), began);
        let at = |seconds| began + Duration::from_secs(seconds);
        for (seconds, read) in [(1, 80), (5, 10), (6, 10)] {
            reached.note(&all, &Amount::default(), read, at(seconds));
        }
        assert_eq!(reached.still_for(at(8)), Duration::from_secs(3));
    }
}
