//! The worker's side of the queue group: it is a member for as many offers as it has work for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Message, RequestErrorKind, Subject, Subscriber};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::lease::{ATTEMPT, GivenBack, Lease, Taken, Verdict};
use crate::descriptor::{DecodeError, TaskDescriptor};
use crate::ids::{Execution, Pool, TaskId};
use crate::result::{Cause, Failed, TaskResult};
use crate::{Broker, Committed, Error, limits, subjects};

/// Which worker holds deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The worker's id: its service instance.
    pub worker: String,
    /// Its host.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
}

/// One worker's memberships of the queue group.
#[derive(Debug)]
pub struct Membership {
    broker: Broker,
    holder: Holder,
    subject: String,
    inbox: String,
    withdrawals: Subscriber,
    joined: FuturesUnordered<BoxFuture<'static, (Joined, Option<Message>)>>,
    /// How many offers may come through them.
    members: usize,
}

/// A subscription, and how many messages it ends after.
#[derive(Debug)]
struct Joined {
    subscriber: Subscriber,
    left: usize,
}

impl Joined {
    /// Waits for a message; none if nothing more comes, or nothing came for [`limits::MEMBER_FOR`]: the server may have
    /// lost the subscription.
    async fn next(mut self) -> (Self, Option<Message>) {
        let next = tokio::time::timeout(limits::MEMBER_FOR, self.subscriber.next());
        let message = next.await.ok().flatten();
        (self, message)
    }
}

/// What [`Membership`] received.
#[derive(Debug)]
pub enum Offered {
    /// An offer: take it, or say that there is no slot for it.
    Offer(Offer),
    /// The lease of this execution is over.
    Withdrawn(Execution),
    /// A membership ended: [`Membership::members`] tells how many are left.
    Nothing,
}

impl Membership {
    /// Prepares to join the group of `pool`; nobody is a member yet.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub async fn join(broker: &Broker, pool: &Pool, holder: Holder) -> Result<Self, Error> {
        let inbox = broker.client().new_inbox();
        let withdrawals = broker.client().subscribe(format!("{inbox}.*")).await;
        Ok(Self {
            broker: broker.clone(),
            holder,
            subject: subjects::run(pool),
            inbox,
            withdrawals: withdrawals.map_err(|e| Error::during("join the queue group").lost(e))?,
            joined: FuturesUnordered::new(),
            members: 0,
        })
    }

    /// How many more offers may come.
    #[must_use]
    pub fn members(&self) -> usize {
        self.members
    }

    /// Joins for `members` more offers: with the last of them this ends by itself.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub async fn enter(&mut self, members: usize) -> Result<(), Error> {
        let during = Error::during("join the queue group");
        let group = subjects::QUEUE_GROUP.to_owned();
        let client = self.broker.client();
        let subscriber = client.queue_subscribe(self.subject.clone(), group).await;
        let mut subscriber = subscriber.map_err(|e| during.lost(e))?;
        subscriber.unsubscribe_after(members as u64).await.map_err(|e| during.lost(e))?;
        self.joined.push(Joined { subscriber, left: members }.next().boxed());
        self.members += members;
        Ok(())
    }

    /// Waits for an offer, a withdrawal, or the end of a membership. Cancel-safe.
    pub async fn receive(&mut self) -> Offered {
        let message = tokio::select! {
            message = self.withdrawals.next() => match message {
                Some(message) => {
                    return withdrawn(&message).map_or(Offered::Nothing, Offered::Withdrawn);
                }
                None => std::future::pending().await,
            },
            Some((joined, message)) = self.joined.next() => self.note(joined, message),
        };
        match message {
            Some(message) => read(&self.broker, &self.holder, &self.inbox, message).await,
            None => Offered::Nothing,
        }
    }

    /// Leaves. What still comes is left to others at once, as far as it can be heard of: an offer that got lost on its
    /// way is made again.
    pub async fn leave(mut self) {
        while let Some((joined, message)) = self.joined.next().now_or_never().flatten() {
            if let Some(reply) = self.note(joined, message).and_then(|message| message.reply) {
                say(&self.broker, reply, None, &Taken::Busy).await;
            }
        }
    }

    fn note(&mut self, mut joined: Joined, message: Option<Message>) -> Option<Message> {
        let over = if message.is_some() { 1 } else { joined.left };
        self.members = self.members.saturating_sub(over);
        joined.left -= over;
        if joined.left > 0 {
            self.joined.push(joined.next().boxed());
        }
        message
    }
}

