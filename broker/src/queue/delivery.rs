//! The waiting tasks, shared by all workers of a pool.

use std::time::Duration;

use async_nats::Message;
use bytes::Bytes;

use crate::descriptor::{DecodeError, TaskDescriptor};
use crate::ids::{Pool, TaskId};
use crate::wire::ack::{AckSubject, nak};
use crate::{Broker, Error, subjects};

use super::pull::{Pull, Pulled};

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
        let delivered = AckSubject::parse(&reply)?.delivered;
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
    /// [`Error::Lost`]; after the lease, another worker gets the task and finds it committed.
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
            .map_err(|e| Error::during("answer a delivery").lost(e))
    }
}

impl Broker {
    /// Gives a delivery back in the name of a worker that died.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]; the lease then decides.
    pub async fn nak_for(&self, reply: &str) -> Result<(), Error> {
        // Others told us this subject: nothing but the answer to a delivery of ours is said in our name.
        if !is_delivery(reply) {
            tracing::warn!(reply, "not the ack subject of a delivery, nothing is published there");
            return Ok(());
        }
        let sent = self.client().publish(reply.to_owned(), nak(Duration::ZERO)).await;
        sent.map_err(|e| Error::during("give back for a dead worker").lost(e))
    }
}

/// Whether a delivery of a task is answered on this subject.
fn is_delivery(reply: &str) -> bool {
    AckSubject::parse(reply).is_some_and(|ack| ack.stream == subjects::TASKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_delivery_of_a_task_is_answered_for_others() {
        assert!(is_delivery("$JS.ACK.BAG_TASKS.workers.3.10.12.1700000000.5"));
        assert!(is_delivery("$JS.ACK._.HASH.BAG_TASKS.workers.2.10.12.17.5.rand"));
        let others = [
            "bag.result.t-abcdefgh.0.0",
            "$JS.API.STREAM.PURGE.BAG_TASKS",
            "$JS.ACK.BAG_RESULTS.workers.3.10.12.1700000000.5",
            "$JS.ACK.BAG_TASKS.workers.3.*.12.1700000000.5",
            "$JS.ACK.BAG_TASKS",
            "",
        ];
        for reply in others {
            assert!(!is_delivery(reply), "{reply}");
        }
    }
}
