//! Live events of one bag: core NATS, not stored, nothing depends on any single one of them.

use futures::StreamExt;
use serde::{Deserialize, Serialize};

use crate::ids::BagId;
use crate::{Broker, Error, bounded, limits, subjects};

/// What one worker holds of a bag, so that its deliveries can be given back if it dies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldingsReport {
    /// [`limits::WIRE_VERSION`].
    pub v: u32,
    /// The worker's id: its service instance.
    #[serde(deserialize_with = "bounded::text")]
    pub worker: String,
    /// Its host.
    #[serde(deserialize_with = "bounded::text")]
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// Whether this is everything that it holds of the bag; otherwise it comes on top.
    pub all: bool,
    /// The deliveries.
    pub deliveries: Vec<ReportedDelivery>,
}

/// One delivery that a worker holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedDelivery {
    /// The task's place in the bag.
    #[serde(deserialize_with = "bounded::index")]
    pub index: u32,
    /// The task's round.
    #[serde(deserialize_with = "bounded::round")]
    pub round: u32,
    /// The broker's count of deliveries.
    pub delivered: u32,
    /// The subject on which the delivery is answered.
    #[serde(deserialize_with = "bounded::text")]
    pub reply: String,
    /// How many bytes of its input were read by now, of a pack those of all its files; 0 if nothing was, or its worker does
    /// not say.
    #[serde(
        default,
        skip_serializing_if = "super::line::no_bytes",
        deserialize_with = "bounded::input_bytes"
    )]
    pub read_bytes: u64,
}

/// A bag's events, as they come.
#[derive(Debug)]
pub struct Events {
    subscriber: async_nats::Subscriber,
}

impl Events {
    /// Waits for the next `held` event; unreadable ones are passed over. Cancel-safe. None when the
    /// connection is closed.
    pub async fn held(&mut self) -> Option<HoldingsReport> {
        loop {
            let message = self.subscriber.next().await?;
            if message.payload.len() > limits::MESSAGE_BYTES_MAX {
                continue;
            }
            if let Ok(held) = serde_json::from_slice::<HoldingsReport>(&message.payload) {
                return Some(held);
            }
        }
    }
}

/// Bags of which something is said, as it happens.
#[derive(Debug)]
pub struct BagEvents {
    subscriber: async_nats::Subscriber,
}

impl BagEvents {
    /// Waits for the next one. Cancel-safe. None when the connection is closed.
    pub async fn next(&mut self) -> Option<BagId> {
        loop {
            let message = self.subscriber.next().await?;
            let bag = message.subject.split('.').nth(2).and_then(|bag| bag.parse().ok());
            if bag.is_some() {
                return bag;
            }
        }
    }
}

impl Broker {
    /// Subscribes to the cancellations of one bag, or of all.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub async fn cancellations(&self, bag: Option<&BagId>) -> Result<BagEvents, Error> {
        let subject = bag.map_or_else(
            || subjects::CANCELLED_ALL.to_owned(),
            |bag| subjects::event(bag, subjects::CANCELLED),
        );
        let subscriber = self.client().subscribe(subject).await;
        let subscriber =
            subscriber.map_err(|e| Error::during("subscribe to cancellations").lost(e))?;
        Ok(BagEvents { subscriber })
    }

    /// Says that a bag was cancelled, to those who listen now; its line keeps saying it.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub async fn announce_cancelled(&self, bag: &BagId) -> Result<(), Error> {
        let subject = subjects::event(bag, subjects::CANCELLED);
        let said = self.client().publish(subject, "".into()).await;
        said.map_err(|e| Error::during("announce a cancellation").lost(e))?;
        self.flush().await
    }

    /// Subscribes to the beginnings of gatherings, of all bags.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub async fn gatherings(&self) -> Result<BagEvents, Error> {
        let subscriber = self.client().subscribe(subjects::GATHERS_ALL).await;
        let subscriber =
            subscriber.map_err(|e| Error::during("subscribe to gatherings").lost(e))?;
        Ok(BagEvents { subscriber })
    }

    /// Announces that a bag is gathered from now on: workers that found no gatherer need not wait to ask again.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: they find out after [`limits::GATHERER_ABSENT_FOR`].
    pub async fn announce_gatherer(&self, bag: &BagId) -> Result<(), Error> {
        let subject = subjects::event(bag, subjects::GATHERS);
        let said = self.client().publish(subject, "".into()).await;
        said.map_err(|e| Error::during("announce a gatherer").lost(e))?;
        self.flush().await
    }

    /// Subscribes to the `held` events of a bag.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub async fn held_events(&self, bag: &BagId) -> Result<Events, Error> {
        let subject = subjects::event(bag, subjects::HELD);
        let subscriber = self.client().subscribe(subject).await;
        Ok(Events {
            subscriber: subscriber.map_err(|e| Error::during("subscribe to events").lost(e))?,
        })
    }

    /// Says what a worker holds.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: the next one will do.
    pub async fn report_held(&self, bag: &BagId, held: &HoldingsReport) -> Result<(), Error> {
        let during = Error::during("report what is held");
        let payload = serde_json::to_vec(held).map_err(|e| during.lost(e))?;
        let subject = subjects::event(bag, subjects::HELD);
        self.client().publish(subject, payload.into()).await.map_err(|e| during.lost(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(more: &str) -> String {
        format!(r#"{{"index":7,"round":0,"delivered":1,"reply":"$JS.ACK.x"{more}}}"#)
    }

    #[test]
    fn a_report_of_an_earlier_worker_says_nothing_of_what_it_read() {
        let read = |more: &str| serde_json::from_str::<ReportedDelivery>(&delivery(more));
        let (earlier, later) = (read("").unwrap(), read(r#","read_bytes":5"#).unwrap());
        assert_eq!((earlier.read_bytes, later.read_bytes), (0, 5));
        // An earlier gatherer reads what it knows; nothing is added where nothing was read.
        assert_eq!(serde_json::to_string(&earlier).unwrap(), delivery(""));
        assert_eq!(serde_json::to_string(&later).unwrap(), delivery(r#","read_bytes":5"#));
        let most = limits::INPUT_BYTES_MAX;
        assert!(read(&format!(r#","read_bytes":{most}"#)).is_ok());
        assert!(read(&format!(r#","read_bytes":{}"#, most + 1)).is_err());
    }
}
