//! The gatherer's steps: those of `producer/src/gather/` (`state.rs` has their order) and `publish/`, over the ledger in
//! `run_folder/ledger/`.

use crate::config::Clause;
use crate::placing::sweep_parts;
use crate::process::{At, Gatherer, Gathers};
use crate::property::sound;
use crate::state::State;
use crate::trace::{Steps, Who};
use crate::values::{Bytes, EXECUTIONS, FOLDERS, Kind, NONE, Named, Outcome, ROUNDS, Waits};

impl Steps<'_> {
    /// Every step of the gatherer, or of who starts one.
    pub(crate) fn gatherer(&mut self) {
        let who = Who::Gatherer(self.from.gatherer.folder);
        match self.from.gatherer.at {
            Gathers::Off => self.start(),
            Gathers::Finished => {
                self.start_in_other_folder();
                if self.from.left.rounds > 0 {
                    self.start_again();
                }
            }
            Gathers::Start => self.rerun(who),
            Gathers::ReadWaiting => self.read_waiting(who),
            Gathers::Loop => self.follow(who),
            Gathers::Place => self.place(who),
            Gathers::PlaceAgain => self.place_again(who),
            Gathers::CheckObject => self.check_object(who),
            Gathers::Count => self.count(who),
            Gathers::Begin => self.begin(who),
            Gathers::ReadOld => self.read_old(who),
            Gathers::BuryOld => self.bury_old(who),
            Gathers::PurgeOld => self.purge_old(who),
            Gathers::Publish => self.publish(who),
        }
    }

    /// Somebody runs `gather` again after a crash.
    fn start(&mut self) {
        self.start_again();
        self.start_in_other_folder();
    }

    fn start_again(&mut self) {
        let folder = self.from.gatherer.folder;
        self.add(Who::Gatherer(folder), "starts again", |s| restart(s, folder));
    }

    fn start_in_other_folder(&mut self) {
        if self.from.left.other_folder == 0 {
            return;
        }
        let folder = (self.from.gatherer.folder + 1) % u8::try_from(FOLDERS).unwrap_or(1);
        self.add(Who::Gatherer(folder), "starts in a folder of its own", |s| {
            s.left.other_folder -= 1;
            restart(s, folder);
        });
    }

    /// `Executor::rerun`: `--retry-failed` and `--repair`, where the user wants them.
    fn rerun(&mut self, who: Who) {
        let folder = *self.from.folder();
        let next = if self.config.queue_group() { Gathers::Loop } else { Gathers::ReadWaiting };
        self.add(who, "opens its ledger", |s| s.gatherer.at = next);
        if self.from.left.rounds == 0 || !folder.outcome.is() {
            return;
        }
        let bad = folder.outcome.is_done() && !sound(self.config, &self.from, &folder);
        if !folder.outcome.is_done() || bad {
            let first = self.config.lacks(Clause::BeginBeforeRemove) && bad;
            self.add(who, "will run the task again", |s| {
                s.left.rounds -= 1;
                s.gatherer.starting = true;
                s.gatherer.at = if first { Gathers::ReadOld } else { Gathers::Begin };
            });
        } else if self.config.lacks(Clause::BeginBeforeRemove) {
            // A repair that removes before it begins shows with sound bytes, which nothing excuses.
            self.add(who, "will run the task again, as a user wishes", |s| {
                s.left.rounds -= 1;
                s.gatherer.starting = true;
                s.gatherer.at = Gathers::ReadOld;
            });
        }
    }

    /// `Executor::list_waiting`: what waits is read first, results after.
    fn read_waiting(&mut self, who: Who) {
        let round = self.from.folder().round as usize;
        let waits = if self.config.lacks(Clause::SubjectByRound) {
            self.from.tasks.iter().any(|task| task.waits != Waits::Absent)
        } else {
            self.from.tasks[round].waits != Waits::Absent
        };
        let from_first = !self.config.lacks(Clause::ResultsFromFirst);
        let what = if waits { "sees the task wait" } else { "sees that the task does not wait" };
        self.add(who, what, |s| {
            s.gatherer.waited = Some(waits);
            s.gatherer.at = Gathers::Loop;
            if from_first {
                s.gatherer.read = 0;
            }
        });
    }

    /// `Gathering::follow`, `Gathering::take` and `Gathering::is_complete`.
    fn follow(&mut self, who: Who) {
        let gatherer = self.from.gatherer;
        let decided = self.from.folder().outcome.is();
        if decided && gatherer.waited.is_none() {
            self.add(who, "ends: the task has an outcome", finish);
        }
        if self.config.queue_group() {
            self.offer();
            return self.sweep(who);
        }
        if (gatherer.read as usize) < self.from.committed() {
            self.take(who);
        } else if let Some(waited) = gatherer.waited {
            let half =
                self.from.folder().round > 0 && self.config.lacks(Clause::BegunRoundFinished);
            let missing = !decided && !waited && !half;
            let remove = !self.config.staged()
                && self.from.folder().round > 0
                && !self.config.lacks(Clause::FinishedRoundRemoves);
            let what = if missing { "finds its task missing" } else { "finds nothing missing" };
            self.add(who, what, |s| {
                s.gatherer.waited = None;
                if missing {
                    s.gatherer.missing = true;
                    s.gatherer.at = if remove { Gathers::ReadOld } else { Gathers::Publish };
                }
            });
        }
        // `State::tick`: a bag that stands still is reconciled. Nothing but what a broker forgot
        // may need it.
        if self.from.forgot && gatherer.waited.is_none() && !decided {
            self.add(who, "reconciles, as the bag stands still", |s| {
                s.gatherer.at = Gathers::ReadWaiting;
            });
        }
        self.sweep(who);
    }

    /// `Acceptor::accept`: one committed result.
    fn take(&mut self, who: Who) {
        let mut read = self.from.gatherer.read as usize;
        let mut behind = 1;
        if self.config.lacks(Clause::UnknownRoundTaken) {
            // A batch is all there is, and what does not count at its beginning is dropped.
            let batch = &self.from.log[read..self.from.committed()];
            behind = u8::try_from(batch.len()).unwrap_or(NONE);
            let counts = batch.iter().position(|round| *round == self.from.folder().round);
            read += counts.unwrap_or(0);
        }
        let round = self.from.log[read];
        let outcome = self.from.results[round as usize];
        let folder = *self.from.folder();
        let newer = round > folder.round && !folder.outcome.is_done();
        if newer && !self.config.lacks(Clause::UnknownRoundTaken) {
            // `Ledger::begin_rounds`: then the result is read once more, as one of the current round.
            return self.add(who, "reads a result of a round it does not know, begins it", |s| {
                begin(s, round);
            });
        }
        if round != folder.round || folder.outcome.is() {
            return self.add(who, "reads a result that does not count", |s| {
                s.gatherer.read += behind;
            });
        }
        let staged = self.config.staged();
        let what = match outcome.kind {
            Kind::Failed => "reads that the task failed",
            _ => "reads that the task is done",
        };
        self.add(who, what, |s| {
            s.gatherer.read += behind;
            s.gatherer.taken = outcome;
            s.gatherer.at = match (outcome.kind, staged) {
                (Kind::Failed, _) => Gathers::Count,
                (_, true) => Gathers::Place,
                (_, false) => Gathers::CheckObject,
            };
        });
    }

    /// `Ledger::append`: only now the task has its outcome. Other part files of it go (`Parts::sweep`).
    fn count(&mut self, who: Who) {
        let staged = self.config.staged();
        self.add(who, "appends the outcome to its ledger", |s| {
            let taken = s.gatherer.taken;
            let folder = s.folder_mut();
            folder.outcome = taken;
            folder.named |= staged && taken.is_done();
            folder.lines[folder.round as usize] += 1;
            if taken.kind == Kind::Taken {
                // What has the name now is another's, whatever had it before.
                folder.named = false;
                sweep_parts(s);
            }
            s.gatherer.taken = Outcome::NOTHING;
            s.gatherer.at = Gathers::Loop;
        });
    }

    /// `Ledger::begin`: the line of a new round.
    fn begin(&mut self, who: Who) {
        let staged = self.config.staged();
        self.add(who, "begins a new round in its ledger", |s| {
            begin(s, s.folder().round + 1);
            s.gatherer.missing = false;
            s.gatherer.at = if staged { Gathers::Publish } else { Gathers::ReadOld };
        });
    }

    /// `Executor::begin_again`: the old object goes, by the sequence that was read.
    fn read_old(&mut self, who: Who) {
        let first = self.config.lacks(Clause::BeginBeforeRemove) && self.from.gatherer.starting;
        let read = self.from.metadata;
        if self.config.staged() {
            return self.add(who, "removes the old file", |s| {
                s.folder_mut().last = Named::Nothing;
                s.gatherer.at = Gathers::Begin;
            });
        }
        // What a reconciliation publishes may have been written meanwhile: what reads back stays.
        let whole = matches!(read, Named::Of(t) if self.from.chunks[t as usize] == Bytes::Whole);
        let keeps = self.from.gatherer.missing && whole;
        self.add(who, "reads which object is there", |s| {
            s.gatherer.saw = read;
            s.gatherer.at = match read {
                Named::Of(_) if !keeps => Gathers::BuryOld,
                _ if first => Gathers::Begin,
                _ => Gathers::Publish,
            };
        });
    }

    fn bury_old(&mut self, who: Who) {
        let same = self.from.metadata == self.from.gatherer.saw;
        let what = if same { "puts a tombstone on the old object" } else { "finds a newer object" };
        self.add(who, what, |s| {
            if same {
                s.set_metadata(Named::Tombstone);
            }
            s.gatherer.at = if same { Gathers::PurgeOld } else { Gathers::Publish };
        });
    }

    fn purge_old(&mut self, who: Who) {
        let first = self.config.lacks(Clause::BeginBeforeRemove) && self.from.gatherer.starting;
        self.add(who, "purges the old object's chunks", |s| {
            if let Named::Of(t) = s.gatherer.saw {
                s.chunks[t as usize] = Bytes::Nothing;
            }
            s.gatherer.saw = Named::Nothing;
            s.gatherer.at = if first { Gathers::Begin } else { Gathers::Publish };
        });
    }

    /// `Publisher::publish` and `publish_round`: refused without harm where the message waits already.
    fn publish(&mut self, who: Who) {
        let gatherer = self.from.gatherer;
        let round = self.from.folder().round as usize;
        let task = self.from.tasks[round];
        let taken = if self.config.lacks(Clause::SubjectByRound) {
            self.from.tasks.iter().any(|task| task.waits != Waits::Absent)
        } else {
            task.waits != Waits::Absent
        };
        let dropped = self.config.lacks(Clause::ResubmitWithoutId) && task.known;
        let queue_group = self.config.queue_group();
        let what = match (taken || dropped, queue_group) {
            (_, true) => "offers the new round from now on",
            (true, _) => "publishes the task: refused as there already",
            (false, _) => "publishes the task",
        };
        self.add(who, what, |s| {
            if !taken && !dropped && !queue_group {
                let again = &mut s.tasks[round];
                *again = crate::values::Task { waits: Waits::Waiting, known: true, ..*again };
                again.spent = 0;
                again.again = false;
            }
            s.gatherer.at = if gatherer.starting && !queue_group {
                Gathers::ReadWaiting
            } else {
                Gathers::Loop
            };
            s.gatherer.saw = Named::Nothing;
            s.gatherer.starting = false;
            s.gatherer.missing = false;
        });
    }

    /// A full bucket: chunks go that no worker holds and no metadata names, by the leader.
    fn sweep(&mut self, who: Who) {
        let config = self.config;
        if config.staged() || config.room == 0 || config.lacks(Clause::FullBucketSwept) {
            return;
        }
        for e in 0..self.from.chunks.len() {
            let execution = u8::try_from(e).unwrap_or(NONE);
            let held = self.from.workers.iter().any(|worker| worker.execution == execution);
            if self.from.chunks[e] == Bytes::Nothing || held {
                continue;
            }
            if !self.from.metadata.names(execution) && !self.from.beside[e] {
                self.add(who, "sweeps chunks that nobody holds or names", |s| {
                    s.chunks[e] = Bytes::Nothing;
                });
            } else if config.lacks(Clause::LeaderBeforeDelete)
                && self.from.left.lags > 0
                && !self.from.metadata_before.names(execution)
            {
                self.add(who, "sweeps chunks that a replica names nowhere", |s| {
                    s.left.lags -= 1;
                    s.chunks[e] = Bytes::Nothing;
                });
            }
        }
    }
}

