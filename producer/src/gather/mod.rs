//! Follows a bag until every task has an outcome.
//!
//! One loop turns what happens into events; `state.rs` decides, without I/O, what is done about them; here it is done.

mod accept;
mod again;
#[cfg(test)]
mod any_order;
mod ends;
mod execute;
mod fetch;
mod join;
mod judge;
mod naming;
mod open;
mod options;
mod outcomes;
mod pace;
mod progress;
mod reasons;
mod reconcile;
mod report;
mod rerun;
mod room;
mod sources;
mod state;
mod stats_writer;
mod todo;
mod tree;
mod unpack;
mod vanished;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bagpress_broker::result::TaskResult;
use bagpress_broker::{AttemptRecord, BagState, Broker, Followed, limits};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use crate::claim::buckets::output_bucket;
use crate::claim::lease::BagLease;
use crate::claim::line::begun_line;
use crate::claim::requirements::require;
use crate::deliver::handed::Handed;
use crate::deliver::wake::{Waker, Waking};
use crate::error::{Stalled, Unwritable};
use crate::gather::accept::Acceptor;
use crate::gather::ends::Ends;
use crate::gather::execute::Executor;
use crate::gather::join::{Joined, Joins, of_their_files};
use crate::gather::open::{OutcomeSource, Outputs, close};
pub use crate::gather::options::{Gathered, Options};
use crate::gather::outcomes::{Batch, Outcomes, verdict};
use crate::gather::report::Reporter;
use crate::gather::rerun::Rerun;
use crate::gather::room::Room;
use crate::gather::sources::Sources;
use crate::gather::state::{Action, Event, Sight, State};
use crate::gather::stats_writer::StatsWriter;
use crate::gather::tree::keep_tree;
use crate::gather::unpack::{Unpacked, split_off, unpack};
use crate::publish::Publisher;
use crate::run_folder::attempts::{self, History};
use crate::run_folder::folder::{RunFolder, SUMMARY};
use crate::run_folder::ledger::tally::Tally;
use crate::run_folder::lock::GatherLock;
use crate::run_folder::plan::BagPlan;

/// Between two looks at the bag.
const TICK: Duration = Duration::from_millis(100);

/// Publishes what is not decided and follows the bag to its end.
///
/// # Errors
///
/// [`Stalled`], [`crate::Interrupted`], [`crate::Unwritable`], or what cannot be cured by waiting.
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
    let (begun, stop, deadline) = (begun_line(&plan), options.stop.clone(), options.deadline);
    let mut gathering = match Gathering::start(broker, folder, plan, options, lease.clone()).await {
        Ok(gathering) => gathering,
        Err(error) => {
            // The lease of a gathering that never began runs out by itself if this fails.
            lease.release(begun).await.ok();
            return Err(error);
        }
    };
    let ends = Ends::new(broker, &lease, stop, deadline, Instant::now());
    let followed = Box::pin(gathering.follow(folder, &ends)).await;
    let records = gathering.stop().await;
    // What the server knows of attempts goes with it, in local mode.
    // A disk that hangs is not waited for when the bag is over.
    let keeping = attempts::keep(broker, &specification.bag, folder, records);
    let history = tokio::time::timeout(limits::DISK_WAIT, keeping).await.unwrap_or_default();
    if let Err(error) = followed {
        let Gathering { mut executor, outcomes, state, .. } = gathering;
        executor.give_up(&error, outcomes.is_committed(), &state).await;
        return Err(error);
    }
    gathering.finish(history).await
}

struct Gathering {
    sources: Sources,
    options: Options,
    state: State,
    executor: Executor,
    outcomes: Outcomes,
    waking: Waking,
    room: Room,
    joins: Joins,
    /// What runs meanwhile: watching the workers, and listening for a cancellation.
    meanwhile: [JoinHandle<()>; 2],
    /// Whether the run was never summed up: then nobody has taken its outputs away on purpose.
    unfinished: bool,
}

impl Gathering {
    async fn start(
        broker: &Broker,
        folder: &RunFolder,
        plan: BagPlan,
        mut options: Options,
        lease: BagLease,
    ) -> Result<Self> {
        let specification = &plan.specification;
        let Outputs { parts, receiver } = Outputs::open(broker, folder, &plan).await?;
        let mut bucket = None;
        if specification.has_objects() {
            bucket = Some(output_bucket(broker, &plan).await?);
        }
        let ended = std::mem::replace(&mut options.ended, mpsc::channel(1).1);
        let opened = OutcomeSource::open(broker, folder, &plan, &lease, ended).await?;
        let OutcomeSource { outcomes, hand_in, watch, watching } = opened;
        let publisher = Publisher::new(broker, &plan, hand_in).await?;
        let stats = specification.stats.then(|| folder.held_results()).transpose()?;
        let stats = stats.map(|folder| StatsWriter::new(folder, plan.clone()));
        let listening = lease.listen(&begun_line(&plan)).await?;
        let waker = Waker::new(broker, &plan, &watch);
        if outcomes.is_committed() {
            waker.announce_gatherer().await;
        }
        let files = parts.as_ref().map(|(parts, _)| parts.clone());
        let acceptor = Acceptor::new(plan.clone(), parts, bucket, stats, lease.rounds());
        let traits = acceptor.traits(outcomes.is_committed(), options.stall_timeout);
        let (broker, parts, now) = (broker.clone(), files, Instant::now());
        let sources = Sources { broker, plan, lease, watch, waker, publisher, parts, receiver };
        let reporter = Reporter::new(sources.clone(), options.fresh, options.progress, now);
        Ok(Self {
            state: State::new(traits, sources.broker.connects(), now),
            executor: Executor::new(sources.clone(), reporter, acceptor),
            outcomes,
            waking: Waking::new(sources.waker.clone()),
            room: Room::new(),
            joins: Joins::start(&sources),
            sources,
            meanwhile: [watching, listening],
            unfinished: !options.fresh && !folder.has(SUMMARY),
            options,
        })
    }

