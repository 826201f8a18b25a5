//! What ends a gathering that is not complete, wherever it waits.

use std::time::{Duration, Instant};

use bagpress_broker::{BagLine, Broker, Error};
use tokio_util::sync::CancellationToken;

use crate::claim::lease::{BagLease, LeaseEnd};
use crate::error::Interrupted;
use crate::error::Stalled;

/// What may end it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    broker: Broker,
    lease: BagLease,
    stop: CancellationToken,
    deadline: Option<(Instant, Duration)>,
}

/// What ended it.
#[derive(Debug)]
pub(crate) enum Over {
    /// The bag was cancelled, or somebody else gathers it.
    Lost(LeaseEnd),
    /// The broker refuses us for good.
    Refused(Error),
    /// Somebody told us to stop.
    Stopped,
    /// It took longer than it may.
    Deadline(Duration),
}

impl Ends {
    pub(crate) fn new(
        broker: &Broker,
        lease: &BagLease,
        stop: CancellationToken,
        deadline: Option<Duration>,
        began: Instant,
    ) -> Self {
        let deadline = deadline.and_then(|most| Some((began.checked_add(most)?, most)));
        let (broker, lease) = (broker.clone(), lease.clone());
        Self { broker, lease, stop, deadline }
    }

    /// Resolves when it is to end.
    pub(crate) async fn over(&self) -> Over {
        let late = async {
            match self.deadline {
                Some((at, most)) => {
                    tokio::time::sleep_until(at.into()).await;
                    most
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            lost = self.lease.ended() => Over::Lost(lost),
            error = self.broker.fatal() => Over::Refused(error),
            () = self.stop.cancelled() => Over::Stopped,
            most = late => Over::Deadline(most),
        }
    }
}

impl Over {
    /// As an error; `line` is that of the bag when it ended.
    pub(crate) fn error(self, line: &BagLine) -> anyhow::Error {
        match self {
            Self::Lost(lost) => lost.error(line),
            Self::Refused(error) => error.into(),
            Self::Stopped => Interrupted { folder: String::new() }.into(),
            Self::Deadline(most) => Stalled(format!("past its deadline of {most:?}")).into(),
        }
    }
}
