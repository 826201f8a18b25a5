//! How much a worker can take: decided by what its slots do and what it holds.

use bagpress_broker::limits;

use crate::slots::Load;

/// How much a worker can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appetite {
    ahead: usize,
    idle: usize,
}

impl Appetite {
    /// With `held` deliveries that are not answered: each waits for a slot, is executed, or waits for its
    /// commit. Their number is bounded, however slowly outcomes are committed.
    pub(crate) fn of(load: &Load, held: usize) -> Self {
        let most = load.slots * (limits::UNCOMMITTED_MAX + limits::PULL_AHEAD_MAX);
        let room = most.saturating_sub(held);
        Self {
            ahead: load.wanted.saturating_sub(load.waiting).min(room),
            idle: load.slots.saturating_sub(load.running + load.waiting).min(room),
        }
    }

    /// Slots with nothing to do and nothing at hand: each may get one offer.
    pub(crate) fn idle(self) -> usize {
        self.idle
    }

    /// How many deliveries to request of the stream, when `outstanding` are requested already. Few
    /// requests of many cost less than many of few: nothing is requested before it is worth it.
    pub(crate) fn request(self, outstanding: usize) -> usize {
        let missing = self.ahead.saturating_sub(outstanding);
        if outstanding == 0 || missing * 2 >= self.ahead { missing } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(running: usize, waiting: usize, wanted: usize) -> Load {
        Load { slots: 4, running, waiting, wanted, next_change: None }
    }

    #[test]
    fn an_idle_worker_takes_an_offer_and_requests_a_delivery_for_each_slot() {
        let appetite = Appetite::of(&load(0, 0, 4), 0);
        assert_eq!((appetite.idle(), appetite.request(0)), (4, 4));
    }

    #[test]
    fn what_waits_for_a_slot_counts_against_both() {
        let appetite = Appetite::of(&load(2, 1, 3), 3);
        assert_eq!((appetite.idle(), appetite.request(0)), (1, 2));
    }

    #[test]
    fn a_busy_worker_takes_nothing() {
        let appetite = Appetite::of(&load(4, 0, 0), 4);
        assert_eq!((appetite.idle(), appetite.request(0)), (0, 0));
    }

    #[test]
    fn outcomes_that_nobody_commits_end_its_appetite() {
        let most = 4 * (limits::UNCOMMITTED_MAX + limits::PULL_AHEAD_MAX);
        let almost = Appetite::of(&load(0, 0, 100), most - 1);
        assert_eq!((almost.idle(), almost.request(0)), (1, 1));
        let full = Appetite::of(&load(0, 0, 100), most + 1);
        assert_eq!((full.idle(), full.request(0)), (0, 0));
    }

    #[test]
    fn few_missing_deliveries_are_not_worth_a_request() {
        let appetite = Appetite::of(&load(0, 0, 100), 0);
        assert_eq!(appetite.request(60), 0);
        assert_eq!(appetite.request(50), 50);
        assert_eq!(appetite.request(200), 0);
    }
}
