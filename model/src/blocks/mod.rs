//! A file of two blocks, each a task of its own, whose outputs the gatherer joins to that of the file; and the file run whole in later
//! rounds.
//!
//! What a block has in common with a single task is here once more, as far as the join needs it: outputs are staged, executions give
//! equal bytes, and an attempt that is not crashed comes to an outcome. The part file of the join has its length, of which a
//! part is durable, and the note says how far the blocks' own part files are needed no more. The gatherer accepts outcomes and
//! joins at the same time: each step of the one may come between any two of the other.

mod faults;
mod gatherer;
mod joiner;
mod property;
mod state;
mod worker;

use crate::config::{Bag, Clause, Config, Delivery, Faults, NO, STAGED};
use crate::explore::{Stands, System};
use crate::trace::{Step, Who};

use self::state::{At, Gathers, State};

const CUT: Config = Config { bag: Bag::Blocks, ..STAGED };
const OFFERED: Config = Config { delivery: Delivery::QueueGroup, ..CUT };

/// Every configuration of a file of two blocks, small enough for each run of the tests.
pub const BLOCKS: &[Config] = &[
    Config {
        name: "blocks: workers and gatherer killed",
        faults: Faults { worker_crashes: 1, gatherer_crashes: 2, ..NO },
        ..CUT
    },
    Config {
        name: "blocks: gatherer killed, early redelivery",
        faults: Faults { gatherer_crashes: 1, early: 1, ..NO },
        ..CUT
    },
    Config {
        name: "blocks: part files lost, gatherer killed",
        faults: Faults { flips: 1, gatherer_crashes: 1, ..NO },
        ..CUT
    },
    Config {
        name: "blocks: a block that fails, the file retried, gatherer killed",
        faults: Faults { transient: 1, rounds: 1, gatherer_crashes: 1, ..NO },
        ..CUT
    },
    Config {
        name: "queue group, blocks: workers and gatherer killed, early lease end",
        faults: Faults { worker_crashes: 1, gatherer_crashes: 1, early: 1, ..NO },
        ..OFFERED
    },
    Config {
        name: "queue group, blocks: part files lost, gatherer killed",
        faults: Faults { flips: 1, gatherer_crashes: 1, ..NO },
        ..OFFERED
    },
    Config {
        name: "queue group, blocks: a block that fails, the file retried, gatherer killed",
        faults: Faults { transient: 1, rounds: 1, gatherer_crashes: 1, early: 1, ..NO },
        ..OFFERED
    },
];

/// A bag of one file that is cut.
pub(crate) struct OneCut<'a>(pub(crate) &'a Config);

impl System for OneCut<'_> {
    type State = State;

    fn first(&self) -> State {
        State::first(self.0)
    }

    fn steps(&self, from: &State) -> Vec<(Step, State)> {
        let mut steps = Steps::new(self.0, *from);
        for w in 0..from.workers.len() {
            // Two idle workers are alike.
            if w == 0 || from.workers[w] != from.workers[0] {
                steps.deliver(w);
                steps.worker(w);
            }
        }
        steps.gatherer();
        steps.joiner();
        steps.leases();
        steps.crashes();
        steps.losses();
        steps.out
    }

    fn stands(&self, state: &State) -> Stands {
        match state.broken {
            Some(broken) => Stands::Broken(broken),
            None if state.cut => Stands::Cut,
            None if state.gatherer.at == Gathers::Finished => Stands::Ended,
            None => Stands::UnderWay,
        }
    }
}

/// The steps that lead on from one state.
struct Steps<'a> {
    config: &'a Config,
    from: State,
    out: Vec<(Step, State)>,
}

impl<'a> Steps<'a> {
    fn new(config: &'a Config, from: State) -> Self {
        Self { config, from, out: Vec::with_capacity(16) }
    }

    /// Adds a step; what it breaks is noted in the state that it leads to.
    fn add(&mut self, who: Who, what: &'static str, change: impl FnOnce(&mut State)) {
        let mut to = self.from;
        change(&mut to);
        to.broken = property::broken(self.config, &to);
        self.out.push((Step { who, what }, to.canonical()));
    }

    fn lacks(&self, clause: Clause) -> bool {
        self.config.lacks(clause)
    }

    /// Whether an idle worker takes something: two work at a time only where a lease may run out under one that lives. The blocks
    /// come in any order all the same.
    fn may_take(&self) -> bool {
        self.config.faults.early > 0 || self.from.workers.iter().all(|w| w.at == At::Idle)
    }
}
