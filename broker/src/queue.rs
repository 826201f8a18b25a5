//! The waiting tasks, shared by all workers of a pool.

use std::time::Duration;

use async_nats::Message;
use bytes::Bytes;

use crate::descriptor::{DecodeError, TaskDescriptor};
use crate::ids::{Pool, TaskId};
use crate::pull::{Pull, Pulled};
use crate::{Broker, Error, subjects};

/// One worker's place at the durable: it asks for deliveries and receives them.
#[derive(Debug)]
pub struct Queue {
    broker: Broker,
    pull: Pull,
}

/// What a [`Queue`] received.
#[derive(Debug)]
pub enum Received {
    /// A delivery.
    Delivery(Delivery),
    /// A request ended: [`Queue::outstanding`] tells what is left of them.
    Nothing,
}

impl Queue {
    /// Joins the workers of `pool`.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub async fn join(broker: &Broker, pool: &Pool) -> Result<Self, Error> {
        let pull = Pull::open(broker, subjects::TASKS, &subjects::durable(pool)).await?;
        Ok(Self { broker: broker.clone(), pull })
    }

    /// Deliveries asked for and not yet received.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.pull.outstanding()
    }

    /// Asks for up to `deliveries` more.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: transient.
    pub async fn request(&mut self, deliveries: usize) -> Result<(), Error> {
        self.pull.request(deliveries).await
    }

    /// Waits for a delivery, or for the end of a request. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] if the durable is gone.
    pub async fn receive(&mut self) -> Result<Received, Error> {
        let pulled = self.pull.next().await;
        self.sort(pulled)
    }

    /// A delivery that has arrived already; never waits.
    pub fn ready(&mut self) -> Option<Delivery> {
        match self.pull.ready()? {
            Pulled::Message(message) => Delivery::new(&self.broker, message),
            Pulled::Ended | Pulled::Gone(_) => None,
        }
    }

    fn sort(&self, pulled: Pulled) -> Result<Received, Error> {
        match pulled {
            Pulled::Message(message) => {
                Ok(Delivery::new(&self.broker, message)
                    .map_or(Received::Nothing, Received::Delivery))
            }
            Pulled::Ended => Ok(Received::Nothing),
            Pulled::Gone(why) => {
                Err(Error::Missing { what: format!("durable to pull from ({why})") })
            }
        }
    }

    /// Leaves, and returns the deliveries that still arrived: give them back.
    pub async fn leave(self) -> Vec<Delivery> {
        let broker = self.broker;
        let left = self.pull.close().await;
        left.into_iter().filter_map(|message| Delivery::new(&broker, message)).collect()
    }
}

/// One handing of a task to a worker.
#[derive(Debug, Clone)]
pub struct Delivery {
    broker: Broker,
    id: TaskId,
    payload: Bytes,
    reply: String,
    delivered: u32,
}

impl Delivery {
    fn new(broker: &Broker, message: Message) -> Option<Self> {
        let reply = message.reply?.to_string();
        let Some((_, id)) = subjects::parse_task(&message.subject) else {
            // The stream takes any token where an index belongs: nobody can ever commit for this one.
            tracing::warn!(subject = %message.subject, "not a task's subject, terminated");
            let client = broker.client().clone();
            tokio::spawn(async move { client.publish(reply, "+TERM not a task".into()).await });
            return None;
        };
        let delivered = ack_token(&reply, DELIVERED)?;
        Some(Self { broker: broker.clone(), id, payload: message.payload, reply, delivered })
    }

    /// Which task, by the message's subject.
    #[must_use]
    pub fn id(&self) -> &TaskId {
        &self.id
    }

    /// How many times the broker has handed this task out, this time included.
    #[must_use]
    pub fn delivered(&self) -> u32 {
        self.delivered
    }

    /// The subject on which this delivery is answered. Anybody may answer it.
    #[must_use]
    pub fn reply(&self) -> &str {
        &self.reply
    }

    /// The descriptor.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]: permanent.
    pub fn task(&self) -> Result<TaskDescriptor, DecodeError> {
        TaskDescriptor::decode(&self.payload, &self.id)
    }

    /// Done: the task's outcome is committed. Never before that.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]; the lease then brings the task to somebody who finds it committed.
    pub async fn ack(&self) -> Result<(), Error> {
        self.answer("+ACK".into()).await
    }

