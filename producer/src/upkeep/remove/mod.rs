//! Removing a bag: what it made on the broker and in its run folder, and nothing else; or only looking what
//! that would be.

mod kept;
mod outputs;
mod run_folder;

use anyhow::{Context, Result};
use bagpress_broker::ids::BagId;
use bagpress_broker::{BagState, Broker, limits};
use tokio::time::{Instant, sleep};

pub use self::kept::{How, Kept, Removed};
pub use self::run_folder::folder;
use crate::claim::buckets::open_bucket;
use crate::claim::holder;
use crate::error::Usage;
use crate::object::kept_in;
use crate::run_folder::lock::GatherLock;
use crate::status::bag_line::unknown;

/// Removes what a broker holds of a bag. A bag that somebody gathers is left alone, unless it was
/// cancelled, or `force` cancels it.
///
/// # Errors
///
/// [`Usage`] if it is being gathered, or there is no such bag; if the broker does not answer.
pub async fn from_broker(
    broker: &Broker,
    bag: &BagId,
    lock: Option<&GatherLock>,
    how: How,
) -> Result<Removed> {
    let found = broker.find_bag(bag).await?;
    let traces = broker.traces().await?.remove(bag);
    if found.line.is_none() && found.unreadable.is_none() && traces.is_none() {
        return Err(unknown(bag));
    }
    let cancelled = found.line.as_ref().is_some_and(|line| line.state == BagState::Cancelled);
    if !how.force && !cancelled {
        holder::expect_unheld(broker, bag, lock).await?;
    }
    if !how.force {
        expect_unkept(broker, bag).await?;
    }
    let mut removed = Removed::of(bag, how);
    let traces = traces.map_or(0, |traces| traces.messages);
    removed.messages = traces + u64::from(found.line.is_some() || found.unreadable.is_some());
    if how.dry_run {
        removed.buckets = broker.buckets(bag).await?;
        return Ok(removed);
    }
    let over = found.line.as_ref().is_none_or(|line| line.state == BagState::Finished);
    if !over {
        // Its gatherer and its workers end with it: nothing of it may be written after its removal.
        broker.cancel_bag(bag).await?;
    }
    released(broker, bag).await?;
    removed.buckets = remove_buckets(broker, bag).await?;
    // Cancelling has removed some of them, and results may have come since they were counted.
    removed.messages = removed.messages.max(broker.remove_bag(bag).await?);
    // Somebody may have made one again meanwhile, for an object that was lost.
    for name in remove_buckets(broker, bag).await? {
        if !removed.buckets.contains(&name) {
            removed.buckets.push(name);
        }
    }
    Ok(removed)
}

/// Removes the buckets of a bag that are there.
async fn remove_buckets(broker: &Broker, bag: &BagId) -> Result<Vec<String>> {
    let buckets = broker.buckets(bag).await?;
    for name in &buckets {
        let removed = open_bucket(broker, name)?.delete().await;
        removed.with_context(|| format!("remove the bucket {name}"))?;
    }
    Ok(buckets)
}

/// Fails if somebody keeps an object of the bag.
async fn expect_unkept(broker: &Broker, bag: &BagId) -> Result<()> {
    for bucket in broker.buckets(bag).await? {
        let (named, kept) = kept_in(broker, &bucket).await?;
        if kept > 0 {
            let more = kept - named.len() as u64;
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            return Err(Usage::error(
                format!("{kept} objects of bag {bag} are kept: {}{more}", named.join("; ")),
                "unpin them, or wait until the bags that read them are over; --force removes them all the same",
            ));
        }
    }
    Ok(())
}

/// Waits until the bag has no gatherer and no worker holds a task of it.
async fn released(broker: &Broker, bag: &BagId) -> Result<()> {
    let deadline = Instant::now() + limits::RELEASED_WITHIN;
    loop {
        let gatherer = broker.find_bag(bag).await?.line.and_then(|line| line.gatherer);
        let gatherer = gatherer.filter(|gatherer| !gatherer.is_dead());
        let workers = broker.workers(limits::WORKERS_ANSWER_WITHIN).await?;
        let holders: Vec<_> = workers
            .iter()
            .filter(|(_, stats)| {
                stats.held.get(bag.as_str()).is_some_and(|held| !held.deliveries.is_empty())
            })
            .map(|(id, stats)| format!("worker {id} on {}/{}", stats.host, stats.pid))
            .collect();
        if gatherer.is_none() && holders.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            // A dead gatherer cannot let go; what still works on a cancelled bag must be named.
            if holders.is_empty() {
                return Ok(());
            }
            return Err(Usage::error(
                format!("the bag is still held by {}", holders.join(", ")),
                "stop them, or wait until they are done; then remove it again",
            ));
        }
        sleep(limits::RETRY_WAIT).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use bagpress_broker::testing::NatsServer;
    use bagpress_broker::{Role, samples};
    use futures::join;

    use super::*;
    use crate::object::lineage::room::{Outputs, make_room};

    #[tokio::test]
    async fn no_bucket_of_a_removed_bag_stays_that_was_made_again_meanwhile() {
        let server = NatsServer::start().await;
        let broker = server.broker(Role::Admin).await;
        let bag = samples::bag();
        let line = samples::line(&bag, BagState::Finished);
        broker.write_bag(&line, 0).await.unwrap().unwrap();
        let outputs = Outputs::of(&line);
        let room = async || make_room(&broker, &bag, &outputs, 1_000).await;
        assert!(room().await.unwrap(), "there is a bag");
        let removed = AtomicBool::new(false);
        let removing = async {
            let how = How::default();
            let removed_now = from_broker(&broker, &bag, None, how).await.unwrap();
            removed.store(true, Relaxed);
            removed_now
        };
        // Whenever the bucket is gone somebody makes it again.
        let making = async {
            while !removed.load(Relaxed) {
                // A server that removes it at this moment may refuse to make it.
                room().await.ok();
            }
        };
        let (removed_now, ()) = join!(removing, making);
        assert_eq!(removed_now.buckets, [bagpress_broker::subjects::bucket(&bag)]);
        assert_eq!(broker.buckets(&bag).await.unwrap(), Vec::<String>::new());
        // Nor when the bag was gone before.
        assert!(!room().await.unwrap());
        assert_eq!(broker.buckets(&bag).await.unwrap(), Vec::<String>::new());
    }
}
