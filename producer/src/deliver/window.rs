//! How many offers may be unanswered at a time: as many as workers have said that they would take.
//!
//! Without a clock and without a wire: what happened, and when, comes in from outside.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bagpress_broker::limits;

/// So many offers in a row may be left to others before there is a pause.
const PASSED_MAX: u32 = 2;

/// What is known of who would take an offer.
///
/// A worker that takes one says how many more it would take. Whatever is unanswered then may be on its way to it, so
/// that the sum of what was said last, less what is unanswered, can be offered. Of workers that say nothing, or have no
/// room left, no event announces that a slot is idle: for those there is *credit*, found by trying.
#[derive(Debug)]
pub(crate) struct Window {
    credit: usize,
    /// What each worker said last.
    room: HashMap<String, usize>,
    /// Their sum.
    heard: usize,
    /// Offers in a row that workers left to others.
    passed: u32,
    pause: Duration,
    probe_at: Option<Instant>,
}

impl Window {
    pub(crate) fn new() -> Self {
        let (room, pause) = (HashMap::new(), Duration::ZERO);
        Self { credit: 1, room, heard: 0, passed: 0, pause, probe_at: None }
    }

    fn known(&self, unanswered: usize) -> usize {
        self.heard.saturating_sub(unanswered)
    }

    /// How many offers may be made, next to those that are `unanswered`.
    pub(crate) fn offers(&mut self, unanswered: usize, now: Instant) -> usize {
        let due = match self.probe_at {
            Some(at) => at <= now,
            // What is unanswered brings credit with its answer, if it is not overtaken by a lease.
            None => unanswered == 0,
        };
        if self.credit == 0 && self.known(unanswered) == 0 && due {
            self.probe_at = None;
            self.credit = 1;
        }
        let most = limits::OFFERS_MAX.saturating_sub(unanswered);
        self.credit.max(self.known(unanswered)).min(most)
    }

    /// When offers may be made again; none if they may be made now, or once something happens.
    pub(crate) fn opens_at(&self, unanswered: usize) -> Option<Instant> {
        self.probe_at.filter(|_| !self.is_open(unanswered))
    }

    /// Whether an offer may be made now.
    pub(crate) fn is_open(&self, unanswered: usize) -> bool {
        unanswered < limits::OFFERS_MAX && (self.credit > 0 || self.known(unanswered) > 0)
    }

    /// An offer is made, next to those that are `unanswered`.
    pub(crate) fn offered(&mut self, unanswered: usize) {
        if self.known(unanswered) == 0 {
            self.credit = self.credit.saturating_sub(1);
        }
    }

    fn more_credit(&mut self, more: usize) {
        self.credit = (self.credit + more).min(limits::OFFERS_MAX);
    }

    /// A worker took an offer, and would take so many `more`, if it says that.
    pub(crate) fn taken(&mut self, worker: &str, more: Option<u32>) {
        let more = more.unwrap_or_default() as usize;
        self.note_room(worker, more);
        if more == 0 {
            // Where one slot was idle there may be another.
            self.more_credit(2);
        }
        self.passed = 0;
        self.pause = Duration::ZERO;
    }

    fn note_room(&mut self, worker: &str, more: usize) {
        let more = more.min(limits::OFFERS_MAX);
        let mut before = 0;
        if let Some(room) = self.room.get_mut(worker) {
            before = std::mem::replace(room, more);
        } else if more > 0 && self.room.len() < limits::WORKERS_MAX {
            self.room.insert(worker.to_owned(), more);
        } else {
            return;
        }
        self.heard = self.heard + more - before;
    }

    /// A worker is dead.
    pub(crate) fn worker_lost(&mut self, worker: &str) {
        self.note_room(worker, 0);
        self.room.remove(worker);
    }

    /// A worker left an offer to others. The next one may take it; but where several do, none has a slot for this bag now.
    pub(crate) fn passed(&mut self, now: Instant) {
        self.passed = self.passed.saturating_add(1);
        if self.passed > PASSED_MAX {
            self.nobody(true, now);
        } else {
            self.not_taken();
        }
    }

    /// An offer was not taken by the worker that got it, or came to none: there is less room than was said.
    pub(crate) fn not_taken(&mut self) {
        self.forget_room();
        self.more_credit(1);
    }

