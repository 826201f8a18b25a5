//! Messages of a bucket's stream in batches, fetched ahead of their reader.

use std::sync::Arc;

use async_nats::{Request, StatusCode, Subscriber};
use bagpress_broker::limits;
use bytes::Bytes;
use futures::StreamExt;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

use super::bucket::{Bucket, Message};
use super::error::Error;
use super::meta::Info;
use super::names;

const WHAT: &str = "read a batch of messages";
/// Messages of metadata that one batched direct get asks for.
const LIST_BATCH: u64 = 256;
/// Batches that are held: one that is consumed, one that arrives.
const BATCHES_HELD: usize = 2;
/// Smallest batch that is asked for, in bytes.
const BATCH_BYTES_MIN: usize = 1024;

/// A running fetch. Dropping it ends its task and its subscription.
#[derive(Debug)]
pub(super) struct Fetch {
    items: mpsc::UnboundedReceiver<Item>,
    _task: JoinSet<()>,
}

#[derive(Debug)]
enum Item {
    Message(Message),
    /// All of a batch was handed out: its place is free.
    BatchEnd(OwnedSemaphorePermit),
    Failed(Error),
}

impl Fetch {
    /// The chunks of an object: exactly as many as its metadata says.
    pub(super) fn chunks(bucket: &Bucket, info: &Info) -> Self {
        Self::start(Batches {
            filter: names::chunks_subject(bucket.name(), &info.token),
            bucket: bucket.clone(),
            wanted: Some(info.clone()),
            next: 1,
            found: 0,
        })
    }

    /// All metadata of a bucket.
    pub(super) fn metadata(bucket: &Bucket) -> Self {
        Self::start(Batches {
            filter: names::all_metadata(bucket.name()),
            bucket: bucket.clone(),
            wanted: None,
            next: 1,
            found: 0,
        })
    }

    fn start(source: Batches) -> Self {
        // Unbounded, but fed by at most BATCHES_HELD batches at a time.
        let (sender, items) = mpsc::unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(async move {
            if let Err(error) = source.run(&sender).await {
                // Closed means that nobody reads any more; so below.
                sender.send(Item::Failed(error)).ok();
            }
        });
        Self { items, _task: task }
    }

    /// The next message, or `None` when there are no more.
    pub(super) async fn next(&mut self) -> Result<Option<Message>, Error> {
        loop {
            match self.items.recv().await {
                Some(Item::Message(message)) => return Ok(Some(message)),
                Some(Item::BatchEnd(place)) => drop(place),
                Some(Item::Failed(error)) => return Err(error),
                None => return Ok(None),
            }
        }
    }
}

struct Batches {
    bucket: Bucket,
    filter: String,
    /// The object whose chunks are fetched; without one, whatever there is.
    wanted: Option<Info>,
    /// From which sequence on to look.
    next: u64,
    found: u64,
}

/// How a batch ended.
enum Ended {
    /// As the server said, with this many more behind it.
    More(u64),
    /// Without its end: the connection broke, a message is missing, or it took too long.
    Short(String),
}

impl Batches {
    async fn run(mut self, items: &mpsc::UnboundedSender<Item>) -> Result<(), Error> {
        let inbox = self.bucket.client().new_inbox();
        let answers = self.bucket.client().subscribe(format!("{inbox}.*")).await;
        let mut answers = answers.map_err(|error| Error::unanswered(WHAT, &error))?;
        let places = Arc::new(Semaphore::new(BATCHES_HELD));
        let mut failures = 0;
        for number in 0_u64.. {
            if self.left() == 0 {
                return Ok(());
            }
            let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
            let before = self.found;
            let reply = format!("{inbox}.{number}");
            let ended = self.batch(&mut answers, &reply, items).await?;
            items.send(Item::BatchEnd(place)).ok();
            if self.found > before {
                failures = 0;
            }
            match ended {
                Ended::More(0) if self.wanted.is_none() => return Ok(()),
                Ended::More(more) if more > 0 && self.found > before => {}
                _ if self.left() == 0 => return Ok(()),
                ended => {
                    failures += 1;
                    self.check_not_lost().await?;
                    if failures > limits::GET_RETRIES {
                        return self.ask_leader(ended, items).await;
                    }
                    time::sleep(limits::RETRY_WAIT * failures).await;
                }
            }
        }
        Ok(())
    }

    fn left(&self) -> u64 {
        self.wanted.as_ref().map_or(LIST_BATCH, |info| info.chunks.saturating_sub(self.found))
    }

