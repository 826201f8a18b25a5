//! Follows a bag until every task has an outcome.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::result::wall_clock_us;
use bagpress_broker::{BagLine, BagState, Broker, Results, limits};
use bagpress_objstore::staging::{Parts, Plan as _, Receiver, Syncer, hash_file};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::accept::{Acceptor, output_bucket};
use crate::folder::RunFolder;
use crate::inputs::InputList;
use crate::ledger::{Bits, Ledger};
use crate::plan::BagPlan;
use crate::progress::{Progress, Seen};
use crate::publish::Publisher;
use crate::spec::{Data, Specification};
use crate::watch::Watch;
use crate::{Interrupted, Stalled};

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
}

/// Opens a run's plan.
///
/// # Errors
///
/// If its files cannot be read.
pub fn open_plan(folder: &RunFolder, specification: Specification) -> Result<BagPlan> {
    let inputs = match specification.data {
        Data::Files { .. } => {
            let path = folder.inputs();
            let list =
                InputList::open(&path).with_context(|| format!("read {}", path.display()))?;
            Some(Arc::new(list))
        }
        Data::Generated { .. } => None,
    };
    let path = folder.manifest();
    let ledger = Ledger::open(&path, specification.tasks);
    let ledger = ledger.with_context(|| format!("open {}", path.display()))?;
    for bad in &ledger.bad_lines {
        warn!(line = bad.number, why = bad.why, "ledger line skipped");
    }
    Ok(BagPlan { specification: Arc::new(specification), inputs, ledger: Arc::new(ledger) })
}

/// Publishes what is not decided and follows the bag to its end.
///
/// # Errors
///
/// [`Stalled`], [`Interrupted`], or what cannot be cured by waiting.
pub async fn gather(
    broker: &Broker,
    folder: &RunFolder,
    plan: BagPlan,
    options: Options,
) -> Result<Gathered> {
    let _lock = folder.lock()?;
    let mut gathering = Gathering::start(broker, folder, plan, options).await?;
    let followed = gathering.follow().await;
    gathering.progress.finish();
    gathering.results.close().await;
    gathering.watching.abort();
    followed?;
    gathering.finish().await
}

struct Gathering {
    broker: Broker,
    plan: BagPlan,
    options: Options,
    acceptor: Acceptor,
    parts: Option<Arc<Parts>>,
    receiver: Option<Receiver>,
    publisher: Publisher,
    results: Results,
    watch: Watch,
    watching: tokio::task::JoinHandle<()>,
    progress: Progress,
    began: Instant,
    last_outcome: Instant,
    last_progress: Instant,
    reconnects: u64,
    /// Tasks that were waiting when a reconciliation began: the results are read behind it.
    reconciling: Option<Bits>,
    publishing: Option<tokio::task::JoinHandle<Result<()>>>,
}

impl Gathering {
    async fn start(
        broker: &Broker,
        folder: &RunFolder,
        plan: BagPlan,
        mut options: Options,
    ) -> Result<Self> {
        let specification = plan.specification.clone();
        let mut parts = None;
        if specification.has_files() {
            let root = specification.output_root(folder);
            let opened = Parts::open(&root).with_context(|| format!("make {}", root.display()))?;
            parts = Some(Arc::new(opened));
        }
        let serves = specification.results == ResultPath::Staged
            && (parts.is_some() || plan.inputs.is_some());
        let mut receiver = None;
        if serves {
            let folder = match &parts {
                Some(parts) => parts.clone(),
                None => Arc::new(Parts::open(&folder.results())?),
            };
            let plan: Arc<BagPlan> = Arc::new(plan.clone());
            receiver = Some(Receiver::start(broker, &specification.bag, folder, plan).await?);
        }
        let syncer = match (&parts, &receiver) {
            (Some(parts), Some(receiver)) => Some((parts.clone(), receiver.syncer().clone())),
            (Some(parts), None) => Some((
                parts.clone(),
                Syncer::start(parts.clone()).context("start the sync thread")?,
            )),
            (None, _) => None,
        };
        let objects =
            specification.results == ResultPath::Objects && !specification.codec.stores_nothing();
        let bucket = if objects { Some(output_bucket(broker, &plan).await?) } else { None };
        let publisher = Publisher::new(broker, &plan).await?;
        let (_, empty) = mpsc::channel(1);
        let ended = std::mem::replace(&mut options.ended, empty);
        let (watch, watching) = Watch::start(broker, &specification.bag, ended).await?;
        let stats = specification.stats.then(|| folder.results());
        let progress = Progress::start(&specification, options.progress);
        let acceptor = Acceptor { plan: plan.clone(), parts: syncer, bucket, stats };
        let now = Instant::now();
        Ok(Self {
            broker: broker.clone(),
            results: Results::of(broker, &specification.bag),
            plan,
            options,
            acceptor,
            parts,
            receiver,
            publisher,
            watch,
            watching,
            progress,
            began: now,
            last_outcome: now,
            last_progress: now,
            reconnects: broker.connects(),
            reconciling: None,
            publishing: None,
        })
    }