    /// An offer found that no worker would take any. Some may soon, where one is `busy` with the bag.
    pub(crate) fn nobody(&mut self, busy: bool, now: Instant) {
        let most = if busy { limits::OFFER_AGAIN_BUSY } else { limits::OFFER_AGAIN_MAX };
        self.forget_room();
        self.credit = 0;
        self.pause = (self.pause * 2).clamp(limits::OFFER_AGAIN, most);
        self.probe_at = Some(now + self.pause);
    }

    fn forget_room(&mut self) {
        self.room.clear();
        self.heard = 0;
    }

    /// A slot became idle a moment ago.
    pub(crate) fn idle(&mut self, unanswered: usize) {
        if self.known(unanswered) == 0 {
            self.more_credit(1);
        }
        self.pause = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_is_offered_as_workers_said_they_would_take() {
        let (mut window, now) = (Window::new(), Instant::now());
        assert_eq!(window.offers(0, now), 1);
        window.offered(0);
        assert_eq!(window.offers(1, now), 0);
        window.taken("a", Some(10));
        assert_eq!(window.offers(0, now), 10);
        // Some of what is on its way comes to it, and is counted in what it said.
        assert_eq!(window.offers(7, now), 3);
        window.taken("b", Some(5));
        assert_eq!(window.offers(7, now), 8);
        window.taken("a", Some(4));
        assert_eq!(window.offers(7, now), 2);
        assert_eq!(window.offers(9, now), 0);
        window.worker_lost("b");
        assert_eq!(window.offers(0, now), 4);
    }

    #[test]
    fn no_worker_can_ask_for_more_than_one_gatherer_offers() {
        let (mut window, now) = (Window::new(), Instant::now());
        window.taken("a", Some(u32::MAX));
        window.taken("b", Some(u32::MAX));
        assert_eq!(window.offers(0, now), limits::OFFERS_MAX);
        assert_eq!(window.offers(limits::OFFERS_MAX, now), 0);
        window.taken("a", None);
        window.worker_lost("b");
        assert_eq!(
            window.offers(limits::OFFERS_MAX / 2, now),
            3,
            "as much credit as there was, and two"
        );
    }

    #[test]
    fn room_that_proves_to_be_none_is_not_believed_until_it_is_said_again() {
        let (mut window, now) = (Window::new(), Instant::now());
        window.offered(0);
        window.taken("a", Some(10));
        window.not_taken();
        assert_eq!(window.offers(0, now), 1);
        window.taken("a", Some(10));
        window.nobody(true, now);
        assert_eq!((window.offers(3, now), window.is_open(3)), (0, false));
        let again = window.opens_at(3).unwrap();
        assert!(again > now && again <= now + limits::OFFER_AGAIN_BUSY);
        window.taken("a", Some(10));
        assert_eq!((window.offers(3, now), window.opens_at(3)), (7, None));
    }

    #[test]
    fn offers_that_every_worker_leaves_to_others_are_made_with_pauses() {
        let (mut window, now) = (Window::new(), Instant::now());
        for _ in 0..PASSED_MAX {
            window.offered(0);
            window.passed(now);
            assert_eq!(window.offers(0, now), 1, "another may take it");
        }
        let mut pauses = Vec::new();
        for _ in 0..4 {
            window.offered(0);
            window.passed(now);
            let at = window.opens_at(0).unwrap();
            pauses.push(at - now);
            assert_eq!((window.offers(0, now), window.offers(0, at)), (0, 1));
        }
        assert!(pauses.is_sorted() && pauses[3] == limits::OFFER_AGAIN_BUSY, "{pauses:?}");
        window.taken("a", None);
        window.passed(now);
        assert!(window.is_open(0), "it begins anew");
    }

    #[test]
    fn an_outcome_tells_of_a_slot_that_no_worker_has_spoken_of() {
        let (mut window, now) = (Window::new(), Instant::now());
        window.offered(0);
        window.taken("a", Some(2));
        window.idle(0);
        assert_eq!(window.offers(2, now), 0, "what is known is offered first");
        window.idle(2);
        assert_eq!(window.offers(2, now), 1);
    }
}
