//! The life of one assignment: from its arrival to its answer.

mod conclude;
mod limit;
mod next_step;
mod run;

use std::sync::Arc;

use bagpress_broker::descriptor::{DecodeError, Input, ResultPath, TaskDescriptor};
use bagpress_broker::ids::Execution;
use bagpress_broker::pack;
use bagpress_broker::result::{Cause, Failed, Outcome, Place, Times, wall_clock_us};
use bagpress_broker::{Error, Standing};
use bagpress_objstore::{Opened, Ready, Stored};
use tracing::{debug, info, warn};

use self::conclude::{Answer, conclude};
use self::next_step::{Ended, NextStep, is_final, next_step};
use crate::answer::Count;
use crate::assignment::Assignment;
use crate::cancelled::Watched;
use crate::context::Context;
use crate::slots::{Handle, Made, Waiting, micros};

/// Executes one assignment and answers how it went; whether it was executed, so that it says how long its bag's tasks take.
/// `handle` is that of its execution.
#[tracing::instrument(level = "debug", skip_all, fields(bag = %assignment.id().bag, task = assignment.id().index, round = assignment.id().round))]
pub(crate) async fn attempt(
    context: &Context,
    assignment: &Assignment,
    waiting: Waiting,
    handle: Arc<Handle>,
) -> bool {
    begin(context, assignment, (waiting, handle)).await.unwrap_or_else(|error| {
        // The lease brings the task to a worker that finds out what became of it.
        warn!(task = %assignment.id(), error = %error, "attempt left to its lease");
        false
    })
}

/// Attempts a task that can be read, is not cancelled, has no outcome, and attempts left.
async fn begin(
    context: &Context,
    assignment: &Assignment,
    in_slot: (Waiting, Arc<Handle>),
) -> Result<bool, Error> {
    let execution = assignment.execution();
    let not_executed = |()| false;
    let task = match assignment.task() {
        Ok(task) => task,
        Err(error @ DecodeError::Codec { .. }) => {
            return unknown_codec(context, assignment, execution, &error).await.map(not_executed);
        }
        Err(error) => {
            return unreadable(context, assignment, &execution, &error).await.map(not_executed);
        }
    };
    let cancelled = context.cancelled().of(&task.bag).await;
    if cancelled.is_cancelled() {
        debug!("the bag was cancelled");
        return context.answers().discard(assignment, "cancelled").await.map(not_executed);
    }
    let Some(count) = context.answers().count(assignment).await? else { return Ok(false) };
    let at = Attempt { context, assignment, task, execution, count, cancelled };
    if count.number > at.task.attempts {
        let text = format!("{} workers were lost with it", count.number - 1);
        return at.fail(Failed::new(Cause::CrashLimit, text)).await.map(not_executed);
    }
    let library = at.task.library_of(&at.task.codec.library());
    if at.task.library != library && !context.any_codec_version() {
        let text = format!("the task wants {}, this worker has {library}", at.task.library);
        return at.give_back(Failed::new(Cause::CodecVersion, text)).await.map(not_executed);
    }
    at.run(in_slot).await
}

/// Gives back what a later version may read: another worker may be one.
async fn unknown_codec(
    context: &Context,
    assignment: &Assignment,
    execution: Execution,
    error: &DecodeError,
) -> Result<(), Error> {
    let answers = context.answers();
    let Some(Count { planned, .. }) = answers.count(assignment).await? else { return Ok(()) };
    let failed = Failed::new(Cause::CodecVersion, error.to_string());
    let delay = failed.cause.give_back_delay(planned);
    info!(task = %assignment.id(), error = %failed.message, ?delay, "given back");
    answers.give_back(assignment, planned, failed, Some(execution), delay).await
}

/// Fails what is no descriptor. Its subject still names the task: without an outcome its bag would never end.
async fn unreadable(
    context: &Context,
    assignment: &Assignment,
    execution: &Execution,
    error: &DecodeError,
) -> Result<(), Error> {
    let cause = match error {
        DecodeError::Version { .. } => Cause::ProtocolVersion,
        _ => Cause::BadDescriptor,
    };
    let failed = Failed::new(cause, error.to_string());
    let (id, delivered) = (assignment.id(), assignment.delivered());
    warn!(task = %id, error = %failed.message, "not a descriptor");
    let result = context.answers().result(id, execution, delivered, Outcome::Failed(failed));
    conclude(context, assignment, &result, Answer::Term).await.map(drop)
}

struct Attempt<'a> {
    context: &'a Context,
    assignment: &'a Assignment,
    task: Arc<TaskDescriptor>,
    execution: Execution,
    count: Count,
    /// The bag's.
    cancelled: Watched,
}

