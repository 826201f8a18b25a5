//! One task, its workers, its gatherer and its broker, as what is explored.

use crate::config::Config;
use crate::explore::{Stands, System};
use crate::process::Gathers;
use crate::state::State;
use crate::trace::{Step, Steps};

/// A bag of one task.
pub(crate) struct OneTask<'a>(pub(crate) &'a Config);

impl System for OneTask<'_> {
    type State = State;

    fn first(&self) -> State {
        State::first(self.0).canonical()
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
        steps.strangers();
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
