//! The lease of a bag's one gatherer: the bag's line in KV `bags`, which one task of ours renews.
//!
//! A holder that was silent for too long learns that the bag was taken over at its next write, which names a revision
//! that is no longer there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use anyhow::Result;
use bagpress_broker::ids::random_base32;
use bagpress_broker::result::wall_clock_us;
use bagpress_broker::{BagLine, BagState, Broker, Error, Gatherer, limits, machine};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::claim::finding::{Finding, Overwritten, finding, obstacle};
use crate::claim::holder;
use crate::error::{Cancelled, Usage};
use crate::run_folder::lock::GatherLock;

/// What is asked of the keeper at a time; each asker waits for its answer.
const REQUESTS: usize = 4;

/// Held by the one gatherer of a bag. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct BagLease {
    broker: Broker,
    /// Whether there is a line to write: a broker without streams has none.
    written: bool,
    /// The highest round that any gatherer had begun when we took it.
    rounds: u32,
    standing: watch::Sender<Standing>,
    /// Renewals that were lost since one was stored.
    lost: Arc<AtomicU32>,
    /// The newest line to renew it with.
    renewal: watch::Sender<Option<BagLine>>,
    requests: mpsc::Sender<Request>,
}

/// Whether we still gather the bag.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Held,
    Cancelled,
    /// Another took it over: we were silent for too long.
    Taken(Option<Gatherer>),
}

/// What the keeper is asked for.
#[derive(Debug)]
enum Request {
    Confirm(BagLine, oneshot::Sender<bool>),
    Release(BagLine, oneshot::Sender<Result<(), Error>>),
}

impl BagLease {
    /// Takes the lease and writes `line`; waits for the end of one that is not renewed.
    ///
    /// # Errors
    ///
    /// [`Usage`] naming the holder, if it lives; [`Cancelled`] unless `resume`; the broker's errors.
    pub(crate) async fn take(
        broker: &Broker,
        lock: &GatherLock,
        line: BagLine,
        resume: bool,
    ) -> Result<Self> {
        let me = me(lock);
        let mut found = holder::look(broker, &line.bag).await?;
        let mut rounds = line.rounds;
        loop {
            rounds = found.line.as_ref().map_or(0, |there| there.rounds).max(rounds);
            if let Some(obstacle) = obstacle(&found, Some(&me.lock), resume) {
                found = holder::outlast(broker, &line.bag, found, obstacle).await?;
                continue;
            }
            let line = BagLine { gatherer: Some(me.clone()), rounds, ..line.clone() };
            if let Some(revision) = broker.write_bag(&line, found.revision).await? {
                return Ok(Self::held(broker, me, Some(revision), rounds));
            }
            found = holder::look(broker, &line.bag).await?;
        }
    }

    /// A lease where there is nowhere to write one: the run folder's lock alone keeps others out.
    pub(crate) fn of_the_lock_alone(broker: &Broker, lock: &GatherLock) -> Self {
        Self::held(broker, me(lock), None, 0)
    }

    /// A lease that was written as `revision` of the bag's line, if at all.
    fn held(broker: &Broker, me: Gatherer, revision: Option<u64>, rounds: u32) -> Self {
        let (requests, requested) = mpsc::channel(REQUESTS);
        let (renewal, renewals) = watch::channel(None);
        let (standing, _) = watch::channel(Standing::Held);
        let lost = Arc::default();
        let keeper = Keeper {
            broker: broker.clone(),
            me,
            rounds,
            revision,
            standing: standing.clone(),
            lost: Arc::clone(&lost),
            overwritten: Overwritten::default(),
        };
        tokio::spawn(keeper.keep(requested, renewals));
        let (broker, written) = (broker.clone(), revision.is_some());
        Self { broker, written, rounds, standing, lost, renewal, requests }
    }

