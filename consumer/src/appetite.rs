//! How much a worker can take: decided by what its slots do and what it holds.

use bagpress_broker::limits;

use crate::slots::Load;

/// How much a worker can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appetite {
    ahead: usize,
    idle: usize,
    /// Whether tasks are so short that they are held in numbers, and one more can be.
    short: bool,
}

/// What is known here of how long the tasks of a bag take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Experience {
    /// One has been executed.
    Executed,
    /// The first ones are held.
    Held,
    /// There was none.
    None,
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
            short: load.wanted > load.slots && room > 0,
        }
    }

    /// How many more offers of a bag can be taken. Those whose tasks may take a different time than those before are for
    /// idle slots; but where another bag's short tasks keep all slots busy, a new bag gets one task in, and then its share.
    pub(crate) fn offers(self, experience: Experience) -> usize {
        let idle = self.idle.min(self.ahead);
        match experience {
            Experience::Executed => self.ahead,
            Experience::Held => idle,
            Experience::None => idle.max(usize::from(self.short)),
        }
    }

    /// How many more offers to ask for, with `members` that may come already. A slot with nothing to do and nothing at
    /// hand does not wait until more are worth it.
    pub(crate) fn memberships(self, members: usize) -> usize {
        self.request(members).max(self.idle.saturating_sub(members))
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
        assert_eq!((appetite.offers(Experience::Held), appetite.request(0)), (4, 4));
    }

    #[test]
    fn what_waits_for_a_slot_counts_against_both() {
        let appetite = Appetite::of(&load(2, 1, 3), 3);
        assert_eq!((appetite.offers(Experience::Held), appetite.request(0)), (1, 2));
    }

    #[test]
    fn a_busy_worker_takes_nothing() {
        let appetite = Appetite::of(&load(4, 0, 0), 4);
        assert_eq!((appetite.offers(Experience::Held), appetite.request(0)), (0, 0));
    }

    #[test]
    fn outcomes_that_nobody_commits_end_its_appetite() {
        let most = 4 * (limits::UNCOMMITTED_MAX + limits::PULL_AHEAD_MAX);
        let almost = Appetite::of(&load(0, 0, 100), most - 1);
        assert_eq!((almost.offers(Experience::Held), almost.request(0)), (1, 1));
        let full = Appetite::of(&load(0, 0, 100), most + 1);
        assert_eq!((full.offers(Experience::Held), full.request(0)), (0, 0));
    }

    #[test]
    fn offers_of_a_bag_whose_pace_is_not_known_are_for_idle_slots() {
        let appetite = Appetite::of(&load(3, 0, 100), 3);
        assert_eq!(
            (appetite.offers(Experience::Executed), appetite.offers(Experience::Held)),
            (100, 1)
        );
        let busy = Appetite::of(&load(4, 1, 100), 5);
        assert_eq!((busy.offers(Experience::Executed), busy.offers(Experience::Held)), (99, 0));
        let long = Appetite::of(&load(4, 0, 0), 4);
        assert_eq!((long.offers(Experience::Executed), long.offers(Experience::Held)), (0, 0));
    }

    #[test]
    fn a_new_bag_gets_one_task_in_where_short_ones_keep_every_slot_busy() {
        let full = Appetite::of(&load(4, 100, 100), 104);
        assert_eq!((full.offers(Experience::Executed), full.offers(Experience::Held)), (0, 0));
        assert_eq!(full.offers(Experience::None), 1);
        let long = Appetite::of(&load(4, 0, 1), 4);
        assert_eq!(long.offers(Experience::None), 0, "it would wait for longer");
    }

    #[test]
    fn an_idle_slot_is_a_member_at_once_and_more_are_when_many_are_missing() {
        let appetite = Appetite::of(&load(0, 0, 4), 0);
        assert_eq!((appetite.memberships(3), appetite.memberships(4)), (1, 0));
        let short = Appetite::of(&load(4, 0, 100), 0);
        assert_eq!((short.memberships(60), short.memberships(50)), (0, 50));
    }

    #[test]
    fn few_missing_deliveries_are_not_worth_a_request() {
        let appetite = Appetite::of(&load(0, 0, 100), 0);
        assert_eq!(appetite.request(60), 0);
        assert_eq!(appetite.request(50), 50);
        assert_eq!(appetite.request(200), 0);
    }
}
