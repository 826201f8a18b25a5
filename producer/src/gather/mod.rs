//! Follows a bag until every task has an outcome.

pub(crate) mod accept;
#[cfg(test)]
mod any_order;
mod ends;
mod fetch;
mod outcomes;
mod patience;
mod progress;
mod rerun;
mod room;
pub(crate) mod standstill;
pub(crate) mod vanished;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bagpress_broker::descriptor::{DeliveryPath, ResultPath};
use bagpress_broker::result::Cause;
use bagpress_broker::{BagState, Broker, Results, limits, quote};
use bagpress_objstore::is_too_many;
use bagpress_objstore::staging::{Parts, Receiver};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::claim::buckets::output_bucket;
use crate::claim::lease::BagLease;
use crate::claim::line::begun_line;
use crate::claim::requirements::require;
use crate::deliver::dispatch::Dispatch;
use crate::deliver::journal::Journal;
use crate::deliver::offers::Table;
use crate::deliver::wake::{Waker, Waking};
use crate::deliver::watch::Watch;
use crate::error::Cancelled;
use crate::error::Stalled;
use crate::gather::accept::{Accepted, Acceptor, syncer_of};
use crate::gather::ends::Ends;
use crate::gather::outcomes::{Batch, Outcomes};
use crate::gather::progress::Progress;
use crate::gather::room::Room;
use crate::gather::vanished::Vanished;
use crate::publish::Publisher;
use crate::run_folder::attempts::{self, History};
use crate::run_folder::folder::{FOLDERS, RunFolder, SUMMARY};
use crate::run_folder::inputs::folders;
use crate::run_folder::ledger::Bits;
use crate::run_folder::lock::GatherLock;
use crate::run_folder::plan::BagPlan;
pub use crate::run_folder::plan::open_plan;
use crate::run_folder::specification::Specification;

/// How a bag is followed.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Options {
    /// Give up when nothing happened for this long.
    pub stall_timeout: Duration,
    /// Give up after this long.
    pub deadline: Option<Duration>,
    /// Stop, with an error, after so many failures.
    pub max_fails: Option<u64>,
    /// Run the failed tasks again.
    pub retry_failed: bool,
    /// Hash every output, and run again what is missing or bad.
    pub repair: bool,
    /// Go on with a bag that was cancelled.
    pub resume: bool,
    /// Whether this is a new bag, of which nothing can be known yet.
    pub fresh: bool,
    /// Show progress.
    pub progress: bool,
    /// Process ids of local workers that ended.
    pub ended: mpsc::Receiver<u32>,
    /// Ends the gathering.
    pub stop: CancellationToken,
}

/// What gathering came to.
#[derive(Debug)]
pub struct Gathered {
    /// The plan, with the ledger.
    pub plan: BagPlan,
    /// First publish to last outcome counted, on our monotonic clock.
    pub makespan: Duration,
    /// Workers that were lost meanwhile.
    pub workers_lost: u64,
    /// Executions that came too late, as far as their workers have said so.
    pub duplicates: u64,
    /// Deliveries that were given back, by cause.
    pub given_back: BTreeMap<Cause, u64>,
}

/// Publishes what is not decided and follows the bag to its end.
///
/// # Errors
///
/// [`Stalled`], [`crate::error::Interrupted`], [`crate::error::Unwritable`], or what cannot be cured by waiting.
pub async fn gather(
    broker: &Broker,
    folder: &RunFolder,
    lock: &GatherLock,
    plan: BagPlan,
    options: Options,
) -> Result<Gathered> {
    let specification = plan.specification.clone();
    let lease = if require(broker, &specification).await? {
        BagLease::take(broker, lock, begun_line(&plan), options.resume).await?
    } else {
        BagLease::of_the_lock_alone(broker, lock)
    };
    let begun = begun_line(&plan);
    let mut gathering = match Gathering::start(broker, folder, plan, options, lease.clone()).await {
        Ok(gathering) => gathering,
        Err(error) => {
            // Nobody is to wait for a gatherer that never began.
            lease.release(begun).await.ok();
            return Err(error);
        }
    };
    let followed = gathering.follow().await;
    gathering.progress.finish();
    gathering.outcomes.close().await;
    gathering.watching.abort();
    gathering.listening.abort();
    let records = gathering.outcomes.records();
    // What the server knows of attempts goes with it, in local mode.
    // A disk that hangs is not waited for when the bag is over.
    let keeping = attempts::keep(broker, &specification.bag, folder, records);
    let history = tokio::time::timeout(limits::DISK_WAIT, keeping).await.unwrap_or_default();
    if let Err(error) = followed {
        gathering.give_up(&error).await;
        return Err(error);
    }
    gathering.finish(history).await
}

