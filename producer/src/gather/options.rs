//! Parameters and return value of `gather`.

use std::collections::BTreeMap;
use std::time::Duration;

use bagpress_broker::result::Cause;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::run_folder::plan::BagPlan;

/// How a bag is followed.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Options {
    /// Give up when nothing happened for this long.
    pub stall_timeout: Duration,
    /// Give up after this long.
    pub deadline: Option<Duration>,
    /// Stop, with an error, after so many failures.
    pub max_fails: Option<u64>,
    /// Run the failed tasks again.
    pub retry_failed: bool,
    /// Hash every output, and run again what is missing or bad.
    pub repair: bool,
    /// Go on with a bag that was cancelled.
    pub resume: bool,
    /// Whether this is a new bag, of which nothing can be known yet.
    pub fresh: bool,
    /// Show progress.
    pub progress: bool,
    /// Process ids of local workers that ended.
    pub ended: mpsc::Receiver<u32>,
    /// Ends the gathering.
    pub stop: CancellationToken,
}

/// What gathering came to.
#[derive(Debug)]
pub struct Gathered {
    /// The plan, with the ledger.
    pub plan: BagPlan,
    /// First publish to last outcome counted, on our monotonic clock; none if no outcome was counted: the bag was complete.
    pub makespan: Option<Duration>,
    /// Workers that were lost meanwhile.
    pub workers_lost: u64,
    /// Executions that came too late, as far as their workers have said so.
    pub duplicates: u64,
    /// Deliveries that were given back, by cause.
    pub given_back: BTreeMap<Cause, u64>,
}
