//! A task that this worker was handed, by either delivery, and what can be answered to it.

use std::sync::Arc;
use std::time::Duration;

use bagpress_broker::descriptor::{DecodeError, TaskDescriptor};
use bagpress_broker::ids::{Execution, TaskId};
use bagpress_broker::result::{Cause, Failed, TaskResult};
use bagpress_broker::{
    AttemptRecord, Committed, Delivery, Error, HeldDelivery, Offer, Standing, limits,
};
use tracing::debug;

use crate::worker::Shared;

/// One task in hand. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Handed {
    /// It waits in the stream for its answer.
    Pulled(Delivery),
    /// Its gatherer keeps it, and waits for its outcome.
    Offered(Offer),
}

/// How often a task's round was handed out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Count {
    /// Which attempt this is, from 1.
    pub(crate) number: u32,
    /// Planned give-backs before it, which spent none.
    pub(crate) planned: u32,
}

impl Handed {
    pub(crate) fn id(&self) -> &TaskId {
        match self {
            Self::Pulled(delivery) => delivery.id(),
            Self::Offered(offer) => offer.id(),
        }
    }

    /// The descriptor.
    pub(crate) fn task(&self) -> Result<Arc<TaskDescriptor>, DecodeError> {
        match self {
            Self::Pulled(delivery) => delivery.task().map(Arc::new),
            Self::Offered(offer) => Ok(offer.task().clone()),
        }
    }

    /// The execution that this becomes: a lease names one, a delivery does not.
    pub(crate) fn execution(&self) -> Execution {
        match self {
            Self::Pulled(_) => Execution::random(),
            Self::Offered(offer) => offer.execution().clone(),
        }
    }

    /// The count of deliveries, or of attempts, this one included.
    pub(crate) fn delivered(&self) -> u32 {
        match self {
            Self::Pulled(delivery) => delivery.delivered(),
            Self::Offered(offer) => offer.attempt(),
        }
    }

    /// How its worker's death is noticed.
    pub(crate) fn held(&self) -> HeldDelivery {
        let id = self.id();
        let reply = match self {
            Self::Pulled(delivery) => delivery.reply().to_owned(),
            Self::Offered(offer) => offer.execution().to_string(),
        };
        HeldDelivery { index: id.index, round: id.round, delivered: self.delivered(), reply }
    }

    /// Whether its gatherer gave a lease for it, and so knows that we hold it.
    pub(crate) fn is_leased(&self) -> bool {
        matches!(self, Self::Offered(_))
    }

    /// Counts attempts; none if the task has its outcome already, and was answered.
    pub(crate) async fn count(&self, worker: &Shared) -> Result<Option<Count>, Error> {
        let delivery = match self {
            Self::Offered(offer) => {
                return Ok(Some(Count { number: offer.attempt(), planned: 0 }));
            }
            Self::Pulled(delivery) => delivery,
        };
        let mut planned = 0;
        if delivery.delivered() > 1 {
            // What cannot be read is the round's outcome all the same.
            let standing = worker.broker.standing(delivery.id()).await?;
            if !matches!(standing, Standing::Open) {
                debug!(?standing, "committed before, acknowledged again");
                delivery.ack().await?;
                return Ok(None);
            }
            planned = worker.broker.planned_give_backs(delivery.id()).await?;
        }
        let number = delivery.delivered().saturating_sub(planned).max(1);
        Ok(Some(Count { number, planned }))
    }

    /// Renews the lease.
    pub(crate) async fn renew(&self) -> Result<(), Error> {
        match self {
            Self::Pulled(delivery) => delivery.renew().await,
            Self::Offered(offer) => {
                // A gatherer that does not answer must not keep other leases waiting.
                let offer = offer.clone();
                tokio::spawn(async move { offer.renew().await });
                Ok(())
            }
        }
    }

    /// Resolves when nobody waits for what comes of it.
    pub(crate) async fn withdrawn(&self) {
        match self {
            // Its outcome is found out when it commits.
            Self::Pulled(_) => std::future::pending().await,
            Self::Offered(offer) => offer.withdrawn().await,
        }
    }

    pub(crate) fn is_withdrawn(&self) -> bool {
        match self {
            Self::Pulled(_) => false,
            Self::Offered(offer) => offer.is_withdrawn(),
        }
    }

    /// The outcome that its round has, where that can be known without asking for ours.
    pub(crate) async fn standing(&self, worker: &Shared) -> Result<Standing, Error> {
        match self {
            Self::Pulled(delivery) => worker.broker.standing(delivery.id()).await,
            Self::Offered(_) => Ok(Standing::Open),
        }
    }

    /// Answers that the task has its outcome.
    pub(crate) async fn settle(&self) -> Result<(), Error> {
        match self {
            Self::Pulled(delivery) => delivery.ack().await,
            Self::Offered(_) => Ok(()),
        }
    }

    /// Answers that nothing more comes, and that nobody else need try. Who offered it knows.
    pub(crate) async fn discard(&self, why: &str) -> Result<(), Error> {
        match self {
            Self::Pulled(delivery) => delivery.term(why).await,
            Self::Offered(_) => Ok(()),
        }
    }

    /// Gives it back, after `delay` where that is ours to choose, and says why.
    pub(crate) async fn give_back(
        &self,
        worker: &Shared,
        planned: u32,
        failed: Failed,
        execution: Option<Execution>,
        delay: Duration,
    ) -> Result<(), Error> {
        let delivery = match self {
            Self::Offered(offer) => return offer.give_back(failed).await,
            Self::Pulled(delivery) => delivery,
        };
        let id = delivery.id();
        let by = &worker.holdings.holder().worker;
        let mut record = AttemptRecord::new(id, delivery.delivered(), planned, failed.cause, by);
        record.host.clone_from(&worker.holdings.holder().host);
        record.message = failed.message;
        record.execution = execution;
        record.reply = (!delay.is_zero()).then(|| delivery.reply().to_owned());
        // First the record: it must be there when the next worker counts.
        worker.broker.record_attempt(&id.bag, &record).await?;
        delivery.nak(delay).await
    }

    /// Makes an outcome the task's, unless another came first. A delivery is to be answered then; who
    /// offered it knows.
    pub(crate) async fn commit(
        &self,
        worker: &Shared,
        result: &TaskResult,
    ) -> Result<Committed, Error> {
        match self {
            Self::Offered(offer) => offer.conclude(result, &worker.drain).await,
            Self::Pulled(_) => commit(worker, result).await,
        }
    }
}

/// Commits an outcome; full is not failed: the delivery is held meanwhile, and no attempt is spent.
async fn commit(worker: &Shared, result: &TaskResult) -> Result<Committed, Error> {
    let mut tries = 0;
    loop {
        match worker.broker.commit(result).await {
            Err(error @ Error::Full { .. }) if !worker.drain.is_cancelled() => {
                let delay = Cause::Full.give_back_delay(tries).min(limits::LEASE_RENEWAL);
                debug!(%error, ?delay, "the result waits");
                tokio::time::sleep(delay).await;
                tries += 1;
            }
            committed => return committed,
        }
    }
}
