//! Runs a task in a slot and uploads its output meanwhile; stops on time limit, drain or cancellation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bagpress_broker::descriptor::{Decode, TaskDescriptor};
use bagpress_broker::limits;
use bagpress_broker::result::{Cause, Failed};
use bagpress_objstore::{Carried, Output, PackOutputs, PackReady, Ready, StoreError, Stored};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::limit;
use super::next_step::Ended;
use crate::context::Context;
use crate::slots::{Handle, Job, Made, MadeFiles, Scratch, Waiting, execute, execute_pack};

/// Executes an empty task where it stands: to wake a slot would take longer than the work.
pub(super) fn execute_here(context: &Context, task: &TaskDescriptor, ready: Ready) -> Ended {
    let began = Instant::now();
    let (handle, mut scratch) = (Handle::default(), Scratch::empty());
    let made = execute(task, ready.source, ready.sink, &mut scratch, &handle);
    context.slots().took(began.elapsed());
    match made {
        Ok(made) => Ended::Made(made, Stored::Nothing, Duration::ZERO),
        Err(failed) => Ended::Failed(failed),
    }
}

/// Lets a slot execute the task while its output is carried to its place; `dropped` resolves when nobody
/// waits for the outcome any more.
pub(super) async fn execute_in_slot(
    context: &Context,
    task: &Arc<TaskDescriptor>,
    ready: Ready,
    (waiting, handle): (Waiting, Arc<Handle>),
    dropped: impl Future<Output = ()>,
) -> Ended {
    let Ready { source, sink, output } = ready;
    let Ok(_memory) = context.memory_for_output(bytes_to_come(task)).await else {
        return Ended::Failed(Failed::new(Cause::Drain, "the worker is ending"));
    };
    let running = Running {
        handle,
        fetching: source.fetching().into_iter().collect(),
        time_over: CancellationToken::new(),
    };
    let task = task.clone();
    let work =
        move |scratch: &mut Scratch, handle: &Handle| execute(&task, source, sink, scratch, handle);
    let (job, made) = Job::new(running.handle.clone(), waiting, work);
    context.slots().submit(job);
    let made = running.made(made, context.drain().cancelled(), dropped);
    running.end_in_time(context, running.place(made, output)).await
}

/// About as many bytes as its output may have: what is restored may be a thousand times as long as its input.
fn bytes_to_come(task: &TaskDescriptor) -> u64 {
    let unknown = u64::MAX;
    let restored = |decode: Decode| decode.original.map_or(unknown, |original| original.bytes);
    task.decode.map_or(task.input.bytes(), restored)
}

/// The same of a pack, whose files are executed one after another and closed together.
pub(super) async fn execute_pack_in_slot(
    context: &Context,
    task: &Arc<TaskDescriptor>,
    ready: PackReady,
    (waiting, handle): (Waiting, Arc<Handle>),
    dropped: impl Future<Output = ()>,
) -> Ended {
    let PackReady { files, outputs, fetching } = ready;
    let Ok(_memory) = context.memory_for_output(task.input.bytes()).await else {
        return Ended::Failed(Failed::new(Cause::Drain, "the worker is ending"));
    };
    let time_over = CancellationToken::new();
    let running = Running { handle, fetching, time_over };
    let task = task.clone();
    let work =
        move |scratch: &mut Scratch, handle: &Handle| execute_pack(&task, files, scratch, handle);
    let (job, made) = Job::new(running.handle.clone(), waiting, work);
    context.slots().submit(job);
    let made = running.made(made, context.drain().cancelled(), dropped);
    running.end_in_time(context, running.place_pack(made, outputs)).await
}

/// A task in a slot, and what ends it.
struct Running {
    handle: Arc<Handle>,
    /// Of its input.
    fetching: Vec<AbortHandle>,
    time_over: CancellationToken,
}

impl Running {
    /// Ends it at its next segment, and lets it wait for no more input.
    fn stop(&self) {
        self.handle.stop();
        self.fetching.iter().for_each(AbortHandle::abort);
    }

    /// Waits until the output is at its place, or the time is over.
    async fn end_in_time(&self, context: &Context, placing: impl Future<Output = Ended>) -> Ended {
        let mut placing = std::pin::pin!(placing);
        let late = tokio::select! {
            ended = &mut placing => return ended,
            late = limit::over(context.time_limit(), &self.handle) => late,
        };
        self.stop();
        self.time_over.cancel();
        match placing.await {
            Ended::Failed(_) | Ended::Unplaced(_) => Ended::Unplaced(late),
            in_time => in_time,
        }
    }

