//! The gatherer's side of the queue group: it offers tasks, and receives messages from workers with leases.

use async_nats::{HeaderMap, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use tokio::task::unconstrained;
use tracing::debug;

use super::lease::{ATTEMPT, GivenBack, Lease, Taken, Verdict};
use crate::descriptor::decode_json;
use crate::ids::{BagId, Pool};
use crate::result::{Failed, TaskResult};
use crate::{Broker, Error, limits, subjects};

/// Where one gatherer offers the tasks of its bag.
#[derive(Debug)]
pub struct Desk {
    broker: Broker,
    bag: BagId,
    offers: String,
    inbox: String,
    answers: Subscriber,
    requests: Subscriber,
    /// A request that is heard behind the answers that came before it.
    request: Option<Message>,
}

/// What a [`Desk`] hears.
#[derive(Debug)]
pub enum Heard {
    /// An offer was taken.
    Leased(u64, Lease, Reply),
    /// The worker that got the offer has other work.
    Passed(u64),
    /// What was offered is no task to who got it.
    Refused(u64, Failed),
    /// No worker is a member now.
    Nobody(u64),
    /// A lease is renewed.
    Renewal(Lease, Reply),
    /// A lease is given back.
    GivenBack(GivenBack, Reply),
    /// A task has an outcome.
    Outcome(Box<TaskResult>, Reply),
}

/// Where somebody waits for a [`Verdict`].
#[derive(Debug, Clone)]
pub struct Reply {
    broker: Broker,
    subject: Option<async_nats::Subject>,
}

impl Reply {
    /// Answers. An answer that is lost is asked for again.
    pub async fn answer(&self, verdict: &Verdict) {
        let Some(subject) = self.subject.clone() else { return };
        let payload = serde_json::to_vec(verdict).unwrap_or_default();
        if let Err(error) = self.broker.client().publish(subject, payload.into()).await {
            debug!(%error, "verdict not sent");
        }
    }
}

impl Desk {
    /// Opens the desk of `bag`, whose tasks `pool`'s workers take.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub async fn open(broker: &Broker, bag: &BagId, pool: &Pool) -> Result<Self, Error> {
        let during = Error::during("open the desk of a bag");
        let inbox = broker.client().new_inbox();
        let answers = broker.client().subscribe(format!("{inbox}.*")).await;
        let requests = broker.client().subscribe(subjects::leases_of(bag)).await;
        Ok(Self {
            broker: broker.clone(),
            bag: bag.clone(),
            offers: subjects::run(pool),
            inbox,
            answers: answers.map_err(|e| during.lost(e))?,
            requests: requests.map_err(|e| during.lost(e))?,
            request: None,
        })
    }

    /// Offers a task, under a number that its answer comes back with.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: offer it again.
    pub async fn offer(&self, number: u64, attempt: u32, descriptor: Bytes) -> Result<(), Error> {
        let mut headers = HeaderMap::new();
        headers.insert(ATTEMPT, attempt.to_string());
        let reply = format!("{}.{number}", self.inbox);
        let client = self.broker.client();
        let sent = client
            .publish_with_reply_and_headers(self.offers.clone(), reply, headers, descriptor)
            .await;
        sent.map_err(|e| Error::during("offer a task").lost(e))
    }

    /// Waits for what is said next; what cannot be read is passed over. Cancel-safe. None when the
    /// connection is closed.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            // One connection, two subscriptions: an answer that came before a request is there by now,
            // and is heard before it. A worker that gives a lease back has taken it first.
            let earlier = unconstrained(self.answers.next()).now_or_never();
            let heard = if let Some(answer) = earlier {
                self.answer(&answer?)
            } else if let Some(request) = self.request.take() {
                self.request(&request)
            } else {
                tokio::select! {
                    answer = self.answers.next() => self.answer(&answer?),
                    request = self.requests.next() => {
                        self.request = Some(request?);
                        None
                    }
                }
            };
            if heard.is_some() {
                return heard;
            }
        }
    }

    /// What was said already; never waits.
    pub fn ready(&mut self) -> Option<Heard> {
        self.next().now_or_never().flatten()
    }

    fn reply(&self, message: &Message) -> Reply {
        Reply { broker: self.broker.clone(), subject: message.reply.clone() }
    }

    fn answer(&self, message: &Message) -> Option<Heard> {
        let number = message.subject.rsplit('.').next()?.parse().ok()?;
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Some(Heard::Nobody(number));
        }
        if message.payload.len() > limits::MESSAGE_BYTES_MAX {
            return None;
        }
        Some(match serde_json::from_slice(&message.payload).ok()? {
            Taken::Lease(lease) if lease.v == limits::WIRE_VERSION => {
                Heard::Leased(number, lease, self.reply(message))
            }
            Taken::Lease(_) => return None,
            Taken::Busy => Heard::Passed(number),
            Taken::Refused(failed) => Heard::Refused(number, failed),
        })
    }

    fn request(&self, message: &Message) -> Option<Heard> {
        let reply = self.reply(message);
        if *message.subject == *subjects::renew(&self.bag) {
            return Some(Heard::Renewal(decode_json(&message.payload).ok()?, reply));
        }
        if *message.subject == *subjects::give_back(&self.bag) {
            if message.payload.len() > limits::MESSAGE_BYTES_MAX {
                return None;
            }
            let back: GivenBack = serde_json::from_slice(&message.payload).ok()?;
            let ours = back.lease.v == limits::WIRE_VERSION;
            return ours.then_some(Heard::GivenBack(back, reply));
        }
        if *message.subject == *subjects::outcome(&self.bag) {
            let result = TaskResult::decode(&message.payload).ok()?;
            return (result.bag == self.bag).then(|| Heard::Outcome(Box::new(result), reply));
        }
        None
    }
}
