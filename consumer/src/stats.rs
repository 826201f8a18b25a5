//! Counters of a worker, and the NATS micro service that reports them with its codecs and its tasks.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bagpress_broker::{Broker, Error, Holder, Service, ServiceStats, machine, pack};
use bagpress_codec::Codec;

use crate::holdings::Holdings;
use crate::options::Options;

/// What a worker has done since it started.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    running: AtomicUsize,
    done: AtomicU64,
    failed: AtomicU64,
    input_bytes: AtomicU64,
    output_bytes: AtomicU64,
}

impl Counts {
    pub(crate) fn done(&self, input_bytes: u64, output_bytes: u64) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.input_bytes.fetch_add(input_bytes, Ordering::Relaxed);
        self.output_bytes.fetch_add(output_bytes, Ordering::Relaxed);
    }

    /// Counts tasks that failed: their failures are their outcomes.
    pub(crate) fn failed(&self, tasks: u64) {
        self.failed.fetch_add(tasks, Ordering::Relaxed);
    }

    /// Notes how many tasks it executes now.
    pub(crate) fn running(&self, running: usize) {
        self.running.store(running, Ordering::Relaxed);
    }
}

/// Registers the worker as a service, and begins its holdings in the name that it gets by that.
///
/// # Errors
///
/// [`Error::Lost`].
pub(crate) async fn register(
    broker: &Broker,
    options: &Options,
    counts: Arc<Counts>,
) -> Result<(Service, Arc<Holdings>), Error> {
    let (host, pid) = (machine::host(), std::process::id());
    // The service answers before its id, and so the holder, is known.
    let holdings: Arc<OnceLock<Arc<Holdings>>> = Arc::default();
    let held = holdings.clone();
    let fixed = ServiceStats {
        host: host.clone(),
        pid,
        pool: options.pool.to_string(),
        slots: options.slots,
        codecs: libraries(),
        any_codec_version: options.any_codec_version,
        revisions: [
            pack::STAGED,
            pack::OBJECTS,
            pack::AGAIN,
            pack::BLOCKS,
            pack::RESTORE,
            pack::PARTS,
            pack::PACKED_PARTS,
            pack::FIELDS,
        ]
        .map(str::to_owned)
        .into(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..ServiceStats::default()
    };
    let stats = move || {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ServiceStats {
            running: counts.running.load(Ordering::Relaxed),
            done: read(&counts.done),
            failed: read(&counts.failed),
            input_bytes: read(&counts.input_bytes),
            output_bytes: read(&counts.output_bytes),
            held: held.get().map(|holdings| holdings.by_bag()).unwrap_or_default(),
            ..fixed.clone()
        }
    };
    let metadata = [("host", host.clone()), ("slots", options.slots.to_string())];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value)).into();
    let service = Service::start(broker, metadata, stats).await?;
    let holder = Holder { worker: service.id().to_owned(), host, pid };
    let holdings = holdings.get_or_init(|| Holdings::new(broker, holder)).clone();
    Ok((service, holdings))
}

fn libraries() -> Vec<String> {
    Codec::all().map(|codec| format!("{}={}", codec.name, codec.library)).collect()
}
