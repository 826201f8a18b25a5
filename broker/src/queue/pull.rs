//! Pull requests of our own on one inbox.
//!
//! The client's batches open an inbox each and cannot be taken back: a delivery that was on its way to a
//! dropped one waits out its lease. Here one subscription serves all requests; they are short, the
//! server says when each ends, and [`Pull::close`] waits for that and hands back what still arrived.
//! The protocol is that of `$JS.API.CONSUMER.MSG.NEXT` (NATS documentation, JetStream wire API).

use async_nats::{Message, StatusCode, Subscriber};
use futures::{FutureExt, StreamExt};
use tokio::time::Instant;

use crate::{Broker, Error, limits};

/// A puller of one consumer. Not cheap: one inbox, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Pull {
    broker: Broker,
    api: String,
    inbox: String,
    subscriber: Subscriber,
    requests: u64,
    /// Messages asked for and not yet received.
    outstanding: usize,
    heard: Instant,
    connects: u64,
}

/// What a pull saw.
#[derive(Debug)]
pub(crate) enum Pulled {
    /// A message.
    Message(Message),
    /// Some request ended, or was lost: [`Pull::outstanding`] tells what is left.
    Ended,
    /// The consumer is gone.
    Gone(String),
}

impl Pull {
    pub(crate) async fn open(broker: &Broker, stream: &str, consumer: &str) -> Result<Self, Error> {
        let inbox = broker.client().new_inbox();
        let subscriber = broker
            .client()
            .subscribe(format!("{inbox}.*"))
            .await
            .map_err(|e| Error::during("open an inbox").lost(e))?;
        Ok(Self {
            broker: broker.clone(),
            api: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
            inbox,
            subscriber,
            requests: 0,
            outstanding: 0,
            heard: Instant::now(),
            connects: broker.connects(),
        })
    }

    /// Messages asked for and not yet received.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Asks for up to `messages` more.
    pub(crate) async fn request(&mut self, messages: usize) -> Result<(), Error> {
        self.requests += 1;
        let reply = format!("{}.{}", self.inbox, self.requests);
        let payload =
            format!(r#"{{"batch":{messages},"expires":{}}}"#, limits::PULL_EXPIRES.as_nanos());
        if self.outstanding == 0 {
            self.heard = Instant::now();
        }
        self.outstanding += messages;
        self.broker
            .client()
            .publish_with_reply(self.api.clone(), reply, payload.into())
            .await
            .map_err(|e| Error::during("pull").lost(e))
    }

    /// Waits for the next thing to happen.
    ///
    /// Cancel-safe: what was not returned is still there.
    pub(crate) async fn next(&mut self) -> Pulled {
        loop {
            // Requests die with the connection, and the server does not say so.
            if self.broker.connects() != self.connects {
                self.connects = self.broker.connects();
                self.outstanding = 0;
                return Pulled::Ended;
            }
            let deadline = self.heard + limits::PULL_LOST;
            let broker = self.broker.clone();
            let message = tokio::select! {
                message = self.subscriber.next() => message,
                () = broker.reconnected() => continue,
                () = tokio::time::sleep_until(deadline), if self.outstanding > 0 => {
                    self.outstanding = 0;
                    return Pulled::Ended;
                }
            };
            let Some(message) = message else {
                return Pulled::Gone("the connection is closed".to_owned());
            };
            self.heard = Instant::now();
            if let Some(pulled) = self.sort(message) {
                return pulled;
            }
        }
    }

    /// What has arrived already; never waits.
    pub(crate) fn ready(&mut self) -> Option<Pulled> {
        while let Some(Some(message)) = self.subscriber.next().now_or_never() {
            if let Some(pulled) = self.sort(message) {
                return Some(pulled);
            }
        }
        None
    }

    fn sort(&mut self, message: Message) -> Option<Pulled> {
        let Some(status) = message.status else {
            self.outstanding = self.outstanding.saturating_sub(1);
            return Some(Pulled::Message(message));
        };
        if status == StatusCode::IDLE_HEARTBEAT {
            return None;
        }
        let left = message.headers.as_ref().and_then(|h| h.get("Nats-Pending-Messages"));
        let left = left.and_then(|v| v.as_str().parse().ok());
        self.outstanding = self.outstanding.saturating_sub(left.unwrap_or(usize::MAX));
        let text = message.description.as_deref().unwrap_or_default().to_owned();
        let lower = text.to_ascii_lowercase();
        if status == StatusCode::NO_RESPONDERS || lower.contains("consumer deleted") {
            self.outstanding = 0;
            return Some(Pulled::Gone(text));
        }
        Some(Pulled::Ended)
    }

    /// Asks for nothing more, waits until every request has ended, and returns what they still brought.
    pub(crate) async fn close(mut self) -> Vec<Message> {
        let mut left = Vec::new();
        while self.outstanding > 0 {
            match self.next().await {
                Pulled::Message(message) => left.push(message),
                Pulled::Ended => {}
                Pulled::Gone(_) => break,
            }
        }
        left
    }
}
