//! How fast a bag moves, and when it is done at that pace.

use std::time::{Duration, Instant};

/// What a task costs by itself, in bytes of input that take as long: files may be many and small, or few and large.
const TASK_BYTES: u64 = 64 * 1024;

/// How much there is of a bag, or was done of it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Amount {
    /// Tasks: all, or those with an outcome.
    pub(crate) tasks: u64,
    /// Of those with an outcome, the ones that failed.
    pub(crate) failed: u64,
    /// Input bytes: of all, or of those that were done, with what was done of files in part.
    pub(crate) bytes: u64,
}

impl Amount {
    /// How much work that is, in bytes.
    pub(crate) fn work(&self) -> u64 {
        self.bytes.saturating_add(self.tasks.saturating_mul(TASK_BYTES))
    }

    /// What is left of a bag of which so much was `done`. How large the tasks are that failed is not known: the bytes that were
    /// not done are theirs in part.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        clippy::cast_possible_truncation,
        reason = "an estimate for people"
    )]
    fn without(&self, done: &Self) -> Self {
        let tasks = self.tasks.saturating_sub(done.tasks);
        let bytes = self.bytes.saturating_sub(done.bytes);
        let share = tasks as f64 / (tasks + done.failed).max(1) as f64;
        Self { tasks, failed: 0, bytes: (bytes as f64 * share) as u64 }
    }
}

/// What a gathering began with; what it has done since is measured against it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    began: Instant,
    all: Amount,
    before: Amount,
}

impl Pace {
    /// A gathering of `all` that begins at `began` with what was done by earlier ones.
    pub(crate) fn new(began: Instant, all: Amount, before: Amount) -> Self {
        Self { began, all, before }
    }

    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    fn seconds(&self, now: Instant) -> f64 {
        (now - self.began).as_secs_f64().max(0.001)
    }

    /// Input bytes a second, of `bytes` done by now.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        clippy::cast_possible_truncation,
        reason = "an estimate for people"
    )]
    pub(crate) fn bytes_per_s(&self, bytes: u64, now: Instant) -> u64 {
        (bytes.saturating_sub(self.before.bytes) as f64 / self.seconds(now)) as u64
    }

    /// How long the rest takes if it goes on as since the beginning; none if nothing was done since.
    #[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
    pub(crate) fn eta(&self, done: &Amount, now: Instant) -> Option<Duration> {
        let new = done.work().saturating_sub(self.before.work());
        if new == 0 {
            return None;
        }
        let left = self.all.without(done).work();
        let seconds = self.seconds(now) * left as f64 / new as f64;
        Some(Duration::from_secs_f64(seconds.ceil().min(1e9)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn of(tasks: u64, failed: u64, bytes: u64) -> Amount {
        Amount { tasks, failed, bytes }
    }

    #[test]
    fn only_what_was_done_since_the_beginning_counts() {
        let began = Instant::now();
        let pace = Pace::new(began, of(100, 0, 0), of(10, 0, 1_000));
        let now = began + Duration::from_secs(4);
        assert_eq!(pace.bytes_per_s(9_000, now), 2_000);
        assert_eq!(pace.eta(&of(10, 0, 1_000), now), None);
        // Empty tasks, or of a size that nobody knows.
        let pace = Pace::new(began, of(100, 0, 0), of(10, 0, 0));
        assert_eq!(pace.eta(&of(12, 0, 0), now), Some(Duration::from_secs(4 * 88 / 2)));
        assert_eq!(pace.eta(&of(100, 0, 0), now), Some(Duration::ZERO));
    }

    #[test]
    fn a_file_that_is_done_in_part_brings_the_end_nearer() {
        let began = Instant::now();
        let pace = Pace::new(began, of(1, 0, 4 * GIB), Amount::default());
        let now = began + Duration::from_secs(10);
        let eta = |bytes| pace.eta(&of(0, 0, bytes), now).map(|eta| eta.as_secs());
        assert_eq!((eta(0), eta(GIB), eta(3 * GIB)), (None, Some(31), Some(4)));
        assert_eq!(pace.eta(&of(1, 0, 4 * GIB), now), Some(Duration::ZERO));
    }

    #[test]
    fn a_task_that_failed_is_not_waited_for() {
        let began = Instant::now();
        let pace = Pace::new(began, of(4, 0, 4 * GIB), Amount::default());
        let now = began + Duration::from_secs(10);
        let eta = |failed, bytes| pace.eta(&of(2, failed, bytes), now).map(|eta| eta.as_secs());
        assert_eq!((eta(0, 2 * GIB), eta(1, GIB)), (Some(10), Some(20)));
        assert_eq!(pace.eta(&of(4, 3, GIB), now), Some(Duration::ZERO));
    }
}
