//! Which bags were cancelled: by their lines alone, read when a bag's first task comes, at each renewal, and when an event
//! names the bag.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use bagpress_broker::ids::BagId;
use bagpress_broker::{BagEvents, Broker, Error, limits};
use futures::FutureExt;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// What the line of a bag says, read once while an attempt of the bag runs.
type Cell = Arc<OnceCell<CancellationToken>>;

/// Whether one bag is cancelled. The bag is not forgotten as long as this is kept.
#[derive(Debug)]
pub(crate) struct Watched {
    token: CancellationToken,
    _kept: Cell,
}

impl Watched {
    /// Resolves when the bag is cancelled.
    pub(crate) async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }
}

/// What this worker knows of the bags whose tasks it has had.
#[derive(Debug)]
pub(crate) struct Cancelled {
    broker: Broker,
    bags: Mutex<HashMap<BagId, Cell>>,
}

impl Cancelled {
    pub(crate) fn new(broker: &Broker) -> Self {
        Self { broker: broker.clone(), bags: Mutex::default() }
    }

    fn bags(&self) -> std::sync::MutexGuard<'_, HashMap<BagId, Cell>> {
        self.bags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a bag. The line of one that was cancelled is read again: the bag may have been resumed since.
    pub(crate) async fn of(&self, bag: &BagId) -> Watched {
        let cell = {
            let mut bags = self.bags();
            if bags.len() >= limits::BAGS_REMEMBERED {
                // An attempt keeps that of its bag.
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
        let token = cell.get_or_init(look).await.clone();
        Watched { token, _kept: cell }
    }

    async fn is_cancelled(&self, bag: &BagId) -> bool {
        match self.broker.find_bag(bag).await {
            // A server that was killed may hand out again what it had dropped with a removed bag.
            Ok(found) => found.is_called_off(),
            Err(error) => {
                debug!(%error, %bag, "the bag's line was not read, it will be read again");
                false
            }
        }
    }

    /// Reads the line of a bag, and cancels its executions if it says so.
    async fn look(&self, bag: &BagId) {
        if self.is_cancelled(bag).await {
            self.cancel(bag);
        }
    }

    fn cancel(&self, bag: &BagId) {
        let known = self.bags().get(bag).and_then(|cell| cell.get().cloned());
        if let Some(token) = known.filter(|token| !token.is_cancelled()) {
            info!(%bag, "bag cancelled, its tasks are dropped");
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

    /// Follows the events, and reads the lines of the bags that `held` names at each renewal, as long as the
    /// worker lives.
    pub(crate) async fn keep(&self, mut events: BagEvents, held: impl Fn() -> Vec<BagId>) {
        let mut ticks = tokio::time::interval(limits::LEASE_RENEWAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    // Anybody can send one: only the line counts. One look is enough for all that came meanwhile.
                    Some(bag) => {
                        let more = std::iter::from_fn(|| events.next().now_or_never().flatten());
                        let said: HashSet<_> = std::iter::once(bag).chain(more).collect();
                        for bag in said.iter().filter(|bag| self.bags().contains_key(*bag)) {
                            self.look(bag).await;
                        }
                    }
                    // The connection is closed: the worker ends.
                    None => return std::future::pending().await,
                },
                _ = ticks.tick() => {
                    for bag in held() {
                        self.look(&bag).await;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bagpress_broker::testing::NatsServer;
    use bagpress_broker::{BagState, Role, samples};

    use super::*;

    /// However many bags a worker has had tasks of since: the execution of the first one stops.
    #[tokio::test]
    async fn a_bag_whose_task_is_under_way_is_not_forgotten() {
        let server = NatsServer::start().await;
        let broker = server.broker(Role::Admin).await;
        let known = Arc::new(Cancelled::new(&broker));
        let first = samples::bag();
        let watched = known.of(&first).await;
        for _ in 0..=limits::BAGS_REMEMBERED {
            drop(known.of(&samples::bag()).await);
        }
        assert!(known.bags().len() <= limits::BAGS_REMEMBERED + 1);
        let line = samples::line(&first, BagState::Cancelled);
        broker.write_bag(&line, 0).await.unwrap().unwrap();
        known.look(&first).await;
        assert!(watched.is_cancelled());
        drop(watched);
    }
}
