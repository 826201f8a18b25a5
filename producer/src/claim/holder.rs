//! Whether another process gathers a bag: its line is watched for as long as a lease lasts.
//!
//! No clock decides. If the line is renewed, its holder lives and is named; if not for [`limits::GATHERER_LEASE`], the
//! bag is free.

use anyhow::{Context, Result};
use bagpress_broker::ids::BagId;
use bagpress_broker::{BagLine, Broker, FoundLine, Gatherer, limits, subjects};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::info;

use crate::claim::finding::{Change, Obstacle, change, obstacle};
use crate::error::{Cancelled, Usage};
use crate::run_folder::lock::GatherLock;

/// Whether somebody gathers a bag.
///
/// # Errors
///
/// If the broker does not answer.
pub(crate) async fn is_held(broker: &Broker, bag: &BagId) -> Result<bool> {
    match expect_unheld(broker, bag, None).await {
        Ok(()) => Ok(false),
        Err(error) if error.is::<Usage>() => Ok(true),
        Err(error) => Err(error),
    }
}

/// Fails if somebody gathers a bag; another holder of the same `lock` is dead.
///
/// # Errors
///
/// [`Usage`] naming the holder, or the broker's errors.
pub(crate) async fn expect_unheld(
    broker: &Broker,
    bag: &BagId,
    lock: Option<&GatherLock>,
) -> Result<()> {
    let mut found = look(broker, bag).await?;
    let ours = lock.map(GatherLock::identity);
    while let Some(obstacle) = obstacle(&found, ours, true) {
        // Somebody else may have written it meanwhile: who, and whether they live, is another question.
        found = outlast(broker, bag, found, obstacle).await?;
    }
    Ok(())
}

/// Reads a bag's line.
///
/// # Errors
///
/// The broker's.
pub(crate) async fn look(broker: &Broker, bag: &BagId) -> Result<FoundLine> {
    broker.find_bag(bag).await.context("look up the bag's gatherer")
}

/// Waits for the end of what keeps us from gathering a bag, and returns the line that is there then.
///
/// # Errors
///
/// [`Usage`] if the holder lives, or may live; [`Cancelled`]; the broker's.
pub(crate) async fn outlast(
    broker: &Broker,
    bag: &BagId,
    found: FoundLine,
    obstacle: Obstacle,
) -> Result<FoundLine> {
    match obstacle {
        Obstacle::Cancelled(line) => Err(Cancelled::of(&line).into()),
        Obstacle::Unreadable => unreadable(broker, bag, found).await,
        Obstacle::Held(holder) => expired(broker, bag, found, &holder).await,
    }
}

/// How watching a line ended.
enum Watched {
    /// Nobody renewed it.
    Expired(FoundLine),
    /// Its holder renewed it.
    Renewed,
    /// There is another one.
    Another(FoundLine),
}

/// Watches a line for [`limits::GATHERER_LEASE`].
async fn watch(broker: &Broker, bag: &BagId, before: FoundLine) -> Result<Watched> {
    let deadline = Instant::now() + limits::GATHERER_LEASE;
    while Instant::now() < deadline {
        sleep(limits::RETRY_WAIT).await;
        // A broker that does not answer must not make a lease look expired.
        let found = timeout_at(deadline + limits::GATHERER_LEASE, broker.find_bag(bag)).await;
        let found = found.context("look up the bag's gatherer")??;
        match change(&before, &found) {
            Change::None => {}
            Change::Renewed => return Ok(Watched::Renewed),
            Change::Another => return Ok(Watched::Another(found)),
        }
    }
    Ok(Watched::Expired(before))
}

/// Watches a line that cannot be read: its writer may gather the bag, and nobody else can tell.
///
/// # Errors
///
/// [`Usage`] unless there is meanwhile a line that can be read, or none; that is returned.
async fn unreadable(broker: &Broker, bag: &BagId, before: FoundLine) -> Result<FoundLine> {
    let why = before.unreadable.clone().unwrap_or_default();
    info!(%bag, why, "the bag's line cannot be read: waiting to see whether it is renewed");
    match watch(broker, bag, before).await? {
        Watched::Another(found) => Ok(found),
        Watched::Renewed => Err(Usage::error(
            format!(
                "bag {bag} is being gathered by a process whose line this version cannot read: {why}"
            ),
            "wait for it, or use the version of bagpress that gathers it",
        )),
        Watched::Expired(_) => Err(Usage::error(
            format!("the line of bag {bag} cannot be read, and nobody renews it: {why}"),
            format!(
                "use the version of bagpress that wrote it; if the bag has no gatherer, remove the line with `nats kv del {} {bag}`",
                subjects::BAGS
            ),
        )),
    }
}

/// Waits until the lease of `holder` is over, and returns what is there then, without it.
///
/// # Errors
///
/// [`Usage`] if it is renewed: the holder lives.
async fn expired(
    broker: &Broker,
    bag: &BagId,
    before: FoundLine,
    holder: &Gatherer,
) -> Result<FoundLine> {
    if holder.is_dead() {
        info!(%bag, %holder, "its process has ended, the bag is taken over");
        return Ok(unheld(before));
    }
    info!(%bag, %holder, "the bag has or had a gatherer: waiting to see whether the lease is renewed");
    match watch(broker, bag, before).await? {
        Watched::Another(found) => Ok(found),
        Watched::Renewed => {
            let since = jiff::Timestamp::from_microsecond(holder.since_us.cast_signed())
                .map_or_else(|_| "an unknown time".to_owned(), |at| format!("{at:.0}"));
            Err(Usage::error(
                format!("bag {bag} is being gathered by {holder}, since {since}"),
                "wait for it, or stop it; `bagpress status` shows its progress",
            ))
        }
        Watched::Expired(found) => {
            info!(%bag, %holder, "its lease is over, the bag is taken over");
            Ok(unheld(found))
        }
    }
}

fn unheld(found: FoundLine) -> FoundLine {
    let line = found.line.map(|line| BagLine { gatherer: None, ..line });
    FoundLine { line, ..found }
}