    /// Asks for a batch and passes its messages on.
    async fn batch(
        &mut self,
        answers: &mut Subscriber,
        reply: &str,
        items: &mpsc::UnboundedSender<Item>,
    ) -> Result<Ended, Error> {
        let most = if self.wanted.is_some() { limits::GET_BATCH as u64 } else { LIST_BATCH };
        let ask = self.left().min(most);
        let bytes = self.bytes_of(ask);
        let _under_way = self.bucket.begin_read(bytes).await;
        let body = json!({
            "seq": self.next, "next_by_subj": self.filter, "batch": ask, "max_bytes": bytes
        });
        let deadline = Instant::now() + limits::GET_DEADLINE;
        self.request(reply, body.to_string().into()).await?;
        let (mut got, mut pending) = (0, None);
        while got < ask {
            let Ok(answer) = time::timeout_at(deadline, answers.next()).await else {
                return Ok(Ended::Short(format!("no answer in {:?}", limits::GET_DEADLINE)));
            };
            let Some(answer) = answer else {
                return Err(Error::unanswered(WHAT, &"the connection was closed"));
            };
            if answer.subject.as_str() != reply {
                continue; // of a batch that was given up
            }
            match answer.status {
                None => {}
                Some(StatusCode::NOT_FOUND) => return Ok(Ended::More(0)),
                Some(status) if status.as_u16() == 204 => {
                    return Ok(Ended::More(number(&answer, "Nats-Num-Pending").unwrap_or(0)));
                }
                Some(status) => {
                    let description = answer.description.unwrap_or_default();
                    return Ok(Ended::Short(format!("{status}: {description}")));
                }
            }
            let Some(sequence) = number(&answer, "Nats-Sequence") else {
                return Ok(Ended::Short("a message without its sequence".to_owned()));
            };
            // Every message says how many follow it: one that was dropped on the way is noticed.
            let follow = number(&answer, "Nats-Num-Pending").unwrap_or(0);
            if pending.is_some_and(|before| follow + 1 != before) || sequence < self.next {
                return Ok(Ended::Short("a message of the batch is missing".to_owned()));
            }
            pending = Some(follow);
            got += 1;
            self.found += 1;
            self.next = sequence + 1;
            items.send(Item::Message(Message { sequence, payload: answer.payload })).ok();
        }
        Ok(Ended::More(pending.unwrap_or(0)))
    }

    async fn request(&self, reply: &str, body: Bytes) -> Result<(), Error> {
        let subject = format!("DIRECT.GET.{}", names::stream(self.bucket.name()));
        let request = Request::new().payload(body).inbox(reply.to_owned());
        let sent = self.bucket.context().send_request(subject, request).await;
        sent.map_err(|error| Error::unanswered(WHAT, &error))
    }

    /// How many bytes a batch of `ask` messages may have.
    fn bytes_of(&self, ask: u64) -> usize {
        let Some(info) = &self.wanted else { return limits::GET_BATCH_BYTES };
        let chunk = info.bytes / info.chunks.max(1) + 1;
        let all = chunk.saturating_mul(ask).saturating_mul(2);
        usize::try_from(all).unwrap_or(usize::MAX).clamp(BATCH_BYTES_MIN, limits::GET_BATCH_BYTES)
    }

    /// The leader knows whether all chunks are there at all.
    async fn check_not_lost(&self) -> Result<(), Error> {
        let Some(info) = &self.wanted else { return Ok(()) };
        match self.bucket.count_chunks(&info.token).await {
            Ok(found) if found < info.chunks => Err(info.lost(found)),
            Ok(_) => Ok(()),
            Err(error) if error.is_transient() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The last resort: message by message from the leader.
    async fn ask_leader(
        mut self,
        ended: Ended,
        items: &mpsc::UnboundedSender<Item>,
    ) -> Result<(), Error> {
        while self.left() > 0 {
            let next = self.bucket.message_from_leader(Some(self.next), &self.filter).await;
            let next = next.map_err(|error| match &ended {
                Ended::Short(cause) if error.is_transient() => Error::unanswered(WHAT, cause),
                _ => error,
            })?;
            let Some(message) = next else {
                return match &self.wanted {
                    Some(info) => Err(info.lost(self.found)),
                    None => Ok(()),
                };
            };
            self.found += 1;
            self.next = message.sequence + 1;
            if items.send(Item::Message(message)).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn number(message: &async_nats::Message, header: &str) -> Option<u64> {
    message.headers.as_ref()?.get(header)?.as_str().parse().ok()
}
