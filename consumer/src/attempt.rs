//! The life of one delivery: from its arrival to its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bagpress_broker::descriptor::{DecodeError, ResultPath, TaskDescriptor};
use bagpress_broker::ids::{Execution, TaskId};
use bagpress_broker::result::{
    Cause, Done, Failed, Outcome, Place, TaskResult, Times, wall_clock_us,
};
use bagpress_broker::{AttemptRecord, Committed, Delivery, Error, limits};
use bagpress_objstore::{Carried, Opened, Ready, StoreError, Stored};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::duplicate;
use crate::execute::{Made, Scratch, execute, micros};
use crate::slot::{Handle, Job};
use crate::worker::{Shared, Waiting};

/// Units of the budget of outputs under way that a large output takes; a small one takes one.
const LARGE: u32 = 32;
const _: () = assert!(LARGE as usize * limits::UPLOADS_PER_SLOT == limits::UNCOMMITTED_MAX);

/// How an attempt ended, short of its answer.
enum Ended {
    Made(Made, Stored, Duration),
    /// It was executed, and its round has another's outcome.
    Beaten(Box<TaskResult>),
    /// It was executed, at least in part, and its output did not get to its place.
    Unplaced(Failed),
    /// Its round has an outcome already.
    Decided(Box<TaskResult>),
    Failed(Failed),
}

/// Executes one delivery and tells the broker how it went.
#[tracing::instrument(level = "debug", skip_all, fields(bag = %delivery.id().bag, task = delivery.id().index, round = delivery.id().round))]
pub(crate) async fn attempt(worker: &Shared, delivery: &Delivery, waiting: Waiting) {
    if let Err(error) = run(worker, delivery, waiting).await {
        // The lease brings the task to somebody who finds out what became of it.
        warn!(task = %delivery.id(), error = %error, "attempt left to its lease");
    }
}

async fn run(worker: &Shared, delivery: &Delivery, waiting: Waiting) -> Result<(), Error> {
    let execution = Execution::random();
    let task = match delivery.task() {
        Ok(task) => Arc::new(task),
        Err(error) => {
            // The subject still names the task: without an outcome its bag would never end.
            let cause = match error {
                DecodeError::Version { .. } => Cause::ProtocolVersion,
                _ => Cause::BadDescriptor,
            };
            let failed = Failed::new(cause, error.to_string());
            warn!(task = %delivery.id(), error = %failed.message, "not a descriptor");
            let result = worker.result(
                delivery.id(),
                &execution,
                delivery.delivered(),
                Outcome::Failed(failed),
            );
            return conclude(worker, delivery, &result, true).await;
        }
    };
    let cancelled = worker.cancelled.of(&task.bag).await;
    if cancelled.is_cancelled() {
        debug!("the bag was cancelled");
        return delivery.term("cancelled").await;
    }
    let mut planned = 0;
    if delivery.delivered() > 1 {
        if let Some(result) = worker.broker.committed(delivery.id()).await? {
            debug!(execution = %result.execution, "committed before, acknowledged again");
            return delivery.ack().await;
        }
        planned = worker.broker.planned_give_backs(delivery.id()).await?;
    }
    let attempt = delivery.delivered().saturating_sub(planned).max(1);
    let at = Attempt { worker, delivery, task, execution, number: attempt, planned, cancelled };
    if attempt > at.task.attempts {
        let text = format!("{} workers had it and none came back", attempt - 1);
        return at.fail(Failed::new(Cause::CrashLimit, text)).await;
    }
    at.run(waiting).await
}

struct Attempt<'a> {
    worker: &'a Shared,
    delivery: &'a Delivery,
    task: Arc<TaskDescriptor>,
    execution: Execution,
    number: u32,
    planned: u32,
    /// The bag's.
    cancelled: CancellationToken,
}

