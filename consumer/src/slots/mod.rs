//! The slots: one thread each, which executes jobs one after another.

mod compress;
mod execute;
mod handle;
mod made;
mod pace;
mod restore;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use bagpress_broker::result::{Cause, Failed};
use tokio::sync::{Notify, oneshot};

pub(crate) use self::execute::{MadeFiles, execute, execute_pack};
pub(crate) use self::handle::Handle;
pub(crate) use self::made::{Made, Scratch, micros};
use self::pace::Pace;

/// One execution that waits for a slot.
pub(crate) struct Job {
    work: Work,
    handle: Arc<Handle>,
    waiting: Waiting,
}

/// Executes, with what the slot keeps.
type Work = Box<dyn FnOnce(&mut Scratch, &Handle) -> Tell + Send>;
/// Tells an attempt how its execution ended.
type Tell = Box<dyn FnOnce()>;

impl Job {
    /// What `execute` returns comes out of the receiver; nothing, if the job is taken back.
    pub(crate) fn new<T: Send + 'static>(
        handle: Arc<Handle>,
        waiting: Waiting,
        execute: impl FnOnce(&mut Scratch, &Handle) -> Result<T, Failed> + Send + 'static,
    ) -> (Self, oneshot::Receiver<Result<T, Failed>>) {
        let (sender, made) = oneshot::channel();
        let work = move |scratch: &mut Scratch, handle: &Handle| {
            let executed = catch_unwind(AssertUnwindSafe(|| execute(scratch, handle)));
            let executed = executed.unwrap_or_else(|panic| {
                *scratch = Scratch::new();
                Err(Failed::new(Cause::CodecError, format!("panicked: {}", text(panic.as_ref()))))
            });
            // Fails if its attempt has given up: it wants no answer.
            Box::new(move || drop(sender.send(executed))) as Tell
        };
        (Self { work: Box::new(work), handle, waiting }, made)
    }
}

/// What the slots have to do at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// How many there are.
    pub(crate) slots: usize,
    /// How many execute a job.
    pub(crate) running: usize,
    /// Tasks at hand whose execution has not started.
    pub(crate) waiting: usize,
    /// How many of them there should be.
    pub(crate) wanted: usize,
    /// When `wanted` may next grow by the mere passing of time.
    pub(crate) next_change: Option<Instant>,
}

