//! The literal queue group: the gatherer offers the pack, and files alone, and unpacks what is handed to it.

use crate::trace::Who;
use crate::values::GATHERER;

use super::state::{At, Gathers, Key, Outcomes, Says, Worker};
use super::steps::Steps;

impl Steps<'_> {
    /// Offers to an idle worker, or what is not offered any more: `Dispatch::take_in` and `dispatch::exhausted`.
    pub(crate) fn offer(&mut self) {
        let gatherer = self.from.gatherer;
        for place in 0..Key::ALL {
            let key = match place.checked_sub(1) {
                None => Key::PACK,
                Some(f) => Key::alone(f, self.from.files[f].round),
            };
            let leased = self.from.workers.iter().any(|w| w.leased && w.key == key);
            if !gatherer.offered[place] || leased || !self.would_count(key) {
                continue;
            }
            if gatherer.spent[place] >= self.config.attempts {
                let mut spent = Outcomes { by: GATHERER, ..Outcomes::NONE };
                if !key.is_pack() {
                    spent.says[key.file as usize] = Says::Spent;
                }
                self.accept(Who::Gatherer(0), "too many workers had it", key, spent, |s| {
                    s.gatherer.offered[place] = false;
                });
                continue;
            }
            let Some(w) = self.from.workers.iter().position(|worker| worker.at == At::Idle) else {
                continue;
            };
            if !self.may_take() {
                continue;
            }
            let mut state = self.from;
            let execution = state.execution();
            let what = if key.is_pack() {
                "takes the offer of the pack"
            } else {
                TAKES[key.file as usize]
            };
            self.add(Who::Worker(execution), what, |s| {
                s.cut = state.cut;
                s.gatherer.spent[place] += 1;
                let spent = s.gatherer.spent[place];
                s.workers[w] =
                    Worker { at: At::Open, key, execution, spent, leased: true, ..Worker::IDLE };
            });
        }
    }

    /// `Offer::conclude`, called by `Answers::commit`, and `Gathering::take_handed`.
    pub(crate) fn hand_in(&mut self, w: usize, worker: Worker, who: Who) {
        if !self.from.serves() {
            return self
                .add(who, "nobody takes its result, gives up", |s| s.workers[w] = Worker::IDLE);
        }
        if self.from.gatherer.at != Gathers::Loop {
            return;
        }
        let waiting = Worker { at: At::Answer, ..worker };
        self.accept(who, "hands its result in", worker.key, worker.outcomes(), |s| {
            // Whatever of a pack did not count is run again alone: it is offered no more.
            let place = worker.key.place();
            let late = s.files[worker.key.file as usize].round != worker.key.round;
            s.gatherer.offered[place] &= late && !worker.key.is_pack();
            let waits = s.gatherer.at != Gathers::Loop;
            s.workers[w] = if waits { waiting } else { Worker::IDLE };
        });
    }

    /// Its answer: when the ledger has it.
    pub(crate) fn answer(&mut self, w: usize, worker: Worker, who: Who) {
        let waits = self.from.gatherer.taken.by == worker.execution;
        if self.from.serves() && waits {
            return;
        }
        self.add(who, "is answered, or nobody answers any more", |s| s.workers[w] = Worker::IDLE);
    }
}

const TAKES: [&str; 2] =
    ["takes the offer of the first file alone", "takes the offer of the second file alone"];
