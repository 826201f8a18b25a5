//! The steps that lead on from one state.

use crate::config::{Clause, Config};
use crate::trace::{Step, Who};

use super::property;
use super::state::{At, FILES, Key, State, Worker};

pub(crate) struct Steps<'a> {
    pub(crate) config: &'a Config,
    pub(crate) from: State,
    pub(crate) out: Vec<(Step, State)>,
}

impl<'a> Steps<'a> {
    pub(crate) fn new(config: &'a Config, from: State) -> Self {
        Self { config, from, out: Vec::with_capacity(16) }
    }

    /// Adds a step; what it breaks is noted in the state that it leads to.
    pub(crate) fn add(&mut self, who: Who, what: &'static str, change: impl FnOnce(&mut State)) {
        let mut to = self.from;
        change(&mut to);
        to.broken = property::broken(self.config, &to);
        self.out.push((Step { who, what }, to.canonical()));
    }

    /// Whether an idle worker takes something: two work at a time only where a lease may run out under one that lives. Else they
    /// would share nothing, and only make more states.
    pub(crate) fn may_take(&self) -> bool {
        let idle = |worker: &Worker| worker.at == At::Idle;
        self.config.faults.early > 0 || self.from.workers.iter().all(idle)
    }

    /// `BagPlan::is_open`: whether something that is delivered by this name would count.
    pub(crate) fn would_count(&self, key: Key) -> bool {
        let first_only = self.config.lacks(Clause::RestOfPackDelivered);
        let mut files = key.files();
        files.any(|f| self.from.is_open(f, key.round) && !(first_only && f != key.file as usize))
    }

    /// `forming::next`, for each file in turn, with `Forming::is_wanted`: what is to be published of what is not decided and
    /// `wanted`. The pack by its first file's name.
    pub(crate) fn to_publish(&self, wanted: [bool; FILES]) -> [bool; Key::ALL] {
        let mut publish = [false; Key::ALL];
        for f in 0..FILES {
            let round = self.from.files[f].round;
            if round > 0 && wanted[f] && self.from.is_open(f, round) {
                publish[Key::alone(f, round).place()] = true;
            }
        }
        let first_only = self.config.lacks(Clause::RestOfPackDelivered);
        let mut files = Key::PACK.files().filter(|f| !first_only || *f == 0);
        publish[Key::PACK.place()] =
            wanted[0] && files.any(|f| wanted[f] && self.from.is_open(f, 0));
        publish
    }
}