    /// Gives the task to another worker, after `delay`.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]; the lease then decides.
    pub async fn nak(&self, delay: Duration) -> Result<(), Error> {
        self.answer(nak(delay)).await
    }

    /// Takes the task out of the queue for good.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]; the lease then decides.
    pub async fn term(&self, reason: &str) -> Result<(), Error> {
        self.answer(format!("+TERM {reason}").into()).await
    }

    /// Renews the lease.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub async fn renew(&self) -> Result<(), Error> {
        self.answer("+WPI".into()).await
    }

    async fn answer(&self, payload: Bytes) -> Result<(), Error> {
        let client = self.broker.client();
        client
            .publish(self.reply.clone(), payload)
            .await
            .map_err(|e| Error::lost("answer a delivery")(&e))
    }
}

fn nak(delay: Duration) -> Bytes {
    if delay.is_zero() {
        return "-NAK".into();
    }
    format!(r#"-NAK {{"delay":{}}}"#, delay.as_nanos()).into()
}

impl Broker {
    /// Gives a delivery back in the name of a worker that died.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]; the lease then decides.
    pub async fn nak_for(&self, reply: &str) -> Result<(), Error> {
        // A worker wrote it down: it must not make us publish where it may not.
        if !answers_a_task(reply) {
            tracing::debug!(reply, "no delivery is answered there");
            return Ok(());
        }
        let sent = self.client().publish(reply.to_owned(), nak(Duration::ZERO)).await;
        sent.map_err(|e| Error::lost("give back for a dead worker")(&e))
    }
}

/// Whether a subject is one on which the delivery of a task is answered.
fn answers_a_task(reply: &str) -> bool {
    let tokens: Vec<_> = reply.split('.').collect();
    let stream = if tokens.len() >= 11 { 4 } else { 2 };
    let is_literal = tokens.iter().all(|token| !matches!(*token, "" | "*" | ">"));
    is_literal
        && tokens.starts_with(&["$JS", "ACK"])
        && tokens.get(stream) == Some(&subjects::TASKS)
}

/// Places in an ack subject of 9 tokens.
const DELIVERED: usize = 4;
pub(crate) const STREAM_SEQUENCE: usize = 5;
pub(crate) const STORED_NS: usize = 7;

/// Reads a number from an ack subject, of 9 tokens or of 11 with domain and account:
/// `$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`.
pub(crate) fn ack_token<T: std::str::FromStr>(reply: &str, at: usize) -> Option<T> {
    let long = reply.split('.').count() >= 11;
    reply.split('.').nth(if long { at + 2 } else { at })?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_ack_subject_are_read() {
        let number = |reply, at| ack_token::<u64>(reply, at);
        let short = "$JS.ACK.BAG_TASKS.workers.3.10.12.1700000000.5";
        assert_eq!(number(short, DELIVERED), Some(3));
        assert_eq!(number(short, STREAM_SEQUENCE), Some(10));
        let long = "$JS.ACK._.HASH.BAG_TASKS.workers.2.10.12.17.5";
        assert_eq!(number(long, DELIVERED), Some(2));
        assert_eq!(number(long, STORED_NS), Some(17));
        assert_eq!(number("$JS.ACK.x", DELIVERED), None);
    }

    #[test]
    fn only_deliveries_of_tasks_are_answered_for_others() {
        for (reply, answers) in [
            ("$JS.ACK.BAG_TASKS.workers.3.10.12.1700000000.5", true),
            ("$JS.ACK._.HASH.BAG_TASKS.workers.2.10.12.17.5", true),
            ("$JS.ACK.BAG_RESULTS.workers.3.10.12.1700000000.5", false),
            ("$JS.API.STREAM.PURGE.BAG_TASKS", false),
            ("bag.task.default.b.0.0", false),
            ("$JS.ACK.BAG_TASKS.>", false),
            ("", false),
        ] {
            assert_eq!(answers_a_task(reply), answers, "{reply}");
        }
    }

    #[test]
    fn a_delayed_nak_is_in_nanoseconds() {
        assert_eq!(nak(Duration::from_millis(200)), r#"-NAK {"delay":200000000}"#);
        assert_eq!(nak(Duration::ZERO), "-NAK");
    }
}
