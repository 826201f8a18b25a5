//! Two files that are delivered as a pack in round 0, and alone in later rounds (`docs/adr/0040-a-delivery-may-carry-a-pack.md`).
//!
//! What a pack has in common with a single task is here once more, as far as the two files need it: executions give equal bytes,
//! and there is one folder. Where outputs are objects (`docs/adr/0041-a-pack-of-objects-is-one-tar.md`), those of the pack are tars,
//! and a file that runs alone is as if it were staged.

mod faults;
mod gatherer;
mod offers;
mod property;
mod state;
mod steps;
mod tars;
mod worker;

use crate::config::{Bag, Config, Delivery, Faults, NO, Path, STAGED};
use crate::explore::{Stands, System};
use crate::trace::Step;

use self::state::{Gathers, State};
use self::steps::Steps;

const PACK: Config = Config { bag: Bag::Pack, attempts: 2, ..STAGED };
const OFFERED: Config = Config { delivery: Delivery::QueueGroup, ..PACK };
const TAR: Config = Config { path: Path::Objects, ..PACK };

/// Every configuration of a pack of two files, small enough for each run of the tests.
pub const PACKS: &[Config] = &[
    Config {
        name: "pack: workers and gatherer killed",
        faults: Faults { worker_crashes: 2, gatherer_crashes: 1, ..NO },
        ..PACK
    },
    Config {
        name: "pack: gatherer killed, early redelivery",
        faults: Faults { gatherer_crashes: 1, early: 1, ..NO },
        ..PACK
    },
    Config {
        name: "pack, transfer auto: failed attempt, gatherer killed",
        auto: true,
        faults: Faults { transient: 1, gatherer_crashes: 1, ..NO },
        ..PACK
    },
    Config {
        name: "pack: a broker that forgets, gatherer killed",
        faults: Faults { forgets: 1, gatherer_crashes: 1, ..NO },
        ..PACK
    },
    Config {
        name: "pack: files that kill every worker",
        poison: true,
        faults: Faults { gatherer_crashes: 1, early: 1, ..NO },
        ..PACK
    },
    Config {
        name: "queue group, pack: gatherer killed, early lease end",
        faults: Faults { gatherer_crashes: 1, early: 1, ..NO },
        ..OFFERED
    },
    Config {
        name: "queue group, pack: flips, retry and repair",
        faults: Faults { gatherer_crashes: 1, flips: 1, rounds: 1, ..NO },
        ..OFFERED
    },
    Config {
        name: "queue group, pack: files that kill every worker",
        poison: true,
        faults: Faults { gatherer_crashes: 1, early: 1, ..NO },
        ..OFFERED
    },
    Config {
        name: "pack of objects: workers and gatherer killed",
        faults: Faults { worker_crashes: 1, gatherer_crashes: 1, ..NO },
        ..TAR
    },
    Config {
        name: "pack of objects: a broker that forgets, gatherer killed",
        faults: Faults { forgets: 1, gatherer_crashes: 1, ..NO },
        ..TAR
    },
    Config {
        name: "queue group, pack of objects: gatherer killed, early lease end",
        faults: Faults { gatherer_crashes: 1, early: 1, ..NO },
        delivery: Delivery::QueueGroup,
        ..TAR
    },
];

/// A bag of one pack.
pub(crate) struct OnePack<'a>(pub(crate) &'a Config);

impl System for OnePack<'_> {
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
        steps.leases();
        steps.crashes();
        steps.forgets();
        steps.flips();
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