    /// Waits for the slot; takes the job back if the worker drains before it has started.
    async fn made<T>(
        &self,
        mut made: oneshot::Receiver<Result<T, Failed>>,
        draining: impl Future<Output = ()>,
        dropping: impl Future<Output = ()>,
    ) -> Result<T, Failed> {
        let mut draining = std::pin::pin!(draining);
        let mut dropping = std::pin::pin!(dropping);
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
                    if self.handle.revoke() {
                        return Err(Failed::new(Cause::Drain, "the worker is draining"));
                    }
                }
                () = &mut dropping, if !dropped => {
                    dropped = true;
                    if self.handle.revoke() {
                        return Err(Failed::new(Cause::Cancelled, "nobody waits for it"));
                    }
                    self.stop();
                }
            }
        }
    }

    /// Waits for the output, and brings it to its place.
    async fn place(
        &self,
        made: impl Future<Output = Result<Made, Failed>>,
        output: Output,
    ) -> Ended {
        let (made, carried) = tokio::join!(made, self.unless_late(output.carry()));
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
                Box::pin(self.unless_late(closing)).await
            }
            Err(error) => Err(error),
        };
        match stored {
            Ok(Stored::Decided(result)) => Ended::Beaten(result),
            Ok(stored) => Ended::Made(made, stored, executed.elapsed()),
            Err(error) => Ended::Unplaced(error.into()),
        }
    }

    /// Waits for the outputs of a pack, and brings them to their place.
    async fn place_pack(
        &self,
        made: impl Future<Output = Result<MadeFiles, Failed>>,
        outputs: PackOutputs,
    ) -> Ended {
        let files = match made.await {
            Ok(files) => files,
            Err(failed) => {
                outputs.abandon(Some(&failed)).await;
                return Ended::Failed(failed);
            }
        };
        let executed = Instant::now();
        let done = |made: &Option<Result<Made, Failed>>| match made {
            Some(Ok(made)) => Some((made.output_bytes, made.output_digest)),
            Some(Err(_)) | None => None,
        };
        let done: Vec<_> = files.iter().map(done).collect();
        if done.iter().all(Option::is_none) {
            outputs.abandon(None).await;
            return Ended::Pack(files, Stored::Nothing, Duration::ZERO);
        }
        match Box::pin(self.unless_late(outputs.close(&done))).await {
            Ok(Stored::Decided(result)) => Ended::Beaten(result),
            Ok(stored) => Ended::Pack(files, stored, executed.elapsed()),
            Err(error) => Ended::Unplaced(error.into()),
        }
    }

    /// Waits for the other side. When the time is over only as long as one answer may take: a slot waits for it.
    async fn unless_late<T>(
        &self,
        waiting: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let late = async {
            self.time_over.cancelled().await;
            tokio::time::sleep(limits::REQUEST_TIMEOUT).await;
        };
        tokio::select! {
            done = waiting => done,
            () = late => Err(StoreError::Full("the execution has reached its time limit".to_owned())),
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

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn running() -> Running {
        let time_over = CancellationToken::new();
        Running { handle: Arc::default(), fetching: Vec::new(), time_over }
    }

    #[tokio::test]
    async fn a_job_that_has_not_started_is_taken_back_when_the_worker_drains() {
        let (running, (_slot, made)) = (running(), oneshot::channel::<Result<Made, Failed>>());
        let failed = running.made(made, ready(()), pending()).await.unwrap_err();
        assert_eq!(failed.cause, Cause::Drain);
        // Taken back once: no slot will start it.
        assert!(!running.handle.revoke());
    }

    #[tokio::test]
    async fn a_job_that_has_not_started_is_taken_back_when_nobody_waits_for_it() {
        let (running, (_slot, made)) = (running(), oneshot::channel::<Result<Made, Failed>>());
        let failed = running.made(made, pending(), ready(())).await.unwrap_err();
        assert_eq!(failed.cause, Cause::Cancelled);
    }

    #[tokio::test]
    async fn a_slot_that_died_gives_its_task_back() {
        let (running, (slot, made)) = (running(), oneshot::channel::<Result<Made, Failed>>());
        drop(slot);
        let failed = running.made(made, pending(), pending()).await.unwrap_err();
        assert!(failed.cause.is_planned());
    }

    /// The sink closed because the carrier failed.
    #[tokio::test]
    async fn the_cause_of_a_failure_is_what_failed_first() {
        let full = || Err(StoreError::Full("the bucket".to_owned()));
        let slot = |cause| Failed::new(cause, "in the slot");
        assert_eq!(give_up(slot(Cause::TransferError), full()).await.cause, Cause::Full);
        assert_eq!(give_up(slot(Cause::InputDigest), full()).await.cause, Cause::InputDigest);
        let nothing = Ok(Carried::Nothing);
        assert_eq!(give_up(slot(Cause::TransferError), nothing).await.cause, Cause::TransferError);
    }
}