pub(crate) struct Gathering {
    pub(crate) broker: Broker,
    pub(crate) plan: BagPlan,
    pub(crate) options: Options,
    pub(crate) acceptor: Arc<Acceptor>,
    pub(crate) parts: Option<Arc<Parts>>,
    pub(crate) receiver: Option<Receiver>,
    pub(crate) publisher: Publisher,
    pub(crate) outcomes: Outcomes,
    pub(crate) watch: Watch,
    pub(crate) watching: tokio::task::JoinHandle<()>,
    pub(crate) lease: BagLease,
    pub(crate) listening: tokio::task::JoinHandle<()>,
    /// Input bytes and tasks that were done before.
    pub(crate) before: (u64, u64),
    /// Why the bag does not move.
    pub(crate) waits: Option<String>,
    pub(crate) progress: Progress,
    pub(crate) began: Instant,
    pub(crate) last_outcome: Instant,
    pub(crate) last_progress: Instant,
    pub(crate) last_unheld: Instant,
    pub(crate) last_check: Instant,
    pub(crate) room: Room,
    pub(crate) waking: Waking,
    pub(crate) vanished: Vanished,
    /// What the server has no more, as an error says it.
    pub(crate) missing: Option<String>,
    /// The connection after which the bag was last looked at for what the broker forgot, or
    /// [`LOOK_AGAIN`](crate::gather::standstill::LOOK_AGAIN).
    pub(crate) reconnects: u64,
    /// With which connection the buckets were there.
    pub(crate) buckets_seen: u64,
    pub(crate) last_remake: Instant,
    /// Tasks that were waiting when a reconciliation began: the results are read behind it.
    pub(crate) reconciling: Option<Bits>,
    /// Whether every output is being read back, before anything else.
    pub(crate) reading_back: bool,
    pub(crate) publishing: Option<tokio::task::JoinHandle<Result<()>>>,
    /// Whether it was never summed up: then nobody has taken its outputs away on purpose.
    pub(crate) unfinished: bool,
    /// What ends it before it is complete.
    ends: Ends,
    /// What outcomes that came cannot be counted for, though it passes.
    pub(crate) blocked: Option<String>,
}

