//! The worker's steps: `consumer/src/attempt/` and `answer.rs`, and under them `broker/src/queue/commit.rs` and
//! `objstore/src/staging/worker/`; `object.rs` has those of an output that becomes an object.

use crate::config::Clause;
use crate::process::{At, Worker};
use crate::state::State;
use crate::trace::{Steps, Who};
use crate::values::{Bytes, Kind, NONE, Named, Outcome, Waits};

impl Steps<'_> {
    /// A free slot pulls: `Queue::receive`.
    pub(crate) fn deliver(&mut self, w: usize) {
        let config = self.config;
        if config.queue_group() || self.from.workers[w].at != At::Idle {
            return;
        }
        for round in 0..self.from.tasks.len() {
            if self.from.tasks[round].waits != Waits::Waiting {
                continue;
            }
            let free: Vec<u8> = self.from.free_executions(config).collect();
            for execution in free {
                self.add(Who::Worker(execution), "receives the task", |s| {
                    let task = &mut s.tasks[round];
                    let again = task.again;
                    task.waits = Waits::Out;
                    task.again = true;
                    task.spent = (task.spent + 1).min(config.attempts + 1);
                    s.workers[w] = Worker {
                        at: At::Look,
                        round: u8::try_from(round).unwrap_or(NONE),
                        execution,
                        spent: task.spent,
                        again,
                        ..Worker::IDLE
                    };
                });
            }
        }
    }

    /// Every step of one worker that is in an attempt.
    pub(crate) fn worker(&mut self, w: usize) {
        let worker = self.from.workers[w];
        let who = Who::Worker(worker.execution);
        match worker.at {
            At::Idle => {}
            At::Look => self.look(w, worker, who),
            At::Open => self.open(w, worker, who),
            At::Write => self.write(w, worker, who),
            At::WriteMore => self.write_more(w, worker, who),
            At::Close => self.close(w, worker, who),
            At::LookWhenFull => self.look_when_full(w, worker, who),
            At::Metadata => self.metadata(w, worker, who),
            At::MetadataUnanswered => self.metadata_again(w, worker, who),
            At::ReadMetadata => self.read_metadata(w, worker, who),
            At::ReadBack => self.read_back(w, worker, who),
            At::PurgeOwn | At::PurgeRefused => self.purge_own(w, worker, who),
            At::Commit | At::CommitFailed | At::CommitRecord | At::CommitAfterAck => {
                if self.config.queue_group() {
                    self.hand_in(w, worker, who);
                } else {
                    self.commit(w, worker, who);
                }
            }
            At::Lost => self.lost(w, who),
            At::Ack => self.ack(w, worker, who),
            At::Answer => self.answer(w, worker, who),
        }
        if self.config.lacks(Clause::NoWriteAfterClose)
            && matches!(worker.at, At::Commit | At::Ack)
            && worker.share != NONE
        {
            self.write_after_close(w, worker, who);
        }
    }

    /// `attempt::begin`: looks for a committed result, counts attempts (`Answers::count`).
    fn look(&mut self, w: usize, worker: Worker, who: Who) {
        let config = self.config;
        let round = worker.round as usize;
        if worker.again && self.from.results[round].is() {
            return self
                .add(who, "finds its task's result committed", |s| s.workers[w].at = At::Ack);
        }
        if worker.spent > config.attempts && !config.lacks(Clause::CrashLimit) {
            return self.add(who, "does not execute: too many workers had it", |s| {
                s.workers[w].at = At::CommitFailed;
            });
        }
        let next = if config.staged() { At::Open } else { At::Write };
        self.add(who, "begins", |s| s.workers[w].at = next);
    }

    /// OPEN: `Stager::open`, answered by `Service::open`.
    fn open(&mut self, w: usize, worker: Worker, who: Who) {
        let Some(f) = self.from.serving() else {
            return self.planned(w, who, "OPEN: nobody gathers, gives back");
        };
        if let Some((record, round)) = self.decided(f, worker.round) {
            return self.have_it(w, who, record, round);
        }
        if self.from.left.full > 0 {
            self.planned(w, who, "OPEN: disk full, gives back");
            if let Some((_, to)) = self.out.last_mut() {
                to.left.full -= 1;
            }
        }
        self.add(who, "OPEN: go, by wire", |s| s.workers[w].at = At::Write);
        if self.config.auto {
            self.add(who, "OPEN: go, by path", |s| {
                s.workers[w].at = At::Write;
                s.workers[w].share = u8::try_from(f).unwrap_or(NONE);
            });
        }
    }

    /// `producer::ledger::Ledger::outcome`: what the gatherer of a folder has for a round or a later one.
    pub(crate) fn decided(&self, f: usize, round: u8) -> Option<(Outcome, u8)> {
        let folder = &self.from.folders[f];
        if folder.outcome.is() && folder.round >= round {
            return Some((folder.outcome, folder.round));
        }
        if self.config.lacks(Clause::HaveItByRound) && folder.before.is() {
            return Some((folder.before, folder.round - 1));
        }
        None
    }

    fn have_it(&mut self, w: usize, who: Who, record: Outcome, round: u8) {
        // To whoever else reads it, it is a failure like any other.
        let kind = if record.kind == Kind::Taken { Kind::Failed } else { record.kind };
        let record = Outcome { kind, ..record };
        self.add(who, "is told of the outcome that its task has", |s| {
            let worker = &mut s.workers[w];
            worker.at = At::CommitRecord;
            worker.record = record;
            worker.record_round = round;
        });
    }

    /// Executes, and carries the first half away: `Store::staged`, `Stager::upload`, `Writer::write`.
    fn write(&mut self, w: usize, worker: Worker, who: Who) {
        if self.config.poison {
            return self.add(who, "is killed by its task", |s| self::end(s, w));
        }
        let e = worker.execution as usize;
        self.transient(w, worker, who);
        if !self.config.staged() {
            if !self.from.room(self.config, worker.execution) {
                let next = if self.config.lacks(Clause::FullLooksForObject) {
                    None
                } else {
                    Some(At::LookWhenFull)
                };
                return match next {
                    Some(at) => self.add(who, "finds the bucket full", |s| s.workers[w].at = at),
                    None => self.planned(w, who, "finds the bucket full, gives back"),
                };
            }
            return self.add(who, "stores a chunk", |s| {
                s.chunks[e] = Bytes::Partial;
                s.workers[w].at = At::WriteMore;
            });
        }
        if worker.share != NONE {
            let f = worker.share as usize;
            return self.add(who, "writes half of its part file in place", |s| {
                s.folders[f].parts[e] = Bytes::Partial;
                s.workers[w].at = At::WriteMore;
            });
        }
        let Some(f) = self.from.serving() else {
            return self.planned(w, who, "chunk: nobody gathers, gives back");
        };
        if let Some((record, round)) = self.decided(f, worker.round) {
            return self.have_it(w, who, record, round);
        }
        self.add(who, "uploads a chunk", |s| {
            s.folders[f].parts[e] = Bytes::Partial;
            s.workers[w].at = At::WriteMore;
        });
    }

    /// The second half.
    fn write_more(&mut self, w: usize, worker: Worker, who: Who) {
        let e = worker.execution as usize;
        if !self.config.staged() {
            self.transient(w, worker, who);
            return self.add(who, "stores its last chunk", |s| {
                // Purged meanwhile: a chunk that stands alone.
                if s.chunks[e] == Bytes::Partial {
                    s.chunks[e] = Bytes::Whole;
                }
                s.workers[w].at = At::Metadata;
            });
        }
        if worker.share != NONE {
            let f = worker.share as usize;
            return self.add(who, "writes the rest of its part file in place", |s| {
                // Removed meanwhile: its bytes have no name any more.
                if s.folders[f].parts[e] == Bytes::Partial {
                    s.folders[f].parts[e] = Bytes::Whole;
                }
                s.workers[w].at = At::Close;
            });
        }
        let Some(f) = self.from.serving() else {
            return self.planned(w, who, "chunk: nobody gathers, gives back");
        };
        if let Some((record, round)) = self.decided(f, worker.round) {
            self.have_it(w, who, record, round);
            if let Some((_, to)) = self.out.last_mut() {
                to.folders[f].parts[e] = Bytes::Nothing;
            }
            return;
        }
        if self.from.folders[f].parts[e] != Bytes::Partial {
            return self.fails(w, worker, who, "chunk: another offset is wanted, fails");
        }
        self.add(who, "uploads its last chunk", |s| {
            s.folders[f].parts[e] = Bytes::Whole;
            s.workers[w].at = At::Close;
        });
    }

    /// CLOSE: `Upload::close`, answered by `Writing::close`.
    fn close(&mut self, w: usize, worker: Worker, who: Who) {
        let e = worker.execution as usize;
        let Some(f) = self.from.serving() else {
            return self.planned(w, who, "CLOSE: nobody gathers, gives back");
        };
        if let Some((record, round)) = self.decided(f, worker.round) {
            self.have_it(w, who, record, round);
            if let Some((_, to)) = self.out.last_mut() {
                to.folders[f].parts[e] = Bytes::Nothing;
            }
            return;
        }
        if self.from.folders[f].parts[e] != Bytes::Whole {
            return self.fails(w, worker, who, "CLOSE: other bytes are there, fails");
        }
        self.transient(w, worker, who);
        let early = self.config.lacks(Clause::CommitBeforeRename);
        self.add(who, "CLOSE: durable", |s| {
            if early {
                s.folders[f].last = Named::Of(worker.execution);
                s.folders[f].parts[e] = Bytes::Nothing;
            }
            made(s, w, worker.execution);
        });
    }

    /// `Broker::commit`, called by `attempt::conclude::conclude`.
    fn commit(&mut self, w: usize, worker: Worker, who: Who) {
        let config = self.config;
        if config.lacks(Clause::CommitBeforeAck) && worker.at == At::Commit {
            return self.add(who, "acks, without a result", |s| {
                s.tasks[worker.round as usize].waits = Waits::Absent;
                s.workers[w].at = At::CommitAfterAck;
            });
        }
        let (outcome, round) = match worker.at {
            At::CommitRecord => (worker.record, worker.record_round),
            At::CommitFailed => (worker.outcome(Kind::Failed), worker.round),
            _ => (worker.outcome(Kind::Done), worker.round),
        };
        let mine = !self.from.results[round as usize].is();
        let compare = !config.lacks(Clause::CommitByCompare);
        let loses = worker.at == At::Commit && config.lacks(Clause::LoserDeletesNothing);
        let what = if mine { "commits: the first" } else { "commits: another came first" };
        self.add(who, what, |s| {
            s.commit(round, outcome, compare);
            if worker.at == At::Commit && s.results[round as usize].by != worker.execution {
                forget_beside(s, worker.execution);
            }
            s.workers[w].at = match worker.at {
                At::CommitAfterAck => return end(s, w),
                _ if loses && !mine => At::Lost,
                _ => At::Ack,
            };
        });
    }

    /// Without its clause: the loser removes the object that it believes to be its own.
    fn lost(&mut self, w: usize, who: Who) {
        self.add(who, "lost, deletes its object", |s| {
            if let Named::Of(t) = s.metadata {
                s.chunks[t as usize] = Bytes::Nothing;
                s.set_metadata(Named::Tombstone);
            }
            s.workers[w].at = At::Ack;
        });
    }

    /// `Delivery::ack` or `Delivery::term`: accepted however late.
    fn ack(&mut self, w: usize, worker: Worker, who: Who) {
        self.add(who, "acks", |s| {
            s.tasks[worker.round as usize].waits = Waits::Absent;
            end(s, w);
        });
    }

    /// A planned give-back: `Answers::give_back` records it, then naks; a late nak is accepted too.
    pub(crate) fn planned(&mut self, w: usize, who: Who, what: &'static str) {
        let spends = self.config.lacks(Clause::PlannedSpendsNothing);
        self.add(who, what, |s| {
            let round = s.workers[w].round as usize;
            if !spends {
                s.tasks[round].spent = s.tasks[round].spent.saturating_sub(1);
                s.gatherer.spent = s.gatherer.spent.saturating_sub(1);
            }
            nak(s, round);
            end(s, w);
        });
    }

    /// An attempt that failed for a reason that may pass: nak, or *failed* if it was the last one.
    pub(crate) fn fails(&mut self, w: usize, worker: Worker, who: Who, what: &'static str) {
        let last = worker.spent >= self.config.attempts;
        self.add(who, what, |s| {
            if last {
                s.workers[w].at = At::CommitFailed;
                return;
            }
            nak(s, worker.round as usize);
            end(s, w);
        });
    }

    fn transient(&mut self, w: usize, worker: Worker, who: Who) {
        if self.from.left.transient == 0 {
            return;
        }
        let first = self.out.len();
        self.fails(w, worker, who, "fails for a reason that may pass");
        for (_, to) in &mut self.out[first..] {
            to.left.transient -= 1;
            // `Carried::abandon`, as far as the metadata was not sent.
            if !self.config.staged() && !to.metadata.names(worker.execution) {
                to.chunks[worker.execution as usize] = Bytes::Nothing;
            }
        }
    }

    /// Without its clause: a retry writes the part file once more through the file it has open.
    fn write_after_close(&mut self, w: usize, worker: Worker, who: Who) {
        let f = worker.share as usize;
        self.add(who, "writes its part file again", |s| {
            let folder = &mut s.folders[f];
            if folder.last.names(worker.execution) {
                folder.last = Named::Junk;
            } else if folder.parts[worker.execution as usize] == Bytes::Whole {
                folder.parts[worker.execution as usize] = Bytes::Partial;
            }
            s.workers[w].share = NONE;
        });
    }
}

/// The output is durable.
pub(crate) fn made(s: &mut State, w: usize, bytes: u8) {
    s.workers[w].bytes = bytes;
    s.workers[w].at = At::Commit;
}

/// `Store::forget`: the loser's object with a second name goes.
pub(crate) fn forget_beside(s: &mut State, execution: u8) {
    let e = execution as usize;
    if s.beside[e] {
        s.beside[e] = false;
        s.chunks[e] = Bytes::Nothing;
    }
}

/// Its slot is free, or the process a new one.
pub(crate) fn end(s: &mut State, w: usize) {
    s.workers[w] = Worker::IDLE;
}

fn nak(s: &mut State, round: usize) {
    if s.tasks[round].waits == Waits::Out {
        s.tasks[round].waits = Waits::Waiting;
    }
}
