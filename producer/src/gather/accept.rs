//! What happens to a committed result: its output gets its final name, then it is counted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Error, Result};
use bagpress_broker::result::{Done, TaskResult, wall_clock_us};
use bagpress_broker::{Followed, limits, quote};
use bagpress_objstore::object_ref::Bucket;
use bagpress_objstore::staging::{Parts, Placer, Plan as _, Syncer};
use bagpress_objstore::{Trouble, trouble};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use tokio::task::{JoinError, spawn_blocking};
use tracing::{info, warn};

use crate::error::Unwritable;
use crate::gather::fetch::{Fate, executions, fetch};
use crate::gather::judge::{
    by_its_name, is_elsewhere, is_of_another_input, is_of_no_use, key_of, lost_its_input, misfit,
};
use crate::gather::naming::{Placing, fails};
use crate::gather::state::{Objects, Traits};
use crate::gather::stats_writer::StatsWriter;
use crate::run_folder::ledger::Key;
use crate::run_folder::ledger::line::Entry;
use crate::run_folder::plan::BagPlan;

/// Turns committed results into counted outcomes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Acceptor {
    plan: BagPlan,
    /// Where outputs become files, if they do.
    parts: Option<(Arc<Parts>, Syncer)>,
    /// Where objects are, if outputs travel as such.
    bucket: Option<Bucket>,
    stats: Option<Arc<StatsWriter>>,
    /// The highest round that any gatherer of the bag had begun before this one: there are no results of later ones.
    rounds: u32,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(crate) struct Accepted {
    /// Counted now.
    pub(crate) counted: Vec<Arc<TaskResult>>,
    /// Committed, but the bytes are not there, or the result cannot be read: run again.
    pub(crate) lost: Vec<u32>,
    /// Of tasks whose worker found no input where we had put one: a new round puts it again.
    pub(crate) lost_inputs: Vec<u32>,
    /// Of rounds that the ledger did not know before the others were accepted, or for which there was no space next to
    /// them: accept them next.
    pub(crate) later: Vec<Followed>,
    /// Where files of the bag's own are now that had an output's name and were not what they should be.
    pub(crate) aside: Vec<PathBuf>,
}

impl Acceptor {
    /// `rounds`: the highest round that any gatherer of the bag had begun before this one.
    pub(crate) fn new(
        plan: BagPlan,
        parts: Option<(Arc<Parts>, Syncer)>,
        bucket: Option<Bucket>,
        stats: Option<StatsWriter>,
        rounds: u32,
    ) -> Self {
        Self { plan, parts, bucket, stats: stats.map(Arc::new), rounds }
    }

    /// The bucket of the outputs, if they travel as objects.
    pub(crate) fn bucket(&self) -> Option<&Bucket> {
        self.bucket.as_ref()
    }

    /// Where the outputs stay, if they become no files here.
    pub(crate) fn output_bucket(&self) -> Option<&Bucket> {
        // What expires is not made again.
        let expires = self.plan.specification.ttl_s.is_some();
        self.bucket.as_ref().filter(|_| self.parts.is_none() && !expires)
    }

    fn parts(&self) -> Option<&Arc<Parts>> {
        self.parts.as_ref().map(|(parts, _)| parts)
    }

    /// What of the bag decides how it is followed.
    pub(crate) fn traits(&self, committed: bool, stall_timeout: Duration) -> Traits {
        let objects = match (&self.bucket, self.output_bucket()) {
            (None, _) => Objects::None,
            (Some(_), None) => Objects::Pass,
            (Some(_), Some(_)) => Objects::Stay,
        };
        Traits {
            committed,
            objects,
            awaits_inputs: self.plan.specification.data.has_references(),
            stall_timeout,
        }
    }

    /// Accepts a batch. Safe to repeat after an error.
    ///
    /// # Errors
    ///
    /// If the disk or the broker does not take part now.
    pub(crate) async fn accept(self, batch: Vec<Followed>) -> Result<Accepted> {
        let (batch, later) = self.begin_unknown(batch).await.context("begin rounds")?;
        let (batch, mut more) = self.split_by_space(batch).await?;
        more.extend(later);
        let mut accepted = Accepted { later: more, ..Accepted::default() };
        let results = self.sort(batch, &mut accepted);
        let (bucket, parts) = (self.bucket(), self.parts().map(Arc::as_ref));
        let mut seen = HashSet::new();
        // One execution of a pack may have the name of its tar, unless that of another counts already.
        let mut may_be_named = |index| {
            let first = self.plan.first_of(index);
            seen.insert(first) && !self.plan.has_counted(first)
        };
        let fetching: Vec<BoxFuture<'_, Result<Vec<Fate>>>> = executions(&results)
            .map(|of_one| {
                let may_be_named = of_one.first().is_some_and(|one| may_be_named(one.index));
                fetch(of_one, bucket, parts, may_be_named).boxed()
            })
            .collect();
        let fates: Vec<_> =
            stream::iter(fetching).buffered(limits::OBJECTS_FETCHED).collect().await;
        let fates: Vec<_> = fates.into_iter().collect::<Result<_>>()?;
        let (mut fetched, mut failed, mut sweep) = (Vec::new(), Vec::new(), Vec::new());
        for (result, fate) in results.iter().cloned().zip(fates.into_iter().flatten()) {
            match fate {
                Fate::Counted => fetched.push(result),
                Fate::Named(name) => fetched.push(by_its_name(result, name)),
                Fate::Lost => accepted.lost.push(result.index),
                Fate::Fails(why) => {
                    sweep.push((result.index, result.round));
                    failed.push(fails(&result, why));
                }
            }
        }
        let mut placed = self.place(fetched).await?;
        accepted.lost.append(&mut placed.lost);
        accepted.aside = placed.aside;
        placed.counted.append(&mut failed);
        accepted.counted = self.count(placed.counted).await?;
        sweep.append(&mut placed.sweep);
        self.sweep(sweep);
        Ok(accepted)
    }

