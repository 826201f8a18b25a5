//! Removing a bag: what it made on the broker and in its run folder, and nothing else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bagpress_broker::ids::BagId;
use bagpress_broker::server::remove_store;
use bagpress_broker::{BagState, Broker, limits};
use bagpress_objstore::staging::{BAD_DIR, hash_file, remove_parts};
use serde::Serialize;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::accept::open_bucket;
use crate::folder::{GatherLock, RunFolder};
use crate::gather::open_plan;
use crate::inputs::folders;
use crate::spec::Specification;
use crate::status::unknown;
use crate::{Usage, glance, lease};

/// What was removed.
#[derive(Debug, Default, Serialize)]
pub struct Removed {
    /// The bag.
    pub bag: String,
    /// Messages on the broker, the bag's line included.
    pub messages: u64,
    /// Buckets on the broker.
    pub buckets: Vec<String>,
    /// Files of the run folder, and outputs.
    pub files: u64,
    /// What stays, and why.
    pub kept: Vec<String>,
}

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
    force: bool,
) -> Result<Removed> {
    let found = broker.find_bag(bag).await?;
    let traces = broker.traces().await?.remove(bag);
    if found.line.is_none() && traces.is_none() {
        return Err(unknown(bag));
    }
    let cancelled = found.line.as_ref().is_some_and(|line| line.state == BagState::Cancelled);
    if !force && !cancelled {
        lease::expect_unheld(broker, bag, lock).await?;
    }
    let over = found.line.as_ref().is_none_or(|line| line.state == BagState::Finished);
    if !over {
        // Whoever gathers it or works on it ends: nothing of it may be written after its removal.
        broker.cancel_bag(bag).await?;
    }
    released(broker, bag).await?;
    let mut removed = Removed { bag: bag.to_string(), ..Removed::default() };
    for name in broker.buckets(bag).await? {
        open_bucket(broker, &name)?
            .delete()
            .await
            .with_context(|| format!("remove the bucket {name}"))?;
        removed.buckets.push(name);
    }
    removed.messages = broker.remove_bag(bag).await?;
    Ok(removed)
}

/// Waits until nobody gathers the bag and no worker holds a task of it.
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
                "stop them, or wait until they are done, and remove it again",
            ));
        }
        sleep(limits::RETRY_WAIT).await;
    }
}

/// Removes a run folder, with `outputs` also what the bag wrote to its `--out` folder and nobody has
/// changed since. Whatever else is there stays, and is named.
///
/// # Errors
///
/// [`Usage`] if the run is being gathered; if something cannot be removed.
pub async fn folder(folder: &RunFolder, lock: GatherLock, outputs: bool) -> Result<Removed> {
    let specification = Specification::read(folder)?;
    let mut removed = Removed { bag: specification.bag.to_string(), ..Removed::default() };
    remove_store(&folder.broker()).await?;
    let folder = folder.clone();
    let removing = spawn_blocking(move || {
        if let Some(out) = specification.out.clone() {
            remove_from_out(&folder, specification, &out, outputs, &mut removed)?;
        }
        remove_own(&folder, &mut removed)?;
        drop(lock);
        Ok(removed)
    });
    removing.await.context("remove the run folder")?
}

fn remove_from_out(
    folder: &RunFolder,
    specification: Specification,
    out: &Path,
    outputs: bool,
    removed: &mut Removed,
) -> Result<()> {
    let tasks = specification.tasks;
    let mut done = Vec::new();
    let tally = glance::outcomes(&folder.manifest(), tasks, |result| {
        if let Some(done_as) = result.done() {
            done.push((result.index, done_as.output_digest));
        }
    })
    .context("read the ledger")?;
    removed.files += remove_parts(out, &specification.bag)
        .with_context(|| format!("remove the bag's part files in {}", out.display()))?;
    if out.join(BAD_DIR).exists() {
        removed
            .kept
            .push(format!("{}: files that had an output's name", out.join(BAD_DIR).display()));
    }
    if !outputs {
        if tally.done > 0 {
            let why = "your outputs; `--outputs` removes them too";
            removed.kept.push(format!("{}: {why}", out.display()));
        }
        return Ok(());
    }
    let plan = open_plan(folder, specification)?;
    // Folders without files, first: those above them may be an output's.
    folders::remove_empty(&folder.folders(), out).context("remove the folders that were made")?;
    for (index, digest) in done {
        let target = plan.specification.target(plan.inputs.as_deref(), index)?;
        let path = out.join(target.path);
        match hash_file(&path) {
            Ok((found, _)) if found == digest => {
                fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
                removed.files += 1;
                remove_empty_above(&path, out);
            }
            Ok(_) => removed.kept.push(format!("{}: it was changed", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => removed.kept.push(format!("{}: {error}", path.display())),
        }
    }
    Ok(())
}

/// Removes the folders between `path` and `root` that are empty now.
fn remove_empty_above(path: &Path, root: &Path) {
    let above = path.ancestors().skip(1).take_while(|folder| *folder != root);
    for folder in above {
        // One that has something in it stays.
        if fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

/// Removes what a run writes into its folder, then the folder, if nothing else is in it.
fn remove_own(folder: &RunFolder, removed: &mut Removed) -> Result<()> {
    let mut own = vec![folder.results(), folder.logs(), folder.inputs(), folder.manifest()];
    own.extend([folder.folders(), folder.attempts(), folder.broker()]);
    own.extend(["summary.txt", "summary.json", "server.txt"].map(|name| folder.path().join(name)));
    // Last of all: while it is there, the folder is a run's, and removing goes on.
    own.extend([folder.specification(), folder.path().join(".lock")]);
    for path in own {
        removed.files += remove_all(&path)?;
    }
    if fs::remove_dir(folder.path()).is_err() {
        removed.kept.push(format!("{}: it holds files that no run made", folder.path().display()));
    } else if let Some(parent) = folder.path().parent() {
        // The other result path may have a run of that name.
        fs::remove_dir(parent).ok();
    }
    Ok(())
}

/// Removes a file or a folder with all that is in it, follows no link, and counts the files.
fn remove_all(path: &PathBuf) -> Result<u64> {
    let context = || format!("remove {}", path.display());
    let metadata = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        found => found.with_context(context)?,
    };
    if !metadata.is_dir() {
        fs::remove_file(path).with_context(context)?;
        return Ok(1);
    }
    let mut count = 0;
    for entry in fs::read_dir(path).with_context(context)? {
        count += remove_all(&entry.with_context(context)?.path())?;
    }
    fs::remove_dir(path).with_context(context)?;
    Ok(count)
}