impl Attempt<'_> {
    async fn run(self, in_slot: (Waiting, Arc<Handle>)) -> Result<bool, Error> {
        let queue_us = wall_clock_us().saturating_sub(self.task.published_us);
        let ended = match self.context.store().open(&self.task, &self.execution).await {
            Ok(Opened::Go(ready)) if self.is_empty() => self.execute_here(*ready, in_slot.0),
            Ok(Opened::Go(ready)) => {
                let (context, task) = (self.context, &self.task);
                let dropped = self.dropped();
                Box::pin(run::execute_in_slot(context, task, *ready, in_slot, dropped)).await
            }
            Ok(Opened::Pack(ready)) => {
                let (context, task, dropped) = (self.context, &self.task, self.dropped());
                Box::pin(run::execute_pack_in_slot(context, task, *ready, in_slot, dropped)).await
            }
            Ok(Opened::HaveIt(result)) => Ended::Decided(result),
            Ok(Opened::Wait(reason)) => Ended::Failed(Failed::new(Cause::Full, reason)),
            Ok(Opened::Absent) => {
                Ended::Failed(Failed::new(Cause::GathererAbsent, "the bag has no gatherer now"))
            }
            Ok(Opened::Refused(failed)) => Ended::Failed(failed),
            Err(error) => Ended::Failed(error.into()),
        };
        let executed = ended.was_executed();
        self.follow(ended, queue_us).await.map(|()| executed)
    }

    /// Does what the end of the execution means for the task.
    async fn follow(self, ended: Ended, queue_us: u64) -> Result<(), Error> {
        let answers = self.context.answers();
        match next_step(ended, &self.task, self.count.number, self.is_dropped()) {
            NextStep::Done(made, stored, transfer) => {
                let times = Times {
                    queue_us,
                    transfer_us: micros(transfer),
                    made_us: wall_clock_us(),
                    ..made.times
                };
                self.done(&made, stored, times).await
            }
            NextStep::Pack(files, stored, transfer) => {
                self.pack(&files, &stored, queue_us, micros(transfer)).await
            }
            NextStep::HasOutcome { outcome, duplicate, commit } => {
                if duplicate {
                    let winner = Some(&outcome.execution);
                    answers.record_duplicate(self.assignment, &self.execution, winner).await?;
                }
                if !commit {
                    return answers.settle(self.assignment).await;
                }
                conclude(self.context, self.assignment, &outcome, Answer::Ack).await.map(drop)
            }
            NextStep::Fail(failed) => self.fail(failed).await,
            NextStep::AskBroker(failed) => self.unplaced(failed).await,
            NextStep::GiveBack(failed) => self.give_back(failed).await,
            NextStep::Drop => {
                debug!("the bag was cancelled, or the lease is over");
                answers.discard(self.assignment, "cancelled").await
            }
        }
    }

    /// Its output did not get to its place: settles it if the round has an outcome.
    async fn unplaced(self, failed: Failed) -> Result<(), Error> {
        let answers = self.context.answers();
        let standing = answers.standing(self.assignment).await?;
        if matches!(standing, Standing::Open) {
            let last = is_final(failed.cause, &self.task, self.count.number);
            return if last { self.fail(failed).await } else { self.give_back(failed).await };
        }
        let winner = standing.execution();
        answers.record_duplicate(self.assignment, &self.execution, winner).await?;
        answers.settle(self.assignment).await
    }

    /// Resolves when nobody waits for the outcome any more.
    async fn dropped(&self) {
        tokio::select! {
            () = self.cancelled.cancelled() => {}
            () = self.assignment.withdrawn() => {}
        }
    }

    fn is_dropped(&self) -> bool {
        self.cancelled.is_cancelled() || self.assignment.is_withdrawn()
    }

    /// Whether there is nothing to read and nothing to store. What is said to be an empty file may not be one.
    fn is_empty(&self) -> bool {
        let nothing = matches!(self.task.input, Input::Generate { bytes: 0, .. });
        nothing && self.task.codec.stores_nothing()
    }

    fn execute_here(&self, ready: Ready, waiting: Waiting) -> Ended {
        let ended = run::execute_here(self.context, &self.task, ready);
        drop(waiting);
        if self.assignment.is_offered() {
            // Its slot is idle again, long before the outcome is counted.
            self.context.slots().wake();
        }
        ended
    }

    async fn done(self, made: &Made, stored: Stored, times: Times) -> Result<(), Error> {
        let place = match stored {
            // One that was adopted has the very bytes, and perhaps other chunks.
            Stored::Object(info) => {
                Place::Object { bucket: info.bucket, object: info.name, chunks: info.chunks }
            }
            Stored::Nothing => Place::Nothing,
            Stored::Staged | Stored::Tar { .. } | Stored::Decided(_) => Place::Staged,
        };
        let done = made.at(place);
        let output_bytes = done.output_bytes;
        let (id, number, outcome) = (self.assignment.id(), self.count.number, Outcome::Done(done));
        let mut result = self.context.answers().result(id, &self.execution, number, outcome);
        result.times = times;
        let is_object = self.task.results == ResultPath::Objects;
        // Of a task that restores it says that this worker knew what it was asked for.
        if is_object && !self.task.codec.stores_nothing() || self.task.decode.is_some() {
            result.descriptor = Some(Box::new((*self.task).clone()));
        }
        debug!(output_bytes, execute_us = times.execute_us, "task executed");
        self.context.counts().done(made.input_bytes, output_bytes);
        conclude(self.context, self.assignment, &result, Answer::Ack).await.map(drop)
    }

    /// Commits what came of the files of a pack. Files that another attempt may do better stay open, and are run alone.
    async fn pack(
        self,
        files: &[Option<Result<Made, Failed>>],
        stored: &Stored,
        queue_us: u64,
        transfer_us: u64,
    ) -> Result<(), Error> {
        let outcomes = outcomes(files, stored);
        let mut failures = 0;
        for (index, outcome) in (self.task.index..).zip(&outcomes) {
            let Some(outcome @ Outcome::Failed(failed)) = outcome else { continue };
            warn!(bag = %self.task.bag, index, cause = %failed.cause, error = %failed.message, "a file of a pack has no output");
            failures += u64::from(pack::decides(outcome));
        }
        // For people: it does not count.
        let first = outcomes.iter().flatten().next().cloned();
        let text = "every file of the pack had its outcome";
        let none = || Outcome::Failed(Failed::new(Cause::TransferError, text));
        let (id, number) = (self.assignment.id(), self.count.number);
        let first = first.unwrap_or_else(none);
        let mut result = self.context.answers().result(id, &self.execution, number, first);
        result.times = Times { queue_us, transfer_us, ..result.times };
        for made in files.iter().flatten().flatten() {
            result.times.add(&made.times);
            self.context.counts().done(made.input_bytes, made.output_bytes);
        }
        let read = match stored {
            Stored::Tar { input, .. } if self.task.tar.is_some() => Some(*input),
            _ => None,
        };
        // As with one file: a task that restores says so, and the tar can be made again by its task.
        if self.task.decode.is_some() || read.is_some() {
            result.descriptor = self.task.of_result(read).map(Box::new);
        }
        result.members =
            outcomes.into_iter().map(|outcome| outcome.filter(pack::decides)).collect();
        debug!(files = files.len(), execute_us = result.times.execute_us, "pack executed");
        if conclude(self.context, self.assignment, &result, Answer::Ack).await? {
            self.context.counts().failed(failures);
        }
        Ok(())
    }

    async fn fail(self, failed: Failed) -> Result<(), Error> {
        let (id, number) = (self.assignment.id(), self.count.number);
        info!(task = %id, cause = %failed.cause, error = %failed.message, attempt = number, "task failed");
        let outcome = Outcome::Failed(failed);
        let mut result = self.context.answers().result(id, &self.execution, number, outcome);
        let pack = self.task.packed().or(self.task.tarred());
        if let Some(pack) = pack {
            // It fails none of its files: each is run alone.
            result.members = vec![None; pack.files as usize];
        }
        let is_mine = conclude(self.context, self.assignment, &result, Answer::Term).await?;
        // What another execution did first is no failure, nor is a pack whose files are run alone.
        self.context.counts().failed(u64::from(is_mine && pack.is_none()));
        Ok(())
    }

    /// Says why, then lets another worker, or this one later, have the task.
    async fn give_back(self, failed: Failed) -> Result<(), Error> {
        let Count { number, planned } = self.count;
        let before = if failed.cause.is_planned() { planned } else { number - 1 };
        let delay = failed.cause.give_back_delay(before);
        let (assignment, execution) = (self.assignment, Some(self.execution));
        info!(task = %assignment.id(), cause = %failed.cause, error = %failed.message, ?delay, "given back");
        self.context.answers().give_back(assignment, planned, failed, execution, delay).await
    }
}

/// What became of each file of a pack, whose outputs are where `stored` says.
fn outcomes(files: &[Option<Result<Made, Failed>>], stored: &Stored) -> Vec<Option<Outcome>> {
    let place = |of: usize| match stored {
        Stored::Tar { info, at, .. } => Some(Place::Tar {
            bucket: info.bucket.clone(),
            object: info.name.clone(),
            chunks: info.chunks,
            at: at.get(of).copied().flatten()?,
            digest: info.digest,
        }),
        _ => Some(Place::Staged),
    };
    let outcome = |(of, made): (usize, &Option<Result<Made, Failed>>)| {
        Some(match made.as_ref()? {
            Ok(made) => Outcome::Done(made.at(place(of)?)),
            Err(failed) => Outcome::Failed(pack::cut(failed.clone())),
        })
    };
    files.iter().enumerate().map(outcome).collect()
}
