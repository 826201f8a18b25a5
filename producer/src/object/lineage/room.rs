//! Room for an output that is made again, in the bucket of its bag; one that is gone is made again as it was.

use std::time::Duration;

use anyhow::{Context, Result};
use bagpress_broker::ids::BagId;
use bagpress_broker::{BagLine, Broker, subjects};
use bagpress_objstore::object_ref::{Bucket, Error, Settings};

use crate::claim::buckets::open_bucket;

/// Longest time of a bucket, in s: what a server can count in nanoseconds.
const TTL_S_MAX: u64 = i64::MAX as u64 / 1_000_000_000;

/// What the line of a bag says of its outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outputs {
    /// Bytes of those that were done.
    bytes: u64,
    /// How many there may be.
    tasks: u32,
    /// How long each stays, if that is bounded.
    ttl: Option<Duration>,
}

impl Outputs {
    pub(crate) fn of(line: &BagLine) -> Self {
        let ttl = line.ttl_s.filter(|s| (1..=TTL_S_MAX).contains(s)).map(Duration::from_secs);
        Self { bytes: line.output_bytes, tasks: line.tasks, ttl }
    }
}

/// Room for one more output, of `bytes` bytes. A bucket that is gone is made again, as large as the outputs of its bag were. False if
/// the bag is gone, too.
///
/// # Errors
///
/// If the broker does not answer, or has no room.
pub(crate) async fn make_room(
    broker: &Broker,
    bag: &BagId,
    outputs: &Outputs,
    bytes: u64,
) -> Result<bool> {
    let name = subjects::bucket(bag);
    let bucket = open_bucket(broker, &name)?;
    let more = bytes + bytes / 64 + (64 << 10);
    match bucket.facts().await {
        Ok(facts) => {
            if let Some(max) = facts.max_bytes.filter(|max| facts.bytes + more > *max) {
                let needed = max.max(facts.bytes + more);
                bucket.grow_to(needed).await.context("enlarge the bag's bucket")?;
            }
            Ok(true)
        }
        Err(Error::NoBucket { .. }) => {
            let Outputs { bytes, tasks, ttl } = *outputs;
            let settings = Settings {
                description: &format!("Outputs of bag {bag}"),
                max_bytes: bytes + bytes / 64 + u64::from(tasks) * (8 << 10) + more,
                bag: Some(bag),
                ttl,
            };
            let (client, context) = (broker.client_handle(), broker.context_handle());
            Box::pin(Bucket::create_with(client, context, &name, &settings))
                .await
                .context("make the bag's bucket again")?;
            // Whoever removes the bag looks for buckets once more when its line is gone: of the two, one sees the other.
            let called_off = broker.find_bag(bag).await?.is_called_off();
            if called_off {
                bucket.delete().await.context("remove the bag's bucket again")?;
            }
            Ok(!called_off)
        }
        Err(error) => Err(error.into()),
    }
}