    /// Follows the bag to its end, or until it is to be left: whatever it waits for then is waited for no more.
    async fn follow(&mut self, folder: &RunFolder, ends: &Ends) -> Result<()> {
        let over = tokio::select! {
            followed = self.follow_to_its_end(folder) => return followed,
            over = ends.over() => over,
        };
        Err(over.error(&self.executor.reporter().line(BagState::Cancelled, &self.state)))
    }

    async fn follow_to_its_end(&mut self, folder: &RunFolder) -> Result<()> {
        let rerun = Rerun {
            failed: self.options.retry_failed,
            broken: self.options.repair,
            vanished: self.unfinished,
        };
        if self.executor.rerun(rerun, &self.state).await? {
            self.act(vec![Action::RemakeBuckets]).await?;
        }
        self.on(Event::Begin { fresh: self.options.fresh }).await?;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.is_complete() {
            tokio::select! {
                batch = self.outcomes.next_batch() => match batch {
                    Ok(batch) => self.take(batch).await?,
                    Err(error) => {
                        debug!(%error, "results not readable now");
                        tokio::time::sleep(limits::RETRY_WAIT).await;
                    }
                },
                joined = self.joins.next() => self.take_joined(joined).await?,
                _ = ticks.tick() => self.look().await?,
                published = self.executor.published() => self.on(published?).await?,
            }
        }
        let bucket = self.executor.acceptor().bucket().cloned();
        let followed = (self.executor.reporter(), &self.state);
        keep_tree(&self.sources.plan, folder, bucket, followed).await;
        Ok(())
    }

    fn is_complete(&self) -> bool {
        let decided = self.sources.plan.ledger.tally(Tally::decided);
        decided >= u64::from(self.sources.plan.specification.tasks)
            && self.state.is_settled(self.sources.broker.connects())
    }

    /// Ten times a second: what is shown, what is said, and what is to be done.
    async fn look(&mut self) -> Result<()> {
        if let Some(why) = self.sources.receiver.as_ref().and_then(|receiver| receiver.gone()) {
            return Err(Unwritable(why).into());
        }
        let asks = self.state.must_ask_whose_it_is(Instant::now());
        let ours = self.sources.lease.is_held()
            && (!asks || self.executor.reporter().confirm(&self.state).await);
        let running = self.executor.reporter().show(&self.state).await;
        if let Some(bucket) = self.executor.acceptor().bucket() {
            self.room.look(bucket, &self.sources.watch).await;
            self.executor.reporter().obstacles().bucket = self.room.full().map(str::to_owned);
        }
        if self.outcomes.is_committed() {
            self.executor.wake_delayed(&mut self.waking, &self.room, &self.state).await;
        }
        let misses_inputs = ours && self.sources.publisher.misses_inputs();
        let connects = self.sources.broker.connects();
        self.on(Event::Tick(Sight { connects, running, ours, misses_inputs })).await
    }

    /// Does what is to be done about an event, and about what comes of that.
    async fn on(&mut self, event: Event) -> Result<()> {
        let actions = self.state.on(event, Instant::now());
        self.act(actions).await
    }

