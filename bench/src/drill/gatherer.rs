//! Gathers a bag through whatever happens: a gatherer that was killed or gave up is started again.

use std::fs;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use bagpress_producer::Summary;

use super::bag::Bag;
use super::product::Product;
use super::victim::Victim;

const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Without a new line of the ledger for this long a bag is stuck. Longer than any lease, any delay of
/// a task given back, and any fault.
const STUCK_AFTER: Duration = Duration::from_mins(3);
/// How many times a gatherer that ended by itself is started again.
const RESTARTS_MAX: u64 = 60;
const RESTART_AFTER: Duration = Duration::from_millis(500);

/// How a bag was gathered.
pub(super) struct Gathering {
    pub(super) end: End,
    /// Gatherers that ended by themselves, before the bag was complete.
    pub(super) gave_up: u64,
    pub(super) longest_stall: Duration,
}

/// How a gathering came to its end.
pub(super) enum End {
    /// The gatherer says that the bag is complete.
    Complete {
        /// Executions whose outcome came second.
        duplicates: u64,
    },
    /// It says that tasks failed, or gave up again and again.
    Incomplete(String),
    /// Nothing was counted for [`STUCK_AFTER`].
    Stuck,
}

/// Runs the bag's command until it says that the bag is complete.
pub(super) fn gather(
    product: &Product,
    victim: &Victim,
    bag: &Bag,
    more: &[&str],
) -> Result<Gathering> {
    let mut progress = Progress::of(bag);
    let mut gave_up = 0;
    let end = loop {
        let Some(status) = gather_once(product, victim, bag, more, &mut progress)? else {
            break End::Stuck;
        };
        if let Some(at) = victim.again_at() {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            continue;
        }
        match status.code() {
            Some(0) => break End::Complete { duplicates: duplicates(bag) },
            Some(1) => break End::Incomplete("tasks failed".to_owned()),
            _ if gave_up >= RESTARTS_MAX => {
                break End::Incomplete(format!("{status}, again and again"));
            }
            _ => gave_up += 1,
        }
        thread::sleep(RESTART_AFTER);
    };
    Ok(Gathering { end, gave_up, longest_stall: progress.longest })
}

/// One gatherer; none if it was stuck.
fn gather_once(
    product: &Product,
    victim: &Victim,
    bag: &Bag,
    more: &[&str],
    progress: &mut Progress,
) -> Result<Option<ExitStatus>> {
    let mut gatherer = product.gather(bag, more)?;
    victim.begin(&gatherer);
    loop {
        if let Some(status) = victim.ended(&mut gatherer)? {
            progress.look();
            return Ok(Some(status));
        }
        if progress.look() > STUCK_AFTER {
            victim.give_up(&mut gatherer)?;
            return Ok(None);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// What the summary of a complete bag says; none can be told of one that is damaged.
fn duplicates(bag: &Bag) -> u64 {
    let text = fs::read(bag.run.join("summary.json")).unwrap_or_default();
    serde_json::from_slice(&text).map_or(0, |summary: Summary| summary.duplicates)
}

/// How long the ledger has not grown.
struct Progress {
    ledger: PathBuf,
    bytes: u64,
    since: Instant,
    longest: Duration,
}

impl Progress {
    fn of(bag: &Bag) -> Self {
        Self { ledger: bag.ledger(), bytes: 0, since: Instant::now(), longest: Duration::ZERO }
    }

    /// For how long nothing was counted.
    fn look(&mut self) -> Duration {
        let bytes = fs::metadata(&self.ledger).map_or(0, |metadata| metadata.len());
        let still = self.since.elapsed();
        self.longest = self.longest.max(still);
        if bytes != self.bytes {
            (self.bytes, self.since) = (bytes, Instant::now());
        }
        still
    }
}
