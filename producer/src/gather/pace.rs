//! How fast a bag moves, and when it is done at that pace.

use std::time::{Duration, Instant};

/// What a gathering began with; what it has done since is measured against it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    began: Instant,
    bytes_before: u64,
    decided_before: u64,
}

impl Pace {
    /// A gathering that begins at `began` with so many input bytes and tasks done by earlier ones.
    pub(crate) fn new(began: Instant, bytes_before: u64, decided_before: u64) -> Self {
        Self { began, bytes_before, decided_before }
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
        (bytes.saturating_sub(self.bytes_before) as f64 / self.seconds(now)) as u64
    }

    /// How long the rest of `tasks` takes if the next ones take as long as those since the beginning; none if nothing was
    /// decided since.
    #[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
    pub(crate) fn eta(&self, decided: u64, tasks: u64, now: Instant) -> Option<Duration> {
        let new = decided.saturating_sub(self.decided_before);
        let left = tasks.saturating_sub(decided);
        if new == 0 {
            return None;
        }
        let seconds = self.seconds(now) * left as f64 / new as f64;
        Some(Duration::from_secs_f64(seconds.ceil().min(1e9)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_done_since_the_beginning_counts() {
        let began = Instant::now();
        let pace = Pace::new(began, 1_000, 10);
        let now = began + Duration::from_secs(4);
        assert_eq!(pace.bytes_per_s(9_000, now), 2_000);
        assert_eq!(pace.eta(10, 100, now), None);
        assert_eq!(pace.eta(12, 100, now), Some(Duration::from_secs(4 * 88 / 2)));
        assert_eq!(pace.eta(100, 100, now), Some(Duration::ZERO));
    }
}
