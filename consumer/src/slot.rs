//! The slots: a thread each, which takes jobs and executes them one after another.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use bagpress_broker::descriptor::TaskDescriptor;
use bagpress_broker::result::{Cause, Failed};
use bagpress_objstore::{Sink, Source};
use tokio::sync::{Notify, oneshot};

use crate::appetite::Pace;
use crate::execute::{Made, Reins, Scratch, execute};
use crate::worker::Waiting;

const WAITING: u8 = 0;
const STARTED: u8 = 1;
const REVOKED: u8 = 2;

/// One execution that waits for a slot.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) task: Arc<TaskDescriptor>,
    pub(crate) source: Source,
    pub(crate) sink: Sink,
    pub(crate) handle: Arc<Handle>,
    pub(crate) made: oneshot::Sender<Result<Made, Failed>>,
    pub(crate) waiting: Waiting,
}

/// What its attempt can still do to a job.
#[derive(Debug, Default)]
pub(crate) struct Handle {
    state: AtomicU8,
    pub(crate) reins: Reins,
}

impl Handle {
    /// Takes the job back; false if it has started.
    pub(crate) fn revoke(&self) -> bool {
        self.state.compare_exchange(WAITING, REVOKED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Starts it; false if it was taken back.
    pub(crate) fn start(&self) -> bool {
        self.state.compare_exchange(WAITING, STARTED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Bytes of the input that it has compressed.
    pub(crate) fn read(&self) -> u64 {
        self.reins.read.load(Ordering::Relaxed)
    }

    /// Ends it at its next segment.
    pub(crate) fn stop(&self) {
        self.reins.stop.store(true, Ordering::Relaxed);
    }

    /// Whether it has started.
    pub(crate) fn started(&self) -> bool {
        self.state.load(Ordering::Acquire) == STARTED
    }
}

/// All slots of a worker. Dropping it lets every thread end after its job.
#[derive(Debug)]
pub(crate) struct Slots {
    jobs: mpsc::Sender<Job>,
    pace: Arc<Mutex<Pace>>,
    changed: Arc<Notify>,
}

impl Slots {
    /// Starts `slots` threads.
    pub(crate) fn start(slots: usize) -> std::io::Result<Self> {
        let (jobs, receiver) = mpsc::channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let pace = Arc::new(Mutex::new(Pace::new(slots)));
        let changed = Arc::new(Notify::new());
        for slot in 0..slots {
            let (receiver, pace, changed) = (receiver.clone(), pace.clone(), changed.clone());
            std::thread::Builder::new()
                .name(format!("slot-{slot}"))
                .spawn(move || run(slot, &receiver, &pace, &changed))?;
        }
        Ok(Self { jobs, pace, changed })
    }

    /// Hands a job to the next free slot. The queue is bounded by what the worker pulls.
    pub(crate) fn submit(&self, job: Job) {
        // Fails only if every thread is gone; then the job's channel says so to its attempt.
        drop(self.jobs.send(job));
    }

    /// Notes how long a task took that no slot executed.
    pub(crate) fn took(&self, took: Duration) {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).took(took);
    }

    /// Lets whoever waits in [`changed`](Self::changed) look again.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Looks at the slots' pace.
    pub(crate) fn pace<T>(&self, look: impl FnOnce(&Pace) -> T) -> T {
        look(&self.pace.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Resolves when a slot started or ended a job, and as many should be asked for as are at hand.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

fn run(slot: usize, jobs: &Mutex<mpsc::Receiver<Job>>, pace: &Mutex<Pace>, changed: &Notify) {
    let mut scratch = Scratch::new();
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { task, source, sink, handle, made, waiting }) = job else { return };
        if !handle.start() {
            continue;
        }
        let count = waiting.done();
        let tell = |note: fn(&mut Pace, usize, Instant)| {
            let now = Instant::now();
            let mut pace = pace.lock().unwrap_or_else(PoisonError::into_inner);
            note(&mut pace, slot, now);
            // The puller asks for many at a time: to be woken for each would cost more than a short task.
            if count.load(Ordering::Relaxed) * 2 <= pace.wanted(now) {
                changed.notify_one();
            }
        };
        tell(Pace::started);
        let executed = catch_unwind(AssertUnwindSafe(|| {
            execute(&task, source, sink, &mut scratch, &handle.reins)
        }));
        let executed = executed.unwrap_or_else(|panic| {
            scratch = Scratch::new();
            Err(Failed::new(Cause::CodecError, format!("panicked: {}", text(panic.as_ref()))))
        });
        tell(Pace::ended);
        // Its attempt may have given up.
        drop(made.send(executed));
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}