/// Counts one task as waiting for a slot until it is dropped: when a slot starts it, or its attempt ends.
#[derive(Debug)]
pub(crate) struct Waiting(Arc<Occupancy>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All slots of a worker. Dropping it lets every thread end after its job.
#[derive(Debug)]
pub(crate) struct Slots {
    jobs: mpsc::Sender<Job>,
    occupancy: Arc<Occupancy>,
}

/// What the slots are doing: written by their threads, read by the worker.
#[derive(Debug)]
struct Occupancy {
    slots: usize,
    pace: Mutex<Pace>,
    waiting: AtomicUsize,
    changed: Notify,
}

impl Occupancy {
    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    /// Starts `slots` threads.
    ///
    /// # Errors
    ///
    /// A thread cannot be started.
    pub(crate) fn start(slots: usize) -> std::io::Result<Self> {
        let (jobs, receiver) = mpsc::channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let pace = Mutex::new(Pace::new(slots));
        let (waiting, changed) = (AtomicUsize::new(0), Notify::new());
        let occupancy = Arc::new(Occupancy { slots, pace, waiting, changed });
        for slot in 0..slots {
            let (receiver, occupancy) = (receiver.clone(), occupancy.clone());
            std::thread::Builder::new()
                .name(format!("slot-{slot}"))
                .spawn(move || run(slot, &receiver, &occupancy))?;
        }
        Ok(Self { jobs, occupancy })
    }

    /// Counts a task that is at hand, until a slot starts it.
    pub(crate) fn waiting(&self) -> Waiting {
        self.occupancy.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(self.occupancy.clone())
    }

    /// Hands a job to the next free slot. The queue is bounded by what the worker takes.
    pub(crate) fn submit(&self, job: Job) {
        // Fails only if every thread is gone; then the job's channel says so to its attempt.
        self.jobs.send(job).ok();
    }

    /// Notes how long a task took that no slot executed.
    pub(crate) fn took(&self, took: Duration) {
        self.occupancy.pace().took(took);
    }

    /// Resolves a [`changed`](Self::changed).
    pub(crate) fn wake(&self) {
        self.occupancy.changed.notify_one();
    }

    /// What the slots have to do now.
    pub(crate) fn load(&self, now: Instant) -> Load {
        let pace = self.occupancy.pace();
        Load {
            slots: self.occupancy.slots,
            running: pace.running(),
            waiting: self.occupancy.waiting.load(Ordering::Relaxed),
            wanted: pace.wanted(now),
            next_change: pace.next_change(now),
        }
    }

    /// Resolves when a slot started or ended a job, and as many should be asked for as are at hand.
    pub(crate) async fn changed(&self) {
        self.occupancy.changed.notified().await;
    }
}

fn run(slot: usize, jobs: &Mutex<mpsc::Receiver<Job>>, occupancy: &Occupancy) {
    let mut scratch = Scratch::new();
    let tell = |note: fn(&mut Pace, usize, Instant)| {
        let now = Instant::now();
        let mut pace = occupancy.pace();
        note(&mut pace, slot, now);
        // The worker asks for many at a time: to be woken for each would cost more than a short task.
        if occupancy.waiting.load(Ordering::Relaxed) * 2 <= pace.wanted(now) {
            occupancy.changed.notify_one();
        }
    };
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { work, handle, waiting }) = job else { return };
        if !handle.start() {
            continue;
        }
        drop(waiting);
        tell(Pace::started);
        let tell_attempt = work(&mut scratch, &handle);
        tell(Pace::ended);
        tell_attempt();
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use bagpress_broker::descriptor::{Input, ResultPath, TaskDescriptor};
    use bagpress_broker::samples;
    use bagpress_codec::{DataKind, Generator};
    use bagpress_objstore::{Sink, Source};

    use super::*;

    type Answer = oneshot::Receiver<Result<Made, Failed>>;

    /// A job that reads `bytes` and stores nothing.
    fn job(slots: &Slots, bytes: u64) -> (Job, Arc<Handle>, Answer) {
        let handle = Arc::new(Handle::default());
        let input = Input::Generate { data: DataKind::Zeros, seed: 0, bytes };
        let codec = "noop".parse().unwrap();
        let task = samples::task(&samples::bag(), 0, ResultPath::Objects);
        let task = TaskDescriptor { input, codec, ..task };
        let source = Source::generated(Generator::new(DataKind::Zeros, 0, 0, bytes), bytes);
        let work = move |scratch: &mut Scratch, handle: &Handle| {
            execute(&task, source, Sink::Nothing, scratch, handle)
        };
        let (job, answer) = Job::new(handle.clone(), slots.waiting(), work);
        (job, handle, answer)
    }

    fn until(what: impl Fn() -> bool) {
        let since = Instant::now();
        while !what() {
            assert!(since.elapsed() < Duration::from_secs(30));
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_task_waits_until_a_slot_starts_it_and_a_slot_runs_until_it_is_stopped() {
        let slots = Slots::start(1).unwrap();
        let (long, handle, answer) = job(&slots, 1 << 40);
        assert_eq!(slots.load(Instant::now()).waiting, 1);
        slots.submit(long);
        until(|| slots.load(Instant::now()).running == 1);
        assert!(handle.started());
        assert_eq!(slots.load(Instant::now()).waiting, 0);
        until(|| handle.read() > 0);
        handle.stop();
        let failed = answer.blocking_recv().unwrap().unwrap_err();
        assert_eq!(failed.cause, Cause::Timeout);
        assert_eq!(slots.load(Instant::now()).running, 0);
    }

    #[test]
    fn a_job_that_was_taken_back_is_not_executed_and_the_next_one_is() {
        let slots = Slots::start(1).unwrap();
        let (long, busy, _answer) = job(&slots, 1 << 40);
        let (revoked, handle, no_answer) = job(&slots, 1);
        let (next, _, answer) = job(&slots, 3);
        for job in [long, revoked, next] {
            slots.submit(job);
        }
        until(|| busy.started());
        assert!(handle.revoke());
        busy.stop();
        assert_eq!(answer.blocking_recv().unwrap().unwrap().input_bytes, 3);
        assert!(no_answer.blocking_recv().is_err());
        assert_eq!(slots.load(Instant::now()).waiting, 0);
    }
}
