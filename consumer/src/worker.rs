//! A worker: joins the queue group, pulls as much as its slots can take, and drains when told to.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bagpress_broker::descriptor::DeliveryPath;
use bagpress_broker::ids::Pool;
use bagpress_broker::result::{Cause, Failed};
use bagpress_broker::{
    Address, Broker, Delivery, Error, Holder, Role, Service, ServiceStats, limits, machine,
};
use bagpress_codec::Codec;
use bagpress_objstore::Store;
use bagpress_objstore::staging::Allowed;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::attempt::attempt;
use crate::cancelled::Cancelled;
use crate::handed::Handed;
use crate::holdings::{Hold, Holdings};
use crate::intake::{Appetite, Incoming, Intake, streams};
use crate::slot::Slots;

/// What a worker is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where its broker is.
    pub address: Address,
    /// How many tasks it executes at a time; at most [`limits::SLOTS_MAX`].
    pub slots: usize,
    /// Whose tasks it takes.
    pub pool: Pool,
    /// How it is handed them; none: by every way that the broker has.
    pub delivery: Option<DeliveryPath>,
    /// Where it may read and write files in place.
    pub allowed: Allowed,
    /// Ends after this long without a delivery.
    pub idle_exit: Option<Duration>,
    /// Longest execution; none: a time that grows with the input, [`limits::TASK_TIME_BASE`].
    pub time_limit: Option<Duration>,
    /// Executes tasks that want another version of the codec's library too.
    pub any_codec_version: bool,
}

/// What all attempts of a worker share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) broker: Broker,
    pub(crate) store: Store,
    pub(crate) slots: Slots,
    pub(crate) holdings: Arc<Holdings>,
    /// Outputs under way, in units: [`limits::UNCOMMITTED_MAX`] a slot, and what it executes.
    pub(crate) outputs: Semaphore,
    pub(crate) drain: CancellationToken,
    pub(crate) cancelled: Cancelled,
    /// Deliveries at hand whose execution has not started.
    waiting: Arc<AtomicUsize>,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) any_codec_version: bool,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    running: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    input_bytes: AtomicU64,
    output_bytes: AtomicU64,
}

impl Shared {
    pub(crate) fn count_done(&self, input_bytes: u64, output_bytes: u64) {
        self.counts.done.fetch_add(1, Ordering::Relaxed);
        self.counts.input_bytes.fetch_add(input_bytes, Ordering::Relaxed);
        self.counts.output_bytes.fetch_add(output_bytes, Ordering::Relaxed);
    }

