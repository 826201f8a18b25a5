//! The gatherer's steps but for the join: `producer/src/gather/`, over the ledger.

use crate::trace::Who;
use crate::values::Waits;

use super::Steps;
use super::joiner::rename;
use super::state::{
    At, BLOCKS, FILE, Gatherer, Gathers, JOINER, Key, Last, Note, Outcome, Part, ROUNDS, Says,
    State, TASKS, WHOLE,
};

const WHO: Who = Who::Gatherer(0);

impl Steps<'_> {
    /// Every step of the gatherer, or of who starts one.
    pub(super) fn gatherer(&mut self) {
        match self.from.gatherer.at {
            Gathers::Off => self.add(WHO, "starts again", |s| s.gatherer.at = Gathers::Start),
            Gathers::Finished if self.from.left.rounds > 0 => {
                self.add(WHO, "starts again", |s| s.gatherer.at = Gathers::Start);
            }
            Gathers::Finished => {}
            Gathers::Start => self.rerun(),
            Gathers::ReadWaiting => self.read_waiting(),
            Gathers::Loop => self.follow(),
            Gathers::Place => self.look_at_part(),
            Gathers::Rename => self.rename(),
            Gathers::Count => self.add(WHO, "appends the outcome to its ledger", count),
            Gathers::Tell => self.add(WHO, "tells the joiner", |s| {
                s.gatherer.joiner.look = true;
                s.gatherer.at = Gathers::Loop;
            }),
        }
    }

    /// `Executor::rerun`: `--retry-failed` of the file, which is then run whole. By queue group everything open is offered anew.
    fn rerun(&mut self) {
        let queue_group = self.config.queue_group();
        let open = self.open_tasks();
        self.add(WHO, "opens its ledger", |s| {
            if queue_group {
                s.gatherer.publish = open;
                s.gatherer.at = Gathers::Loop;
            } else {
                s.gatherer.at = Gathers::ReadWaiting;
            }
        });
        if self.from.left.rounds > 0 && self.from.ledger[FILE].outcome.says == Says::Failed {
            self.add(WHO, "will run the file again, whole", |s| {
                s.left.rounds -= 1;
                begin(s, FILE);
            });
        }
    }

    /// `forming::next`: what is to be delivered. A file that is cut is not.
    fn open_tasks(&self) -> [bool; TASKS] {
        let mut open = [false; TASKS];
        for (task, open) in open.iter_mut().enumerate() {
            let key = self.from.key(task);
            *open = self.from.is_open(key) && !key.is_join();
        }
        open
    }

    /// `reconcile::waiting_tasks`. Results are read after.
    fn read_waiting(&mut self) {
        let mut waits = [false; TASKS];
        for (task, waits) in waits.iter_mut().enumerate() {
            *waits = self.from.waits[self.from.key(task).subject()] != Waits::Absent;
        }
        self.add(WHO, "sees what waits", |s| {
            s.gatherer.waited = Some(waits);
            s.gatherer.at = Gathers::Loop;
            s.gatherer.read = 0;
        });
    }

    /// `Gathering::follow`: results, what the joiner has, rounds that are due, and the end.
    fn follow(&mut self) {
        let gatherer = self.from.gatherer;
        if self.from.is_over() && gatherer.waited.is_none() {
            self.add(WHO, "ends: the file has an outcome", |s| {
                s.parts = Default::default();
                (s.part, s.note) = (Part::NONE, Note::NONE);
                stop(s, Gathers::Finished);
            });
        }
        if gatherer.joiner.says != Says::Nothing {
            let outcome = Outcome { says: gatherer.joiner.says, by: JOINER };
            self.accept(WHO, "takes the outcome of the join", Key::of(FILE, 0), outcome, |s| {
                s.gatherer.joiner.says = Says::Nothing;
            });
        }
        self.publish();
        if gatherer.waited.is_none() {
            self.begin_due();
        }
        if self.config.queue_group() {
            return;
        }
        if (gatherer.read as usize) < self.from.committed() {
            let subject = self.from.log[gatherer.read as usize] as usize;
            let (key, result) = (Key::of_subject(subject), self.from.results[subject]);
            self.accept(WHO, READS[key.task()], key, result, |s| s.gatherer.read += 1);
        } else if let Some(waited) = gatherer.waited {
            let mut publish = self.open_tasks();
            for task in 0..TASKS {
                publish[task] &= !waited[task] && gatherer.due[task].is_none();
            }
            self.add(WHO, "looks for what is missing", |s| {
                s.gatherer.waited = None;
                s.gatherer.publish = publish;
            });
        }
    }

    /// `Publisher::publish`: refused without harm where the message waits already; or it is offered.
    fn publish(&mut self) {
        let queue_group = self.config.queue_group();
        for (task, what) in PUBLISHES.into_iter().enumerate() {
            if !self.from.gatherer.publish[task] {
                continue;
            }
            let key = self.from.key(task);
            let open = self.from.is_open(key);
            self.add(WHO, what, |s| {
                s.gatherer.publish[task] = false;
                if queue_group {
                    s.gatherer.offered[task] |= open;
                } else if s.waits[key.subject()] == Waits::Absent {
                    s.waits[key.subject()] = Waits::Waiting;
                }
            });
        }
    }

    /// `Executor::begin_rounds`: the line first (`Ledger::begin`), then it is published.
    fn begin_due(&mut self) {
        for (task, what) in BEGINS.into_iter().enumerate() {
            let Some(round) = self.from.gatherer.due[task] else { continue };
            let wanted = self.from.ledger[task].round == round
                && if task == FILE { !self.from.is_over() } else { self.from.is_joined() };
            self.add(WHO, what, |s| {
                s.gatherer.due[task] = None;
                if wanted {
                    begin(s, task);
                    s.gatherer.publish[task] = true;
                }
            });
        }
    }

    /// `Acceptor::accept`: what would count is taken.
    pub(super) fn accept(
        &mut self,
        who: Who,
        what: &'static str,
        key: Key,
        outcome: Outcome,
        after: impl FnOnce(&mut State),
    ) {
        let open = self.from.is_open(key);
        self.add(who, what, |s| {
            if open {
                (s.gatherer.taken, s.gatherer.key) = (outcome, key);
                s.gatherer.at =
                    if outcome.says == Says::Done { Gathers::Place } else { Gathers::Count };
            }
            after(s);
        });
    }

    /// `Parts::holds`: a block stays where it is (`Placing::leave`), another output is to get its name.
    fn look_at_part(&mut self) {
        let Gatherer { taken, key, .. } = self.from.gatherer;
        let there = if key.is_join() {
            self.from.part.there && self.from.part.written == WHOLE
        } else {
            self.from.parts[key.task()][taken.by as usize]
        };
        if there {
            let at = if key.is_block() { Gathers::Count } else { Gathers::Rename };
            return self.add(WHO, "finds the part file whole", |s| s.gatherer.at = at);
        }
        if !key.is_block() && self.from.last == Last::Whole {
            return self.add(WHO, "finds the bytes under their final name", |s| {
                s.gatherer.at = Gathers::Count;
            });
        }
        let offers = self.config.queue_group() && !key.is_join();
        self.add(WHO, "does not find the bytes", |s| {
            s.gatherer.taken = Outcome::NOTHING;
            s.gatherer.at = Gathers::Loop;
            if offers {
                s.gatherer.offered[key.task()] = true;
            } else {
                s.gatherer.due[key.task()] = Some(key.round);
            }
        });
    }

    /// `Parts::place`.
    fn rename(&mut self) {
        let Gatherer { taken, key, .. } = self.from.gatherer;
        if key.is_join() && !self.from.part.there {
            return self.add(WHO, "finds the part file gone", |s| s.gatherer.at = Gathers::Place);
        }
        self.add(WHO, "gives the file its name", |s| {
            s.gatherer.at = Gathers::Count;
            if key.is_join() {
                rename(s);
            } else {
                s.parts[FILE][taken.by as usize] = false;
                s.last = Last::Whole;
            }
        });
    }
}