impl Gathering {
    async fn start(
        broker: &Broker,
        folder: &RunFolder,
        plan: BagPlan,
        mut options: Options,
        lease: BagLease,
    ) -> Result<Self> {
        let specification = plan.specification.clone();
        let parts = open_parts(folder, &specification).await?;
        let serves = specification.results == ResultPath::Staged
            && (parts.is_some() || plan.inputs.is_some());
        let mut receiver = None;
        if serves {
            let folder = match &parts {
                Some(parts) => parts.clone(),
                None => Arc::new(Parts::open(&folder.results(), &specification.bag)?),
            };
            let plan: Arc<BagPlan> = Arc::new(plan.clone());
            receiver = Some(Receiver::start(broker, &specification.bag, folder, plan).await?);
        }
        let syncer = match &parts {
            Some(parts) => Some((parts.clone(), syncer_of(parts, receiver.as_ref())?)),
            None => None,
        };
        let mut bucket = None;
        if specification.has_objects() {
            bucket = Some(output_bucket(broker, &plan).await?);
        }
        let (_, empty) = mpsc::channel(1);
        let ended = std::mem::replace(&mut options.ended, empty);
        let offered = specification.delivery == DeliveryPath::QueueGroup;
        let mut table = None;
        if offered {
            let ledger = &plan.ledger;
            let (file, past) = attempts::past(folder, |key| ledger.is_open(key))?;
            let journal = Journal::new(broker, &specification.bag, lease.is_written(), file);
            table = Some(Arc::new(Table::new(specification.attempts, past, journal)));
        }
        let (watch, watching) =
            Watch::start(broker, &specification.bag, &specification.pool, table.clone(), ended)
                .await?;
        let (outcomes, hand_in) = match table {
            None => (Outcomes::Committed(Results::of(broker, &specification.bag)), None),
            Some(table) => {
                let started = Dispatch::start(broker, &plan, table, watch.clone()).await?;
                let (dispatch, receiver) = started;
                let hand_in = dispatch.hand_in.clone();
                (Outcomes::Handed { dispatch, receiver, later: Vec::new() }, Some(hand_in))
            }
        };
        let publisher = Publisher::new(broker, &plan, hand_in).await?;
        let stats = specification.stats.then(|| folder.held_results()).transpose()?;
        let progress = Progress::start(&specification, options.progress);
        let writing = tokio::sync::Mutex::default();
        let (plan_of, rounds) = (plan.clone(), lease.rounds());
        let acceptor = Acceptor { plan: plan_of, parts: syncer, bucket, stats, writing, rounds };
        let acceptor = Arc::new(acceptor);
        let listening = lease.listen(&begun_line(&plan)).await?;
        let before = plan.ledger.tally(|tally| (tally.input_bytes, tally.decided()));
        let waking = Waking::new(Waker::new(broker, &plan, &watch));
        if outcomes.is_committed() {
            waking.waker.say_gathers().await;
        }
        let now = Instant::now();
        let ends = Ends::new(broker, &lease, &options, now);
        let summed_up = folder.has(SUMMARY);
        Ok(Self {
            unfinished: !options.fresh && !summed_up,
            ends,
            blocked: None,
            broker: broker.clone(),
            outcomes,
            plan,
            options,
            acceptor,
            parts,
            receiver,
            publisher,
            watch,
            watching,
            lease,
            listening,
            before,
            waits: None,
            progress,
            began: now,
            last_outcome: now,
            last_progress: now,
            last_unheld: now,
            last_check: now,
            room: Room::new(),
            waking,
            vanished: Vanished::default(),
            missing: None,
            reconnects: broker.connects(),
            buckets_seen: broker.connects(),
            last_remake: now,
            reconciling: None,
            reading_back: false,
            publishing: None,
        })
    }

    /// Follows the bag to its end, or until it is to be left: whatever it waits for then is waited for no more.
    async fn follow(&mut self) -> Result<()> {
        let ends = self.ends.clone();
        let over = tokio::select! {
            followed = self.follow_to_its_end() => return followed,
            over = ends.over() => over,
        };
        Err(over.error(&self.line(BagState::Cancelled)))
    }

    async fn follow_to_its_end(&mut self) -> Result<()> {
        self.rerun().await?;
        if self.outcomes.is_committed() && !self.options.fresh {
            self.begin_reconcile().await?;
        } else {
            if !self.options.fresh {
                self.look_for_objects().await?;
            }
            self.publish_all();
        }
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last_line = Instant::now().checked_sub(Duration::from_secs(1));
        while !self.complete() {
            tokio::select! {
                batch = self.outcomes.next_batch() => match batch {
                    Ok(batch) => self.take(batch).await?,
                    Err(error) => {
                        debug!(%error, "results not readable now");
                        tokio::time::sleep(limits::RETRY_WAIT).await;
                    }
                },
                _ = ticks.tick() => {
                    self.check().await?;
                    if last_line.is_none_or(|at| at.elapsed() >= limits::GATHERER_RENEWAL) {
                        last_line = Some(Instant::now());
                        self.lease.renew(self.line(BagState::Running));
                    }
                }
                published = published(&mut self.publishing) => {
                    self.publishing_ended();
                    published??;
                }
            }
        }
        self.last_progress = Instant::now();
        Ok(())
    }

    /// Publishes, or hands in for offering, every task that is not decided.
    pub(crate) fn publish_all(&mut self) {
        let publisher = self.publisher.clone();
        let ledger = self.plan.ledger.clone();
        // Their next round begins by itself.
        let later: HashSet<_> = self.vanished.waiting().collect();
        self.publishing = Some(tokio::spawn(async move {
            let wanted = |index| !ledger.is_decided(index) && !later.contains(&index);
            publisher.publish(true, wanted).await
        }));
    }

