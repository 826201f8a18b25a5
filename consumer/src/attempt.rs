//! The life of one task in hand: from its arrival to its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bagpress_broker::descriptor::{DecodeError, Input, ResultPath, TaskDescriptor};
use bagpress_broker::ids::{Execution, TaskId};
use bagpress_broker::result::{
    Cause, Done, Failed, Outcome, Place, TaskResult, Times, wall_clock_us,
};
use bagpress_broker::{Committed, Error, Standing, limits, subjects};
use bagpress_objstore::{Carried, Opened, Output, Ready, StoreError, Stored};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::cancelled::Watched;
use crate::duplicate;
use crate::execute::{Made, Reins, Scratch, execute, micros};
use crate::handed::{Count, Handed};
use crate::limit;
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

/// Executes one task in hand and tells who waits for it how it went.
#[tracing::instrument(level = "debug", skip_all, fields(bag = %handed.id().bag, task = handed.id().index, round = handed.id().round))]
pub(crate) async fn attempt(worker: &Shared, handed: &Handed, waiting: Waiting) {
    if let Err(error) = run(worker, handed, waiting).await {
        // The lease brings the task to somebody who finds out what became of it.
        warn!(task = %handed.id(), error = %error, "attempt left to its lease");
    }
}

async fn run(worker: &Shared, handed: &Handed, waiting: Waiting) -> Result<(), Error> {
    let execution = handed.execution();
    let task = match handed.task() {
        Ok(task) => task,
        Err(error) => {
            // The subject still names the task: without an outcome its bag would never end.
            let cause = match error {
                DecodeError::Version { .. } => Cause::ProtocolVersion,
                _ => Cause::BadDescriptor,
            };
            let failed = Failed::new(cause, error.to_string());
            warn!(task = %handed.id(), error = %failed.message, "not a descriptor");
            let outcome = Outcome::Failed(failed);
            let result = worker.result(handed.id(), &execution, handed.delivered(), outcome);
            return conclude(worker, handed, &result, true).await;
        }
    };
    let cancelled = worker.cancelled.of(&task.bag).await;
    if cancelled.is_cancelled() {
        debug!("the bag was cancelled");
        return handed.discard("cancelled").await;
    }
    let Some(count) = handed.count(worker).await? else { return Ok(()) };
    let at = Attempt { worker, handed, task, execution, count, cancelled };
    if count.number > at.task.attempts {
        let text = format!("{} workers had it and none came back", count.number - 1);
        return at.fail(Failed::new(Cause::CrashLimit, text)).await;
    }
    at.run(waiting).await
}