const READS: [&str; TASKS] = [
    "reads the result of the whole file",
    "reads the result of the first block",
    "reads the result of the second block",
];
const PUBLISHES: [&str; TASKS] =
    ["publishes the file, whole", "publishes the first block", "publishes the second block"];
const BEGINS: [&str; TASKS] = [
    "begins the next round of the file",
    "begins the next round of the first block",
    "begins the next round of the second block",
];

/// `Ledger::append`. The joiner sees the line from now on, and is told of it later.
fn count(s: &mut State) {
    let Gatherer { taken, key, .. } = s.gatherer;
    let entry = &mut s.ledger[key.task()];
    entry.outcome = taken;
    entry.lines[key.round as usize] += 1;
    s.gatherer.due[key.task()] = None;
    s.gatherer.offered[key.task()] = false;
    if !key.is_block() {
        s.parts[FILE].fill(false);
    }
    s.gatherer.taken = Outcome::NOTHING;
    s.gatherer.at = Gathers::Tell;
}

/// A new round of a task, if its line is the next.
fn begin(s: &mut State, task: usize) {
    let entry = &mut s.ledger[task];
    if entry.round as usize + 1 >= ROUNDS {
        s.cut = true;
        return;
    }
    entry.round += 1;
    (entry.outcome, entry.tainted) = (Outcome::NOTHING, false);
    s.gatherer.offered[task] = false;
    if task == FILE {
        BLOCKS.for_each(|block| s.gatherer.offered[block] = false);
    }
}

/// A new process would know nothing of this one's memory; leases are in it.
pub(super) fn stop(s: &mut State, at: Gathers) {
    for worker in &mut s.workers {
        worker.leased = false;
        if worker.at == At::Answer {
            // It hands its result in again, or gives up.
            worker.at = At::Commit;
        }
    }
    s.gatherer = Gatherer::new(at);
}
