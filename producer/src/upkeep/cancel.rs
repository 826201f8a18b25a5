//! Cancelling a bag: its line says so, its waiting tasks go, and its workers and its gatherer are told.

use anyhow::Result;
use bagpress_broker::ids::BagId;
use bagpress_broker::{BagState, Broker};
use serde::Serialize;

use crate::status::bag_line::{known, unknown};

/// What a cancelled bag came to.
#[derive(Debug, Serialize)]
pub struct Cancellation {
    /// The bag.
    pub bag: BagId,
    /// How many tasks it has.
    pub tasks: u32,
    /// How many were done by then.
    pub done: u32,
    /// How many had failed by then.
    pub failed: u32,
    /// Whether there was something to cancel: a bag that is over stays as it is.
    pub cancelled: bool,
}

/// Cancels a bag. One that is finished, or was cancelled before, stays as it is.
///
/// # Errors
///
/// [`crate::error::Usage`] if there is no such bag; if the broker does not answer.
pub async fn cancel(broker: &Broker, bag: &BagId) -> Result<Cancellation> {
    let found = known(broker.find_bag(bag).await?, bag)?;
    let over = found.state == BagState::Finished;
    let line =
        if over { found } else { broker.cancel_bag(bag).await?.ok_or_else(|| unknown(bag))? };
    Ok(Cancellation {
        bag: bag.clone(),
        tasks: line.tasks,
        done: line.done,
        failed: line.failed,
        cancelled: !over && line.state != BagState::Cancelled,
    })
}