struct Attempt<'a> {
    worker: &'a Shared,
    handed: &'a Handed,
    task: Arc<TaskDescriptor>,
    execution: Execution,
    count: Count,
    /// The bag's.
    cancelled: Watched,
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
            Ended::Decided(result) | Ended::Beaten(result) if !self.is_answer(&result) => {
                let text =
                    format!("told of the outcome of task {}, which is no answer", result.id());
                self.not_done(Failed::new(Cause::TransferError, text)).await
            }
            // What is durable counts all the same.
            Ended::Failed(_) | Ended::Unplaced(_) if self.is_dropped() => {
                debug!("the bag was cancelled, or the lease is over");
                self.handed.discard("cancelled").await
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
            Ended::Decided(result) => self.decided(&result).await,
            Ended::Beaten(result) => {
                let winner = Some(&result.execution);
                duplicate::record(self.worker, self.handed, &self.execution, winner).await?;
                self.decided(&result).await
            }
            Ended::Unplaced(failed) => {
                // Its gatherer may be gone because the bag is over.
                let standing = self.handed.standing(self.worker).await?;
                if matches!(standing, Standing::Open) {
                    return self.not_done(failed).await;
                }
                let winner = standing.execution();
                duplicate::record(self.worker, self.handed, &self.execution, winner).await?;
                self.handed.settle().await
            }
            Ended::Failed(failed) => self.not_done(failed).await,
        }
    }

    /// Whether what its gatherer calls the outcome of its task can be that: anybody may have answered.
    fn is_answer(&self, result: &TaskResult) -> bool {
        result.decides(self.handed.id()) && result.fits(&self.task.codec, self.task.results)
    }

    /// Commits what is in the ledger, as a broker may have forgotten it. A later round has a delivery of its own.
    async fn decided(&self, result: &TaskResult) -> Result<(), Error> {
        if result.round != self.handed.id().round {
            return self.handed.settle().await;
        }
        conclude(self.worker, self.handed, result, false).await
    }

    /// Resolves when nobody waits for it any more.
    async fn dropped(&self) {
        tokio::select! {
            () = self.cancelled.cancelled() => {}
            () = self.handed.withdrawn() => {}
        }
    }

    fn is_dropped(&self) -> bool {
        self.cancelled.is_cancelled() || self.handed.is_withdrawn()
    }

    async fn not_done(self, failed: Failed) -> Result<(), Error> {
        if self.is_final(&failed) { self.fail(failed).await } else { self.give_back(failed).await }
    }

    fn is_final(&self, failed: &Failed) -> bool {
        if failed.cause.is_planned() {
            return false;
        }
        !failed.cause.is_transient() || self.count.number >= self.task.attempts
    }

    /// Whether there is nothing to read and nothing to store. What is said to be an empty file may not be one.
    fn is_empty(&self) -> bool {
        let nothing = matches!(self.task.input, Input::Generate { bytes: 0, .. });
        nothing && self.task.codec.stores_nothing()
    }

    /// Executes an empty task where it stands: to wake a slot would take longer than the work.
    fn execute_here(&self, ready: Ready, waiting: Waiting) -> Ended {
        let began = Instant::now();
        let (reins, mut scratch) = (Reins::default(), Scratch::empty());
        let made = execute(&self.task, ready.source, ready.sink, &mut scratch, &reins);
        self.worker.slots.took(began.elapsed());
        drop(waiting);
        if matches!(self.handed, Handed::Offered(_)) {
            // Its slot is idle again, long before the outcome is counted.
            self.worker.slots.wake();
        }
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
        let under_way = UnderWay {
            handle: handle.clone(),
            fetching: source.fetching(),
            stopped: CancellationToken::new(),
        };
        let job = Job { task, source, sink, handle: for_slot, made: sender, waiting };
        self.worker.slots.submit(job);
        let mut placing = std::pin::pin!(self.place(made, output, &under_way));
        let late = tokio::select! {
            ended = &mut placing => return ended,
            late = limit::over(self.worker.time_limit, &handle) => late,
        };
        under_way.stop();
        under_way.stopped.cancel();
        match placing.await {
            Ended::Failed(_) | Ended::Unplaced(_) => Ended::Unplaced(late),
            in_time => in_time,
        }
    }

    /// Waits for the output, and brings it to its place.
    async fn place(
        &self,
        made: oneshot::Receiver<Result<Made, Failed>>,
        output: Output,
        under_way: &UnderWay,
    ) -> Ended {
        let carrying = under_way.unless_late(output.carry());
        let (made, carried) = tokio::join!(self.made(made, under_way), carrying);
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
            Ok(carried) => {
                let closing = carried.close(made.output_bytes, &made.output_digest);
                under_way.unless_late(closing).await
            }
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
        under_way: &UnderWay,
    ) -> Result<Made, Failed> {
        let mut draining = std::pin::pin!(self.worker.drain.cancelled());
        let mut dropping = std::pin::pin!(self.dropped());
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
                    if under_way.handle.revoke() {
                        return Err(Failed::new(Cause::Drain, "the worker is draining"));
                    }
                }
                () = &mut dropping, if !dropped => {
                    dropped = true;
                    if under_way.handle.revoke() {
                        return Err(Failed::new(Cause::Cancelled, "nobody waits for it"));
                    }
                    under_way.stop();
                }
            }
        }
    }

    async fn done(self, made: &Made, stored: Stored, times: Times) -> Result<(), Error> {
        let place = match stored {
            // One that was adopted has the very bytes, and perhaps other chunks.
            Stored::Object(info) => {
                Place::Object { bucket: info.bucket, object: info.name, chunks: info.chunks }
            }
            Stored::Nothing => Place::Nothing,
            Stored::Staged | Stored::Decided(_) => Place::Staged,
        };
        let (output_bytes, output_digest) = (made.output_bytes, made.output_digest);
        let done = Done {
            input_bytes: made.input_bytes,
            input_digest: made.input_digest,
            output_bytes,
            output_digest,
            place,
            verified: made.verified,
        };
        let id = self.handed.id();
        let mut result =
            self.worker.result(id, &self.execution, self.count.number, Outcome::Done(done));
        result.times = times;
        if self.task.results == ResultPath::Objects && !self.task.codec.stores_nothing() {
            result.descriptor = Some(Box::new((*self.task).clone()));
        }
        debug!(output_bytes, execute_us = times.execute_us, "task executed");
        self.worker.count_done(made.input_bytes, output_bytes);
        conclude(self.worker, self.handed, &result, false).await
    }

    async fn fail(self, failed: Failed) -> Result<(), Error> {
        info!(task = %self.handed.id(), cause = %failed.cause, error = %failed.message, attempt = self.count.number, "task failed");
        self.worker.count_failed();
        let id = self.handed.id();
        let result =
            self.worker.result(id, &self.execution, self.count.number, Outcome::Failed(failed));
        conclude(self.worker, self.handed, &result, true).await
    }

    /// Says why, then lets another worker, or this one later, have the task.
    async fn give_back(self, failed: Failed) -> Result<(), Error> {
        let Count { number, planned } = self.count;
        let before = if failed.cause.is_planned() { planned } else { number - 1 };
        let delay = failed.cause.give_back_delay(before);
        info!(task = %self.handed.id(), cause = %failed.cause, error = %failed.message, ?delay, "given back");
        self.handed.give_back(self.worker, planned, failed, Some(self.execution), delay).await
    }
}

