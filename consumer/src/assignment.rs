//! One task that this worker has been given, by either delivery, and the lease on it.

use std::sync::Arc;

use bagpress_broker::descriptor::{DecodeError, TaskDescriptor};
use bagpress_broker::ids::{Execution, TaskId};
use bagpress_broker::{Delivery, Error, Offer, ReportedDelivery, limits};

/// One task that this worker has been given. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Assignment {
    /// It waits in the stream for its answer.
    Pulled(Delivery),
    /// Its gatherer keeps it, and waits for its outcome.
    Offered(Offer),
}

impl Assignment {
    pub(crate) fn id(&self) -> &TaskId {
        match self {
            Self::Pulled(delivery) => delivery.id(),
            Self::Offered(offer) => offer.id(),
        }
    }

    /// The descriptor.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]: permanent. Never of an offer.
    pub(crate) fn task(&self) -> Result<Arc<TaskDescriptor>, DecodeError> {
        match self {
            Self::Pulled(delivery) => delivery.task().map(Arc::new),
            Self::Offered(offer) => Ok(offer.task().clone()),
        }
    }

    /// The execution that this becomes: a lease of the queue group names one, a delivery does not.
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

    /// Whether it was offered: then its gatherer gave a lease for it, and so knows that we hold it.
    pub(crate) fn is_offered(&self) -> bool {
        matches!(self, Self::Offered(_))
    }

    /// What is reported of it, so that it can be given back if this worker dies, with how much of its input was read.
    pub(crate) fn reported(&self, read_bytes: u64) -> ReportedDelivery {
        let id = self.id();
        let reply = match self {
            Self::Pulled(delivery) => delivery.reply().to_owned(),
            Self::Offered(offer) => offer.execution().to_string(),
        };
        let (index, round, delivered) = (id.index, id.round, self.delivered());
        // A report that is out of bounds would not be read at all.
        let read_bytes = read_bytes.min(limits::INPUT_BYTES_MAX);
        ReportedDelivery { index, round, delivered, reply, read_bytes }
    }

    /// Renews the lease.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: transient, the next renewal will do.
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

    /// Notes that the lease of `execution` is over, if that is this one's.
    pub(crate) fn withdraw(&self, execution: &Execution) {
        if let Self::Offered(offer) = self
            && offer.execution() == execution
        {
            offer.withdraw();
        }
    }

    /// Resolves when its gatherer does not wait for the outcome any more.
    pub(crate) async fn withdrawn(&self) {
        match self {
            // That another came first is found out by the commit.
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
}
