//! The committed results of one bag, in order, each exactly once.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};

use crate::ids::{BagId, random_base32};
use crate::result::TaskResult;
use crate::wire::ack::AckSubject;
use crate::{Broker, Error, limits, subjects};

use super::pull::{Pull, Pulled};

/// One committed result.
#[derive(Debug, Clone)]
pub struct Followed {
    /// The result, or the index and round that its subject names and why it cannot be read.
    pub result: Result<Arc<TaskResult>, (u32, u32, String)>,
    /// Size of the message, in bytes.
    pub bytes: usize,
}

/// A bag's results, followed from the first on.
///
/// A consumer of our own, named, without acks; when it is lost, or a message is missing in its
/// sequence, it is made again behind the last result that was seen.
#[derive(Debug)]
pub struct Results {
    broker: Broker,
    bag: BagId,
    pull: Option<Pull>,
    consumer: String,
    consumer_sequence: u64,
    stream_sequence: u64,
    caught_up: bool,
}

impl Results {
    /// Follows the results of `bag`.
    #[must_use]
    pub fn of(broker: &Broker, bag: &BagId) -> Self {
        Self {
            broker: broker.clone(),
            bag: bag.clone(),
            pull: None,
            consumer: String::new(),
            consumer_sequence: 0,
            stream_sequence: 0,
            caught_up: false,
        }
    }

    /// Whether everything that had been committed when the last batch came was seen.
    #[must_use]
    pub fn caught_up(&self) -> bool {
        self.caught_up
    }

    /// Waits for results: up to [`limits::GATHER_BATCH`], at least one unless the wait was cut short.
    ///
    /// Cancel-safe between results; the ones of a batch are returned together.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] or [`Error::Missing`]; call again.
    pub async fn next_batch(&mut self) -> Result<Vec<Followed>, Error> {
        let mut batch = Vec::new();
        if self.pull.is_none() {
            self.reopen().await?;
            if self.caught_up {
                return Ok(batch);
            }
        }
        let Some(pull) = self.pull.as_mut() else { return Ok(batch) };
        if pull.outstanding() < limits::GATHER_BATCH {
            pull.request(limits::GATHER_BATCH).await?;
        }
        let (mut pulled, mut bytes) = (Some(pull.next().await), 0);
        while let Some(now) = pulled {
            match now {
                Pulled::Message(message) => {
                    bytes += message.payload.len();
                    if !self.take(&message, &mut batch) {
                        self.pull = None;
                        return Ok(batch);
                    }
                }
                Pulled::Ended => {}
                Pulled::Gone(_) => {
                    self.pull = None;
                    return Ok(batch);
                }
            }
            let more = batch.len() < limits::GATHER_BATCH && bytes < limits::GATHER_BATCH_BYTES;
            pulled = self.pull.as_mut().filter(|_| more).and_then(Pull::ready);
        }
        Ok(batch)
    }

    /// Takes one message; false if one before it is missing.
    fn take(&mut self, message: &Message, batch: &mut Vec<Followed>) -> bool {
        let Some(ack) = message.reply.as_deref().and_then(AckSubject::parse) else { return true };
        if ack.consumer_sequence != self.consumer_sequence + 1 {
            return false;
        }
        self.consumer_sequence = ack.consumer_sequence;
        self.stream_sequence = ack.stream_sequence;
        self.caught_up = ack.pending == 0;
        let mut tokens = message.subject.rsplit('.').map(str::parse::<u32>);
        let (Some(Ok(round)), Some(Ok(index))) = (tokens.next(), tokens.next()) else {
            return true;
        };
        if index >= limits::BAG_TASKS_MAX || round > limits::ROUND_MAX {
            return true;
        }
        let result = TaskResult::decode(&message.payload)
            .map_err(|e| e.to_string())
            .and_then(|result| {
                if result.index == index && result.round == round && result.bag == self.bag {
                    return Ok(result);
                }
                Err(format!("it is the result of task {}", result.id()))
            })
            .map(Arc::new)
            .map_err(|why| (index, round, why));
        batch.push(Followed { result, bytes: message.payload.len() });
        true
    }

    /// Follows from the first result on again.
    ///
    /// A broker may have forgotten results that were seen here, and later ones have taken their
    /// sequences; and what did not count when it was seen may count now.
    pub async fn restart(&mut self) {
        self.close().await;
        self.stream_sequence = 0;
        self.caught_up = false;
    }

    async fn reopen(&mut self) -> Result<(), Error> {
        self.close().await;
        let name = format!("gather-{}-{}", self.bag, random_base32::<5>());
        let config = pull::Config {
            name: Some(name.clone()),
            description: Some(format!("Gatherer of bag {}", self.bag)),
            filter_subject: subjects::results_of(&self.bag),
            ack_policy: AckPolicy::None,
            deliver_policy: if self.stream_sequence == 0 {
                DeliverPolicy::All
            } else {
                DeliverPolicy::ByStartSequence { start_sequence: self.stream_sequence + 1 }
            },
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: Duration::from_mins(1),
            ..pull::Config::default()
        };
        let made =
            self.broker.jetstream().create_consumer_on_stream(config, subjects::RESULTS).await;
        let made = made.map_err(|e| Error::during("follow the results").lost(e))?;
        self.caught_up = made.cached_info().num_pending == 0;
        self.pull = Some(Pull::open(&self.broker, subjects::RESULTS, &name).await?);
        self.consumer = name;
        self.consumer_sequence = 0;
        Ok(())
    }

    /// Removes the consumer from the server; it would go by itself after a minute.
    pub async fn close(&mut self) {
        self.pull = None;
        if self.consumer.is_empty() {
            return;
        }
        let consumer = std::mem::take(&mut self.consumer);
        let context = self.broker.jetstream();
        if let Err(error) = context.delete_consumer_from_stream(consumer, subjects::RESULTS).await {
            tracing::debug!(%error, "consumer not removed, it goes by itself");
        }
    }
}