impl Attempt<'_> {
    async fn run(self, waiting: Waiting) -> Result<(), Error> {
        let queue_us = wall_clock_us().saturating_sub(self.task.published_us);
        let library = self.task.codec.library();
        if self.task.library != library && !self.worker.any_codec_version {
            let text = format!("the task wants {}, this worker has {library}", self.task.library);
            return self.give_back(Failed::new(Cause::CodecVersion, text)).await;
        }
        let opened = self.worker.store.open(&self.task, &self.execution).await;
        let ended = match opened {
            Ok(Opened::Go(ready)) if self.is_empty() => self.execute_here(*ready, waiting),
            Ok(Opened::Go(ready)) => Box::pin(self.execute(*ready, waiting)).await,
            Ok(Opened::HaveIt(result)) => Ended::Decided(result),
            Ok(Opened::Wait(reason)) => Ended::Failed(Failed::new(Cause::Full, reason)),
            Ok(Opened::Absent) => {
                Ended::Failed(Failed::new(Cause::GathererAbsent, "nobody gathers the bag now"))
            }
            Ok(Opened::Refused(failed)) => Ended::Failed(failed),
            Err(error) => Ended::Failed(error.into()),
        };
        match ended {
            // What is durable counts all the same.
            Ended::Failed(_) | Ended::Unplaced(_) if self.cancelled.is_cancelled() => {
                debug!("the bag was cancelled");
                self.delivery.term("cancelled").await
            }
            Ended::Made(made, stored, transfer) => {
                let times = Times {
                    queue_us,
                    transfer_us: micros(transfer),
                    made_us: wall_clock_us(),
                    ..made.times
                };
                self.done(&made, stored, times).await
            }
            // In the ledger, and perhaps not committed: a broker may have forgotten it.
            Ended::Decided(result) => conclude(self.worker, self.delivery, &result, false).await,
            Ended::Beaten(result) => {
                duplicate::record(self.worker, self.delivery, &self.execution, &result).await?;
                conclude(self.worker, self.delivery, &result, false).await
            }
            Ended::Unplaced(failed) => {
                // Its gatherer may be gone because the bag is over.
                if let Some(winner) = self.worker.broker.committed(self.delivery.id()).await? {
                    duplicate::record(self.worker, self.delivery, &self.execution, &winner).await?;
                    return self.delivery.ack().await;
                }
                self.not_done(failed).await
            }
            Ended::Failed(failed) => self.not_done(failed).await,
        }
    }

    async fn not_done(self, failed: Failed) -> Result<(), Error> {
        if self.is_final(&failed) { self.fail(failed).await } else { self.give_back(failed).await }
    }

    fn is_final(&self, failed: &Failed) -> bool {
        if failed.cause.is_planned() {
            return false;
        }
        !failed.cause.is_transient() || self.number >= self.task.attempts
    }

    /// Whether there is nothing to read and nothing to store.
    fn is_empty(&self) -> bool {
        self.task.input.bytes() == 0 && self.task.codec.stores_nothing()
    }

    /// Executes an empty task where it stands: to wake a slot would take longer than the work.
    fn execute_here(&self, ready: Ready, waiting: Waiting) -> Ended {
        let began = Instant::now();
        let stop = AtomicBool::new(false);
        let made = execute(&self.task, ready.source, ready.sink, &mut Scratch::empty(), &stop);
        self.worker.slots.took(began.elapsed());
        drop(waiting);
        match made {
            Ok(made) => Ended::Made(made, Stored::Nothing, Duration::ZERO),
            Err(failed) => Ended::Failed(failed),
        }
    }

    /// Lets a slot execute the task while its output is carried away beside it.
    async fn execute(&self, ready: Ready, waiting: Waiting) -> Ended {
        let Ready { source, sink, output } = ready;
        let small = self.task.input.bytes() <= limits::CHUNK_BYTES as u64;
        let units = if small { 1 } else { LARGE };
        let Ok(_budget) = self.worker.outputs.acquire_many(units).await else {
            return Ended::Failed(Failed::new(Cause::Drain, "the worker is ending"));
        };
        let (sender, made) = oneshot::channel();
        let handle = Arc::new(Handle::default());
        let (task, for_slot) = (self.task.clone(), handle.clone());
        let job = Job { task, source, sink, handle: for_slot, made: sender, waiting };
        self.worker.slots.submit(job);
        let (made, carried) = tokio::join!(self.made(made, &handle), output.carry());
        let executed = Instant::now();
        let made = match made {
            Ok(made) => made,
            Err(failed) => {
                let failed = give_up(failed, carried).await;
                return match failed.cause {
                    Cause::GathererAbsent | Cause::TransferError => Ended::Unplaced(failed),
                    _ => Ended::Failed(failed),
                };
            }
        };
        let stored = match carried {
            Ok(carried) => carried.close(made.output_bytes, &made.output_digest).await,
            Err(error) => Err(error),
        };
        match stored {
            Ok(Stored::Decided(result)) => Ended::Beaten(result),
            Ok(stored) => Ended::Made(made, stored, executed.elapsed()),
            Err(error) => Ended::Unplaced(error.into()),
        }
    }

    /// Waits for the slot; takes the job back if the worker drains before it has started.
    async fn made(
        &self,
        mut made: oneshot::Receiver<Result<Made, Failed>>,
        handle: &Handle,
    ) -> Result<Made, Failed> {
        let limit = self.worker.time_limit.unwrap_or(Duration::MAX);
        let mut over = std::pin::pin!(tokio::time::sleep(limit.min(Duration::from_hours(8_760))));
        let mut draining = std::pin::pin!(self.worker.drain.cancelled());
        let mut cancelled = std::pin::pin!(self.cancelled.cancelled());
        let (mut drained, mut dropped) = (false, false);
        loop {
            tokio::select! {
                made = &mut made => {
                    return made.unwrap_or_else(|_| {
                        Err(Failed::new(Cause::Drain, "the worker is ending"))
                    });
                }
                () = &mut draining, if !drained => {
                    drained = true;
                    if handle.revoke() {
                        return Err(Failed::new(Cause::Drain, "the worker is draining"));
                    }
                }
                () = &mut cancelled, if !dropped => {
                    dropped = true;
                    if handle.revoke() {
                        return Err(Failed::new(Cause::Cancelled, "the bag was cancelled"));
                    }
                    handle.stop.store(true, Ordering::Relaxed);
                }
                () = &mut over, if !handle.stop.load(Ordering::Relaxed) => {
                    // Time in the slots' queue is not the task's.
                    if handle.started() {
                        handle.stop.store(true, Ordering::Relaxed);
                    } else {
                        over.as_mut().reset(tokio::time::Instant::now() + limit);
                    }
                }
            }
        }
    }

    async fn done(self, made: &Made, stored: Stored, times: Times) -> Result<(), Error> {
        // An adopted object is another execution's, and so are its size and digest.
        let (place, output_bytes, output_digest) = match stored {
            Stored::Object(info) => {
                let (bytes, digest) = (info.bytes, info.digest);
                let place =
                    Place::Object { bucket: info.bucket, object: info.name, chunks: info.chunks };
                (place, bytes, digest)
            }
            Stored::Nothing => (Place::Nothing, made.output_bytes, made.output_digest),
            Stored::Staged | Stored::Decided(_) => {
                (Place::Staged, made.output_bytes, made.output_digest)
            }
        };
        let done = Done {
            input_bytes: made.input_bytes,
            input_digest: made.input_digest,
            output_bytes,
            output_digest,
            place,
            verified: made.verified,
        };
        let id = self.delivery.id();
        let mut result = self.worker.result(id, &self.execution, self.number, Outcome::Done(done));
        result.times = times;
        if self.task.results == ResultPath::Objects && !self.task.codec.stores_nothing() {
            result.descriptor = Some(Box::new((*self.task).clone()));
        }
        debug!(output_bytes, execute_us = times.execute_us, "task executed");
        self.worker.count_done(made.input_bytes, output_bytes);
        conclude(self.worker, self.delivery, &result, false).await
    }

    async fn fail(self, failed: Failed) -> Result<(), Error> {
        info!(task = %self.delivery.id(), cause = %failed.cause, error = %failed.message, attempt = self.number, "task failed");
        self.worker.count_failed();
        let id = self.delivery.id();
        let result = self.worker.result(id, &self.execution, self.number, Outcome::Failed(failed));
        conclude(self.worker, self.delivery, &result, true).await
    }

    /// Records why, then lets another worker, or this one later, have the task.
    async fn give_back(self, failed: Failed) -> Result<(), Error> {
        let delay = match failed.cause {
            Cause::Drain => Duration::ZERO,
            Cause::GathererAbsent | Cause::Full | Cause::CodecVersion => doubled(self.planned),
            _ => doubled(self.number - 1),
        };
        info!(task = %self.delivery.id(), cause = %failed.cause, error = %failed.message, ?delay, "given back");
        give_back(self.worker, self.delivery, self.planned, failed, Some(self.execution), delay)
            .await
    }
}

