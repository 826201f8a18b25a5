//! The literal queue group (`docs/protocol.md`): the gatherer offers, leases and decides.

use crate::config::Clause;
use crate::process::{At, Gathers, Worker};
use crate::trace::{Steps, Who};
use crate::values::{GATHERER, Kind, NONE, Outcome};
use crate::worker::{end, forget_beside};

impl Steps<'_> {
    /// An offer to an idle worker, or the failure of a task that spent its attempts.
    pub(crate) fn offer(&mut self) {
        let gatherer = self.from.gatherer;
        let who = Who::Gatherer(gatherer.folder);
        let round = self.from.folder().round;
        let leased = self.from.workers.iter().any(|w| w.leased && w.round == round);
        if self.from.folder().outcome.is() || leased {
            return;
        }
        let config = self.config;
        if gatherer.spent >= config.attempts && !config.lacks(Clause::CrashLimit) {
            return self.add(who, "too many workers had the task", |s| {
                s.gatherer.taken = Outcome { kind: Kind::Failed, by: GATHERER, bytes: NONE };
                s.gatherer.at = Gathers::Count;
            });
        }
        let idle = self.from.workers.iter().position(|worker| worker.at == At::Idle);
        let free: Vec<u8> = self.from.free_executions(config).collect();
        let Some(w) = idle else { return };
        for execution in free {
            self.add(Who::Worker(execution), "takes the offer of the task", |s| {
                s.gatherer.spent = (s.gatherer.spent + 1).min(config.attempts);
                s.workers[w] = Worker {
                    at: if config.staged() { At::Open } else { At::Write },
                    round,
                    execution,
                    spent: s.gatherer.spent,
                    leased: true,
                    ..Worker::IDLE
                };
            });
        }
    }

    /// `Offer::conclude`, called by `Answers::commit`: a result, handed to the gatherer; the first for a round is accepted.
    pub(crate) fn hand_in(&mut self, w: usize, worker: Worker, who: Who) {
        let Some(f) = self.from.serving() else {
            return self.add(who, "nobody takes its result, gives up", |s| end(s, w));
        };
        if self.decided(f, worker.round).is_some() || worker.at == At::CommitRecord {
            let own = self.decided(f, worker.round).is_some_and(|(o, _)| o.by == worker.execution);
            return self.add(who, "hands its result in: another came first", |s| {
                if worker.at == At::Commit && !own {
                    forget_beside(s, worker.execution);
                }
                end(s, w);
            });
        }
        if self.from.folders[f].round != worker.round {
            return self.add(who, "hands its result in: withdrawn", |s| end(s, w));
        }
        if self.from.gatherer.at != Gathers::Loop {
            return;
        }
        let failed = worker.at == At::CommitFailed;
        let staged = self.config.staged();
        self.add(who, "hands its result in", |s| {
            let kind = if failed { Kind::Failed } else { Kind::Done };
            s.gatherer.taken = worker.outcome(kind);
            s.gatherer.at = match (failed, staged) {
                (true, _) => Gathers::Count,
                (false, true) => Gathers::Place,
                (false, false) => Gathers::CheckObject,
            };
            s.workers[w].at = At::Answer;
        });
    }

    /// Its answer: when the manifest has it, or withdrawn.
    pub(crate) fn answer(&mut self, w: usize, worker: Worker, who: Who) {
        let taken = self.from.gatherer.taken.by == worker.execution;
        if self.from.serving().is_some() && taken {
            return;
        }
        self.add(who, "is answered, or nobody answers any more", |s| end(s, w));
    }
}
