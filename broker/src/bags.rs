//! A line a bag in the KV bucket `bags`, so that anybody can see which bags there are.

use serde::{Deserialize, Serialize};

use crate::descriptor::ResultPath;
use crate::ids::{BagId, Pool};
use crate::{Broker, Error, subjects};

/// How far a bag is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BagState {
    /// Descriptors are being published.
    Submitting,
    /// All descriptors are published.
    Running,
    /// Every task has an outcome.
    Finished,
    /// Somebody cancelled it.
    Cancelled,
}

/// What the bucket says of one bag. Its gatherer alone writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BagLine {
    /// [`crate::limits::WIRE_VERSION`].
    pub v: u32,
    /// The bag.
    pub bag: BagId,
    /// How far it is.
    pub state: BagState,
    /// Its workers' pool.
    pub pool: Pool,
    /// How its outputs come back.
    pub results: ResultPath,
    /// Codec and level.
    pub codec: String,
    /// How many tasks it has.
    pub tasks: u32,
    /// How many were done.
    pub done: u32,
    /// How many failed.
    pub failed: u32,
    /// Who gathers it, as `host/pid`.
    pub gatherer: String,
    /// When this was written, µs since 1970 by the gatherer's clock.
    pub updated_us: u64,
}

impl Broker {
    /// Writes a bag's line.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: the next one will do.
    pub async fn write_bag(&self, line: &BagLine) -> Result<(), Error> {
        let lost = Error::lost("write the bag's line");
        let payload = serde_json::to_vec(line).map_err(|e| lost(&e))?;
        let subject = format!("$KV.{}.{}", subjects::BAGS, line.bag);
        let ack = self.jetstream().publish(subject, payload.into()).await.map_err(|e| lost(&e))?;
        ack.await.map_err(|e| lost(&e))?;
        Ok(())
    }

    /// Reads a bag's line.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub async fn read_bag(&self, bag: &BagId) -> Result<Option<BagLine>, Error> {
        let subject = format!("$KV.{}.{bag}", subjects::BAGS);
        let stream = format!("KV_{}", subjects::BAGS);
        let payload = self.last_from_leader(&stream, &subject).await?;
        Ok(payload.and_then(|payload| serde_json::from_slice(&payload).ok()))
    }
}
