//! What is known of the workers of a bag: which holds what, which is suspected to be dead, and when each is probed.
//!
//! Without a clock and without a wire: what happened, and when, comes in from outside.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use bagpress_broker::{HoldingsReport, Presence, ReportedDelivery, limits};

use crate::run_folder::ledger::Key;

/// Every worker that has said what it holds of the bag, up to [`limits::WORKERS_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Workers {
    known: HashMap<String, Worker>,
    /// The last delivery of each task that was given back for a dead worker.
    given_back: HashMap<Key, u32>,
    /// Tasks whose told loss was given back once more. Each time is a delivery that counts as lost: a worker that is slow to
    /// report would soon have spent every attempt of its tasks.
    again: HashSet<Key>,
    lost: u64,
}

/// A worker that has said something.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) host: String,
    pub(crate) pid: u32,
    pub(crate) held: HashMap<Key, ReportedDelivery>,
    /// Whether nobody answered its last probe.
    suspect: bool,
    probed: Instant,
}

impl Workers {
    /// Notes what a worker holds.
    pub(crate) fn note(&mut self, held: HoldingsReport, now: Instant) {
        if !self.known.contains_key(&held.worker) && self.known.len() >= limits::WORKERS_MAX {
            return;
        }
        let worker = self.known.entry(held.worker).or_insert_with(|| Worker {
            host: held.host,
            pid: held.pid,
            held: HashMap::new(),
            suspect: false,
            probed: now,
        });
        if held.all {
            worker.held.clear();
        }
        for delivery in held.deliveries {
            let key = (delivery.index, delivery.round);
            self.again.remove(&key);
            worker.held.insert(key, delivery);
        }
    }

    /// Notes that a task has its outcome, made by `worker`: nothing of it needs to be given back.
    pub(crate) fn decided(&mut self, worker: &str, key: Key) {
        self.given_back.remove(&key);
        self.again.remove(&key);
        if let Some(worker) = self.known.get_mut(worker) {
            worker.held.remove(&key);
        }
    }

    /// How many workers hold tasks, and how many tasks.
    pub(crate) fn busy(&self) -> (usize, usize) {
        let busy = self.known.values().filter(|worker| !worker.held.is_empty());
        busy.fold((0, 0), |(count, tasks), worker| (count + 1, tasks + worker.held.len()))
    }

    /// How many bytes workers have read of the input of each task and round that they hold, where they say so. Of one that two
    /// hold, what the one has read that is farther.
    pub(crate) fn read(&self) -> HashMap<Key, u64> {
        let held = self.known.values().flat_map(|worker| &worker.held);
        let mut read: HashMap<Key, u64> = HashMap::new();
        for (key, delivery) in held.filter(|(_, delivery)| delivery.read_bytes > 0) {
            let most = read.entry(*key).or_default();
            *most = delivery.read_bytes.max(*most);
        }
        read
    }

    /// Whether a worker holds a task, in whatever round.
    pub(crate) fn is_held(&self, index: u32) -> bool {
        self.known.values().any(|worker| worker.held.keys().any(|(held, _)| *held == index))
    }

    /// Whether a worker holds this round of a task.
    pub(crate) fn is_round_held(&self, key: Key) -> bool {
        self.known.values().any(|worker| worker.held.contains_key(&key))
    }

    /// The workers that are this process of this host.
    pub(crate) fn of_process(&self, host: &str, pid: u32) -> Vec<String> {
        let of = self.known.iter().filter(|(_, w)| w.pid == pid && w.host == host);
        of.map(|(id, _)| id.clone()).collect()
    }

    /// The workers that are to be probed now, at most `most`, which are called probed then. Forgets those that have
    /// held nothing for a while.
    pub(crate) fn due(&mut self, most: usize, now: Instant) -> Vec<String> {
        self.known.retain(|_, w| !w.held.is_empty() || now - w.probed < limits::RECONCILE_AFTER);
        let due = self.known.iter_mut().filter(|(_, w)| {
            let every = if w.suspect { limits::PROBE_AGAIN } else { limits::PROBE_EVERY };
            !w.held.is_empty() && now - w.probed >= every
        });
        due.take(most)
            .map(|(id, worker)| {
                worker.probed = now;
                id.clone()
            })
            .collect()
    }

    /// Notes how a probe ended. Whether the worker is dead: nobody answered twice in a row, with an answer of the
    /// server that nobody listens.
    pub(crate) fn probed(&mut self, worker: &str, presence: Presence) -> bool {
        let Some(worker) = self.known.get_mut(worker) else { return false };
        match presence {
            Presence::Gone => std::mem::replace(&mut worker.suspect, true),
            Presence::Here => {
                worker.suspect = false;
                false
            }
            Presence::Unknown => false,
        }
    }

    /// Forgets a dead worker, and returns what was known of it.
    pub(crate) fn remove(&mut self, worker: &str) -> Option<Worker> {
        self.known.remove(worker)
    }

    /// Counts a worker that died with tasks.
    pub(crate) fn count_lost(&mut self) {
        self.lost += 1;
    }