/// Gives the output of a failed execution up, and finds what failed first.
async fn give_up(failed: Failed, carried: Result<Carried, StoreError>) -> Failed {
    match carried {
        // The sink closed because the carrier failed: that is the cause.
        Err(error) if failed.cause == Cause::TransferError => error.into(),
        Err(_) => failed,
        Ok(carried) => {
            carried.abandon().await;
            failed
        }
    }
}

/// Records why a delivery is given back, then naks it.
pub(crate) async fn give_back(
    worker: &Shared,
    delivery: &Delivery,
    planned: u32,
    failed: Failed,
    execution: Option<Execution>,
    delay: Duration,
) -> Result<(), Error> {
    let id = delivery.id();
    let by = &worker.holdings.holder().worker;
    let mut record = AttemptRecord::new(id, delivery.delivered(), planned, failed.cause, by);
    record.host.clone_from(&worker.holdings.holder().host);
    record.message = failed.message;
    record.execution = execution;
    worker.broker.record_attempt(&id.bag, &record).await?;
    delivery.nak(delay).await
}

/// Commits an outcome, then answers the delivery: never the other way round.
async fn conclude(
    worker: &Shared,
    delivery: &Delivery,
    result: &TaskResult,
    term: bool,
) -> Result<(), Error> {
    match commit(worker, result).await? {
        Committed::Mine => {}
        Committed::Other(other) => {
            if duplicate::was_executed(worker, result) {
                duplicate::record(worker, delivery, &result.execution, &other).await?;
            }
        }
    }
    if term { delivery.term("failed").await } else { delivery.ack().await }
}