/// An execution under way, and what ends it.
struct UnderWay {
    handle: Arc<Handle>,
    /// Of its input.
    fetching: Option<AbortHandle>,
    /// Its time is over.
    stopped: CancellationToken,
}

impl UnderWay {
    /// Ends it at its next segment, and lets it wait for no more input.
    fn stop(&self) {
        self.handle.stop();
        if let Some(fetching) = &self.fetching {
            fetching.abort();
        }
    }

    /// Waits for the other side. When the time is over only as long as one answer may take: a slot waits for it.
    async fn unless_late<T>(
        &self,
        waiting: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let late = async {
            self.stopped.cancelled().await;
            tokio::time::sleep(limits::REQUEST_TIMEOUT).await;
        };
        tokio::select! {
            done = waiting => done,
            () = late => Err(StoreError::Full("the time of the execution is over".to_owned())),
        }
    }
}

/// Gives the output of a failed execution up, and finds what failed first.
async fn give_up(failed: Failed, carried: Result<Carried, StoreError>) -> Failed {
    match carried {
        // The sink closed because the carrier failed: that is the cause.
        Err(error) if failed.cause == Cause::TransferError => error.into(),
        Err(_) => failed,
        Ok(carried) => {
            carried.abandon(&failed).await;
            failed
        }
    }
}

/// Makes an outcome the task's, then answers: never the other way round.
async fn conclude(
    worker: &Shared,
    handed: &Handed,
    result: &TaskResult,
    term: bool,
) -> Result<(), Error> {
    let committed = handed.commit(worker, result).await?;
    if let Committed::Unreadable(why) = &committed {
        // Nobody can commit another outcome of this round: its gatherer begins a new one.
        warn!(task = %handed.id(), why, "the committed result is not readable");
    }
    if !matches!(committed, Committed::Mine) && duplicate::was_executed(worker, result) {
        let winner = committed.execution();
        duplicate::record(worker, handed, &result.execution, winner).await?;
        if let Some(Place::Object { bucket, object, .. }) = result.done().map(|done| &done.place)
            && subjects::is_beside(object)
        {
            worker.store.forget(bucket, object).await;
        }
    }
    if term { handed.discard("failed").await } else { handed.settle().await }
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
            file: None,
        }
    }
}