    pub(crate) fn count_failed(&self) {
        self.counts.failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Works until `drain` is cancelled, then finishes the attempts under way, gives back the rest, and
/// returns.
///
/// # Errors
///
/// What no retry can cure: refused permissions, credentials, a broker without streams. A broker out of
/// reach is not one: the worker waits for it.
pub async fn run(options: Options, drain: CancellationToken) -> Result<(), Error> {
    let connecting = async {
        // Two connections: a chunk must never sit ahead of a lease renewal.
        let control = Broker::connect(&options.address, Role::Worker).await?;
        let data = Broker::connect(&options.address, Role::Worker).await?;
        if options.delivery == Some(DeliveryPath::Jetstream) {
            streams(&control, &options.pool, Some(limits::STREAMS_WITHIN)).await?;
        }
        Ok::<_, Error>((control, data))
    };
    let waiting = async {
        loop {
            tokio::time::sleep(limits::RECONCILE_AFTER).await;
            warn!(url = options.address.url(), "the broker does not answer, waiting for it");
        }
    };
    let (control, data) = tokio::select! {
        connected = connecting => connected?,
        () = drain.cancelled() => return Ok(()),
        never = waiting => never,
    };
    // What is refused is not answered: whatever waits for it would wait in vain.
    let serving = Box::pin(serve(&options, &control, &data, &drain));
    let serving = data.unless_denied(serving);
    control.unless_denied(serving).await
}

/// Serves until it is told to drain.
async fn serve(
    options: &Options,
    control: &Broker,
    data: &Broker,
    drain: &CancellationToken,
) -> Result<(), Error> {
    let (service, worker) = start(options, control, data, drain).await?;
    let holder = worker.holdings.holder().clone();
    let intake = Intake::join(control, &options.pool, options.delivery, holder).await?;
    info!(worker = service.id(), slots = options.slots, pool = %options.pool, url = control.url(), "worker started");
    let cancellations = worker.cancelled.listen().await?;
    let gatherings = control.gatherings().await?;
    let bags_held = || worker.holdings.bags();
    let ended = tokio::select! {
        ended = work(worker.clone(), intake, options) => ended,
        never = async { worker.holdings.keep().await } => Ok(never),
        () = worker.cancelled.keep(cancellations, bags_held) => Ok(()),
        () = worker.store.follow(gatherings) => Ok(()),
    };
    worker.holdings.say_changes().await;
    // What was sent last must be on its way before the process ends.
    if let Err(error) = control.flush().await {
        warn!(%error, "last answers may be lost");
    }
    info!("worker ended");
    ended
}

async fn start(
    options: &Options,
    control: &Broker,
    data: &Broker,
    drain: &CancellationToken,
) -> Result<(Service, Arc<Shared>), Error> {
    let io =
        |source| Error::Io { what: "start the slots of", path: PathBuf::from("worker"), source };
    let slots = Slots::start(options.slots).map_err(io)?;
    let counts = Arc::new(Counts::default());
    let host = machine::host();
    let pid = std::process::id();
    let holdings: Arc<std::sync::OnceLock<Arc<Holdings>>> = Arc::default();
    let stats = {
        let (counts, holdings) = (counts.clone(), holdings.clone());
        let fixed = ServiceStats {
            host: host.clone(),
            pid,
            pool: options.pool.to_string(),
            slots: options.slots,
            codecs: libraries(),
            any_codec_version: options.any_codec_version,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..ServiceStats::default()
        };
        move || {
            let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
            ServiceStats {
                running: usize::try_from(read(&counts.running)).unwrap_or(0),
                done: read(&counts.done),
                failed: read(&counts.failed),
                input_bytes: read(&counts.input_bytes),
                output_bytes: read(&counts.output_bytes),
                held: holdings.get().map(|held| held.by_bag()).unwrap_or_default(),
                ..fixed.clone()
            }
        }
    };
    let metadata = [("host", host.clone()), ("slots", options.slots.to_string())];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value)).into();
    let service = Service::start(control, metadata, stats).await?;
    let holder = Holder { worker: service.id().to_owned(), host, pid };
    let held = holdings.get_or_init(|| Holdings::new(control, holder)).clone();
    let units = options.slots * (limits::UNCOMMITTED_MAX + limits::UNCOMMITTED_MAX / 2);
    let worker = Shared {
        broker: control.clone(),
        store: Store::new(data, options.allowed.clone()),
        slots,
        holdings: held,
        outputs: Semaphore::new(units),
        drain: drain.clone(),
        cancelled: Cancelled::new(control),
        waiting: Arc::default(),
        time_limit: options.time_limit,
        any_codec_version: options.any_codec_version,
        counts,
    };
    Ok((service, Arc::new(worker)))
}

fn libraries() -> Vec<String> {
    let codecs =
        ["zlib:6", "gzip:6", "store", "noop"].iter().filter_map(|c| c.parse::<Codec>().ok());
    codecs.map(|codec| format!("{}={}", codec.name(), codec.library())).collect()
}