    /// The results that may count; what became of the others is added to `accepted`.
    fn sort(&self, batch: Vec<Followed>, accepted: &mut Accepted) -> Vec<Arc<TaskResult>> {
        let mut results = Vec::new();
        for followed in batch {
            let (index, round) = key_of(&followed);
            if !self.plan.is_task_open((index, round)) {
                continue;
            }
            match followed.result {
                // Of a pack in round 0, its files' came.
                Ok(result) if !result.members.is_empty() => {
                    warn!(index, "its round is that of a lost tar, task is run again");
                    accepted.lost.push(index);
                }
                Ok(result) if is_of_no_use(&self.plan, &result) => {
                    warn!(index, "what is committed of the block is of no use, it is run again");
                    accepted.lost.push(index);
                }
                Ok(result) if let Some(why) = misfit(&self.plan, &result) => {
                    warn!(index, why, "implausible result, task is run again");
                    accepted.lost.push(index);
                }
                Ok(result) if is_of_another_input(&self.plan, &result) => {
                    warn!(
                        index,
                        "its input was not what its reference stood for, task is run again"
                    );
                    accepted.lost.push(index);
                }
                Ok(result) if is_elsewhere(&self.plan, &result) => {
                    warn!(index, "its output is in another object, task is run again");
                    accepted.lost.push(index);
                }
                Ok(result) if lost_its_input(&self.plan, &result) => {
                    warn!(index, "the broker lost an input, it is put or made again");
                    accepted.lost_inputs.push(index);
                }
                Ok(result) => results.push(result),
                Err((_, _, why)) => {
                    warn!(index, round, why, "committed result not readable, task is run again");
                    accepted.lost.push(index);
                }
            }
        }
        results
    }

    /// What can be accepted now, and what must wait for it.
    ///
    /// A round that this ledger does not know was begun in another folder, or its line was lost. Its
    /// result begins it here too, after everything of known rounds and as long as the task is not done:
    /// it would never be read again, and no other result of that round can be committed. One of a round that nobody began
    /// is believed no more than its worker may begin one; when the round is begun here, all are read again.
    async fn begin_unknown(&self, batch: Vec<Followed>) -> Result<(Vec<Followed>, Vec<Followed>)> {
        let ledger = self.plan.ledger.clone();
        let unknown = |followed: &Followed| {
            let (index, round) = key_of(followed);
            index < self.plan.tasks()
                && round > ledger.round(index)
                && round <= self.rounds.max(ledger.highest_round())
                && !ledger.is_done(index)
        };
        let (later, now): (Vec<_>, Vec<_>) = batch.into_iter().partition(unknown);
        if !now.is_empty() || later.is_empty() {
            return Ok((now, later));
        }
        let mut lowest = BTreeMap::new();
        for (index, round) in later.iter().map(key_of) {
            let entry = lowest.entry(index).or_insert(round);
            *entry = round.min(*entry);
        }
        let begun: Vec<Key> = lowest.into_iter().collect();
        info!(tasks = begun.len(), "results of rounds that no gatherer began");
        let writing = ledger.clone();
        spawn_blocking(move || writing.begin_rounds(&begun, &HashMap::new())).await??;
        let (later, now) = later.into_iter().partition(unknown);
        Ok((now, later))
    }

    /// What of a batch the disk has space for where objects become files, and the rest.
    async fn split_by_space(&self, batch: Vec<Followed>) -> Result<(Vec<Followed>, Vec<Followed>)> {
        let (Some(parts), Some(_)) = (self.parts().cloned(), &self.bucket) else {
            return Ok((batch, Vec::new()));
        };
        let plan = self.plan.clone();
        let under_way = parts.begin();
        let splitting = spawn_blocking(move || {
            let _under_way = under_way;
            split_by_space(&plan, &parts, batch)
        });
        Ok(splitting.await??)
    }

