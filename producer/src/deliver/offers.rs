//! What a gatherer knows of the tasks that it has offered: which worker has each, for how long, and how often.
//!
//! A table without a clock and without a wire: what happened, and when, comes in from outside.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use bagpress_broker::ids::Execution;
use bagpress_broker::result::Cause;
use bagpress_broker::{Lease, limits};
use bytes::Bytes;

use crate::deliver::window::Window;
use crate::run_folder::attempts::Past;
use crate::run_folder::ledger::Key;

/// Every task that was handed in for offering and is not decided.
#[derive(Debug)]
pub(crate) struct Offers {
    attempts: u32,
    /// Of tasks that are not here yet.
    past: HashMap<Key, Past>,
    tasks: HashMap<Key, Task>,
    /// Those that wait, and until when.
    waiting: BTreeSet<(Instant, Key)>,
    /// Offers that wait for their answer, by number: oldest first.
    unanswered: BTreeMap<u64, (Key, Instant)>,
    number: u64,
    window: Window,
    /// When a task of the bag was done: not every member is of another version.
    last_done: Option<Instant>,
}

#[derive(Debug)]
struct Task {
    /// None of a lease that an earlier gatherer gave, until the task is handed in.
    descriptor: Option<Bytes>,
    state: State,
    past: Past,
}

#[derive(Debug)]
enum State {
    Waiting(Instant),
    Offered(u64),
    Leased { lease: Lease, renewed: Instant },
}

/// A lease that ended without a word of its worker.
#[derive(Debug)]
pub(crate) struct LostLease {
    pub(crate) lease: Lease,
    /// Planned give-backs of its task.
    pub(crate) planned: u32,
    /// Whether that spent an attempt: a lease that is lost, renewed and lost again is one attempt.
    pub(crate) spent: bool,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Offer this.
    Offer { number: u64, attempt: u32, descriptor: Bytes },
    /// Every worker that had this task died, or each of its outputs vanished: it has failed.
    Exhausted { key: Key, past: Past },
}

impl Offers {
    /// `past` is what earlier gatherers knew.
    pub(crate) fn new(attempts: u32, past: HashMap<Key, Past>) -> Self {
        Self {
            attempts,
            past,
            tasks: HashMap::new(),
            waiting: BTreeSet::new(),
            unanswered: BTreeMap::new(),
            number: 0,
            window: Window::new(),
            last_done: None,
        }
    }

    /// Takes a task in.
    pub(crate) fn add(&mut self, key: Key, descriptor: Bytes, now: Instant) {
        if let Some(task) = self.tasks.get_mut(&key) {
            task.descriptor = Some(descriptor);
            return;
        }
        let state = State::Waiting(now);
        let past = self.past.remove(&key).unwrap_or_default();
        let task = Task { descriptor: Some(descriptor), state, past };
        self.tasks.insert(key, task);
        self.waiting.insert((now, key));
    }

    /// How many offers may be made now.
    fn window(&mut self, now: Instant) -> usize {
        self.window.offers(self.unanswered.len(), now)
    }

    /// How many new tasks could be offered at once.
    pub(crate) fn wants(&mut self, now: Instant) -> usize {
        let window = self.window(now);
        let due = self.waiting.iter().take(window).take_while(|(at, _)| *at <= now).count();
        window - due
    }

