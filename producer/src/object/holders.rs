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
    known: Mutex<HashMap<String, Option<Holding>>>,
}

impl HolderBook {
    pub(crate) fn new(broker: &Broker) -> Self {
        Self { broker: broker.clone(), known: Mutex::default() }
    }

    /// The holders that an object's labels name. The label of a bag that is over stays, and says nothing any more: whoever died cannot
    /// take his back, and a bag that goes on needs it again.
    ///
    /// # Errors
    ///
    /// If the broker does not answer.
    pub(crate) async fn of(&self, labels: &Labels) -> Result<Vec<Holding>> {
        let mut found = Vec::new();
        for bag in holders(labels) {
            found.extend(self.holding(bag).await?);
        }
        Ok(found)
    }

    async fn holding(&self, bag: &str) -> Result<Option<Holding>> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(holding) = known().get(bag) {
            return Ok(holding.clone());
        }
        // What is no id of a bag cannot be one that runs.
        let found = match bag.parse::<BagId>() {
            Ok(id) => Some(self.broker.find_bag(&id).await?),
            Err(_) => None,
        };
        let is = found.and_then(|found| holds(&found));
        let holding = is.map(|is| Holding { bag: bag.to_owned(), is });
        known().insert(bag.to_owned(), holding.clone());
        Ok(holding)
    }
}

/// How far a bag with this line is, if it keeps its inputs.
pub(crate) fn holds(found: &FoundLine) -> Option<String> {
    let Some(line) = &found.line else {
        // One that cannot be read is never taken for none.
        return found.unreadable.as_ref().map(|_| "unknown to this version".to_owned());
    };
    match (line.state, &line.gatherer) {
        (BagState::Finished | BagState::Cancelled, _) => None,
        (state, Some(gatherer)) if gatherer.is_dead() => {
            Some(format!("{state}, its gatherer has died"))
        }
        (state, Some(gatherer)) => Some(format!("{state}, gathered by {gatherer}")),
        (state, None) => Some(format!("{state}, gathered by nobody")),
    }
}
