//! The settings of a worker.

use std::time::Duration;

use bagpress_broker::Address;
use bagpress_broker::descriptor::DeliveryPath;
use bagpress_broker::ids::Pool;
use bagpress_objstore::staging::Allowed;

/// What a worker is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where its broker is.
    pub address: Address,
    /// How many tasks it executes at a time; at most [`SLOTS_MAX`](bagpress_broker::limits::SLOTS_MAX).
    pub slots: usize,
    /// Whose tasks it takes.
    pub pool: Pool,
    /// How it is handed them; none: by every way that the broker has.
    pub delivery: Option<DeliveryPath>,
    /// Where it may read and write files in place.
    pub allowed: Allowed,
    /// Ends after this long without a delivery.
    pub idle_exit: Option<Duration>,
    /// Longest execution; none: a time that grows with the input, [`TASK_TIME_BASE`](bagpress_broker::limits::TASK_TIME_BASE).
    pub time_limit: Option<Duration>,
    /// Executes tasks that want another version of the codec's library too.
    pub any_codec_version: bool,
}
