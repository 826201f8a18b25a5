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

use super::origin::{Origin, ROUNDS_TRIED};
use super::refusal::{NotMade, Why, called_off};
use super::room::make_room;
use super::tar::{is_made_by_its_bag, is_of_pack, may_be_beside};
use super::workers::{who_fails_it, who_takes};
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
        let (mut task, pool) = (origin.task.clone(), &origin.pool);
        let bucket = open_bucket(&self.broker, object.bucket())?;
        if !make_room(&self.broker, &task.bag, &origin.outputs, origin.bytes).await? {
            return Ok(Err(called_off(&task.bag)));
        }
        let before = match bucket.info_from_leader(object.object()).await? {
            Lookup::Found(info) => Some(info),
            _ => None,
        };
        if let Some(not_made) = self.other_tar(origin, object).await? {
            return Ok(Err(not_made));
        }
        for _ in 0..ROUNDS_TRIED {
            info!(%object, task = %task.id(), "made again");
            self.submit(&task, pool).await?;
            let result = match self.outcome(&task, pool, object).await? {
                Ok(result) => result,
                Err(not_made) => return Ok(Err(not_made)),
            };
            if task.again.is_none() || is_of_pack(&result) {
                if let Outcome::Failed(failed) = &result.outcome
                    && let Some(why) = self.unfit(&task, pool).await?
                {
                    let text = format!("task {}: {}: {why}", result.id(), failed.cause);
                    return Ok(Err(Why::TaskFailed.because(text)));
                }
                return judge(&bucket, origin, object, &result, before).await;
            }
            task.round += 1;
        }
        let text = format!("its bag runs file {} again and again", task.index);
        Ok(Err(Why::TaskFailed.because(text)))
    }

    /// That a tar must not be made again, because another one counts: two executions of a pack may have made different ones, of which
    /// the gatherer counted the other one, or both, each for some files.
    ///
    /// # Errors
    ///
    /// If the broker does not answer.
    pub(super) async fn other_tar(
        &self,
        origin: &Origin,
        object: &Reference,
    ) -> Result<Option<NotMade>> {
        if origin.task.again.is_none() {
            return Ok(None);
        }
        let bucket = open_bucket(&self.broker, object.bucket())?;
        let is_other = |info: &Info| {
            info.digest != origin.digest && is_made_by_its_bag(&info.token, origin.task.index)
        };
        let named = origin.named.as_deref().filter(|named| may_be_beside(named, object.object()));
        if let Some(named) = named {
            match bucket.find(named).await {
                Ok(info) if info.digest == origin.digest => {
                    let text = format!(
                        "the tar that the result of its pack names is obj://{}/{named}, which is there: what is lost was another execution's",
                        bucket.name()
                    );
                    return Ok(Some(Why::NoLineage.because(text)));
                }
                Err(error) if error.is_transient() => return Err(error.into()),
                _ => {}
            }
        }
        match bucket.find(object.object()).await {
            Ok(info) if is_other(&info) => {
                let text = "another execution of its pack has made what is there, in which files of the bag may be: it stays";
                Ok(Some(Why::OtherBytes.because(text)))
            }
            Err(error) if error.is_transient() => Err(error.into()),
            // Nothing can be read of it.
            _ => Ok(None),
        }
    }

    /// That workers of the pool fail such a task for not knowing what it asks for, if there are any.
    async fn unfit(&self, task: &TaskDescriptor, pool: &Pool) -> Result<Option<String>> {
        if task.again.is_none() {
            return Ok(None);
        }
        let workers = self.broker.workers(limits::WORKERS_ANSWER_WITHIN).await?;
        Ok(who_fails_it(&workers, pool, task))
    }

    /// Publishes a task, unless it waits or runs already.
    async fn submit(&self, task: &TaskDescriptor, pool: &Pool) -> Result<()> {
        let once = || async { self.broker.submit(pool, task, false).await?.await };
        let again = |error: &bagpress_broker::Error| error.is_transient();
        let submitted = Retry::times(limits::COMMIT_TRIES).run(once, again).await;
        submitted.context("publish the task that makes an object again")?;
        Ok(())
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
            let workers = self.broker.workers(limits::WORKERS_ANSWER_WITHIN).await?;
            let workers = who_takes(&workers, pool, task);
            workers_at = Instant::now() + LOOK_FOR_WORKERS;
            unanswered = if workers.is_err() { unanswered + 1 } else { 0 };
            let workers = match workers {
                Err(text) if unanswered >= UNANSWERED_MAX => {
                    return Ok(Err(Why::NoWorkers.because(text)));
                }
                workers => workers.unwrap_or(0),
            };
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
            // Whoever waited for the same object has given it the name.
            let named = bucket.find(object.object()).await;
            let is_it = |info: &Info| (info.digest, info.bytes) == (origin.digest, origin.bytes);
            if named.as_ref().is_ok_and(is_it) {
                return Ok(Ok(()));
            }
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