/// A new process, which reads of its folder what attempts were spent there.
fn restart(s: &mut State, folder: u8) {
    let spent = if s.gatherer.folder == folder { s.gatherer.spent } else { 0 };
    s.gatherer = Gatherer { spent, ..Gatherer::new(Gathers::Start, folder) };
}

/// A new process would know nothing of this one's memory; leases are in it. An execution whose end this
/// one does not see spends no attempt.
pub(crate) fn stop(s: &mut State, at: Gathers) {
    let (folder, round) = (s.gatherer.folder, s.folder_mut().round);
    let under_way = s.workers.iter().any(|worker| worker.leased && worker.round == round);
    s.gatherer.spent = s.gatherer.spent.saturating_sub(u8::from(under_way));
    restart(s, folder);
    s.gatherer.at = at;
    for worker in &mut s.workers {
        worker.leased = false;
        if worker.at == At::Answer {
            // It hands its result in again, or gives up.
            worker.at = if worker.bytes == NONE { At::CommitFailed } else { At::Commit };
        }
    }
}

/// `Parts::remove`, and the process ends.
fn finish(s: &mut State) {
    let parts = &mut s.folder_mut().parts;
    *parts = [Bytes::Nothing; EXECUTIONS];
    stop(s, Gathers::Finished);
}

fn begin(s: &mut State, round: u8) {
    if round as usize >= ROUNDS {
        s.cut = true;
        return;
    }
    let folder = s.folder_mut();
    if folder.outcome.is() {
        folder.before = folder.outcome;
    }
    folder.outcome = Outcome::NOTHING;
    folder.round = round;
    folder.tainted = false;
    s.gatherer.spent = 0;
}
