//! Memory for what arrives at a gatherer: one budget, in bytes, shared among the senders.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bagpress_broker::limits;

/// What all messages that are being served take.
#[derive(Debug, Default)]
pub(super) struct MemoryBudget {
    hasher: RandomState,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// By sender: a hash, as what others call themselves may be long.
    by: HashMap<u64, usize>,
}

/// What one message takes, until it is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    taken: Arc<Mutex<Taken>>,
    sender: u64,
    bytes: usize,
}

/// Whether a sender who has `of_sender` of the `of_all` bytes that are taken may have `more`: as long as it then has no
/// more than what is still free. So of *n* who send as much as they can each gets an equal share, and as much as each
/// of them has stays free for the next sender.
fn admits(of_all: usize, of_sender: usize, more: usize) -> bool {
    of_sender.saturating_add(more) <= limits::ARRIVED_BYTES.saturating_sub(of_all)
}

impl MemoryBudget {
    /// Takes space for a message with `bytes` of payload from the sender with this inbox; none if that is too much now.
    pub(super) fn take(&self, inbox: &str, bytes: usize) -> Option<Charge> {
        // A connection's answers differ in the last token only.
        let sender =
            self.hasher.hash_one(inbox.rsplit_once('.').map_or(inbox, |(sender, _)| sender));
        let bytes = bytes.saturating_add(limits::ARRIVED_EACH_BYTES);
        let mut taken = lock(&self.taken);
        if !admits(taken.all, taken.by.get(&sender).copied().unwrap_or(0), bytes) {
            return None;
        }
        taken.all += bytes;
        *taken.by.entry(sender).or_default() += bytes;
        Some(Charge { taken: self.taken.clone(), sender, bytes })
    }
}

impl Charge {
    /// Gives back what the payload took: it is written.
    pub(super) fn written(&mut self) {
        let rest = limits::ARRIVED_EACH_BYTES.min(self.bytes);
        lock(&self.taken).give_back(self.sender, self.bytes - rest);
        self.bytes = rest;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        lock(&self.taken).give_back(self.sender, self.bytes);
    }
}

impl Taken {
    fn give_back(&mut self, sender: u64, bytes: usize) {
        self.all -= bytes;
        if let Some(of_sender) = self.by.get_mut(&sender) {
            *of_sender -= bytes;
            if *of_sender == 0 {
                self.by.remove(&sender);
            }
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = limits::CHUNK_BYTES;

    /// As many chunks as a sender gets.
    fn greedy(budget: &MemoryBudget, inbox: &str) -> Vec<Charge> {
        std::iter::from_fn(|| budget.take(inbox, CHUNK)).collect()
    }

    #[test]
    fn one_sender_gets_all_windows_and_leaves_as_much() {
        let budget = MemoryBudget::default();
        let one = greedy(&budget, "_INBOX.one.1");
        assert!(one.len() * CHUNK >= limits::WINDOWS_BYTES, "{}", one.len());
        assert!(one.len() * CHUNK <= limits::ARRIVED_BYTES / 2, "{}", one.len());
        assert!(budget.take("_INBOX.one.2", CHUNK).is_none(), "the same connection");
        assert!(budget.take("_INBOX.two.1", CHUNK).is_some());
    }

    #[test]
    fn beside_a_hundred_greedy_senders_there_is_room_for_a_chunk_of_one_more() {
        let budget = MemoryBudget::default();
        let senders = 0..100;
        let mut greedy = Vec::new();
        // Around and around, until none of them gets any more.
        while let more @ 1.. = {
            let before = greedy.len();
            greedy.extend(senders.clone().filter_map(|n| budget.take(&format!("in.{n}.x"), CHUNK)));
            greedy.len() - before
        } {
            assert!(more <= senders.len());
        }
        assert!(lock(&budget.taken).all <= limits::ARRIVED_BYTES);
        let honest = budget.take("in.honest.1", CHUNK);
        assert!(honest.is_some(), "{} of {}", lock(&budget.taken).all, limits::ARRIVED_BYTES);
    }

    #[test]
    fn what_is_given_back_is_free_again() {
        let budget = MemoryBudget::default();
        let mut all = greedy(&budget, "a.1");
        all.iter_mut().for_each(Charge::written);
        assert_eq!(lock(&budget.taken).all, all.len() * limits::ARRIVED_EACH_BYTES);
        all.clear();
        let taken = lock(&budget.taken);
        assert_eq!((taken.all, taken.by.len()), (0, 0));
    }
}
