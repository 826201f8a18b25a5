//! Sweeping a broker: what is left there of bags, and chunks that no object names.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context, Result};
use bagpress_broker::ids::BagId;
use bagpress_broker::{BagLine, BagState, Broker, Traces, limits};

use super::swept::Swept;
use crate::claim::buckets::open_bucket;
use crate::claim::holder;
use crate::object::kept_in;

/// Sweeps a broker: chunks that no object names, and what is left of bags without a line that were not
/// written to for `older_than`.
///
/// # Errors
///
/// If the broker does not answer.
pub async fn broker(broker: &Broker, older_than: Duration, dry_run: bool) -> Result<Vec<Swept>> {
    let traces = broker.traces().await?;
    let lines = broker.bags().await?;
    let lines: HashMap<_, _> = lines.into_iter().map(|line| (line.bag.clone(), line)).collect();
    let workers = broker.workers(limits::WORKERS_ANSWER_WITHIN).await?;
    let held: HashSet<String> =
        workers.into_iter().flat_map(|(_, stats)| stats.held.into_keys()).collect();
    let mut swept = Vec::new();
    for line in lines.values().filter(|line| !traces.contains_key(&line.bag)) {
        if !held.contains(line.bag.as_str()) {
            swept.extend(bare_line(broker, line, older_than, dry_run).await?);
        }
    }
    for (bag, mut of) in traces {
        if held.contains(bag.as_str()) {
            continue;
        }
        if let Some(line) = lines.get(&bag) {
            swept.extend(chunks(broker, line, &of.buckets, dry_run).await?);
            continue;
        }
        swept.extend(unowned(broker, &bag, &mut of, older_than, dry_run).await?);
    }
    Ok(swept)
}

/// What is left of a bag without a line.
async fn unowned(
    broker: &Broker,
    bag: &BagId,
    of: &mut Traces,
    older_than: Duration,
    dry_run: bool,
) -> Result<Option<Swept>> {
    broker.date(bag, of).await?;
    // Somebody may gather it without having written its line yet.
    let found = broker.find_bag(bag).await?;
    // Nor is a line that cannot be read none.
    let owned = found.line.is_some() || found.unreadable.is_some();
    if of.age() < older_than || owned || broker.is_gathered(bag).await {
        return Ok(None);
    }
    for name in &of.buckets {
        if kept_in(broker, name).await?.1 > 0 {
            return Ok(None);
        }
    }
    let buckets = if of.buckets.is_empty() {
        String::new()
    } else {
        format!(", buckets {}", of.buckets.join(", "))
    };
    if !dry_run {
        for name in &of.buckets {
            open_bucket(broker, name)?.delete().await.context("remove a bucket")?;
        }
        broker.remove_bag(bag).await?;
    }
    let what = format!("bag {bag}: {} messages{buckets}", of.messages);
    let why = format!(
        "it has no line, no gatherer, no worker, and was last written {} ago",
        in_seconds(of.age())
    );
    Ok(Some(Swept::on_broker(what, why, dry_run)))
}

fn in_seconds(age: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(age.as_secs()))
}

/// The line of a bag that is to go on, and of which there is nothing else: no task waits, and nobody
/// gathers. A gatherer that goes on with it from its run folder writes another.
async fn bare_line(
    broker: &Broker,
    line: &BagLine,
    older_than: Duration,
    dry_run: bool,
) -> Result<Option<Swept>> {
    let open = matches!(line.state, BagState::Submitting | BagState::Running);
    let age = broker.line_age(&line.bag).await?;
    if !open || age < older_than || holder::is_held(broker, &line.bag).await? {
        return Ok(None);
    }
    if !dry_run {
        broker.remove_bag(&line.bag).await?;
    }
    let what = format!("line of bag {}", line.bag);
    let why = format!(
        "it is {}, has no message, no bucket, no gatherer, no worker, and was last written {} ago",
        line.state,
        in_seconds(age)
    );
    Ok(Some(Swept::on_broker(what, why, dry_run)))
}

/// Chunks in the buckets of a bag that nobody works on.
async fn chunks(
    broker: &Broker,
    line: &BagLine,
    buckets: &[String],
    dry_run: bool,
) -> Result<Vec<Swept>> {
    let over = matches!(line.state, BagState::Finished | BagState::Cancelled);
    let mut swept = Vec::new();
    // Workers go on with an objects bag that nobody gathers: only one that is over has no writer.
    if !over || (line.gatherer.is_some() && holder::is_held(broker, &line.bag).await?) {
        return Ok(swept);
    }
    for name in buckets {
        let bucket = open_bucket(broker, name)?;
        for orphan in bucket.orphans().await.context("look for chunks that no object names")? {
            let what = format!("{} chunks {} of bucket {name}", orphan.chunks, orphan.token);
            let why = format!("no object names them, and bag {} is {}", line.bag, line.state);
            swept.push(Swept::on_broker(what, why, dry_run));
            if !dry_run {
                bucket.purge_chunks(&orphan.token).await.context("remove chunks")?;
            }
        }
    }
    Ok(swept)
}
