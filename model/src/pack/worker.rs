//! The worker's steps: `consumer/src/attempt/`, and `objstore/src/pack.rs` for the outputs.

use crate::config::Clause;
use crate::trace::Who;
use crate::values::{Bytes, Waits};

use super::state::{At, FILES, Key, Says, State, Worker};
use super::steps::Steps;

impl Steps<'_> {
    /// A free slot pulls: `Queue::receive`.
    pub(crate) fn deliver(&mut self, w: usize) {
        if self.config.queue_group() || self.from.workers[w].at != At::Idle || !self.may_take() {
            return;
        }
        let most = self.config.attempts + 1;
        for subject in 0..self.from.tasks.len() {
            if self.from.tasks[subject].waits != Waits::Waiting {
                continue;
            }
            let key = Key::of_subject(subject);
            let mut state = self.from;
            let execution = state.execution();
            let what =
                if key.is_pack() { "receives the pack" } else { RECEIVES[key.file as usize] };
            self.add(Who::Worker(execution), what, |s| {
                s.cut = state.cut;
                let task = &mut s.tasks[subject];
                let again = std::mem::replace(&mut task.again, true);
                task.waits = Waits::Out;
                task.spent = (task.spent + 1).min(most);
                let spent = task.spent;
                s.workers[w] =
                    Worker { at: At::Look, key, execution, spent, again, ..Worker::IDLE };
            });
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
            At::Execute => self.execute(w, worker, who),
            At::Half => self.half(w, worker, who),
            At::Close => self.close(w, worker, who),
            At::Commit if self.config.queue_group() => self.hand_in(w, worker, who),
            At::Commit => self.commit(w, worker, who),
            At::Ack => self.ack(w, worker, who, "acks"),
            At::Answer => self.answer(w, worker, who),
        }
    }

    /// `attempt::begin`: looks for a committed result, counts attempts (`Answers::count`).
    fn look(&mut self, w: usize, worker: Worker, who: Who) {
        if worker.again && self.from.results[worker.key.subject()].is() {
            return self.add(who, "finds the result committed", |s| s.workers[w].at = At::Ack);
        }
        if worker.spent > self.config.attempts {
            return self.add(who, "does not execute: too many workers had it", |s| spent(s, w));
        }
        self.add(who, "begins", |s| s.workers[w].at = At::Open);
    }

    /// OPEN: `Stager::open`, answered by `receiver::look` with the files that are decided (`BagPlan::is_file_decided`).
    fn open(&mut self, w: usize, worker: Worker, who: Who) {
        if self.is_tar(worker.key) {
            return self.open_tar(w, who);
        }
        if !self.from.serves() {
            return self.planned(w, who, "OPEN: nobody gathers, gives back");
        }
        if let Some(f) = self.decided(worker.key) {
            return self.have_it(w, worker, who, f);
        }
        let mut over = [false; FILES];
        for f in worker.key.files() {
            over[f] = worker.key.is_pack() && !self.from.is_open(f, worker.key.round);
        }
        let what = match over {
            [false, false] => "OPEN: go",
            [true, true] => "OPEN: go, but every file is in its next round",
            _ => "OPEN: go, but one file is decided",
        };
        self.add(who, what, |s| {
            s.workers[w].over = over;
            s.workers[w].at = At::Execute;
        });
    }

    /// `BagPlan::decided`: the outcome of the first file, once no file of the delivery is open.
    fn decided(&self, key: Key) -> Option<usize> {
        let first = key.file as usize;
        let one_is_enough = self.config.lacks(Clause::HaveItOfWholePack);
        let open = |f: usize| self.from.is_open(f, key.round) && !(one_is_enough && f != first);
        let file = self.from.files[first];
        let there = file.says != Says::Nothing && file.round >= key.round;
        (there && !key.files().any(open)).then_some(first)
    }

    /// `next_step::next_step`: the outcome is committed once more if it is of this round; without members it leaves the files of
    /// a pack open.
    fn have_it(&mut self, w: usize, worker: Worker, who: Who, f: usize) {
        let file = self.from.files[f];
        if file.round != worker.key.round {
            let what = "is told of the outcome of a later round, has nothing to say";
            if self.config.queue_group() {
                return self.add(who, what, |s| s.workers[w] = Worker::IDLE);
            }
            return self.ack(w, worker, who, what);
        }
        self.add(who, "is told of the outcome that there is", |s| {
            let worker = &mut s.workers[w];
            worker.says = [Says::Nothing; FILES];
            if !worker.key.is_pack() {
                worker.says[f] = file.says;
            }
            let e = std::mem::replace(&mut worker.execution, file.by) as usize;
            worker.at = At::Commit;
            s.files.iter_mut().for_each(|file| file.parts[e] = Bytes::Nothing);
        });
    }

    /// One file after another: `execute::execute_pack`. What another attempt may do better is no outcome of a file
    /// (`Attempt::pack`, `pack::decides`).
    fn execute(&mut self, w: usize, worker: Worker, who: Who) {
        let Some(f) = worker.next() else {
            let none = !worker.says.contains(&Says::Done);
            let what = if none { "has no output" } else { "has its outputs" };
            return self.add(who, what, |s| {
                s.workers[w].at = if none { At::Commit } else { At::Close };
            });
        };
        if self.config.poison {
            return self.add(who, "is killed by a file", |s| s.workers[w] = Worker::IDLE);
        }
        if !self.config.auto {
            return self.execute_unseen(w, worker, who);
        }
        self.add(who, HALF[f], |s| {
            s.files[f].parts[worker.execution as usize] = Bytes::Partial;
            s.workers[w].at = At::Half;
        });
        self.add(who, FAILS[f], |s| said(s, w, f, Says::Failed));
        if worker.key.is_pack() {
            self.add(who, LEAVES[f], |s| said(s, w, f, Says::Nothing));
        } else {
            self.transient(w, worker, who);
        }
    }

    /// All files at once, where nobody sees how far it is: the outputs come with CLOSE.
    fn execute_unseen(&mut self, w: usize, worker: Worker, who: Who) {
        if !worker.key.is_pack() {
            self.transient(w, worker, who);
        }
        let mut ways = vec![worker];
        for f in worker.key.files().filter(|f| !worker.over[*f]) {
            let open = worker.key.is_pack().then_some(Says::Nothing);
            let all: Vec<Says> = [Says::Done, Says::Failed].into_iter().chain(open).collect();
            let each = |way: Worker| {
                all.clone().into_iter().map(move |says| {
                    let mut way = way;
                    way.says[f] = says;
                    way
                })
            };
            ways = ways.into_iter().flat_map(each).collect();
        }
        for way in ways {
            let what = match way.says {
                [Says::Done, Says::Done] => "compresses both files",
                says if says.contains(&Says::Done) => "compresses one file",
                _ => "compresses no file",
            };
            let none = !way.says.contains(&Says::Done);
            let at = if none { At::Commit } else { At::Close };
            let after = Worker { at, over: [true; FILES], ..way };
            self.add(who, what, |s| s.workers[w] = after);
        }
    }

    /// The rest of an output that is written in place.
    fn half(&mut self, w: usize, worker: Worker, who: Who) {
        let Some(f) = worker.next() else { return };
        self.add(who, "writes the rest of its part file in place", |s| {
            let part = &mut s.files[f].parts[worker.execution as usize];
            // Removed meanwhile: its bytes have no name any more.
            if *part == Bytes::Partial {
                *part = Bytes::Whole;
            }
            said(s, w, f, Says::Done);
        });
    }

    /// CLOSE: `PackOutputs::close` and `Upload::close`, answered by `Writing::close`. Outputs that are in no part files come
    /// with it.
    fn close(&mut self, w: usize, worker: Worker, who: Who) {
        if self.is_tar(worker.key) {
            return self.close_tar(w, worker, who);
        }
        let e = worker.execution as usize;
        if !self.from.serves() {
            return self.planned(w, who, "CLOSE: nobody gathers, gives back");
        }
        if let Some(f) = self.decided(worker.key) {
            self.have_it(w, worker, who, f);
            return;
        }
        let outputs: Vec<usize> =
            worker.key.files().filter(|f| worker.says[*f] == Says::Done).collect();
        let in_place = self.config.auto;
        if in_place && outputs.iter().any(|f| self.from.files[*f].parts[e] != Bytes::Whole) {
            return self.fails(w, worker, who, "CLOSE: other bytes are there, fails");
        }
        self.transient(w, worker, who);
        self.add(who, "CLOSE: durable", |s| {
            for f in outputs {
                s.files[f].parts[e] = Bytes::Whole;
            }
            s.workers[w].at = At::Commit;
        });
    }

    /// `Broker::commit`, called by `attempt::conclude::conclude`: one result for all files.
    fn commit(&mut self, w: usize, worker: Worker, who: Who) {
        let subject = worker.key.subject();
        let mine = !self.from.results[subject].is();
        let replaces = !mine && self.config.lacks(Clause::CommitByCompare);
        let what = if mine { "commits: the first" } else { "commits: another came first" };
        self.add(who, what, |s| {
            if mine {
                let end = s.committed();
                s.log[end] = u8::try_from(subject).unwrap_or(crate::values::NONE);
            }
            if mine || replaces {
                s.results[subject] = worker.outcomes();
            }
            s.workers[w].at = At::Ack;
        });
    }

    /// `Delivery::ack` or `Delivery::term`: accepted however late.
    fn ack(&mut self, w: usize, worker: Worker, who: Who, what: &'static str) {
        self.add(who, what, |s| {
            s.tasks[worker.key.subject()].waits = Waits::Absent;
            s.workers[w] = Worker::IDLE;
        });
    }

    /// A planned give-back of the whole delivery: `Answers::give_back`.
    fn planned(&mut self, w: usize, who: Who, what: &'static str) {
        self.add(who, what, |s| {
            let key = s.workers[w].key;
            let task = &mut s.tasks[key.subject()];
            task.spent = task.spent.saturating_sub(1);
            let spent = &mut s.gatherer.spent[key.place()];
            *spent = spent.saturating_sub(1);
            nak(s, w);
        });
    }

    /// The whole attempt failed for a reason that may pass: nak, or the end of it if it was the last one.
    fn fails(&mut self, w: usize, worker: Worker, who: Who, what: &'static str) {
        let last = worker.spent >= self.config.attempts;
        self.add(who, what, |s| if last { spent(s, w) } else { nak(s, w) });
    }

    pub(crate) fn transient(&mut self, w: usize, worker: Worker, who: Who) {
        if self.from.left.transient == 0 {
            return;
        }
        self.fails(w, worker, who, "fails for a reason that may pass");
        if let Some((_, to)) = self.out.last_mut() {
            to.left.transient -= 1;
        }
    }
}

const RECEIVES: [&str; FILES] = ["receives the first file alone", "receives the second file alone"];
const HALF: [&str; FILES] = [
    "writes half of the first file's part in place",
    "writes half of the second file's part in place",
];
const FAILS: [&str; FILES] =
    ["finds the first file to be its own failure", "finds the second file to be its own failure"];
const LEAVES: [&str; FILES] = ["leaves the first file open", "leaves the second file open"];

fn said(s: &mut State, w: usize, f: usize, says: Says) {
    let worker = &mut s.workers[w];
    worker.says[f] = says;
    worker.over[f] = true;
    worker.at = At::Execute;
}

/// No attempt is left: a pack that failed as a whole says nothing of its files (`Attempt::fail`).
fn spent(s: &mut State, w: usize) {
    let worker = &mut s.workers[w];
    worker.says = [Says::Nothing; FILES];
    if !worker.key.is_pack() {
        worker.says[worker.key.file as usize] = Says::Spent;
    }
    worker.at = At::Commit;
}

fn nak(s: &mut State, w: usize) {
    let task = &mut s.tasks[s.workers[w].key.subject()];
    if task.waits == Waits::Out {
        task.waits = Waits::Waiting;
    }
    s.workers[w] = Worker::IDLE;
}
