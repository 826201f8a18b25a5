//! What happens to a committed result: its output gets its final name, then it is counted.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::result::{Cause, Done, Outcome, Place, TaskResult, wall_clock_us};
use bagpress_broker::{Broker, Followed, limits, subjects};
use bagpress_objstore::object_ref::{Bucket, Info};
use bagpress_objstore::staging::{Parts, Plan as _, Receiver, Syncer};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use serde_json::json;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::dispatch::PRODUCER;
use crate::manifest::Entry;
use crate::plan::BagPlan;
use crate::spec::Data;

/// Turns committed results into counted outcomes.
#[derive(Debug)]
pub(crate) struct Acceptor {
    pub(crate) plan: BagPlan,
    pub(crate) parts: Option<(Arc<Parts>, Syncer)>,
    pub(crate) bucket: Option<Bucket>,
    pub(crate) stats: Option<PathBuf>,
    /// The stats files being written.
    pub(crate) writing: tokio::sync::Mutex<Option<tokio::task::JoinHandle<()>>>,
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
    /// Of rounds that the ledger did not know before the others were accepted: accept them next.
    pub(crate) later: Vec<Followed>,
}

enum Fate {
    Counted,
    Lost,
}

impl Acceptor {
    /// Accepts a batch. Safe to repeat after an error.
    ///
    /// # Errors
    ///
    /// If the disk or the broker does not take part now.
    pub(crate) async fn accept(&self, batch: Vec<Followed>) -> Result<Accepted> {
        let (batch, later) = self.begin_unknown(batch).context("begin rounds")?;
        let mut accepted = Accepted { later, ..Accepted::default() };
        let mut results = Vec::new();
        for followed in batch {
            match followed.result {
                Ok(result) if !self.counts(result.index, result.round) => {}
                Ok(result) if self.lost_its_input(&result) => {
                    warn!(index = result.index, "the broker lost an input, it is put again");
                    accepted.lost_inputs.push(result.index);
                }
                Ok(result) => results.push(result),
                Err((index, round, why)) => {
                    if self.counts(index, round) {
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
        let mut placed = Vec::new();
        for (result, fate) in results.iter().cloned().zip(fates) {
            match fate? {
                Fate::Counted => placed.push(result),
                Fate::Lost => accepted.lost.push(result.index),
            }
        }
        let (counted, lost) = self.place(placed).await?;
        accepted.lost.extend(lost);
        accepted.counted = self.count(counted).await?;
        Ok(accepted)
    }

    /// What can be accepted now, and what must wait for it.
    ///
    /// A round that this ledger does not know was begun in another folder, or its line was lost. Its
    /// result begins it here too, after everything of known rounds and as long as the task is not done:
    /// it would never be read again, and no other result of that round can be committed.
    fn begin_unknown(&self, batch: Vec<Followed>) -> io::Result<(Vec<Followed>, Vec<Followed>)> {
        let ledger = &self.plan.ledger;
        let unknown = |followed: &Followed| {
            let (index, round) = id_of(followed);
            index < self.plan.specification.tasks
                && round > ledger.round(index)
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
        ledger.begin_rounds(&begun)?;
        let (later, now) = later.into_iter().partition(unknown);
        Ok((now, later))
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

    fn counts(&self, index: u32, round: u32) -> bool {
        let ledger = &self.plan.ledger;
        index < self.plan.specification.tasks
            && ledger.round(index) == round
            && !ledger.is_decided(index)
    }

    /// Checks that an object is there, whole; fetches it where outputs become files.
    async fn fetch(&self, result: &TaskResult) -> Result<Fate> {
        let Outcome::Done(done) = &result.outcome else { return Ok(Fate::Counted) };
        let (Place::Object { object, chunks, .. }, Some(bucket)) = (&done.place, &self.bucket)
        else {
            return Ok(Fate::Counted);
        };
        let as_committed =
            |info: &Info| info.digest == done.output_digest && info.chunks == *chunks;
        let mut found = bucket.check_present(object).await;
        if !found.as_ref().is_ok_and(as_committed) {
            // A replica may lag, and what is lost is removed.
            found = bucket.check_present_from_leader(object).await;
        }
        let info = match found {
            Ok(info) => info,
            Err(error) if error.is_transient() => return Err(error).context("check an object"),
            Err(error) => {
                warn!(%error, index = result.index, "object not there, task is run again");
                return Ok(Fate::Lost);
            }
        };
        if !as_committed(&info) {
            warn!(index = result.index, "another object than was committed, task is run again");
            return Ok(Fate::Lost);
        }
        let Some((parts, _)) = &self.parts else { return Ok(Fate::Counted) };
        let part = parts.part(result.index, result.round, &result.execution);
        match fetch_to(bucket, &info, &part).await {
            Ok(()) => {}
            Err(Fetch::Object(error)) if !error.is_transient() => {
                warn!(%error, index = result.index, "object cannot be read, task is run again");
                return Ok(Fate::Lost);
            }
            Err(Fetch::Object(error)) => return Err(error).context("fetch an object"),
            Err(Fetch::File(error)) => {
                return Err(error).with_context(|| format!("write {}", part.display()));
            }
        }
        let target = self.plan.target(result.index).context("find the output's name")?;
        parts.dress(&part, &target).with_context(|| format!("write {}", part.display()))?;
        Ok(Fate::Counted)
    }

    /// Gives every output of the batch its final name, durably.
    async fn place(
        &self,
        results: Vec<Arc<TaskResult>>,
    ) -> Result<(Vec<Arc<TaskResult>>, Vec<u32>)> {
        let Some((parts, syncer)) = &self.parts else { return Ok((results, Vec::new())) };
        let (plan, folder) = (self.plan.clone(), parts.clone());
        let under_way = parts.begin();
        let placing = spawn_blocking(move || {
            let _under_way = under_way;
            let (mut placed, mut lost, mut moved) = (Vec::new(), Vec::new(), false);
            for result in results {
                let stored = result.done().filter(|done| done.place != Place::Nothing);
                let Some(done) = stored else {
                    placed.push(result);
                    continue;
                };
                match place_one(&plan, &folder, &result, done) {
                    Ok(()) => {
                        moved = true;
                        placed.push(result);
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        warn!(
                            index = result.index,
                            "the output's bytes are gone, task is run again"
                        );
                        lost.push(result.index);
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok((placed, lost, moved))
        });
        let (placed, lost, moved) =
            placing.await.context("place outputs")?.context("give outputs their names")?;
        if moved {
            syncer.sync().await.context("make outputs durable")?;
        }
        Ok((placed, lost))
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
    async fn write_stats_beside(&self, folder: PathBuf, results: Vec<Arc<TaskResult>>) {
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

/// The index and round of a result that was followed.
fn id_of(followed: &Followed) -> (u32, u32) {
    match &followed.result {
        Ok(result) => (result.index, result.round),
        Err((index, round, _)) => (*index, *round),
    }
}

fn place_one(plan: &BagPlan, parts: &Parts, result: &TaskResult, done: &Done) -> io::Result<()> {
    let target = plan.target(result.index)?;
    parts.place(&result.id(), &result.execution, &target, &done.output_digest)?;
    if result.attempt > 1 {
        parts.sweep(result.index, result.round);
    }
    Ok(())
}

enum Fetch {
    Object(bagpress_objstore::object_ref::Error),
    File(io::Error),
}

async fn fetch_to(bucket: &Bucket, info: &Info, part: &std::path::Path) -> Result<(), Fetch> {
    let mut reader = bucket.reader(info);
    let mut file = std::fs::File::create(part).map_err(Fetch::File)?;
    while let Some(chunk) = reader.next().await.map_err(Fetch::Object)? {
        let writing = spawn_blocking(move || {
            io::Write::write_all(&mut file, &chunk)?;
            Ok(file)
        });
        let written = writing.await.map_err(|e| Fetch::File(io::Error::other(e)))?;
        file = written.map_err(Fetch::File)?;
    }
    Ok(())
}

/// The RFC's `stats_N.json`. Never synced: the ledger has it all.
fn write_stats(folder: &std::path::Path, codec: &str, result: &TaskResult) {
    let times = &result.times;
    #[expect(clippy::cast_precision_loss, reason = "a label for people")]
    let ms = |us: u64| us as f64 / 1000.0;
    let mut stats = json!({
        "index": result.index, "codec": codec, "worker": result.worker, "host": result.host,
        "attempt": result.attempt, "round": result.round,
        "total_ms": ms(times.execute_us), "input_ms": ms(times.input_us),
        "compress_ms": ms(times.compress_us), "verify_ms": ms(times.verify_us),
        "transfer_ms": ms(times.transfer_us), "queue_ms": ms(times.queue_us),
    });
    let more = match &result.outcome {
        Outcome::Done(done) => {
            #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
            let ratio = done.output_bytes as f64 / done.input_bytes.max(1) as f64;
            json!({
                "ok": true, "input_bytes": done.input_bytes, "output_bytes": done.output_bytes,
                "output_per_input": ratio, "input_digest": done.input_digest,
                "output_digest": done.output_digest, "verified": done.verified, "place": done.place,
            })
        }
        Outcome::Failed(failed) => {
            json!({ "ok": false, "cause": failed.cause, "message": failed.message })
        }
    };
    if let (Some(stats), serde_json::Value::Object(more)) = (stats.as_object_mut(), more) {
        stats.extend(more);
    }
    let path = folder.join(format!("stats_{}.json", result.index));
    if let Err(error) = std::fs::write(&path, format!("{stats:#}\n")) {
        info!(%error, path = %path.display(), "stats file not written");
    }
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

/// A bucket that is there.
///
/// # Errors
///
/// If no bucket can have that name.
pub(crate) fn open_bucket(broker: &Broker, name: &str) -> Result<Bucket> {
    Ok(Bucket::new(broker.client_handle(), broker.context_handle(), name)?)
}

/// The bag's output bucket, made if it is not there.
///
/// # Errors
///
/// If the server has no room for it, or does not answer.
pub(crate) async fn output_bucket(broker: &Broker, plan: &BagPlan) -> Result<Bucket> {
    let specification = &plan.specification;
    let name = subjects::bucket(&specification.bag);
    let description = format!("Outputs of bag {}", specification.bag);
    let bucket = Bucket::create(
        broker.client_handle(),
        broker.context_handle(),
        &name,
        &description,
        specification.bucket_bytes(),
        &specification.bag,
    );
    let bucket = Box::pin(bucket).await;
    bucket.with_context(|| {
        format!("make the bag's bucket; it needs {} bytes at most", specification.bucket_bytes())
    })
}

const _: () = assert!(limits::GATHER_BATCH >= limits::OBJECTS_FETCHED);