    /// What to do next, if there is anything.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Next> {
        loop {
            let (_, key) = *self.waiting.first().filter(|(at, _)| *at <= now)?;
            let Some(task) = self.tasks.get(&key) else {
                self.waiting.pop_first();
                continue;
            };
            let past = &task.past;
            if past.spent >= self.attempts || past.bytes_lost >= limits::BYTES_LOST_MAX {
                let past = past.clone();
                self.remove(key);
                return Some(Next::Exhausted { key, past });
            }
            if self.window(now) == 0 {
                return None;
            }
            self.waiting.pop_first();
            let Some(task) = self.tasks.get_mut(&key) else { continue };
            let Some(descriptor) = task.descriptor.clone() else {
                self.tasks.remove(&key);
                continue;
            };
            self.number += 1;
            self.window.offered(self.unanswered.len());
            task.state = State::Offered(self.number);
            self.unanswered.insert(self.number, (key, now));
            let attempt = task.past.spent + 1;
            return Some(Next::Offer { number: self.number, attempt, descriptor });
        }
    }

    /// When to look again, if nothing happens before.
    pub(crate) fn look_at(&self, now: Instant) -> Instant {
        let answers = self.unanswered.values().next();
        let answers = answers.map(|(_, since)| *since + limits::OFFER_ANSWERED_WITHIN);
        let unanswered = self.unanswered.len();
        let offers = if self.window.is_open(unanswered) {
            self.waiting.first().map(|(at, _)| *at)
        } else {
            self.window.opens_at(unanswered)
        };
        let soon = [answers, offers].into_iter().flatten().min();
        soon.unwrap_or(now + limits::LEASES_LOOKED_AT).min(now + limits::LEASES_LOOKED_AT)
    }

    /// Puts a task back, to be offered after `delay`.
    fn wait(&mut self, key: Key, at: Instant) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        match task.state {
            State::Waiting(before) => {
                self.waiting.remove(&(before, key));
            }
            State::Offered(number) => {
                self.unanswered.remove(&number);
            }
            State::Leased { .. } => {}
        }
        if task.descriptor.is_none() {
            // It has not been handed in yet.
            let past = self.tasks.remove(&key).map(|task| task.past);
            self.past.extend(past.map(|past| (key, past)));
            return;
        }
        task.state = State::Waiting(at);
        self.waiting.insert((at, key));
    }

    fn remove(&mut self, key: Key) {
        match self.tasks.remove(&key).map(|task| task.state) {
            Some(State::Waiting(at)) => {
                self.waiting.remove(&(at, key));
            }
            Some(State::Offered(number)) => {
                self.unanswered.remove(&number);
            }
            Some(State::Leased { .. }) | None => {}
        }
    }

    /// A worker says that it executes a task which is not decided. Whether it has the lease: unless
    /// another has, or it gave it back, it does, also if its offer was answered late, or made by an earlier
    /// gatherer.
    pub(crate) fn hold(&mut self, lease: Lease, now: Instant) -> bool {
        let key = (lease.index, lease.round);
        let attempt = lease.attempt;
        let past = self.tasks.get(&key).map(|task| &task.past).or_else(|| self.past.get(&key));
        if past.is_some_and(|past| past.given_back.as_ref() == Some(&lease.execution)) {
            return false;
        }
        if let Some(task) = self.tasks.get_mut(&key) {
            match &mut task.state {
                State::Leased { lease: held, renewed } => {
                    let same = held.execution == lease.execution;
                    if same {
                        *renewed = now;
                    }
                    return same;
                }
                State::Waiting(at) => {
                    self.waiting.remove(&(*at, key));
                }
                State::Offered(number) => {
                    self.unanswered.remove(number);
                }
            }
        }
        let past = &mut self.past;
        let task = self.tasks.entry(key).or_insert_with(|| Task {
            descriptor: None,
            state: State::Waiting(now),
            past: past.remove(&key).unwrap_or_default(),
        });
        task.past.spent = task.past.spent.max(attempt.saturating_sub(1));
        task.state = State::Leased { lease, renewed: now };
        true
    }

    /// An offer was taken.
    pub(crate) fn taken(&mut self, number: u64, lease: Lease, now: Instant) -> bool {
        self.unanswered.remove(&number);
        self.window.taken(&lease.worker, lease.more);
        self.hold(lease, now)
    }

    /// An offer came to a slot that had got other work.
    pub(crate) fn passed(&mut self, number: u64, now: Instant) {
        if let Some((key, _)) = self.unanswered.get(&number).copied() {
            self.window.passed(now);
            self.wait(key, now);
        }
    }

    /// What was offered is no task to a worker. Which, if it is not with another meanwhile.
    pub(crate) fn refused(&mut self, number: u64) -> Option<Key> {
        let (key, _) = self.unanswered.get(&number).copied()?;
        self.window.not_taken();
        self.remove(key);
        Some(key)
    }

    /// No slot was idle.
    pub(crate) fn nobody(&mut self, number: u64, now: Instant) {
        if let Some((key, _)) = self.unanswered.get(&number).copied() {
            self.wait(key, now);
        }
        self.window.nobody(self.leases() > 0, now);
    }

    /// A slot became idle a moment ago.
    pub(crate) fn idle(&mut self) {
        self.window.idle(self.unanswered.len());
    }

    /// A worker gave its lease back; offered again after a while that depends on why. How many planned
    /// give-backs were before it, if it was a lease of ours.
    pub(crate) fn given_back(&mut self, lease: &Lease, cause: Cause, now: Instant) -> Option<u32> {
        let key = (lease.index, lease.round);
        let task = self.tasks.get_mut(&key)?;
        if !matches!(&task.state, State::Leased { lease: held, .. } if held.execution == lease.execution)
        {
            return None;
        }
        let past = &mut task.past;
        let before = past.planned;
        let times = if cause.is_planned() { before } else { past.spent };
        past.count(&lease.execution, cause);
        past.given_back = Some(lease.execution.clone());
        let mut delay = cause.give_back_delay(times);
        let fits = |at: Instant| now.saturating_duration_since(at) < limits::GIVE_BACK_DELAY_MAX;
        if cause == Cause::CodecVersion && self.last_done.is_some_and(fits) {
            // The group picks at random: whom it fits must not wait for long until it is picked.
            delay = delay.min(limits::UNFIT_DELAY_MAX);
        }
        self.wait(key, now + delay);
        self.idle();
        Some(before)
    }

    /// The bytes of an outcome are not where they were said to be: offered again after a while, and no
    /// attempt is spent. How many planned give-backs were before it, if the task is not decided.
    pub(crate) fn bytes_lost(
        &mut self,
        key: Key,
        execution: &Execution,
        now: Instant,
    ) -> Option<u32> {
        let past = &mut self.tasks.get_mut(&key)?.past;
        let before = past.planned;
        let delay = Cause::BytesLost.give_back_delay(past.bytes_lost);
        past.count(execution, Cause::BytesLost);
        self.wait(key, now + delay);
        Some(before)
    }

    /// A task has its outcome.
    pub(crate) fn decided(&mut self, key: Key) {
        self.remove(key);
    }

    /// A round ends without an outcome. How many planned give-backs there were, if the task is known.
    pub(crate) fn end_round(&mut self, key: Key, execution: &Execution) -> Option<u32> {
        let past = self.tasks.get(&key).map(|task| task.past.clone());
        self.remove(key);
        let planned = past.as_ref().map(|past| past.planned);
        // A renewal that was on its way holds nothing.
        let given_back = Some(execution.clone());
        self.past.insert(key, Past { given_back, ..past.unwrap_or_default() });
        planned
    }

    /// A worker has done a task.
    pub(crate) fn done(&mut self, key: Key, now: Instant) {
        self.last_done = Some(now);
        self.decided(key);
    }

    fn lose(&mut self, is_lost: impl Fn(&Lease, Instant) -> bool, now: Instant) -> Vec<LostLease> {
        let mut lost = Vec::new();
        for task in self.tasks.values_mut() {
            if let State::Leased { lease, renewed } = &task.state
                && is_lost(lease, *renewed)
            {
                let spent = task.past.count(&lease.execution, Cause::WorkerLost);
                lost.push(LostLease { lease: lease.clone(), planned: task.past.planned, spent });
            }
        }
        for LostLease { lease, .. } in &lost {
            self.wait((lease.index, lease.round), now);
        }
        lost
    }

    /// A worker died.
    pub(crate) fn worker_lost(&mut self, worker: &str, now: Instant) -> Vec<LostLease> {
        self.window.worker_lost(worker);
        self.lose(|lease, _| lease.worker == worker, now)
    }

    /// Takes back the leases that were not renewed since `least`.
    pub(crate) fn expire(&mut self, least: Instant, now: Instant) -> Vec<LostLease> {
        self.lose(|_, renewed| renewed < least, now)
    }

    /// Takes back offers that were not answered.
    pub(crate) fn vanish(&mut self, now: Instant) {
        let vanished = |since: Instant| now - since >= limits::OFFER_ANSWERED_WITHIN;
        while let Some((_, (key, since))) = self.unanswered.first_key_value()
            && vanished(*since)
        {
            let key = *key;
            self.window.not_taken();
            self.wait(key, now);
        }
    }

    /// Tasks that somebody executes.
    pub(crate) fn leases(&self) -> usize {
        self.tasks.len() - self.waiting.len() - self.unanswered.len()
    }
}

#[cfg(test)]
#[path = "offers_played.rs"]
mod played;
#[cfg(test)]
#[path = "offers_tests.rs"]
mod tests;
