//! A task is run once more, by the workers that there are, and its output looked at.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bagpress_broker::descriptor::TaskDescriptor;
use bagpress_broker::ids::Pool;
use bagpress_broker::result::{Outcome, TaskResult};
use bagpress_broker::retry::Retry;
use bagpress_broker::{Broker, Standing, limits};
use bagpress_objstore::object_ref::{Bucket, Info, Lookup, Reference};
use tokio::time::{Instant, sleep};
use tracing::info;

use super::origin::Origin;
use super::refusal::{NotMade, Why, called_off};
use super::room::make_room;
use crate::claim::buckets::open_bucket;
use crate::error::message;

/// Between two looks for an outcome, at first and at most.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(500);
/// After how long without an outcome somebody is told that it takes long.
const SAY_AGAIN: Duration = Duration::from_secs(5);
/// After how long without an outcome workers are looked for.
const LOOK_FOR_WORKERS: Duration = Duration::from_secs(1);
/// How often no worker may answer before none is waited for.
const UNANSWERED_MAX: u32 = 3;

/// Runs tasks of bags that nobody gathers.
#[derive(Debug)]
pub(super) struct Runner {
    broker: Broker,
    /// When the last note was printed: one for all that wait at the same time.
    said: Mutex<Instant>,
}

impl Runner {
    pub(super) fn new(broker: &Broker) -> Self {
        Self { broker: broker.clone(), said: Mutex::new(Instant::now()) }
    }

    /// Publishes the task that makes `object`, and waits for its outcome.
    ///
    /// # Errors
    ///
    /// If the broker does not answer, or has no room.
    pub(super) async fn run(
        &self,
        origin: &Origin,
        object: &Reference,
    ) -> Result<Result<(), NotMade>> {
        let (task, pool) = (&origin.task, &origin.pool);
        let bucket = open_bucket(&self.broker, object.bucket())?;
        if !make_room(&self.broker, &task.bag, &origin.outputs, origin.bytes).await? {
            return Ok(Err(called_off(&task.bag)));
        }
        let before = match bucket.info_from_leader(object.object()).await? {
            Lookup::Found(info) => Some(info),
            _ => None,
        };
        info!(%object, task = %task.id(), "made again");
        self.submit(task, pool).await?;
        let result = match self.outcome(task, pool, object).await? {
            Ok(result) => result,
            Err(not_made) => return Ok(Err(not_made)),
        };
        judge(&bucket, origin, object, &result, before).await
    }

    /// Publishes a task, unless it waits or runs already.
    async fn submit(&self, task: &TaskDescriptor, pool: &Pool) -> Result<()> {
        let once = || async { self.broker.submit(pool, task, false).await?.await };
        let again = |error: &bagpress_broker::Error| error.is_transient();
        let submitted = Retry::times(limits::COMMIT_TRIES).run(once, again).await;
        submitted.context("publish the task that makes an object again")?;
        Ok(())
    }

    /// How many workers of a pool answer.
    async fn workers(&self, pool: &Pool) -> Result<usize> {
        let workers = self.broker.workers(limits::WORKERS_ANSWER_WITHIN).await?;
        Ok(workers.iter().filter(|(_, stats)| stats.pool == pool.as_str()).count())
    }

    async fn outcome(
        &self,
        task: &TaskDescriptor,
        pool: &Pool,
        object: &Reference,
    ) -> Result<Result<TaskResult, NotMade>> {
        let id = &task.id();
        let (began, mut look_again, mut unanswered) = (Instant::now(), LOOK_AGAIN, 0);
        let mut workers_at = began + LOOK_FOR_WORKERS;
        loop {
            let once = || self.broker.standing(id);
            let again = |error: &bagpress_broker::Error| error.is_transient();
            match Retry::times(limits::COMMIT_TRIES).run(once, again).await? {
                Standing::Decided(result) => return Ok(Ok(*result)),
                Standing::Unreadable(why) => {
                    let text = format!("what is committed of task {id} cannot be read: {why}");
                    return Ok(Err(Why::TaskFailed.because(text)));
                }
                Standing::Open => {}
            }
            sleep(look_again).await;
            look_again = (look_again * 2).min(LOOK_AGAIN_MAX);
            if Instant::now() < workers_at {
                continue;
            }
            let workers = self.workers(pool).await?;
            workers_at = Instant::now() + LOOK_FOR_WORKERS;
            unanswered = if workers == 0 { unanswered + 1 } else { 0 };
            if unanswered >= UNANSWERED_MAX {
                return Ok(Err(no_workers(pool)));
            }
            if self.broker.find_bag(&task.bag).await?.is_called_off() {
                return Ok(Err(called_off(&task.bag)));
            }
            // A server that was killed may have forgotten it.
            self.submit(task, pool).await?;
            self.say(|| {
                let waited = began.elapsed().as_secs();
                format!(
                    "note: {object} is made again by task {id}, which has no outcome after {waited} s; \
                     {workers} workers of pool {pool} answer, of which those with --delivery queue-group do not take it"
                )
            });
        }
    }

    fn say(&self, text: impl FnOnce() -> String) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.elapsed() >= SAY_AGAIN {
            *said = Instant::now();
            message(&text());
        }
    }
}

fn no_workers(pool: &Pool) -> NotMade {
    let text = format!(
        "no workers are connected to pool {pool}; its task waits for one: start some with `bagpress worker`, and ask again"
    );
    Why::NoWorkers.because(text)
}

/// Whether the outcome is the object that was lost; then it gets its name, if a worker could not give it that, and what was
/// left of the former goes.
async fn judge(
    bucket: &Bucket,
    origin: &Origin,
    object: &Reference,
    result: &TaskResult,
    before: Option<Info>,
) -> Result<Result<(), NotMade>> {
    let done = match &result.outcome {
        Outcome::Done(done) => done,
        Outcome::Failed(failed) => {
            let text = format!("task {}: {}: {}", result.id(), failed.cause, failed.message);
            return Ok(Err(Why::TaskFailed.because(text)));
        }
    };
    let there = match done.place.object() {
        Some((of, name)) if of == bucket.name() => bucket.find(name).await,
        _ => {
            let text = format!("task {} has made it at another place", result.id());
            return Ok(Err(Why::TaskFailed.because(text)));
        }
    };
    let info = match there {
        Ok(info) => info,
        Err(error) if error.is_transient() => return Err(error.into()),
        Err(error) => {
            let text = format!("what task {} has made is gone again: {error}", result.id());
            return Ok(Err(Why::TaskFailed.because(text)));
        }
    };
    if (info.digest, info.bytes) != (origin.digest, origin.bytes) {
        // The name stands for the former bytes or for none. What another execution made may be what a gatherer counts.
        if info.token == format!("{}-{}", result.index, result.execution) {
            bucket.remove_exactly(&info).await?;
        }
        let text = format!("worker {} has made other bytes of the same input", result.worker);
        return Ok(Err(Why::OtherBytes.because(text)));
    }
    bucket.rename(&info, object.object()).await?;
    if let Some(before) = before.filter(|before| before.token != info.token) {
        bucket.finish_removal(&before.token, before.is_shared()).await?;
    }
    Ok(Ok(()))
}
