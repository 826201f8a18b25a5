//! What happens to all of them: crashes, leases, part files that are gone.

use crate::trace::Who;
use crate::values::Waits;

use super::Steps;
use super::gatherer::stop;
use super::state::{At, BLOCKS, Gathers, Part, Says, Worker};

impl Steps<'_> {
    /// Leases that run out: with their worker dead no fault, only time.
    pub(super) fn leases(&mut self) {
        for subject in 0..self.from.waits.len() {
            if self.from.waits[subject] != Waits::Out {
                continue;
            }
            let holds = |w: &Worker| w.at != At::Idle && w.key.subject() == subject;
            if !self.from.workers.iter().any(holds) {
                self.add(Who::Broker, "a dead worker's delivery waits again", |s| {
                    s.waits[subject] = Waits::Waiting;
                });
            } else if self.from.left.early > 0 {
                self.add(Who::Fault, "a lease runs out under a worker that lives", |s| {
                    s.left.early -= 1;
                    s.waits[subject] = Waits::Waiting;
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

    /// A crash of each process at each of its steps; with the gatherer's its machine may lose power.
    pub(super) fn crashes(&mut self) {
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
        if self.from.part.synced < self.from.part.written {
            self.add(
                Who::Gatherer(0),
                "LOSES POWER, and of the joined file what is not synced",
                |s| {
                    s.left.gatherer_crashes -= 1;
                    s.part.written = s.part.synced;
                    stop(s, Gathers::Off);
                },
            );
        }
    }

    /// A part file is gone: that of a block, or that of the join with all that was settled.
    pub(super) fn losses(&mut self) {
        if self.from.left.flips == 0 || !self.from.is_joined() {
            return;
        }
        for block in BLOCKS {
            let mut state = self.from;
            if self.from.ledger[block].outcome.says == Says::Done && state.part_of(block).is_some()
            {
                self.add(Who::Fault, "the part file of a counted block is gone", |s| {
                    s.left.flips -= 1;
                    if let Some(part) = s.part_of(block) {
                        *part = false;
                    }
                    s.ledger[block].tainted = true;
                });
            }
        }
        if self.from.part.there {
            self.add(Who::Fault, "the part file of the join is gone", |s| {
                s.left.flips -= 1;
                s.gatherer.joiner.holds.lose_name();
                s.part = Part::NONE;
                for block in BLOCKS {
                    if s.part_of(block).is_none() {
                        s.ledger[block].tainted = true;
                    }
                }
            });
        }
    }
}