    /// The highest round that any gatherer had begun of any task when we took it.
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds
    }

    /// Whether it is in the bag's line: the broker has our streams.
    pub(crate) fn is_written(&self) -> bool {
        self.written
    }

    /// Has the lease renewed; one renewal at a time, with the newest line. Does not wait.
    pub(crate) fn renew(&self, line: BagLine) {
        self.renewal.send_replace(Some(line));
    }

    /// Renews the lease now. Says whether it is known that nobody has taken the bag from us.
    pub(crate) async fn confirm(&self, line: BagLine) -> bool {
        let (answer, answered) = oneshot::channel();
        // Its keeper has ended only if it was released: then the bag is not ours.
        self.requests.send(Request::Confirm(line, answer)).await.ok();
        answered.await.unwrap_or(false)
    }

    /// Whether the bag is ours, as far as we have heard.
    pub(crate) fn is_held(&self) -> bool {
        *self.standing.borrow() == Standing::Held
    }

    /// Renewals that were lost since one was stored.
    #[must_use]
    pub(crate) fn lost(&self) -> u32 {
        self.lost.load(Relaxed)
    }

    /// Writes a last line, which nobody holds. Nothing is written after it.
    ///
    /// # Errors
    ///
    /// The broker's; the lease runs out then.
    pub(crate) async fn release(&self, line: BagLine) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        // The answer says that nobody took it.
        self.requests.send(Request::Release(line, answer)).await.ok();
        let gone = |_| Err(Error::lost("write the bag's line")(&"its lease was released before"));
        answered.await.unwrap_or_else(gone)
    }

    /// Looks at the line at once when the event comes, for as long as the gathering lasts.
    ///
    /// # Errors
    ///
    /// The broker's.
    pub(crate) async fn listen(&self, line: &BagLine) -> Result<tokio::task::JoinHandle<()>> {
        let mut events = self.broker.cancellations(Some(&line.bag)).await?;
        let (standing, broker) = (self.standing.clone(), self.broker.clone());
        Ok(tokio::spawn(async move {
            while let Some(bag) = events.next().await {
                match broker.find_bag(&bag).await {
                    Ok(found) if found.is_called_off() => {
                        standing.send_if_modified(|standing| {
                            let held = *standing == Standing::Held;
                            if held {
                                *standing = Standing::Cancelled;
                            }
                            held
                        });
                    }
                    Ok(_) => debug!("an event of a cancellation, and no line that says so"),
                    Err(error) => debug!(%error, "the next renewal finds out"),
                }
            }
        }))
    }

    /// Waits until the bag is no longer ours, and says why. Cancel-safe.
    pub(crate) async fn ended(&self) -> LeaseEnd {
        let mut standing = self.standing.subscribe();
        let ended = standing.wait_for(|standing| *standing != Standing::Held).await;
        match ended.map(|standing| standing.clone()) {
            Ok(Standing::Cancelled) => LeaseEnd::Cancelled,
            Ok(Standing::Taken(by)) => LeaseEnd::Taken(by),
            Ok(Standing::Held) | Err(_) => std::future::pending().await,
        }
    }
}

/// The task that writes the line, and nobody else does.
#[derive(Debug)]
struct Keeper {
    broker: Broker,
    me: Gatherer,
    rounds: u32,
    /// The revision that we wrote last; none where there is nowhere to write.
    revision: Option<u64>,
    standing: watch::Sender<Standing>,
    lost: Arc<AtomicU32>,
    overwritten: Overwritten,
}

impl Keeper {
    /// Ends when the lease is released, or every handle to it is dropped.
    async fn keep(
        mut self,
        mut requests: mpsc::Receiver<Request>,
        mut renewals: watch::Receiver<Option<BagLine>>,
    ) {
        loop {
            tokio::select! {
                biased;
                request = requests.recv() => match request {
                    Some(Request::Confirm(line, answer)) => {
                        // An asker that is gone needs no answer.
                        answer.send(self.confirm(line).await).ok();
                    }
                    Some(Request::Release(line, answer)) => {
                        let line = BagLine { gatherer: None, ..line };
                        answer.send(self.write(line).await).ok();
                        return;
                    }
                    None => return,
                },
                Ok(()) = renewals.changed() => {
                    let line = renewals.borrow_and_update().clone();
                    // A bag that is no longer ours is not written over, as long as that is not asked for.
                    if let Some(line) = line.filter(|_| self.is_held()) {
                        self.renew(line).await;
                    }
                }
            }
        }
    }

