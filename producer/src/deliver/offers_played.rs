//! Offers and leases in any order of events: no task is lost, and none has two leases.

use std::time::Duration;

use proptest::prelude::*;

use super::tests::{lease, table};
use super::*;

/// Something that happens to a table.
#[derive(Debug, Clone, Copy)]
enum Event {
    Next,
    /// With how many more its worker would take.
    Take(usize, Option<u32>),
    Nobody(usize),
    Pass(usize),
    Late(u32),
    Renew(u32),
    Back(u32),
    Decide(u32),
    Lose(u32),
    Wait(u64),
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Next),
        3 => (0usize..4, proptest::option::of(0u32..4)).prop_map(|(at, more)| Event::Take(at, more)),
        1 => (0usize..4).prop_map(Event::Nobody),
        1 => (0usize..4).prop_map(Event::Pass),
        1 => (0u32..5).prop_map(Event::Late),
        1 => (0u32..5).prop_map(Event::Renew),
        1 => (0u32..5).prop_map(Event::Back),
        1 => (0u32..5).prop_map(Event::Decide),
        1 => (0u32..5).prop_map(Event::Lose),
        1 => (1u64..200).prop_map(Event::Wait),
    ]
}

/// A table, and what has happened to it so far.
struct Played {
    offers: Offers,
    now: Instant,
    /// Offers without an answer.
    numbers: Vec<(u64, Key)>,
    holders: HashMap<Key, Lease>,
    decided: BTreeSet<Key>,
}

fn index_of(descriptor: &Bytes) -> u32 {
    std::str::from_utf8(descriptor).unwrap().parse().unwrap()
}

impl Played {
    fn new() -> Self {
        let (mut offers, now) = table(5);
        offers.attempts = u32::MAX;
        let (numbers, holders, decided) = (Vec::new(), HashMap::new(), BTreeSet::new());
        Self { offers, now, numbers, holders, decided }
    }

    fn on(&mut self, event: Event) -> Result<(), TestCaseError> {
        let (now, there) = (self.now, self.numbers.len());
        match event {
            Event::Next => self.next()?,
            Event::Take(at, more) if at < there => self.take(at, more)?,
            Event::Nobody(at) if at < there => self.offers.nobody(self.numbers.remove(at).0, now),
            Event::Pass(at) if at < there => self.offers.passed(self.numbers.remove(at).0, now),
            Event::Late(index) if !self.decided.contains(&(index, 0)) => self.late(index)?,
            Event::Renew(index) => {
                if let Some(lease) = self.holders.get(&(index, 0)) {
                    prop_assert!(self.offers.hold(lease.clone(), now), "a lease was forgotten");
                }
            }
            Event::Back(index) => {
                if let Some(lease) = self.holders.remove(&(index, 0)) {
                    self.offers.given_back(&lease, Cause::TransferError, now);
                }
            }
            Event::Decide(index) => {
                self.offers.decided((index, 0));
                self.holders.remove(&(index, 0));
                self.decided.insert((index, 0));
            }
            Event::Lose(index) => {
                self.offers.worker_lost(&index.to_string(), now);
                self.holders.remove(&(index, 0));
            }
            Event::Wait(ms) => {
                self.now += Duration::from_millis(ms);
                self.offers.vanish(self.now);
            }
            // There is no such offer, or no such task any more.
            Event::Take(..) | Event::Nobody(_) | Event::Pass(_) | Event::Late(_) => {}
        }
        prop_assert_eq!(self.offers.leases(), self.holders.len());
        Ok(())
    }

    fn next(&mut self) -> Result<(), TestCaseError> {
        if let Some(Next::Offer { number, descriptor, .. }) = self.offers.next(self.now) {
            let key = (index_of(&descriptor), 0);
            prop_assert!(!self.holders.contains_key(&key), "offered while it is leased");
            prop_assert!(!self.decided.contains(&key), "offered while it is decided");
            self.numbers.push((number, key));
        }
        Ok(())
    }

    fn take(&mut self, at: usize, more: Option<u32>) -> Result<(), TestCaseError> {
        let (number, key) = self.numbers.remove(at);
        if !self.decided.contains(&key) {
            let lease = Lease { more, ..lease(key, &key.0.to_string(), 1) };
            if self.offers.taken(number, lease.clone(), self.now) {
                prop_assert!(self.holders.insert(key, lease).is_none(), "two leases");
            }
        }
        Ok(())
    }

    fn late(&mut self, index: u32) -> Result<(), TestCaseError> {
        let lease = lease((index, 0), &index.to_string(), 1);
        if self.offers.hold(lease.clone(), self.now) {
            prop_assert!(self.holders.insert((index, 0), lease).is_none(), "two leases");
        }
        Ok(())
    }

    /// In the end somebody takes all that is left.
    fn end(mut self) -> Result<(), TestCaseError> {
        let mut left: BTreeSet<Key> = (0..5).map(|index| (index, 0)).collect();
        left.retain(|key| !self.decided.contains(key) && !self.holders.contains_key(key));
        self.now += limits::GIVE_BACK_DELAY_MAX;
        for _ in 0..50 {
            self.offers.vanish(self.now);
            while let Some(Next::Offer { number, descriptor, .. }) = self.offers.next(self.now) {
                let key = (index_of(&descriptor), 0);
                prop_assert!(self.offers.taken(number, lease(key, "last", 1), self.now));
                prop_assert!(left.remove(&key));
            }
            self.now += limits::OFFER_ANSWERED_WITHIN;
        }
        prop_assert!(left.is_empty(), "{:?} are lost", left);
        Ok(())
    }
}

proptest! {
    /// Whatever happens: a task has one lease at most, and one that is not decided is offered, leased
    /// or waiting, until its attempts are spent.
    #[test]
    fn no_task_is_lost_and_none_has_two_leases(events in prop::collection::vec(events(), 0..200)) {
        let mut played = Played::new();
        for event in events {
            played.on(event)?;
        }
        played.end()?;
    }
}
