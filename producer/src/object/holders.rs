//! Whether the bags that read an object still do: their lines say so, whether or not whoever wrote them lives.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use bagpress_broker::ids::BagId;
use bagpress_broker::{BagState, Broker, FoundLine};
use bagpress_objstore::object_ref::{Labels, holders};

use super::answer::Holding;

/// The bags that were asked about by one command, each once.
#[derive(Debug)]
pub(crate) struct HolderBook {
    broker: Broker,
    known: Mutex<HashMap<String, Holding>>,
}

impl HolderBook {
    pub(crate) fn new(broker: &Broker) -> Self {
        Self { broker: broker.clone(), known: Mutex::default() }
    }

    /// The holders that an object's labels name.
    ///
    /// # Errors
    ///
    /// If the broker does not answer.
    pub(crate) async fn of(&self, labels: &Labels) -> Result<Vec<Holding>> {
        let mut found = Vec::new();
        for bag in holders(labels) {
            found.push(self.holding(bag).await?);
        }
        Ok(found)
    }

    async fn holding(&self, bag: &str) -> Result<Holding> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(holding) = known().get(bag) {
            return Ok(holding.clone());
        }
        // What is no id of a bag cannot be one that runs.
        let found = match bag.parse::<BagId>() {
            Ok(id) => Some(self.broker.find_bag(&id).await?),
            Err(_) => None,
        };
        let (holds, is) = found.map_or((false, "no bag".to_owned()), |found| holds(&found));
        let holding = Holding { bag: bag.to_owned(), holds, is };
        known().insert(bag.to_owned(), holding.clone());
        Ok(holding)
    }
}

/// Whether a bag with this line keeps its inputs, and how far it is.
pub(crate) fn holds(found: &FoundLine) -> (bool, String) {
    match &found.line {
        // One that cannot be read is never taken for none.
        None if found.unreadable.is_some() => (true, "unknown to this version".to_owned()),
        None if found.removed => (false, "removed".to_owned()),
        None => (false, "unknown".to_owned()),
        Some(line) => match (line.state, &line.gatherer) {
            (BagState::Finished | BagState::Cancelled, _) => (false, line.state.to_string()),
            (state, Some(gatherer)) if gatherer.is_dead() => {
                (true, format!("{state}, its gatherer has died"))
            }
            (state, Some(gatherer)) => (true, format!("{state}, gathered by {gatherer}")),
            (state, None) => (true, format!("{state}, gathered by nobody")),
        },
    }
}