/// Commits an outcome; full is not failed: the delivery is held meanwhile, and no attempt is spent.
async fn commit(worker: &Shared, result: &TaskResult) -> Result<Committed, Error> {
    let mut tries = 0;
    loop {
        match worker.broker.commit(result).await {
            Err(error @ Error::Full { .. }) if !worker.drain.is_cancelled() => {
                let delay = doubled(tries).min(limits::LEASE_RENEWAL);
                debug!(%error, ?delay, "the result waits");
                tokio::time::sleep(delay).await;
                tries += 1;
            }
            committed => return committed,
        }
    }
}

fn doubled(times: u32) -> Duration {
    let delay = limits::GIVE_BACK_DELAY.saturating_mul(1 << times.min(16));
    delay.min(limits::GIVE_BACK_DELAY_MAX)
}

impl Shared {
    fn result(
        &self,
        id: &TaskId,
        execution: &Execution,
        attempt: u32,
        outcome: Outcome,
    ) -> TaskResult {
        let holder = self.holdings.holder();
        TaskResult {
            v: limits::WIRE_VERSION,
            bag: id.bag.clone(),
            index: id.index,
            round: id.round,
            execution: execution.clone(),
            attempt,
            worker: holder.worker.clone(),
            host: holder.host.clone(),
            outcome,
            times: Times { made_us: wall_clock_us(), ..Times::default() },
            descriptor: None,
        }
    }
}
