//! What happens to a committed result: its output gets its final name, then it is counted.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::result::{
    Cause, Done, Failed, FileId, Outcome, Place, TaskResult, wall_clock_us,
};
use bagpress_broker::{Followed, limits, quote, subjects};
use bagpress_objstore::beneath::Dir;
use bagpress_objstore::object_ref::Bucket;
use bagpress_objstore::staging::{Parts, Placed, Plan as _, Receiver, Syncer};
use bagpress_objstore::{Trouble, said};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::deliver::handed::PRODUCER;
use crate::gather::fetch::Fate;
use crate::run_folder::ledger::line::Entry;
use crate::run_folder::plan::BagPlan;
use crate::run_folder::specification::Data;
use crate::run_folder::stats::write_stats;

/// Turns committed results into counted outcomes.
#[derive(Debug)]
pub(crate) struct Acceptor {
    pub(crate) plan: BagPlan,
    pub(crate) parts: Option<(Arc<Parts>, Syncer)>,
    pub(crate) bucket: Option<Bucket>,
    pub(crate) stats: Option<Dir>,
    /// The stats files being written.
    pub(crate) writing: tokio::sync::Mutex<Option<tokio::task::JoinHandle<()>>>,
    /// The highest round that any gatherer of the bag had begun before this one: there are no results of later ones.
    pub(crate) rounds: u32,
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
    /// Of rounds that the ledger did not know before the others were accepted, or for which there was no room beside
    /// them: accept them next.
    pub(crate) later: Vec<Followed>,
    /// Where files of the bag's own are now that had an output's name and were not what they should be.
    pub(crate) aside: Vec<PathBuf>,
}

/// What became of outputs that were to get their names.
#[derive(Debug, Default)]
struct Placing {
    /// To be counted: done, or failed as they could not get them.
    counted: Vec<Arc<TaskResult>>,
    lost: Vec<u32>,
    aside: Vec<PathBuf>,
    moved: bool,
    /// Whose part files nobody needs once they are counted.
    sweep: Vec<(u32, u32)>,
}