async fn read(broker: &Broker, holder: &Holder, inbox: &str, message: Message) -> Offered {
    let Some(reply) = message.reply else { return Offered::Nothing };
    let attempt = message.headers.as_ref().and_then(|headers| headers.get(ATTEMPT));
    let attempt = attempt.and_then(|value| value.as_str().parse().ok()).unwrap_or(1).max(1);
    let task = match TaskDescriptor::decode_any(&message.payload) {
        Ok(task) => Arc::new(task),
        Err(error) => {
            warn!(%error, "the offer is not a task");
            let cause = match error {
                DecodeError::Codec { .. } => Cause::CodecVersion,
                _ => Cause::BadDescriptor,
            };
            let failed = Failed::new(cause, error.to_string());
            say(broker, reply, None, &Taken::Refused(failed)).await;
            return Offered::Nothing;
        }
    };
    let Holder { worker, host, pid } = holder.clone();
    let (index, round, execution) = (task.index, task.round, Execution::random());
    let v = limits::WIRE_VERSION;
    let lease = Lease { v, index, round, execution, attempt, worker, host, pid, more: None };
    Offered::Offer(Offer {
        inner: Arc::new(Inner {
            broker: broker.clone(),
            id: task.id(),
            task,
            withdrawals: format!("{}.{}", inbox, lease.execution),
            lease,
            reply,
            withdrawn: CancellationToken::new(),
            heard: Mutex::new(Instant::now()),
        }),
    })
}

fn withdrawn(message: &Message) -> Option<Execution> {
    let verdict: Verdict = serde_json::from_slice(&message.payload).ok()?;
    if verdict != Verdict::Withdrawn {
        return None;
    }
    message.subject.rsplit('.').next()?.parse().ok()
}

async fn say(broker: &Broker, to: Subject, back_to: Option<String>, taken: &Taken) {
    let payload = serde_json::to_vec(taken).unwrap_or_default();
    let client = broker.client();
    let said = match back_to {
        Some(inbox) => client.publish_with_reply(to, inbox, payload.into()).await,
        None => client.publish(to, payload.into()).await,
    };
    if let Err(error) = said {
        debug!(%error, "offer not answered");
    }
}

/// One task that was offered to a slot of ours. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Offer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    broker: Broker,
    id: TaskId,
    task: Arc<TaskDescriptor>,
    lease: Lease,
    reply: Subject,
    withdrawals: String,
    withdrawn: CancellationToken,
    /// When its gatherer was last heard.
    heard: Mutex<Instant>,
}

impl Offer {
    /// Which task.
    #[must_use]
    pub fn id(&self) -> &TaskId {
        &self.inner.id
    }

    /// The descriptor.
    #[must_use]
    pub fn task(&self) -> &Arc<TaskDescriptor> {
        &self.inner.task
    }

    /// The execution that the lease is for.
    #[must_use]
    pub fn execution(&self) -> &Execution {
        &self.inner.lease.execution
    }