async fn work(worker: Arc<Shared>, mut intake: Intake, options: &Options) -> Result<(), Error> {
    let mut attempts = JoinSet::new();
    let mut last_delivery = Instant::now();
    loop {
        let now = Instant::now();
        let (appetite, next_change) = appetite(&worker, options.slots, now);
        intake.ask(appetite).await?;
        let idle_until = options.idle_exit.map(|idle| last_delivery + idle);
        let wake_at = [next_change, idle_until].into_iter().flatten().min();
        let sleep = async {
            match wake_at {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            incoming = intake.receive() => match incoming? {
                Incoming::Pulled(first) => {
                    last_delivery = Instant::now();
                    take_pulled(&worker, &mut intake, first, &mut attempts).await;
                }
                Incoming::Offered(offer) => {
                    last_delivery = Instant::now();
                    // The slot that was idle may have got a delivery of the stream meanwhile.
                    if self::appetite(&worker, options.slots, last_delivery).0.idle > 0 {
                        begin(&worker, Handed::Offered(offer.clone()), &mut attempts);
                        offer.take().await;
                    } else {
                        offer.pass().await;
                    }
                }
                Incoming::Withdrawn(execution) => worker.holdings.withdraw(&execution),
                Incoming::Nothing => {}
            },
            () = worker.slots.changed() => {}
            Some(ended) = attempts.join_next() => {
                if let Err(error) = ended {
                    warn!(%error, "attempt left to its lease");
                }
            }
            () = sleep => {
                if idle_until.is_some_and(|at| Instant::now() >= at) && worker.holdings.len() == 0 {
                    info!("nothing to do, ending");
                    worker.drain.cancel();
                }
            }
            () = worker.drain.cancelled() => break,
        }
    }
    drain(&worker, intake, attempts).await;
    Ok(())
}

/// How much the worker can take now, and when that may change by the mere passing of time.
fn appetite(worker: &Shared, slots: usize, now: Instant) -> (Appetite, Option<Instant>) {
    let (wanted, running, next_change) =
        worker.slots.pace(|pace| (pace.wanted(now), pace.running(), pace.next_change(now)));
    worker.counts.running.store(running as u64, Ordering::Relaxed);
    let waiting = worker.waiting.load(Ordering::Relaxed);
    // What is held waits for a slot, is executed, or waits for its commit.
    let held = worker.holdings.len();
    let room = (slots * (limits::UNCOMMITTED_MAX + limits::PULL_AHEAD_MAX)).saturating_sub(held);
    let ahead = wanted.saturating_sub(waiting).min(room);
    let idle = slots.saturating_sub(running + waiting).min(room);
    (Appetite { ahead, idle }, next_change)
}

/// Counts a delivery as waiting until it is dropped: when a slot starts it, or its attempt ends.
#[derive(Debug)]
pub(crate) struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }

    /// Ends the waiting; the count goes on for the others.
    pub(crate) fn done(self) -> Arc<AtomicUsize> {
        self.0.clone()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes what has arrived from the stream, says so, and begins an attempt for each.
async fn take_pulled(
    worker: &Arc<Shared>,
    intake: &mut Intake,
    first: Delivery,
    attempts: &mut JoinSet<()>,
) {
    let mut deliveries = vec![Handed::Pulled(first)];
    while deliveries.len() < limits::PULL_AHEAD_MAX
        && let Some(next) = intake.ready()
    {
        deliveries.push(Handed::Pulled(next));
    }
    let holds: Vec<_> = deliveries.iter().map(|d| worker.holdings.hold(d)).collect();
    worker.holdings.announce(&deliveries).await;
    for (handed, hold) in deliveries.into_iter().zip(holds) {
        spawn(worker, handed, hold, attempts);
    }
}

fn begin(worker: &Arc<Shared>, handed: Handed, attempts: &mut JoinSet<()>) {
    let hold = worker.holdings.hold(&handed);
    spawn(worker, handed, hold, attempts);
}

fn spawn(worker: &Arc<Shared>, handed: Handed, hold: Hold, attempts: &mut JoinSet<()>) {
    let (worker, waiting) = (worker.clone(), Waiting::new(&worker.waiting));
    attempts.spawn(async move {
        attempt(&worker, &handed, waiting).await;
        drop(hold);
    });
}

/// Asks for nothing more, gives back what still arrives, and waits for the attempts under way.
async fn drain(worker: &Arc<Shared>, intake: Intake, mut attempts: JoinSet<()>) {
    info!(under_way = attempts.len(), "draining");
    let leaving = async {
        for delivery in intake.leave().await {
            let failed = Failed::new(Cause::Drain, "the worker is draining");
            let planned = worker.broker.planned_give_backs(delivery.id()).await.unwrap_or(0);
            let handed = Handed::Pulled(delivery);
            let given = handed.give_back(worker, planned, failed, None, Duration::ZERO).await;
            if let Err(error) = given {
                warn!(%error, task = %handed.id(), "left to its lease");
            }
        }
    };
    let finishing = async {
        while let Some(ended) = attempts.join_next().await {
            if let Err(error) = ended {
                warn!(%error, "attempt left to its lease");
            }
        }
    };
    tokio::join!(leaving, finishing);
}
