//! The gatherer's steps: `producer/src/gather/`, `unpack.rs` and `publish/forming.rs`, over the ledger.

use crate::config::Clause;
use crate::trace::Who;
use crate::values::{Bytes, NONE, Task, Waits};

use super::state::{
    At, FILES, Gatherer, Gathers, Key, Last, Outcomes, ROUNDS, Says, State, Worker,
};
use super::steps::Steps;

const WHO: Who = Who::Gatherer(0);

impl Steps<'_> {
    /// Every step of the gatherer, or of who starts one.
    pub(crate) fn gatherer(&mut self) {
        match self.from.gatherer.at {
            Gathers::Off => self.add(WHO, "starts again", |s| s.gatherer.at = Gathers::Start),
            Gathers::Finished if self.from.left.rounds > 0 => {
                self.add(WHO, "starts again", |s| s.gatherer.at = Gathers::Start);
            }
            Gathers::Finished => {}
            Gathers::Start => self.rerun(),
            Gathers::ReadWaiting => self.read_waiting(),
            Gathers::Loop => self.follow(),
            Gathers::Place => self.place(),
            Gathers::Count => self.count(),
        }
    }

    /// `Executor::rerun`: `--retry-failed` and `--repair` of a file, where the user wants them. By queue group everything open
    /// is offered anew (`State::publish_all`).
    fn rerun(&mut self) {
        let publish = self.to_publish([true; FILES]);
        let queue_group = self.config.queue_group();
        self.add(WHO, "opens its ledger", |s| {
            if queue_group {
                s.gatherer.publish = publish;
                s.gatherer.at = Gathers::Loop;
            } else {
                s.gatherer.at = Gathers::ReadWaiting;
            }
        });
        for f in 0..FILES {
            let file = self.from.files[f];
            let bad = file.says == Says::Done && file.last != Last::Whole;
            let failed = matches!(file.says, Says::Failed | Says::Spent);
            if self.from.left.rounds > 0 && (bad || failed) {
                let what = ["will run the first file again", "will run the second file again"][f];
                self.add(WHO, what, |s| {
                    s.left.rounds -= 1;
                    begin(s, f);
                });
            }
        }
    }

    /// `reconcile::waiting_tasks`: what waits in the round that counts, a pack by its first file. Results are read after.
    fn read_waiting(&mut self) {
        let mut waits = [false; FILES];
        for (f, waits) in waits.iter_mut().enumerate() {
            let key = Key::alone(f, self.from.files[f].round);
            *waits = self.from.tasks[key.subject()].waits != Waits::Absent;
        }
        let what = if waits.contains(&true) { "sees what waits" } else { "sees nothing wait" };
        self.add(WHO, what, |s| {
            s.gatherer.waited = Some(waits);
            s.gatherer.at = Gathers::Loop;
            s.gatherer.read = 0;
        });
    }

    /// `Gathering::follow`, `Gathering::take` and `Gathering::is_complete`.
    fn follow(&mut self) {
        let gatherer = self.from.gatherer;
        if self.from.is_over() && gatherer.waited.is_none() {
            self.add(WHO, "ends: every file has an outcome", |s| {
                s.files.iter_mut().for_each(|file| file.parts.fill(Bytes::Nothing));
                stop(s, Gathers::Finished);
            });
        }
        self.publish();
        if gatherer.waited.is_none() {
            self.begin_due();
        }
        if self.config.queue_group() {
            return self.offer();
        }
        if (gatherer.read as usize) < self.from.committed() {
            self.take();
        } else if let Some(waited) = gatherer.waited {
            self.publish_missing(waited);
        }
        // `State::tick`: a bag that stands still is reconciled, when nothing is being published. Nothing but what a broker forgot
        // may need it.
        let following = gatherer.waited.is_none() && !gatherer.publish.contains(&true);
        if self.from.forgot && following && !self.from.is_over() {
            self.add(WHO, "reconciles, as the bag stands still", |s| {
                s.gatherer.at = Gathers::ReadWaiting;
            });
        }
    }

    /// `Executor::publish_missing`: all but what waits, or begins its next round by itself.
    fn publish_missing(&mut self, there: [bool; FILES]) {
        let mut wanted = [true; FILES];
        for (f, wanted) in wanted.iter_mut().enumerate() {
            *wanted = !there[f] && self.from.gatherer.due[f].is_none();
        }
        let publish = self.to_publish(wanted);
        let missing = publish.contains(&true);
        let what = if missing { "finds what is missing" } else { "finds nothing missing" };
        self.add(WHO, what, |s| {
            s.gatherer.waited = None;
            s.gatherer.publish = publish;
        });
    }

    /// `Publisher::publish`: refused without harm where the message waits already; or it is offered.
    fn publish(&mut self) {
        for (place, what) in PUBLISHES.into_iter().enumerate() {
            if !self.from.gatherer.publish[place] {
                continue;
            }
            let key = match place.checked_sub(1) {
                None => Key::PACK,
                Some(f) => Key::alone(f, self.from.files[f].round),
            };
            let queue_group = self.config.queue_group();
            let counts = self.would_count(key);
            self.add(WHO, what, |s| {
                s.gatherer.publish[place] = false;
                if queue_group {
                    s.gatherer.offered[place] |= counts;
                    return;
                }
                let task = &mut s.tasks[key.subject()];
                if task.waits == Waits::Absent {
                    *task = Task { waits: Waits::Waiting, known: true, ..Task::default() };
                }
            });
        }
    }

    /// `Executor::begin_rounds`: the line first (`Ledger::begin`), then the file is published alone.
    fn begin_due(&mut self) {
        for f in 0..FILES {
            let Some(round) = self.from.gatherer.due[f] else { continue };
            let open = self.from.is_open(f, round);
            let what = [
                "begins the next round of the first file",
                "begins the next round of the second file",
            ][f];
            self.add(WHO, what, |s| {
                s.gatherer.due[f] = None;
                if open {
                    begin(s, f);
                    s.gatherer.publish[1 + f] = true;
                }
            });
        }
    }

    /// `Gathering::take_committed`: one result.
    fn take(&mut self) {
        let subject = self.from.log[self.from.gatherer.read as usize] as usize;
        let key = Key::of_subject(subject);
        let what = if key.is_pack() {
            "reads the result of the pack"
        } else {
            "reads the result of a file"
        };
        self.accept(WHO, what, key, self.from.results[subject], |s| s.gatherer.read += 1);
    }

    /// `unpack::unpack`, then `Acceptor::accept`: what may count is taken, and what a pack leaves open begins its next round
    /// later (`Executor::begin_later`).
    pub(crate) fn accept(
        &mut self,
        who: Who,
        what: &'static str,
        key: Key,
        result: Outcomes,
        after: impl FnOnce(&mut State),
    ) {
        let begun = !self.config.lacks(Clause::OpenOfPackBegun);
        self.add(who, what, |s| {
            let mut taken = Outcomes { by: result.by, ..Outcomes::NONE };
            for f in key.files() {
                if !s.is_open(f, key.round) {
                    continue;
                }
                match result.says[f] {
                    Says::Nothing if begun => s.gatherer.due[f] = Some(key.round),
                    says => taken.says[f] = says,
                }
            }
            if taken.says != Outcomes::NONE.says {
                s.gatherer.taken = taken;
                s.gatherer.from = key;
                s.gatherer.at = Gathers::Place;
            }
            after(s);
        });
    }

    /// `Parts::place`, for each file: renames, or finds the bytes under the final name, or lacks them.
    fn place(&mut self) {
        let Gatherer { taken, placed, from, .. } = self.from.gatherer;
        let next = (0..FILES).find(|f| taken.says[*f] == Says::Done && !placed[*f]);
        let Some(f) = next else {
            return self.add(WHO, "has given the outputs their names", |s| {
                let none = s.gatherer.taken.says == Outcomes::NONE.says;
                s.gatherer.placed = [false; FILES];
                s.gatherer.at = if none { Gathers::Loop } else { Gathers::Count };
                if none {
                    s.gatherer.taken = Outcomes::NONE;
                }
            });
        };
        if self.is_tar(from) {
            if !self.name_tar(WHO, taken.by) {
                self.find_in_tar(WHO, f, taken.by);
            }
            return;
        }
        let e = taken.by as usize;
        let file = self.from.files[f];
        if file.last == Last::Whole {
            return self.add(WHO, "finds the bytes under their final name", |s| {
                s.files[f].parts[e] = Bytes::Nothing;
                s.gatherer.placed[f] = true;
            });
        }
        if file.parts[e] == Bytes::Nothing {
            // `Gathering::take_handed`: no offer brings one file of a pack again, but one that is alone is offered again.
            let again = self.config.queue_group() && !from.is_pack();
            return self.add(WHO, "does not find the bytes", |s| {
                s.gatherer.taken.says[f] = Says::Nothing;
                if again {
                    let spent = &mut s.gatherer.spent[from.place()];
                    *spent = spent.saturating_sub(1);
                    s.gatherer.offered[from.place()] = true;
                } else {
                    s.gatherer.due[f] = Some(from.round);
                }
            });
        }
        self.add(
            WHO,
            ["renames the first file's part", "renames the second file's part"][f],
            |s| {
                let file = &mut s.files[f];
                let part = std::mem::take(&mut file.parts[e]);
                file.last = if part == Bytes::Whole { Last::Whole } else { Last::Junk };
                s.gatherer.placed[f] = true;
            },
        );
    }

    /// `Ledger::append`: a line for each file, in one append. Then other part files of it go (`Parts::sweep`).
    fn count(&mut self) {
        self.add(WHO, "appends the outcomes to its ledger", |s| {
            while count_first(s) {}
            s.gatherer.taken = Outcomes::NONE;
            s.gatherer.at = Gathers::Loop;
        });
    }
}

