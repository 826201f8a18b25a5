//! What happens to all of them: crashes, leases, a broker that forgets, bytes that change.

use crate::trace::Who;
use crate::values::{NONE, Waits};

use super::gatherer::{count_first, stop};
use super::state::{At, FILES, Gathers, Key, Last, Outcomes, Says, State, Worker};
use super::steps::Steps;

impl Steps<'_> {
    /// Leases that run out: with their worker dead no fault, only time.
    pub(crate) fn leases(&mut self) {
        for subject in 0..self.from.tasks.len() {
            if self.from.tasks[subject].waits != Waits::Out {
                continue;
            }
            let holds = |w: &Worker| w.at != At::Idle && w.key.subject() == subject;
            if !self.from.workers.iter().any(holds) {
                self.add(Who::Broker, "a dead worker's delivery waits again", |s| {
                    s.tasks[subject].waits = Waits::Waiting;
                });
            } else if self.from.left.early > 0 {
                self.add(Who::Fault, "a lease runs out under a worker that lives", |s| {
                    s.left.early -= 1;
                    s.tasks[subject].waits = Waits::Waiting;
                });
            }
        }
        for w in 0..self.from.workers.len() {
            if self.from.left.early > 0 && self.from.workers[w].leased {
                self.add(Who::Fault, "a lease runs out under a worker that lives", |s| {
                    s.left.early -= 1;
                    s.workers[w].leased = false;
                });
            }
        }
    }

    /// A crash of each process at each of its steps, and of the gatherer within an append.
    pub(crate) fn crashes(&mut self) {
        for w in 0..self.from.workers.len() {
            let worker = self.from.workers[w];
            if self.from.left.worker_crashes > 0 && worker.at != At::Idle {
                self.add(Who::Worker(worker.execution), "IS KILLED", |s| {
                    s.left.worker_crashes -= 1;
                    s.workers[w] = Worker::IDLE;
                });
            }
        }
        if self.from.left.gatherer_crashes == 0 || !self.from.serves() {
            return;
        }
        self.add(Who::Gatherer(0), "IS KILLED", |s| {
            s.left.gatherer_crashes -= 1;
            stop(s, Gathers::Off);
        });
        let lines = self.from.gatherer.taken.says.iter().filter(|says| **says != Says::Nothing);
        if self.from.gatherer.at == Gathers::Count && lines.count() > 1 {
            self.add(
                Who::Gatherer(0),
                "IS KILLED when only the first line is in its ledger",
                |s| {
                    s.left.gatherer_crashes -= 1;
                    count_first(s);
                    stop(s, Gathers::Off);
                },
            );
        }
    }

    /// A broker that forgets what it had acknowledged of the pack. A file that is alone is a task like any other.
    pub(crate) fn forgets(&mut self) {
        if self.from.left.forgets == 0 {
            return;
        }
        let subject = Key::PACK.subject();
        let task = self.from.tasks[subject];
        match task.waits {
            Waits::Absent if task.known => {
                self.forget("the acknowledged pack is there again", |s| {
                    s.tasks[subject].waits = Waits::Waiting;
                });
            }
            Waits::Absent => {}
            Waits::Waiting | Waits::Out => self.forget("the pack's delivery is forgotten", |s| {
                s.tasks[subject].waits = Waits::Absent;
            }),
        }
        // A log is forgotten from its end.
        let last = self.from.committed().checked_sub(1);
        if let Some(last) = last.filter(|last| self.from.log[*last] as usize == subject) {
            self.forget("the pack's result is forgotten, which was the last", |s| {
                s.results[s.log[last] as usize] = Outcomes::NONE;
                s.log[last] = NONE;
            });
        }
    }

    fn forget(&mut self, what: &'static str, change: impl FnOnce(&mut State)) {
        self.add(Who::Fault, what, |s| {
            s.left.forgets -= 1;
            s.forgot = true;
            change(s);
        });
    }

    /// A counted output that changes.
    pub(crate) fn flips(&mut self) {
        for f in 0..FILES {
            let file = self.from.files[f];
            if self.from.left.flips > 0 && file.says == Says::Done && file.last == Last::Whole {
                self.add(Who::Fault, "bytes of a counted output change", |s| {
                    s.left.flips -= 1;
                    s.files[f].last = Last::Junk;
                    s.files[f].tainted = true;
                });
            }
        }
    }
}
