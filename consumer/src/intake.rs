//! Where a worker's tasks come from: the stream, the queue group, or both.

use std::time::{Duration, Instant};

use bagpress_broker::descriptor::DeliveryPath;
use bagpress_broker::ids::{Execution, Pool};
use bagpress_broker::limits;
use bagpress_broker::retry::Retry;
use bagpress_broker::{
    Broker, Delivery, Error, Holder, Membership, Offer, Offered, Queue, Received,
};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::appetite::Appetite;

/// The sources of tasks that one worker has joined.
#[derive(Debug)]
pub(crate) struct Intake {
    broker: Broker,
    pool: Pool,
    queue: Option<Queue>,
    offers: Option<Membership>,
    /// Looks for the streams, while they are missing and would be served.
    finding: JoinSet<Result<Queue, Error>>,
}

/// What came in.
#[derive(Debug)]
pub(crate) enum Incoming {
    Pulled(Delivery),
    Offered(Offer),
    Withdrawn(Execution),
    /// Something ended: see what is wanted now.
    Nothing,
}

impl Intake {
    /// Joins what `delivery` names, or everything that the broker has.
    ///
    /// # Errors
    ///
    /// What no retry can cure, such as missing streams where they alone are served.
    pub(crate) async fn join(
        broker: &Broker,
        pool: &Pool,
        delivery: Option<DeliveryPath>,
        holder: Holder,
    ) -> Result<Self, Error> {
        let (broker, pool, finding) = (broker.clone(), pool.clone(), JoinSet::new());
        let mut intake = Self { broker, pool, queue: None, offers: None, finding };
        if delivery != Some(DeliveryPath::Jetstream) {
            intake.offers = Some(Membership::join(&intake.broker, &intake.pool, holder).await?);
        }
        if delivery == Some(DeliveryPath::QueueGroup) {
            return Ok(intake);
        }
        match intake.broker.require(&intake.pool).await {
            Ok(()) => intake.queue = Some(Queue::join(&intake.broker, &intake.pool).await?),
            Err(error) if delivery.is_none() && may_come(&error) => intake.find(),
            Err(error) => return Err(error),
        }
        Ok(intake)
    }

    /// Looks for the streams while everything else goes on.
    fn find(&mut self) {
        let (broker, pool, alone) = (self.broker.clone(), self.pool.clone(), self.offers.is_none());
        self.finding.spawn(async move {
            if alone {
                wait_for_streams(&broker, &pool, None).await?;
            } else {
                let look = || broker.require(&pool);
                let soon =
                    Retry::within(limits::STREAMS_SOON).every(limits::STREAMS_SOON_EVERY).growing();
                match soon.run(look, may_come).await {
                    Err(error) if may_come(&error) => {
                        warn!(%error, "serves the queue group only, until there are streams");
                        let later = Retry::unbounded().every(limits::STREAMS_LOOKED_FOR);
                        later.run(look, may_come).await?;
                    }
                    found => found?,
                }
            }
            Queue::join(&broker, &pool).await
        });
    }

    /// How many offers may come without being asked for again.
    pub(crate) fn members(&self) -> usize {
        self.offers.as_ref().map_or(0, Membership::members)
    }

    /// Asks for as much as there is an appetite for.
    pub(crate) async fn ask(&mut self, appetite: Appetite) -> Result<(), Error> {
        if let Some(offers) = &mut self.offers {
            let members = appetite.memberships(offers.members());
            if members > 0 {
                offers.enter(members).await?;
            }
        }
        let Some(queue) = &mut self.queue else { return Ok(()) };
        let deliveries = appetite.request(queue.outstanding());
        if deliveries > 0 {
            // A request that is lost is made again.
            if let Err(error) = queue.request(deliveries).await
                && !error.is_transient()
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Waits for what comes in next. Cancel-safe.
    pub(crate) async fn receive(&mut self) -> Result<Incoming, Error> {
        let Self { queue, offers, finding, .. } = self;
        let pulled = async {
            match queue {
                Some(queue) => queue.receive().await,
                None => std::future::pending().await,
            }
        };
        let offered = async {
            match offers {
                Some(offers) => offers.receive().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            received = pulled => match received {
                Ok(Received::Delivery(delivery)) => Ok(Incoming::Pulled(delivery)),
                Ok(Received::Nothing) => Ok(Incoming::Nothing),
                // Its leader may be away, which looks the same, or the store was begun again.
                Err(Error::Missing { what }) => {
                    debug!(what, "joining again");
                    self.queue = None;
                    self.find();
                    Ok(Incoming::Nothing)
                }
                Err(error) => Err(error),
            },
            offered = offered => Ok(match offered {
                Offered::Offer(offer) => Incoming::Offered(offer),
                Offered::Withdrawn(execution) => Incoming::Withdrawn(execution),
                Offered::Nothing => Incoming::Nothing,
            }),
            Some(found) = finding.join_next() => {
                match found {
                    Ok(Ok(queue)) => {
                        info!("there are streams now");
                        self.queue = Some(queue);
                    }
                    Ok(Err(error)) if !error.is_transient() => return Err(error),
                    Ok(Err(_)) | Err(_) => self.find(),
                }
                Ok(Incoming::Nothing)
            }
        }
    }

    /// A delivery of the stream that has arrived already; never waits.
    pub(crate) fn ready(&mut self) -> Option<Delivery> {
        self.queue.as_mut()?.ready()
    }

    /// Leaves, and returns the deliveries that still arrived: give them back. Offers that have arrived are left to
    /// others; one that comes too late gets no answer, and is made again.
    pub(crate) async fn leave(self) -> Vec<Delivery> {
        if let Some(offers) = self.offers {
            offers.leave().await;
        }
        match self.queue {
            Some(queue) => queue.leave().await,
            None => Vec::new(),
        }
    }
}

/// Whether what is missing may be there later, without a change at the worker.
fn may_come(error: &Error) -> bool {
    matches!(error, Error::NoJetStream { .. } | Error::Missing { .. }) || error.is_transient()
}

/// Waits until the streams are there, for as long as `most`; without it, without a limit.
///
/// # Errors
///
/// [`Error::Missing`] after that time; at once what waiting does not cure.
pub(crate) async fn wait_for_streams(
    broker: &Broker,
    pool: &Pool,
    most: Option<Duration>,
) -> Result<(), Error> {
    let since = Instant::now();
    let mut said = None::<Instant>;
    let passes = |error: &Error| {
        let passes = match error {
            Error::Missing { .. } => most.is_none_or(|most| since.elapsed() < most),
            error => error.is_transient(),
        };
        if passes && said.is_none_or(|at| at.elapsed() >= limits::RECONCILE_AFTER) {
            said = Some(Instant::now());
            warn!(%error, hint = error.hint().unwrap_or_default(), "waiting for the broker's streams");
        }
        passes
    };
    Retry::unbounded().run(|| broker.require(pool), passes).await
}