    async fn act(&mut self, actions: Vec<Action>) -> Result<()> {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            let event = self.executor.execute(action, &self.state, &mut self.outcomes).await?;
            if let Some(event) = event {
                actions.extend(self.state.on(event, Instant::now()));
            }
        }
        Ok(())
    }

    async fn take(&mut self, batch: Batch) -> Result<()> {
        match batch {
            Batch::Committed(batch) => self.take_committed(batch).await?,
            Batch::Handed(batch) => self.take_handed(batch).await?,
        }
        if self.state.is_reconciling() && self.outcomes.caught_up() && self.sources.lease.is_held()
        {
            self.on(Event::CaughtUp).await?;
        }
        Ok(())
    }

    async fn take_committed(&mut self, batch: Vec<Followed>) -> Result<()> {
        let Unpacked { mut results, open } = unpack(&self.sources.plan, batch.into_iter());
        results.extend(self.executor.begin_later(&mut self.state, open).await);
        self.accept(results).await
    }

    /// Accepts results of files, and of blocks.
    async fn accept(&mut self, mut waiting: Vec<Followed>) -> Result<()> {
        while !waiting.is_empty() {
            let rest = split_off(&mut waiting);
            let mut accepted = self.executor.accept(waiting, &self.state).await?;
            accepted.lost.append(&mut accepted.lost_inputs);
            waiting = accepted.later.into_iter().chain(rest).collect();
            waiting.extend(self.executor.begin_later(&mut self.state, accepted.lost).await);
            self.counted(&accepted.counted).await?;
        }
        Ok(())
    }

    /// Accepts what was made here; has blocks run again whose bytes are gone, and twins that are none.
    async fn take_joined(&mut self, joined: Joined) -> Result<()> {
        let waiting = match joined {
            Joined::Outcomes(results) => results,
            Joined::Lost(blocks) => {
                let failures = self.executor.begin_later(&mut self.state, blocks).await;
                of_their_files(&self.sources.plan, failures)
            }
            Joined::Ends(why) => return Err(Unwritable(why).into()),
            Joined::Waits(why) => {
                self.executor.reporter().obstacles().uncounted = why;
                Vec::new()
            }
        };
        self.accept(waiting).await
    }

    /// Decides about outcomes that wait for it, and says so once the ledger has them.
    async fn take_handed(&mut self, batch: Vec<Handed>) -> Result<()> {
        let followed = |handed: &Handed| Followed { result: Ok(handed.result.clone()), bytes: 0 };
        let plan = self.sources.plan.clone();
        // Whatever of a pack does not count is run again alone: the pack itself is over.
        let packs = batch.iter().filter(|handed| plan.is_open_pack(handed.result.key()));
        let mut counted: HashSet<_> = packs.map(|pack| pack.result.execution.clone()).collect();
        let Unpacked { results: mut waiting, open } = unpack(&plan, batch.iter().map(followed));
        waiting.extend(self.executor.begin_later(&mut self.state, open).await);
        let mut lost = HashSet::new();
        while !waiting.is_empty() {
            let rest = split_off(&mut waiting);
            let accepted = self.executor.accept(waiting, &self.state).await?;
            lost.extend(&accepted.lost);
            lost.extend(&accepted.lost_inputs);
            self.outcomes.withdraw(&accepted.lost_inputs, &batch);
            // No offer brings one file of a pack again.
            let of_packs = accepted.lost.into_iter().filter(|index| plan.is_of_a_pack(*index));
            let again = of_packs.chain(accepted.lost_inputs).collect();
            waiting = accepted.later.into_iter().chain(rest).collect();
            waiting.extend(self.executor.begin_later(&mut self.state, again).await);
            counted.extend(accepted.counted.iter().map(|result| result.execution.clone()));
            self.counted(&accepted.counted).await?;
        }
        for handed in batch {
            let verdict = verdict(&handed, &counted, &lost, &plan);
            self.outcomes.note(&handed, &verdict, self.sources.parts.as_ref());
            handed.answer(&verdict).await;
        }
        Ok(())
    }

    async fn counted(&mut self, counted: &[Arc<TaskResult>]) -> Result<()> {
        for result in counted {
            if let Some(receiver) = &self.sources.receiver {
                receiver.decided(result.index);
            }
            self.sources.watch.decided(result);
            self.state.decided(result.index);
            self.joins.counted(&self.sources.plan, result);
        }
        let over = counted.iter().flat_map(|result| self.sources.plan.over_with(result.index));
        self.sources.publisher.free_inputs(over).await;
        if !counted.is_empty() {
            self.on(Event::Counted).await?;
        }
        let failed = self.sources.plan.ledger.tally(|tally| tally.failed);
        if let Some(most) = self.options.max_fails.filter(|most| failed > *most) {
            let why = format!("{failed} tasks failed, more than --max-fails {most}");
            return Err(Stalled(why).into());
        }
        Ok(())
    }

    /// Takes no more outcomes. Returns what only this process knows of attempts.
    async fn stop(&mut self) -> Vec<AttemptRecord> {
        self.executor.reporter().progress().finish();
        self.outcomes.close().await;
        for task in &self.meanwhile {
            task.abort();
        }
        self.outcomes.records()
    }

    async fn finish(mut self, history: History) -> Result<Gathered> {
        self.executor.purge_blocks(self.outcomes.is_committed()).await;
        let line = self.executor.reporter().line(BagState::Finished, &self.state);
        if let Err(error) = self.sources.lease.release(line).await {
            warn!(%error, "the bag's line not written");
        }
        self.executor.acceptor().finish().await;
        self.sources.publisher.remove_inputs().await;
        let first = self.sources.publisher.first().unwrap_or(self.executor.reporter().began());
        drop(self.executor);
        // A bag without outputs has a folder for them too, if it asks for its files.
        let Sources { receiver, parts, plan, watch, .. } = self.sources;
        let parts = receiver.as_ref().map(|receiver| receiver.parts().clone()).or(parts);
        drop(receiver);
        if let Some(parts) = parts {
            close(parts).await?;
        }
        Ok(Gathered {
            makespan: self.state.last_outcome().map(|last| last.max(first) - first),
            plan,
            workers_lost: watch.lost(),
            duplicates: history.duplicates,
            given_back: history.given_back,
        })
    }
}