    /// Gives every output of the batch its final name, durably.
    async fn place(&self, results: Vec<Arc<TaskResult>>) -> Result<Placing> {
        let Some((parts, syncer)) = &self.parts else {
            return Ok(Placing { counted: results, ..Placing::default() });
        };
        let (plan, folder) = (self.plan.clone(), parts.clone());
        let under_way = parts.begin();
        let placing = spawn_blocking(move || {
            let _under_way = under_way;
            let (mut placing, mut placer) = (Placing::default(), Placer::new(&folder));
            for result in results {
                placing.place(&plan, &folder, &mut placer, result)?;
            }
            Ok::<_, io::Error>(placing)
        });
        let placing =
            placing.await.context("place outputs")?.context("give outputs their names")?;
        if placing.moved {
            syncer.sync().await.context("make outputs durable")?;
        }
        Ok(placing)
    }

    /// Removes, some time, the part files of tasks that are counted. Before that another execution's may be all that there
    /// is, if this gatherer dies.
    fn sweep(&self, counted: Vec<(u32, u32)>) {
        let Some((parts, _)) = self.parts.as_ref().filter(|_| !counted.is_empty()) else { return };
        let (parts, under_way) = (parts.clone(), parts.begin());
        spawn_blocking(move || {
            let _under_way = under_way;
            parts.sweep(&counted);
        });
    }

    /// Appends the lines: only now these tasks are done.
    async fn count(&self, results: Vec<Arc<TaskResult>>) -> Result<Vec<Arc<TaskResult>>> {
        if results.is_empty() {
            return Ok(results);
        }
        let ledger = self.plan.ledger.clone();
        let now = wall_clock_us();
        let under_way = self.parts.as_ref().map(|(parts, _)| parts.begin());
        let counting = spawn_blocking(move || {
            let _under_way = under_way;
            let entries: Vec<_> = results.iter().cloned().map(Entry::Outcome).collect();
            ledger.append(&entries, |result| now.saturating_sub(result.times.made_us))?;
            Ok::<_, io::Error>(results)
        });
        let results = counting.await.context("append to the ledger")?;
        let results = results.context("append to the ledger")?;
        if let Some(stats) = &self.stats {
            let mut of_files = results.clone();
            of_files.retain(|result| self.plan.section(result.index).is_none());
            stats.write(of_files).await;
        }
        Ok(results)
    }

    /// Waits for the last stats files.
    pub(crate) async fn finish(&self) {
        if let Some(stats) = &self.stats {
            stats.finish().await;
        }
    }

    /// What an error ends the run with that is neither a task's own nor passes.
    pub(crate) fn ends_the_run(&self, error: &Error) -> Option<Unwritable> {
        let panicked = error.chain().any(<dyn std::error::Error>::is::<JoinError>);
        let met = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
        let means = |error| self.parts().map_or_else(|| trouble(error), |p| p.trouble(error));
        let ends = panicked || met.is_some_and(|error| means(error) != Trouble::Passes);
        let gone = || self.parts().and_then(|parts| parts.gone());
        ends.then(|| Unwritable(gone().unwrap_or_else(|| format!("{error:#}"))))
    }
}

/// Blocks: asks the file system for its free space.
fn split_by_space(
    plan: &BagPlan,
    parts: &Parts,
    batch: Vec<Followed>,
) -> io::Result<(Vec<Followed>, Vec<Followed>)> {
    let (mut bytes, mut too_large) = (0_u64, None);
    let (now, later): (Vec<_>, Vec<_>) = batch.into_iter().partition(|followed| {
        let key = key_of(followed);
        let result = followed.result.as_ref().ok();
        // Nothing waits for space that nobody will take.
        let may = |r: &&Arc<TaskResult>| plan.is_task_open(key) && misfit(plan, r).is_none();
        // What was joined is there already.
        let is_to_come = |done: &&Done| done.place.object().is_some();
        let done = result.filter(may).and_then(|result| result.done()).filter(is_to_come);
        let more = done.map_or(0, |done| done.output_bytes);
        let fits = more == 0 || parts.lacks(bytes.saturating_add(more)).is_none();
        if fits {
            bytes = bytes.saturating_add(more);
        } else {
            too_large.get_or_insert((key.0, more));
        }
        fits
    });
    if let (true, Some((index, bytes))) = (now.is_empty(), too_large) {
        let name = plan.target(index).map(|target| quote::name(target.path));
        let why = parts.full(bytes).unwrap_or_else(|| "disk full".to_owned());
        let text = format!("{}: {why}", name.unwrap_or_default());
        return Err(io::Error::new(io::ErrorKind::StorageFull, text));
    }
    Ok((now, later))
}

const _: () = assert!(limits::GATHER_BATCH >= limits::OBJECTS_FETCHED);
