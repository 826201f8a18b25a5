//! The worker's steps: `consumer/src/attempt/`.

use crate::trace::Who;
use crate::values::{NONE, Waits};

use super::Steps;
use super::state::{At, Gathers, Key, Outcome, Says, State, TASKS, Worker};

impl Steps<'_> {
    /// A free slot pulls (`Queue::receive`), or takes an offer (`Dispatch::take_in`).
    pub(super) fn deliver(&mut self, w: usize) {
        if self.from.workers[w].at != At::Idle || !self.may_take() {
            return;
        }
        if self.config.queue_group() {
            return self.take_offer(w);
        }
        for subject in 0..self.from.waits.len() {
            if self.from.waits[subject] == Waits::Waiting {
                let key = Key::of_subject(subject);
                self.begin(w, RECEIVES[key.task()], key, |s| s.waits[subject] = Waits::Out);
            }
        }
    }

    fn take_offer(&mut self, w: usize) {
        for (task, what) in TAKES.into_iter().enumerate() {
            let key = self.from.key(task);
            let leased = self.from.workers.iter().any(|w| w.leased && w.key == key);
            let serves = self.from.gatherer.at == Gathers::Loop;
            if serves && self.from.gatherer.offered[task] && !leased && self.from.is_open(key) {
                self.begin(w, what, key, |s| s.workers[w].leased = true);
            }
        }
    }

    fn begin(&mut self, w: usize, what: &'static str, key: Key, after: impl FnOnce(&mut State)) {
        let mut state = self.from;
        let execution = state.execution();
        self.add(Who::Worker(execution), what, |s| {
            s.cut = state.cut;
            s.workers[w] = Worker { at: At::Open, key, execution, ..Worker::IDLE };
            after(s);
        });
    }

    /// Every step of one worker that is in an attempt.
    pub(super) fn worker(&mut self, w: usize) {
        let worker = self.from.workers[w];
        let who = Who::Worker(worker.execution);
        match worker.at {
            At::Idle => {}
            At::Open => self.open(w, worker, who),
            At::Close => self.close(w, worker, who),
            At::Commit if self.config.queue_group() => self.hand_in(w, worker, who),
            At::Commit => self.commit(w, worker, who),
            At::Ack => self.add(who, "acks", |s| {
                s.waits[worker.key.subject()] = Waits::Absent;
                s.workers[w] = Worker::IDLE;
            }),
            At::Answer => self.answer(w, worker, who),
        }
    }

    /// OPEN: `Stager::open`, answered by `receiver::look`; then the block is compressed, or fails for a reason of its own.
    fn open(&mut self, w: usize, worker: Worker, who: Who) {
        if !self.from.serves() {
            return self.add(who, "OPEN: nobody gathers, gives back", |s| give_back(s, w));
        }
        if !self.from.is_open(worker.key) {
            return self.have_it(w, worker, who);
        }
        self.add(who, "compresses", |s| {
            s.workers[w].says = Says::Done;
            s.workers[w].at = At::Close;
        });
        if self.from.left.transient > 0 {
            self.add(who, "fails for a reason of its own", |s| {
                s.left.transient -= 1;
                s.workers[w].says = Says::Failed;
                s.workers[w].at = At::Commit;
            });
        }
    }

    /// `BagPlan::decided`, of a block also if nobody waits for it any more: nothing is counted of what it then commits.
    fn have_it(&mut self, w: usize, worker: Worker, who: Who) {
        let queue_group = self.config.queue_group();
        self.add(who, "is told that it is decided", |s| {
            if queue_group {
                s.workers[w] = Worker::IDLE;
            } else {
                s.workers[w].at = At::Ack;
                s.parts[worker.key.task()][worker.execution as usize] = false;
            }
        });
    }

    /// CLOSE: `Writing::close`. The part file is durable.
    fn close(&mut self, w: usize, worker: Worker, who: Who) {
        if !self.from.serves() {
            return self.add(who, "CLOSE: nobody gathers, gives back", |s| give_back(s, w));
        }
        if !self.from.is_open(worker.key) {
            return self.have_it(w, worker, who);
        }
        self.add(who, "CLOSE: durable", |s| {
            s.parts[worker.key.task()][worker.execution as usize] = true;
            s.workers[w].at = At::Commit;
        });
    }

    /// `Broker::commit`.
    fn commit(&mut self, w: usize, worker: Worker, who: Who) {
        let subject = worker.key.subject();
        let mine = self.from.results[subject] == Outcome::NOTHING;
        let what = if mine { "commits: the first" } else { "commits: another came first" };
        self.add(who, what, |s| {
            if mine {
                let end = s.committed();
                s.log[end] = u8::try_from(subject).unwrap_or(NONE);
                s.results[subject] = Outcome { says: worker.says, by: worker.execution };
            }
            s.workers[w].at = At::Ack;
        });
    }

    /// `Offer::conclude`, and `Gathering::take_handed`.
    fn hand_in(&mut self, w: usize, worker: Worker, who: Who) {
        if !self.from.serves() {
            return self.add(who, "nobody takes its result, gives up", |s| {
                s.workers[w] = Worker::IDLE;
            });
        }
        if self.from.gatherer.at != Gathers::Loop {
            return;
        }
        let outcome = Outcome { says: worker.says, by: worker.execution };
        self.accept(who, "hands its result in", worker.key, outcome, |s| {
            let waits = s.gatherer.at != Gathers::Loop;
            let waiting = Worker { at: At::Answer, ..worker };
            s.workers[w] = if waits { waiting } else { Worker::IDLE };
        });
    }

    /// Its answer: when the ledger has it.
    fn answer(&mut self, w: usize, worker: Worker, who: Who) {
        if !self.from.serves() || self.from.gatherer.taken.by != worker.execution {
            self.add(who, "is answered, or nobody answers any more", |s| {
                s.workers[w] = Worker::IDLE;
            });
        }
    }
}

const RECEIVES: [&str; TASKS] =
    ["receives the whole file", "receives the first block", "receives the second block"];
const TAKES: [&str; TASKS] = [
    "takes the offer of the whole file",
    "takes the offer of the first block",
    "takes the offer of the second block",
];

/// Its delivery waits again: `Answers::give_back`.
fn give_back(s: &mut State, w: usize) {
    let subject = s.workers[w].key.subject();
    if let Some(waits) = s.waits.get_mut(subject).filter(|waits| **waits == Waits::Out) {
        *waits = Waits::Waiting;
    }
    s.workers[w] = Worker::IDLE;
}