    /// Workers that died with tasks.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether a task whose loss is told may be given back once more: the server may have sent it to the dead worker again
    /// before it saw its connection end. Once only, until a worker reports it; what is lost after that is left to its lease.
    pub(crate) fn may_give_back_again(&mut self, key: Key) -> bool {
        self.again.insert(key)
    }

    /// Notes that a delivery is given back for a dead worker. Whether it was before: a late word of a worker that is
    /// buried already names it again.
    pub(crate) fn note_given_back(&mut self, key: Key, delivered: u32) -> bool {
        self.given_back.insert(key, delivered) == Some(delivered)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn held(worker: &str, tasks: &[u32], all: bool) -> HoldingsReport {
        let delivery = |index: &u32| ReportedDelivery {
            index: *index,
            round: 0,
            delivered: 1,
            reply: String::new(),
            read_bytes: 0,
        };
        let deliveries = tasks.iter().map(delivery).collect();
        let (worker, host) = (worker.to_owned(), "h".to_owned());
        HoldingsReport { v: limits::WIRE_VERSION, worker, host, pid: 7, all, deliveries }
    }

    #[test]
    fn the_last_complete_word_of_a_worker_and_what_came_after_it_count() {
        let (mut workers, now) = (Workers::default(), Instant::now());
        workers.note(held("a", &[1, 2], false), now);
        workers.note(held("a", &[3], false), now);
        workers.note(held("b", &[4], true), now);
        assert_eq!(workers.busy(), (2, 4));
        workers.note(held("a", &[3], true), now);
        assert_eq!(workers.busy(), (2, 2));
        assert!(workers.is_held(3) && !workers.is_held(1));
        assert!(workers.is_round_held((3, 0)) && !workers.is_round_held((3, 1)));
        workers.decided("a", (3, 0));
        assert_eq!(workers.busy(), (1, 1));
    }

    #[test]
    fn what_two_have_read_of_one_task_counts_once() {
        let (mut workers, now) = (Workers::default(), Instant::now());
        for (worker, read) in [("stopped", 300), ("goes on", 200), ("silent", 0)] {
            let mut report = held(worker, &[1, 2], true);
            report.deliveries[0].read_bytes = read;
            workers.note(report, now);
        }
        assert_eq!(workers.read(), [((1, 0), 300)].into());
        workers.decided("stopped", (1, 0));
        assert_eq!(workers.read(), [((1, 0), 200)].into());
    }

    #[test]
    fn a_worker_is_dead_when_it_is_gone_twice_in_a_row() {
        let (mut workers, now) = (Workers::default(), Instant::now());
        workers.note(held("a", &[1], true), now);
        assert!(!workers.probed("a", Presence::Gone));
        assert!(!workers.probed("a", Presence::Here));
        assert!(!workers.probed("a", Presence::Gone));
        assert!(!workers.probed("a", Presence::Unknown), "a broker that is silent tells nothing");
        assert!(workers.probed("a", Presence::Gone));
        assert!(!workers.probed("nobody", Presence::Gone));
    }

    #[test]
    fn busy_workers_are_probed_and_a_suspect_sooner() {
        let (mut workers, now) = (Workers::default(), Instant::now());
        workers.note(held("a", &[1], true), now);
        workers.note(held("b", &[2], true), now);
        workers.note(held("idle", &[], true), now);
        assert_eq!(workers.due(9, now + limits::PROBE_EVERY.saturating_sub(MS)), [""; 0]);
        let now = now + limits::PROBE_EVERY;
        assert_eq!(workers.due(1, now).len(), 1);
        assert_eq!(workers.due(9, now).len(), 1, "each once");
        workers.probed("a", Presence::Gone);
        assert_eq!(workers.due(9, now + limits::PROBE_AGAIN), ["a"]);
        assert_eq!(workers.of_process("h", 7).len(), 3);
        workers.due(9, now + limits::RECONCILE_AFTER);
        assert_eq!(workers.of_process("h", 7).len(), 2, "one that holds nothing is forgotten");
        assert_eq!(workers.of_process("other", 7).len(), 0);
    }

    #[test]
    fn a_told_loss_is_given_back_once_more_until_a_worker_reports_the_task() {
        let (mut workers, now) = (Workers::default(), Instant::now());
        assert!(workers.may_give_back_again((1, 0)));
        assert!(!workers.may_give_back_again((1, 0)) && workers.may_give_back_again((2, 0)));
        workers.note(held("a", &[1], false), now);
        assert!(workers.may_give_back_again((1, 0)));
        workers.decided("a", (1, 0));
        assert!(workers.may_give_back_again((1, 0)));
    }

    #[test]
    fn a_delivery_is_given_back_for_a_dead_worker_once() {
        let (mut workers, now) = (Workers::default(), Instant::now());
        workers.note(held("a", &[1], true), now);
        let dead = workers.remove("a").unwrap();
        assert_eq!((dead.host.as_str(), dead.pid, dead.held.len()), ("h", 7, 1));
        assert!(workers.remove("a").is_none());
        assert!(!workers.note_given_back((1, 0), 1));
        assert!(workers.note_given_back((1, 0), 1));
        assert!(!workers.note_given_back((1, 0), 2));
        workers.decided("b", (1, 0));
        assert!(!workers.note_given_back((1, 0), 2));
    }
}
