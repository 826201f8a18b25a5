//! How long an execution may take.

use std::time::Duration;

use bagpress_broker::limits;
use bagpress_broker::result::{Cause, Failed};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::slots::Handle;

/// How long an execution may take that has compressed `read` bytes of its input: what the worker was told, or a time that
/// grows with what was done. Not with what was announced: a producer that announces much and sends little holds no slot
/// for longer.
fn allowed(told: Option<Duration>, read: u64) -> Duration {
    told.unwrap_or_else(|| {
        let more = Duration::from_secs(read / limits::TASK_BYTES_PER_SECOND_MIN);
        limits::TASK_TIME_BASE.saturating_add(more)
    })
}

/// The time that one execution has taken, and may take.
#[derive(Debug)]
struct Stopwatch {
    told: Option<Duration>,
    taken: Duration,
}

impl Stopwatch {
    fn new(told: Option<Duration>) -> Self {
        Self { told, taken: Duration::ZERO }
    }

    /// Counts what `passed` since the last look; true if it was too much. Looks are due every
    /// [`limits::TASK_TIME_LOOKED_AT`]: if much more has passed, this process was stopped, and its time is not the task's.
    /// Nor is the time before a slot has `started` it.
    fn is_over(&mut self, passed: Duration, started: bool, read: u64) -> bool {
        if started {
            self.taken += passed.min(2 * limits::TASK_TIME_LOOKED_AT);
        }
        started && self.taken >= allowed(self.told, read)
    }
}

/// Resolves when an execution has taken longer than it may.
pub(super) async fn over(told: Option<Duration>, handle: &Handle) -> Failed {
    let mut looks = interval(limits::TASK_TIME_LOOKED_AT);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut stopwatch, mut last) = (Stopwatch::new(told), Instant::now());
    loop {
        looks.tick().await;
        let passed = last.elapsed();
        last = Instant::now();
        let read = handle.worked_on();
        if stopwatch.is_over(passed, handle.started(), read) {
            let allowed = allowed(told, read);
            let text = format!(
                "it took longer than {allowed:?}, with {read} bytes of its input compressed; raise the limit with `worker --time-limit`"
            );
            return Failed::new(Cause::Timeout, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LOOK: Duration = limits::TASK_TIME_LOOKED_AT;

    /// How long an execution lasts at most that compresses `bytes` in each `every`; none if it is never too slow.
    fn lasts(told: Option<Duration>, bytes: u64, every: Duration) -> Option<Duration> {
        let day = Duration::from_hours(24);
        let mut stopwatch = Stopwatch::new(told);
        while stopwatch.taken < day {
            let read = bytes * (stopwatch.taken + LOOK).as_secs() / every.as_secs();
            if stopwatch.is_over(LOOK, true, read) {
                return Some(stopwatch.taken);
            }
        }
        None
    }

    #[test]
    fn an_input_of_one_chunk_in_nine_seconds_holds_a_slot_for_minutes() {
        let lasted = lasts(None, limits::CHUNK_BYTES as u64, 9 * SECOND).unwrap();
        assert!(lasted >= limits::TASK_TIME_BASE, "{lasted:?}");
        assert!(lasted <= 2 * limits::TASK_TIME_BASE, "{lasted:?}");
        // However much it announces: nothing at all is nothing.
        assert_eq!(lasts(None, 0, SECOND), Some(limits::TASK_TIME_BASE));
    }

    #[test]
    fn what_comes_at_the_speed_of_a_slow_link_is_never_too_late() {
        assert_eq!(lasts(None, limits::TASK_BYTES_PER_SECOND_MIN, SECOND), None);
    }

    #[test]
    fn the_largest_input_has_a_limit() {
        let most = allowed(None, limits::INPUT_BYTES_MAX);
        assert!(most < Duration::from_hours(24 * 365), "{most:?}");
    }

    #[test]
    fn a_limit_that_was_told_holds_however_fast_the_task_is() {
        assert_eq!(lasts(Some(7 * SECOND), 1 << 40, SECOND), Some(7 * SECOND));
    }

    #[test]
    fn time_in_which_the_process_was_stopped_does_not_count() {
        let mut stopwatch = Stopwatch::new(Some(7 * SECOND));
        assert!(!stopwatch.is_over(Duration::from_hours(8), true, 0));
        assert!(stopwatch.taken <= SECOND);
    }

    #[test]
    fn time_in_the_queue_of_the_slots_does_not_count() {
        let mut stopwatch = Stopwatch::new(Some(Duration::ZERO));
        assert!((0..100).all(|_| !stopwatch.is_over(LOOK, false, 0)));
        assert!(stopwatch.is_over(LOOK, true, 0));
    }
}