    async fn follow(&mut self) -> Result<()> {
        self.rerun().await?;
        if self.options.fresh {
            self.publish_all();
        } else {
            self.begin_reconcile().await;
        }
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last_line = Instant::now().checked_sub(Duration::from_secs(1));
        while !self.complete() {
            tokio::select! {
                batch = self.results.next_batch() => match batch {
                    Ok(batch) => self.take(batch).await?,
                    Err(error) => {
                        debug!(%error, "results not readable now");
                        tokio::time::sleep(limits::RETRY_WAIT).await;
                    }
                },
                _ = ticks.tick() => {
                    self.check().await?;
                    if last_line.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
                        last_line = Some(Instant::now());
                        self.write_line(BagState::Running);
                    }
                }
                published = published(&mut self.publishing) => {
                    self.publishing = None;
                    published??;
                }
                error = self.broker.fatal() => return Err(error.into()),
                () = self.options.stop.cancelled() => {
                    return Err(Interrupted { folder: String::new() }.into());
                }
            }
        }
        self.last_progress = Instant::now();
        Ok(())
    }

    fn complete(&self) -> bool {
        let decided = self.plan.ledger.tally(crate::tally::Tally::decided);
        decided >= u64::from(self.plan.specification.tasks) && self.reconciling.is_none()
    }

    fn publish_all(&mut self) {
        let publisher = self.publisher.clone();
        let ledger = self.plan.ledger.clone();
        self.publishing = Some(tokio::spawn(async move {
            publisher.publish(true, |index| !ledger.is_decided(index)).await
        }));
    }

    /// Begins new rounds for what shall run again, before anything of the old ones is touched.
    async fn rerun(&mut self) -> Result<()> {
        let mut again = Vec::new();
        let ledger = &self.plan.ledger;
        for index in 0..self.plan.specification.tasks {
            if self.options.retry_failed && ledger.is_failed(index) {
                again.push(index);
            }
        }
        if self.options.repair {
            again.extend(self.broken().await?);
        }
        if !again.is_empty() {
            info!(tasks = again.len(), "running again");
            self.run_again(&again).await?;
        }
        Ok(())
    }

    /// Tasks that are done by the ledger, and whose output does not read back.
    async fn broken(&self) -> Result<Vec<u32>> {
        let mut broken = Vec::new();
        let path = self.plan.ledger.path().to_owned();
        let file =
            std::fs::File::open(&path).with_context(|| format!("read {}", path.display()))?;
        let mut done = Vec::new();
        crate::manifest::read(&file, |entry| {
            if let crate::manifest::Entry::Outcome(result) = entry
                && result.round == self.plan.ledger.round(result.index)
                && result.done().is_some()
            {
                done.push(*result);
            }
        })?;
        for result in done {
            let Some(expected) = result.done() else { continue };
            let sound = match (&self.parts, &self.acceptor.bucket) {
                (Some(parts), _) => {
                    let target = parts.root().join(self.plan.target(result.index)?.path);
                    hash_file(&target).is_ok_and(|(digest, _)| digest == expected.output_digest)
                }
                (None, Some(bucket)) => {
                    let name = bagpress_broker::subjects::output_name(result.index);
                    let read = bucket.get(&name, u64::MAX).await;
                    read.is_ok_and(|(info, _)| info.digest == expected.output_digest)
                }
                (None, None) => true,
            };
            if !sound {
                broken.push(result.index);
            }
        }
        Ok(broken)
    }

    async fn run_again(&self, indices: &[u32]) -> Result<()> {
        let begun = self.plan.ledger.begin(indices).context("begin new rounds")?;
        for (index, round) in begun {
            if let Some(bucket) = &self.acceptor.bucket {
                let name = bagpress_broker::subjects::output_name(index);
                if let Ok(bagpress_objstore::object_ref::Lookup::Found(info)) =
                    bucket.info_from_leader(&name).await
                    && let Err(error) = bucket.remove_exactly(&info).await
                {
                    warn!(%error, index, "old object not removed");
                }
            }
            self.publisher.publish_round(index, round).await?;
        }
        Ok(())
    }

    async fn take(&mut self, batch: Vec<bagpress_broker::Followed>) -> Result<()> {
        if !batch.is_empty() {
            let mut batch = Some(batch);
            while let Some(now) = batch.take() {
                let retry = copies(&now);
                match self.acceptor.accept(now).await {
                    Ok(accepted) => self.accepted(accepted).await?,
                    Err(error) => {
                        // Full is not failed: say so, and try again.
                        self.progress.say(&format!("waiting: {error:#}"));
                        tokio::select! {
                            () = tokio::time::sleep(limits::RETRY_WAIT) => batch = Some(retry),
                            () = self.options.stop.cancelled() => {
                                return Err(Interrupted { folder: String::new() }.into());
                            }
                        }
                    }
                }
            }
        }
        if self.results.caught_up()
            && self.publishing.is_none()
            && let Some(waiting) = self.reconciling.take()
        {
            self.submit_missing(waiting);
        }
        Ok(())
    }

    async fn accepted(&mut self, accepted: crate::accept::Accepted) -> Result<()> {
        for result in &accepted.counted {
            self.watch.decided(result);
            self.publisher.free_input(result.index).await;
        }
        if !accepted.counted.is_empty() {
            self.last_outcome = Instant::now();
        }
        if !accepted.lost.is_empty() {
            self.run_again(&accepted.lost).await?;
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

    /// Looks which tasks wait; the results are read from there on, and what has neither is missing.
    async fn begin_reconcile(&mut self) {
        let mut waiting = Bits::new(self.plan.specification.tasks);
        let ledger = self.plan.ledger.clone();
        let seen = self.broker.waiting(&self.plan.specification.bag, |id| {
            if ledger.round(id.index) == id.round {
                waiting.set(id.index, true);
            }
        });
        match seen.await {
            Ok(()) => {
                self.results.close().await;
                self.reconciling = Some(waiting);
            }
            Err(error) => debug!(%error, "not reconciled now"),
        }
    }

    /// Publishes what neither waits nor has a result, without an id that the server may remember.
    fn submit_missing(&mut self, waiting: Bits) {
        let (publisher, ledger) = (self.publisher.clone(), self.plan.ledger.clone());
        self.last_progress = Instant::now();
        self.publishing = Some(tokio::spawn(async move {
            publisher.publish(false, |index| !ledger.is_decided(index) && !waiting.get(index)).await
        }));
    }

    /// Ten times a second: what is shown, what is said, and whether it goes on at all.
    async fn check(&mut self) -> Result<()> {
        let (workers, running) = self.watch.busy();
        self.progress.update(&Seen {
            decided: self.plan.ledger.tally(crate::tally::Tally::decided),
            failed: self.plan.ledger.tally(|tally| tally.failed),
            bytes: self.plan.ledger.tally(|tally| tally.input_bytes),
            workers,
        });
        let quiet = self.last_outcome.elapsed();
        if quiet >= limits::QUIET_NOTICE {
            self.explain(quiet, workers, running).await;
        }
        let reconnected = self.broker.connects() != self.reconnects;
        let still = quiet >= limits::RECONCILE_AFTER
            && self.last_progress.elapsed() >= limits::RECONCILE_AFTER
            && running == 0;
        if (reconnected || still) && self.publishing.is_none() && self.reconciling.is_none() {
            self.reconnects = self.broker.connects();
            self.last_progress = Instant::now();
            self.begin_reconcile().await;
        }
        if let Some(deadline) = self.options.deadline
            && self.began.elapsed() >= deadline
        {
            return Err(Stalled(format!("past its deadline of {deadline:?}")).into());
        }
        if running == 0 && quiet >= self.options.stall_timeout {
            let why = self.reason(workers, running).await;
            return Err(
                Stalled(format!("no outcome for {:?}: {why}", self.options.stall_timeout)).into()
            );
        }
        Ok(())
    }

    async fn explain(&mut self, quiet: Duration, workers: usize, running: usize) {
        // Somebody is at work: a long task is no reason for a word.
        if running > 0 && quiet < limits::RECONCILE_AFTER {
            return;
        }
        if !self.progress.may_say() {
            return;
        }
        let why = self.reason(workers, running).await;
        self.progress.say(&format!("no outcome for {} s: {why}", quiet.as_secs()));
    }

    async fn reason(&self, workers: usize, running: usize) -> String {
        if let Some(why) = self.receiver.as_ref().and_then(Receiver::waiting) {
            return format!("{why}; free some space, the bag goes on by itself");
        }
        if let Some(why) = self.publisher.waiting() {
            return why;
        }
        if self.broker.up_for().is_none() {
            return format!("the broker at {} is out of reach, reconnecting", self.broker.url());
        }
        if running > 0 {
            return format!("{running} tasks are with {workers} workers");
        }
        match self.broker.workers(Duration::from_millis(200)).await {
            Ok(found) if found.is_empty() => {
                let pool = &self.plan.specification.pool;
                format!("no workers listen on pool {pool}; start some with `bagpress worker`")
            }
            Ok(found) => {
                format!("{} workers listen, none has a task of this bag", found.len())
            }
            Err(error) => error.to_string(),
        }
    }

    fn write_line(&self, state: BagState) {
        let line = self.line(state);
        let broker = self.broker.clone();
        tokio::spawn(async move {
            if let Err(error) = broker.write_bag(&line).await {
                debug!(%error, "the bag's line not written");
            }
        });
    }

    fn line(&self, state: BagState) -> BagLine {
        let specification = &self.plan.specification;
        let count = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        BagLine {
            v: limits::WIRE_VERSION,
            bag: specification.bag.clone(),
            state,
            pool: specification.pool.clone(),
            results: specification.results,
            codec: specification.codec.to_string(),
            tasks: specification.tasks,
            done: count(self.plan.ledger.tally(|tally| tally.done)),
            failed: count(self.plan.ledger.tally(|tally| tally.failed)),
            gatherer: format!("{host}/{}", std::process::id()),
            updated_us: wall_clock_us(),
        }
    }

    async fn finish(self) -> Result<Gathered> {
        if let Err(error) = self.broker.write_bag(&self.line(BagState::Finished)).await {
            warn!(%error, "the bag's line not written");
        }
        self.publisher.remove_inputs().await;
        drop(self.receiver);
        if let Some(parts) = &self.parts {
            parts.remove().context("remove the part files")?;
        }
        let first = self.publisher.first().unwrap_or(self.began);
        Ok(Gathered {
            makespan: self.last_outcome.max(first) - first,
            plan: self.plan,
            workers_lost: self.watch.lost(),
        })
    }
}

async fn published(
    publishing: &mut Option<tokio::task::JoinHandle<Result<()>>>,
) -> Result<Result<()>, tokio::task::JoinError> {
    match publishing {
        Some(publishing) => publishing.await,
        None => std::future::pending().await,
    }
}

/// The batch once more, for another try.
fn copies(batch: &[bagpress_broker::Followed]) -> Vec<bagpress_broker::Followed> {
    let mut seen = HashSet::new();
    let copy = |f: &bagpress_broker::Followed| bagpress_broker::Followed {
        result: f.result.clone(),
        bytes: f.bytes,
    };
    batch
        .iter()
        .map(copy)
        .filter(|f| match &f.result {
            Ok(result) => seen.insert((result.index, result.round)),
            Err((index, round, _)) => seen.insert((*index, *round)),
        })
        .collect()
}

/// Publishes a bag, for somebody to gather later.
///
/// # Errors
///
/// If the bag cannot be published.
pub async fn submit(
    broker: &Broker,
    folder: &RunFolder,
    specification: Specification,
) -> Result<()> {
    let _lock = folder.lock()?;
    let plan = open_plan(folder, specification)?;
    if plan.specification.results == ResultPath::Objects
        && !plan.specification.codec.stores_nothing()
    {
        output_bucket(broker, &plan).await?;
    }
    let publisher = Publisher::new(broker, &plan).await?;
    let ledger = plan.ledger.clone();
    publisher.publish(true, |index| !ledger.is_decided(index)).await
}