    async fn take(&mut self, batch: Batch) -> Result<()> {
        match batch {
            Batch::Committed(mut batch) => {
                while !batch.is_empty() {
                    let mut accepted = self.accept(batch).await?;
                    batch = std::mem::take(&mut accepted.later);
                    accepted.lost.append(&mut accepted.lost_inputs);
                    batch.extend(self.vanish(std::mem::take(&mut accepted.lost)).await);
                    self.accepted(accepted).await?;
                }
            }
            Batch::Handed(batch) => self.take_handed(batch).await?,
        }
        if self.outcomes.caught_up()
            && self.publishing.is_none()
            && self.lease.is_held()
            && let Some(mut waiting) = self.reconciling.take()
        {
            for index in self.look_for_objects().await? {
                waiting.set(index, false); // what may wait is of a round before
            }
            self.submit_missing(waiting).await;
        }
        Ok(())
    }

    pub(crate) async fn accepted(&mut self, accepted: Accepted) -> Result<()> {
        for result in &accepted.counted {
            if let Some(receiver) = &self.receiver {
                receiver.decided(result.index);
            }
            self.watch.decided(result);
            self.vanished.decided(result.index);
        }
        self.publisher.free_inputs(accepted.counted.iter().map(|result| result.index)).await;
        if !accepted.counted.is_empty() {
            self.last_outcome = Instant::now();
        }
        if let Some(most) = self.options.max_fails {
            let failed = self.plan.ledger.tally(|tally| tally.failed);
            if failed > most {
                return Err(Stalled(format!(
                    "{failed} tasks failed, more than --max-fails {most}"
                ))
                .into());
            }
        }
        Ok(())
    }

    /// Lets go of a bag that has not come to its end.
    async fn give_up(mut self, error: &anyhow::Error) {
        if let Some(publishing) = self.publishing.take() {
            publishing.abort();
            // It is gone when this returns, with an error that says so.
            drop(publishing.await);
        }
        if tokio::time::timeout(limits::DISK_WAIT, self.acceptor.finish()).await.is_err() {
            warn!("the last stats files may be missing");
        }
        let mut state = BagState::Running;
        if error.is::<Cancelled>() {
            state = BagState::Cancelled;
            // What was published between the cancellation and our hearing of it.
            if self.outcomes.is_committed()
                && let Err(error) = self.broker.purge_tasks(&self.plan.specification.bag).await
            {
                warn!(%error, "tasks of a cancelled bag may wait; workers drop them");
            }
        }
        if let Err(error) = self.lease.release(self.line(state)).await {
            warn!(%error, "the bag's line not written, its lease runs out");
        }
    }

    async fn finish(self, history: History) -> Result<Gathered> {
        if let Err(error) = self.lease.release(self.line(BagState::Finished)).await {
            warn!(%error, "the bag's line not written");
        }
        self.acceptor.finish().await;
        self.publisher.remove_inputs().await;
        // A bag without outputs has a folder for them too, if it asks for its files.
        let parts = self.receiver.as_ref().map(|receiver| receiver.parts().clone()).or(self.parts);
        drop(self.receiver);
        if let Some(parts) = parts {
            if let Some((count, first)) = parts.undressed() {
                crate::error::message(&format!(
                    "note: {count} outputs do not have the mode and time of their source: {first}"
                ));
            }
            // Files that were open for workers are being closed just now.
            while let Err(error) = parts.remove() {
                if !is_too_many(&error) {
                    return Err(error).context("remove the part files");
                }
                sleep(limits::RETRY_WAIT).await;
            }
        }
        let first = self.publisher.first().unwrap_or(self.began);
        Ok(Gathered {
            makespan: self.last_outcome.max(first) - first,
            plan: self.plan,
            workers_lost: self.watch.lost(),
            duplicates: history.duplicates,
            given_back: history.given_back,
        })
    }
}

/// The place of the outputs, with the folders that have no file, if outputs become files.
async fn open_parts(
    folder: &RunFolder,
    specification: &Specification,
) -> Result<Option<Arc<Parts>>> {
    if !specification.has_files() {
        return Ok(None);
    }
    let root = specification.output_root(folder);
    let opened = Parts::open(&root, &specification.bag);
    let opened = opened.with_context(|| format!("make {}", quote::name(&root)))?;
    folders::make_or_say(folder.open(FOLDERS)?, &root).await?;
    Ok(Some(Arc::new(opened)))
}

async fn published(
    publishing: &mut Option<tokio::task::JoinHandle<Result<()>>>,
) -> Result<Result<()>, tokio::task::JoinError> {
    match publishing {
        Some(publishing) => publishing.await,
        None => std::future::pending().await,
    }
}
