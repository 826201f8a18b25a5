//! Which bags were cancelled: by their lines, looked at when a bag's first task comes and at each
//! renewal, and by the event.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bagpress_broker::ids::BagId;
use bagpress_broker::{BagEvents, Broker, Error, limits};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// What this worker knows of the bags whose tasks it has had.
#[derive(Debug)]
pub(crate) struct Cancelled {
    broker: Broker,
    bags: Mutex<HashMap<BagId, Arc<OnceCell<CancellationToken>>>>,
}

impl Cancelled {
    pub(crate) fn new(broker: &Broker) -> Self {
        Self { broker: broker.clone(), bags: Mutex::default() }
    }

    fn bags(&self) -> std::sync::MutexGuard<'_, HashMap<BagId, Arc<OnceCell<CancellationToken>>>> {
        self.bags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is cancelled when the bag is. A bag that was cancelled is looked at anew: it may go on since.
    pub(crate) async fn of(&self, bag: &BagId) -> CancellationToken {
        let cell = {
            let mut bags = self.bags();
            if bags.len() >= limits::BAGS_REMEMBERED {
                // Those with a task under way are in use elsewhere too.
                bags.retain(|_, cell| Arc::strong_count(cell) > 1);
            }
            let known = bags
                .get(bag)
                .filter(|cell| !cell.get().is_some_and(CancellationToken::is_cancelled));
            if let Some(known) = known {
                known.clone()
            } else {
                let new = Arc::default();
                bags.insert(bag.clone(), Arc::clone(&new));
                new
            }
        };
        let look = || async {
            let token = CancellationToken::new();
            if self.is_cancelled(bag).await {
                token.cancel();
            }
            token
        };
        cell.get_or_init(look).await.clone()
    }

    async fn is_cancelled(&self, bag: &BagId) -> bool {
        match self.broker.find_bag(bag).await {
            // A server that was killed may hand out again what it had dropped with a removed bag.
            Ok(found) => found.is_called_off(),
            Err(error) => {
                debug!(%error, %bag, "the bag's line not read, it is looked at again");
                false
            }
        }
    }

    fn cancel(&self, bag: &BagId) {
        let known = self.bags().get(bag).and_then(|cell| cell.get().cloned());
        if let Some(token) = known.filter(|token| !token.is_cancelled()) {
            info!(%bag, "cancelled, its tasks are dropped");
            token.cancel();
        }
    }

    /// Subscribes to the event; before any task is taken.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub(crate) async fn listen(&self) -> Result<BagEvents, Error> {
        self.broker.cancellations(None).await
    }

    /// Follows the event, and looks at the lines of the bags that `held` names, for as long as the
    /// worker lives.
    pub(crate) async fn keep(&self, mut events: BagEvents, held: impl Fn() -> Vec<BagId>) {
        let mut ticks = tokio::time::interval(limits::LEASE_RENEWAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(bag) => self.cancel(&bag),
                    // The connection is closed: the worker ends.
                    None => return std::future::pending().await,
                },
                _ = ticks.tick() => {
                    for bag in held() {
                        if self.is_cancelled(&bag).await {
                            self.cancel(&bag);
                        }
                    }
                }
            }
        }
    }
}