const PUBLISHES: [&str; Key::ALL] =
    ["publishes the pack", "publishes the first file alone", "publishes the second file alone"];

/// The line of the first file that has none yet; whether there was one.
pub(crate) fn count_first(s: &mut State) -> bool {
    let Gatherer { taken, .. } = s.gatherer;
    let Some(f) = taken.says.iter().position(|says| *says != Says::Nothing) else { return false };
    s.gatherer.taken.says[f] = Says::Nothing;
    s.gatherer.due[f] = None;
    let file = &mut s.files[f];
    (file.says, file.by) = (taken.says[f], taken.by);
    file.lines[file.round as usize] += 1;
    let round = file.round;
    let later = |e: u8, s: &State| {
        let works = |w: &Worker| w.execution == e && w.key.round > round;
        let after = Key::alone(0, round + 1).subject().min(s.results.len());
        s.results[after..].iter().any(|result| result.by == e) || s.workers.iter().any(works)
    };
    // A tar stays as long as its bucket.
    let stays = s.has_tars && round == 0;
    for e in (0..s.files[f].parts.len()).filter(|_| !stays) {
        if !later(u8::try_from(e).unwrap_or(NONE), s) {
            s.files[f].parts[e] = Bytes::Nothing;
        }
    }
    true
}

/// A new round of one file, if its line is the next.
fn begin(s: &mut State, f: usize) {
    let file = &mut s.files[f];
    if file.round as usize + 1 >= ROUNDS {
        s.cut = true;
        return;
    }
    file.round += 1;
    (file.says, file.by, file.tainted) = (Says::Nothing, NONE, false);
    s.gatherer.spent[1 + f] = 0;
    s.gatherer.offered[1 + f] = false;
}

/// A new process would know nothing of this one's memory; leases are in it. An execution whose end this one does not see
/// spends no attempt.
pub(crate) fn stop(s: &mut State, at: Gathers) {
    let mut spent = s.gatherer.spent;
    for worker in &mut s.workers {
        let place = worker.key.place();
        spent[place] = spent[place].saturating_sub(u8::from(worker.leased));
        worker.leased = false;
        if worker.at == At::Answer {
            // It hands its result in again, or gives up.
            worker.at = At::Commit;
        }
    }
    s.gatherer = Gatherer { spent, ..Gatherer::new(at) };
}