    fn is_held(&self) -> bool {
        *self.standing.borrow() == Standing::Held
    }

    async fn renew(&mut self, line: BagLine) {
        let line = BagLine { gatherer: Some(self.me.clone()), ..line };
        match self.write(line).await {
            Ok(()) => self.lost.store(0, Relaxed),
            Err(error) => {
                self.lost.fetch_add(1, Relaxed);
                debug!(%error, "lease not renewed now");
            }
        }
    }

    async fn confirm(&mut self, line: BagLine) -> bool {
        let line = BagLine { gatherer: Some(self.me.clone()), ..line };
        match self.write(line).await {
            // Where there are no lines, none says that another has it.
            Ok(()) | Err(Error::Missing { .. }) => self.is_held(),
            Err(error) => {
                debug!(%error, "no confirmation that the bag is still ours");
                false
            }
        }
    }

    async fn write(&mut self, line: BagLine) -> Result<(), Error> {
        let Some(mut revision) = self.revision else { return Ok(()) };
        let line = BagLine { rounds: line.rounds.max(self.rounds), ..line };
        for _ in 0..limits::COMMIT_TRIES {
            if let Some(written) = self.broker.write_bag(&line, revision).await? {
                self.revision = Some(written);
                return Ok(());
            }
            let found = self.broker.find_bag(&line.bag).await?;
            match finding(&found, &self.me.id, &mut self.overwritten, Instant::now()) {
                Finding::Ours => {}
                Finding::Junk(why) => {
                    warn!(why, "the bag's line was unreadable, it is written again");
                }
                Finding::Unknown(why) => {
                    let text = format!("it was overwritten with what cannot be read: {why}");
                    return Err(Error::lost("write the bag's line")(&text));
                }
                Finding::Cancelled => {
                    self.standing.send_replace(Standing::Cancelled);
                    if line.state != BagState::Cancelled {
                        self.revision = Some(found.revision);
                        return Ok(());
                    }
                }
                // The revision stays as it is: what is there must not be written over.
                Finding::Removed => {
                    self.standing.send_replace(Standing::Cancelled);
                    return Ok(());
                }
                Finding::Taken(by) => {
                    self.standing.send_replace(Standing::Taken(by));
                    return Ok(());
                }
            }
            revision = found.revision;
            self.revision = Some(revision);
        }
        Err(Error::lost("write the bag's line")(&"it keeps changing"))
    }
}

fn me(lock: &GatherLock) -> Gatherer {
    Gatherer {
        id: random_base32::<10>(),
        host: machine::host(),
        pid: std::process::id(),
        since_us: wall_clock_us(),
        lock: lock.identity().to_owned(),
        processes: machine::processes(),
    }
}

/// Why the bag is no longer ours.
#[derive(Debug)]
pub(crate) enum LeaseEnd {
    Cancelled,
    Taken(Option<Gatherer>),
}

impl LeaseEnd {
    /// As an error; `line` is the bag as we know it.
    pub(crate) fn error(self, line: &BagLine) -> anyhow::Error {
        match self {
            Self::Cancelled => Cancelled::of(line).into(),
            Self::Taken(by) => {
                let by = by.map_or_else(|| "somebody else".to_owned(), |by| by.to_string());
                Usage::error(
                    format!(
                        "the bag was taken over by {by}, because this process was silent for too long"
                    ),
                    "let that process gather the bag; `bagpress status` shows its progress",
                )
            }
        }
    }
}