impl Acceptor {
    /// Accepts a batch. Safe to repeat after an error.
    ///
    /// # Errors
    ///
    /// If the disk or the broker does not take part now.
    pub(crate) async fn accept(&self, batch: Vec<Followed>) -> Result<Accepted> {
        let (batch, later) = self.begin_unknown(batch).context("begin rounds")?;
        let (batch, more) = self.that_fits(batch)?;
        let mut accepted = Accepted { later: more, ..Accepted::default() };
        accepted.later.extend(later);
        let mut results = Vec::new();
        for followed in batch {
            match followed.result {
                Ok(result) if !self.plan.ledger.is_open((result.index, result.round)) => {}
                Ok(result) if let Some(why) = self.misfit(&result) => {
                    warn!(index = result.index, why, "a result cannot be right, task is run again");
                    accepted.lost.push(result.index);
                }
                Ok(result) if self.lost_its_input(&result) => {
                    warn!(index = result.index, "the broker lost an input, it is put again");
                    accepted.lost_inputs.push(result.index);
                }
                Ok(result) => results.push(result),
                Err((index, round, why)) => {
                    if self.plan.ledger.is_open((index, round)) {
                        warn!(
                            index,
                            round, why, "committed result not readable, task is run again"
                        );
                        accepted.lost.push(index);
                    }
                }
            }
        }
        let fetching: Vec<BoxFuture<'_, Result<Fate>>> =
            results.iter().map(|result| self.fetch(result).boxed()).collect();
        let fates: Vec<_> =
            stream::iter(fetching).buffered(limits::OBJECTS_FETCHED).collect().await;
        let (mut fetched, mut failed, mut sweep) = (Vec::new(), Vec::new(), Vec::new());
        for (result, fate) in results.iter().cloned().zip(fates) {
            match fate? {
                Fate::Counted => fetched.push(by_its_name(result)),
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

    /// What can be accepted now, and what must wait for it.
    ///
    /// A round that this ledger does not know was begun in another folder, or its line was lost. Its
    /// result begins it here too, after everything of known rounds and as long as the task is not done:
    /// it would never be read again, and no other result of that round can be committed. One of a round that nobody began
    /// is believed no more than its worker may begin one; when the round is begun here, all are read again.
    fn begin_unknown(&self, batch: Vec<Followed>) -> io::Result<(Vec<Followed>, Vec<Followed>)> {
        let ledger = &self.plan.ledger;
        let unknown = |followed: &Followed| {
            let (index, round) = id_of(followed);
            index < self.plan.specification.tasks
                && round > ledger.round(index)
                && round <= self.rounds.max(ledger.highest_round())
                && !ledger.is_done(index)
        };
        let (later, now): (Vec<_>, Vec<_>) = batch.into_iter().partition(unknown);
        if !now.is_empty() || later.is_empty() {
            return Ok((now, later));
        }
        let mut lowest = BTreeMap::new();
        for (index, round) in later.iter().map(id_of) {
            let entry = lowest.entry(index).or_insert(round);
            *entry = round.min(*entry);
        }
        let begun: Vec<_> = lowest.into_iter().collect();
        info!(tasks = begun.len(), "results of rounds that were not begun here");
        ledger.begin_rounds(&begun, &HashMap::new())?;
        let (later, now) = later.into_iter().partition(unknown);
        Ok((now, later))
    }

    /// Why a result cannot be right, by what the bag is: its bytes would be where nobody looks, or be nowhere.
    fn misfit(&self, result: &TaskResult) -> Option<&'static str> {
        let specification = &self.plan.specification;
        let done = result.done()?;
        if !result.fits(&specification.codec, specification.results) {
            return Some("its output is where none of this bag can be");
        }
        if let Data::Generated { bytes, .. } = specification.data
            && done.input_bytes != bytes
        {
            return Some("its input has another size");
        }
        let most = specification.codec.output_bytes_max(done.input_bytes);
        (done.output_bytes > most).then_some("its output is larger than any of its codec")
    }

    /// Whether a worker found no input where we had put one, which the next round does again. What became of a
    /// file is known here, and another's failure.
    fn lost_its_input(&self, result: &TaskResult) -> bool {
        let specification = &self.plan.specification;
        matches!(&result.outcome, Outcome::Failed(failed) if failed.cause == Cause::InputMissing)
            && result.worker != PRODUCER
            && specification.results == ResultPath::Objects
            && matches!(specification.data, Data::Files { .. })
    }

    /// What of a batch there is room for where objects become files, and the rest.
    fn that_fits(&self, batch: Vec<Followed>) -> io::Result<(Vec<Followed>, Vec<Followed>)> {
        let (Some((parts, _)), Some(_)) = (&self.parts, &self.bucket) else {
            return Ok((batch, Vec::new()));
        };
        let (mut bytes, mut too_large) = (0_u64, None);
        let (now, later): (Vec<_>, Vec<_>) = batch.into_iter().partition(|followed| {
            let (index, round) = id_of(followed);
            let result = followed.result.as_ref().ok();
            // No room is waited for that nothing can take.
            let may = |r: &&Arc<TaskResult>| {
                self.plan.ledger.is_open((index, round)) && self.misfit(r).is_none()
            };
            let done = result.filter(may).and_then(|result| result.done());
            let more = done.map_or(0, |done| done.output_bytes);
            let fits = more == 0 || parts.lacks(bytes.saturating_add(more)).is_none();
            if fits {
                bytes = bytes.saturating_add(more);
            } else {
                too_large.get_or_insert((index, more));
            }
            fits
        });
        if let (true, Some((index, bytes))) = (now.is_empty(), too_large) {
            let name = self.plan.target(index).map(|target| quote::name(target.path));
            let why = parts.full(bytes).unwrap_or_else(|| "disk full".to_owned());
            let text = format!("{}: {why}", name.unwrap_or_default());
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        Ok((now, later))
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
            let mut placing = Placing::default();
            for result in results {
                placing.place(&plan, &folder, result)?;
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
            for (index, round) in counted {
                parts.sweep(index, round);
            }
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
        if let Some(folder) = &self.stats {
            self.write_stats_beside(folder.clone(), results.clone()).await;
        }
        Ok(results)
    }

    /// Writes the stats files beside the next batch; waits for those of the last one.
    async fn write_stats_beside(&self, folder: Dir, results: Vec<Arc<TaskResult>>) {
        let codec = self.plan.specification.codec.to_string();
        let mut writing = self.writing.lock().await;
        if let Some(before) = writing.take()
            && let Err(error) = before.await
        {
            warn!(%error, "stats files not written");
        }
        *writing = Some(spawn_blocking(move || {
            for result in &results {
                write_stats(&folder, &codec, result);
            }
        }));
    }

    /// Waits for the last stats files.
    pub(crate) async fn finish(&self) {
        if let Some(last) = self.writing.lock().await.take()
            && let Err(error) = last.await
        {
            warn!(%error, "stats files not written");
        }
    }
}

/// A result as it counts: its object has its own name by now.
fn by_its_name(result: Arc<TaskResult>) -> Arc<TaskResult> {
    let beside = |done: &Done| matches!(&done.place, Place::Object { object, .. } if subjects::is_beside(object));
    if !result.done().is_some_and(beside) {
        return result;
    }
    let mut named = Arc::unwrap_or_clone(result);
    if let Outcome::Done(Done { place: Place::Object { object, .. }, .. }) = &mut named.outcome {
        *object = subjects::output_name(named.index);
    }
    Arc::new(named)
}

/// The index and round of a result that was followed.
fn id_of(followed: &Followed) -> (u32, u32) {
    match &followed.result {
        Ok(result) => (result.index, result.round),
        Err((index, round, _)) => (*index, *round),
    }
}

impl Placing {
    /// Gives one output its name, or finds out why it cannot have it.
    ///
    /// # Errors
    ///
    /// What is not that output's own: nothing was decided about it.
    fn place(&mut self, plan: &BagPlan, parts: &Parts, result: Arc<TaskResult>) -> io::Result<()> {
        let Some(done) = result.done().filter(|done| done.place != Place::Nothing) else {
            self.counted.push(result);
            return Ok(());
        };
        let target = plan.target(result.index)?;
        let name = || quote::name(parts.root().join(&target.path));
        let (id, execution, digest) = (result.id(), &result.execution, &done.output_digest);
        let key = (result.index, result.round);
        let placed = match parts.holds(key, execution, done.output_bytes, digest) {
            Ok(true) => parts.place(&id, execution, &target, digest),
            // Its worker never closed it, or says that it is something else.
            Ok(false) => Ok(Placed::Lost),
            Err(error) => Err(error),
        };
        let why = match placed {
            Ok(Placed::Named) => None,
            Ok(Placed::Instead(aside)) => {
                self.aside.push(aside);
                None
            }
            Ok(Placed::Lost) if parts.gone().is_some() => {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(Placed::Lost) => {
                warn!(index = result.index, "the output's bytes are gone, task is run again");
                self.lost.push(result.index);
                return Ok(());
            }
            Ok(Placed::Taken) => {
                let text = format!("{} is there, and this bag did not make it", name());
                Some(Failed::new(Cause::OutputExists, text))
            }
            Err(error) if parts.trouble(&error) == Trouble::Own => {
                let text = format!("{}: {}", name(), said(&error));
                Some(Failed::new(Cause::OutputUnwritable, text))
            }
            Err(error) => return Err(error),
        };
        let file = || {
            let named = parts.outputs().metadata(&target.path).ok()?;
            FileId::of(&named)
        };
        self.moved = true;
        if why.is_some() || result.attempt > 1 {
            self.sweep.push((result.index, result.round));
        }
        self.counted.push(match why {
            Some(why) => fails(&result, why),
            None => Arc::new(TaskResult { file: file(), ..(*result).clone() }),
        });
        Ok(())
    }
}

/// The outcome of an execution whose output has no place: the gatherer's own finding, in the place of what its worker
/// committed.
fn fails(result: &TaskResult, why: Failed) -> Arc<TaskResult> {
    warn!(index = result.index, cause = %why.cause, error = why.message, "an output has no place");
    let outcome = Outcome::Failed(why);
    Arc::new(TaskResult { outcome, descriptor: None, ..result.clone() })
}

/// What makes files durable, shared with the receiver of uploads where there is one.
///
/// # Errors
///
/// If no thread can be started.
pub(crate) fn syncer_of(parts: &Arc<Parts>, receiver: Option<&Receiver>) -> Result<Syncer> {
    match receiver {
        Some(receiver) => Ok(receiver.syncer().clone()),
        None => Syncer::start(parts.clone()).context("start the sync thread"),
    }
}

const _: () = assert!(limits::GATHER_BATCH >= limits::OBJECTS_FETCHED);