    /// Which attempt it is, from 1, by the gatherer's count.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.inner.lease.attempt
    }

    /// Takes it: from now on there is a lease. Says that its worker would take so many `more` at once.
    pub async fn take(&self, more: usize) {
        let more = Some(u32::try_from(more).unwrap_or(u32::MAX));
        let taken = Taken::Lease(Lease { more, ..self.inner.lease.clone() });
        let (reply, inbox) = (self.inner.reply.clone(), self.inner.withdrawals.clone());
        say(&self.inner.broker, reply, Some(inbox), &taken).await;
    }

    /// Leaves it to another.
    pub async fn pass(&self) {
        say(&self.inner.broker, self.inner.reply.clone(), None, &Taken::Busy).await;
    }

    /// Notes that the lease is over.
    pub fn withdraw(&self) {
        self.inner.withdrawn.cancel();
    }

    /// Resolves when the lease is over: nobody waits for what comes of it.
    pub async fn withdrawn(&self) {
        self.inner.withdrawn.cancelled().await;
    }

    /// Whether the lease is over.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.inner.withdrawn.is_cancelled()
    }

    fn gone(&self) -> bool {
        let heard = *self.inner.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.elapsed() >= limits::GATHERER_GONE_AFTER
    }

    /// One question to the gatherer; None if nobody is there.
    async fn ask(
        &self,
        subject: String,
        payload: Vec<u8>,
        within: Duration,
    ) -> Result<Option<Verdict>, Error> {
        let during = Error::during("ask the gatherer");
        let asking = self.inner.broker.client().request(subject, payload.into());
        let answer = match tokio::time::timeout(within, asking).await {
            Ok(Ok(message)) => {
                serde_json::from_slice(&message.payload).map_err(|e| during.lost(e))?
            }
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => return Ok(None),
            Ok(Err(error)) => return Err(during.lost(error)),
            Err(error) => return Err(during.lost(error)),
        };
        *self.inner.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Ok(Some(answer))
    }

    /// Renews the lease; notes it as over when the gatherer says so, or has said nothing for
    /// [`limits::GATHERER_GONE_AFTER`].
    pub async fn renew(&self) {
        let subject = subjects::renew(&self.inner.id.bag);
        let asked = self.ask(subject, json(&self.inner.lease), limits::LEASE_RENEWAL).await;
        match asked {
            Ok(Some(Verdict::Withdrawn)) => self.withdraw(),
            Ok(Some(Verdict::HaveIt(other))) if other.decides(&self.inner.id) => self.withdraw(),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) if self.gone() => {
                warn!(task = %self.inner.id, "the gatherer is gone, its task is given up");
                self.withdraw();
            }
            Ok(None) => debug!(task = %self.inner.id, "nobody renews the lease"),
            Err(error) => debug!(%error, task = %self.inner.id, "lease not renewed"),
        }
    }

    /// Gives the task back, and says why. The gatherer decides when it is offered again.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: the lease then decides.
    pub async fn give_back(&self, failed: Failed) -> Result<(), Error> {
        let back = GivenBack { lease: self.inner.lease.clone(), failed };
        let subject = subjects::give_back(&self.inner.id.bag);
        // No gatherer: it is outstanding to the next one.
        self.ask(subject, json(&back), limits::REQUEST_TIMEOUT).await?;
        Ok(())
    }

    /// Hands an outcome over, until the gatherer has decided about it; then it is in the ledger.
    ///
    /// Gives up when the gatherer is gone: at once if `leaving`, otherwise after
    /// [`limits::GATHERER_GONE_AFTER`].
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: nobody took it, or the bytes of the output are not there any more. The task is
    /// outstanding, and will be executed again.
    pub async fn conclude(
        &self,
        result: &TaskResult,
        leaving: &CancellationToken,
    ) -> Result<Committed, Error> {
        let during = Error::during("hand an outcome over");
        let subject = subjects::outcome(&self.inner.id.bag);
        let payload = result.encode();
        loop {
            let asked = self.ask(subject.clone(), payload.clone(), limits::REQUEST_TIMEOUT).await;
            let wait = match asked {
                Ok(Some(Verdict::Counted)) => return Ok(Committed::Mine),
                Ok(Some(Verdict::HaveIt(other))) if other.decides(&self.inner.id) => {
                    return Ok(Committed::Other(other));
                }
                Ok(Some(Verdict::Withdrawn)) => {
                    return Err(during.lost("the gatherer wants it again"));
                }
                // An outcome of another task is no answer.
                Ok(Some(Verdict::HaveIt(_) | Verdict::Held | Verdict::Wait { .. })) => {
                    limits::RETRY_WAIT * 4
                }
                Ok(None) if leaving.is_cancelled() => {
                    return Err(during.lost("the bag has no gatherer"));
                }
                Ok(None) | Err(_) if self.gone() => return Err(during.lost("the gatherer is gone")),
                Ok(None) | Err(_) => limits::RETRY_WAIT,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = leaving.cancelled(), if !leaving.is_cancelled() => {}
            }
        }
    }
}

fn json(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).unwrap_or_default()
}
