//! Removing a bag: what it made on the broker and in its run folder, and nothing else; or only looking what
//! that would be.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bagpress_broker::ids::BagId;
use bagpress_broker::quote::{name, words};
use bagpress_broker::server::{self, remove_store};
use bagpress_broker::{BagState, Broker, limits};
use bagpress_objstore::staging::{BAD_DIR, hash_file, part_folder, remove_parts};
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

/// What is to be removed, and whether it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct How {
    /// A bag that somebody gathers too: it is cancelled first.
    pub force: bool,
    /// The outputs too that the bag wrote to its `--out` folder.
    pub outputs: bool,
    /// Only look: nothing is removed, and nothing cancelled.
    pub dry_run: bool,
}

/// What was removed, or would be.
#[derive(Debug, Default, Serialize)]
pub struct Removed {
    /// The bag.
    pub bag: String,
    /// Whether it was removed, or only found.
    pub removed: bool,
    /// Messages on the broker, the bag's line included.
    pub messages: u64,
    /// Buckets on the broker.
    pub buckets: Vec<String>,
    /// Files of the run folder, and outputs.
    pub files: u64,
    /// Those of them that are outputs in the `--out` folder.
    pub outputs: u64,
    /// The run folder, if it was named.
    pub folder: Option<String>,
    /// What stays, and why.
    pub kept: Vec<Kept>,
}

/// A file or folder that stays.
#[derive(Debug)]
pub struct Kept {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", name(&self.path), words(&self.why))
    }
}

impl Serialize for Kept {
    /// As it is: whoever reads JSON has no terminal to protect.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}: {}", self.path.display(), self.why))
    }
}

impl Removed {
    fn of(bag: &BagId, how: How) -> Self {
        Self { bag: bag.to_string(), removed: !how.dry_run, ..Self::default() }
    }

    fn keep(&mut self, path: impl Into<PathBuf>, why: impl Into<String>) {
        self.kept.push(Kept { path: path.into(), why: why.into() });
    }
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
    how: How,
) -> Result<Removed> {
    let found = broker.find_bag(bag).await?;
    let traces = broker.traces().await?.remove(bag);
    if found.line.is_none() && found.unreadable.is_none() && traces.is_none() {
        return Err(unknown(bag));
    }
    let cancelled = found.line.as_ref().is_some_and(|line| line.state == BagState::Cancelled);
    if !how.force && !cancelled {
        lease::expect_unheld(broker, bag, lock).await?;
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
        // Whoever gathers it or works on it ends: nothing of it may be written after its removal.
        broker.cancel_bag(bag).await?;
    }
    released(broker, bag).await?;
    for name in broker.buckets(bag).await? {
        open_bucket(broker, &name)?
            .delete()
            .await
            .with_context(|| format!("remove the bucket {name}"))?;
        removed.buckets.push(name);
    }
    // Cancelling has removed some of them, and results may have come since they were counted.
    removed.messages = removed.messages.max(broker.remove_bag(bag).await?);
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
/// changed since. Whatever else is there stays, and is named. Only looking needs no `lock`.
///
/// # Errors
///
/// If the run's own server is used by somebody, or something cannot be removed.
pub async fn folder(folder: &RunFolder, lock: Option<GatherLock>, how: How) -> Result<Removed> {
    let specification = Specification::read(folder)?;
    let mut removed = Removed::of(&specification.bag, how);
    removed.folder = Some(folder.path().display().to_string());
    if how.dry_run {
        expect_unused(folder, how)?;
    } else {
        remove_store(&folder.broker()).await?;
    }
    let folder = folder.clone();
    let removing = spawn_blocking(move || {
        if let Some(out) = specification.out.clone() {
            remove_from_out(&folder, specification, &out, how, &mut removed)?;
        }
        remove_own(&folder, how, &mut removed)?;
        drop(lock);
        Ok(removed)
    });
    removing.await.context("remove the run folder")?
}

/// Refuses what removing would refuse: a store with a server on it, unless it ends with its gatherer.
fn expect_unused(folder: &RunFolder, how: How) -> Result<()> {
    match server::running(&folder.broker()) {
        Some(url) if !how.force => Err(Usage::error(
            format!("the store {} is in use by the server at {url}", name(folder.broker())),
            "wait for its end, or stop it",
        )),
        _ => Ok(()),
    }
}

fn remove_from_out(
    folder: &RunFolder,
    specification: Specification,
    out: &Path,
    how: How,
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
    removed.files += if how.dry_run {
        fs::read_dir(part_folder(out, &specification.bag)).map_or(0, |parts| parts.count() as u64)
    } else {
        remove_parts(out, &specification.bag)
            .with_context(|| format!("remove the bag's part files in {}", name(out)))?
    };
    if out.join(BAD_DIR).exists() {
        removed.keep(out.join(BAD_DIR), "files that had an output's name");
    }
    if !how.outputs {
        if tally.done > 0 {
            removed.keep(out, "your outputs; `--outputs` removes them too");
        }
        return Ok(());
    }
    let plan = open_plan(folder, specification)?;
    if !how.dry_run {
        // Folders without files, first: those above them may be an output's.
        let removing = folders::remove_empty(&folder.folders(), out);
        removing.context("remove the folders that were made")?;
    }
    for (index, digest) in done {
        let target = plan.specification.target(plan.inputs.as_deref(), index)?;
        let path = out.join(target.path);
        match hash_file(&path) {
            Ok((found, _)) if found == digest => {
                if !how.dry_run {
                    fs::remove_file(&path).with_context(|| format!("remove {}", name(&path)))?;
                    remove_empty_above(&path, out);
                }
                removed.files += 1;
                removed.outputs += 1;
            }
            Ok(_) => removed.keep(path, "it was changed"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => removed.keep(path, error.to_string()),
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
fn remove_own(folder: &RunFolder, how: How, removed: &mut Removed) -> Result<()> {
    let mut own = vec![folder.results(), folder.logs(), folder.inputs(), folder.manifest()];
    own.extend([folder.folders(), folder.attempts(), folder.failed()]);
    own.extend(["summary.txt", "summary.json", "server.txt"].map(|name| folder.path().join(name)));
    // Last of all: while it is there, the folder is a run's, and removing goes on.
    own.extend([folder.specification(), folder.path().join(".lock")]);
    for path in &own {
        removed.files += remove_all(path, how)?;
    }
    // Its store is removed, and not counted.
    own.push(folder.broker());
    let stays = if how.dry_run {
        let entries = fs::read_dir(folder.path());
        let entries = entries.with_context(|| format!("read {}", name(folder.path())))?;
        entries.filter_map(Result::ok).any(|entry| !own.contains(&entry.path()))
    } else {
        fs::remove_dir(folder.path()).is_err()
    };
    if stays {
        removed.keep(folder.path(), "it holds files that no run made");
    } else if let Some(parent) = folder.path().parent().filter(|_| !how.dry_run) {
        // The other result path may have a run of that name.
        fs::remove_dir(parent).ok();
    }
    Ok(())
}

/// Removes a file or a folder with all that is in it, follows no link, and counts the files.
fn remove_all(path: &PathBuf, how: How) -> Result<u64> {
    let context = || format!("remove {}", name(path));
    let metadata = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        found => found.with_context(context)?,
    };
    if !metadata.is_dir() {
        if !how.dry_run {
            fs::remove_file(path).with_context(context)?;
        }
        return Ok(1);
    }
    let mut count = 0;
    for entry in fs::read_dir(path).with_context(context)? {
        count += remove_all(&entry.with_context(context)?.path(), how)?;
    }
    if !how.dry_run {
        fs::remove_dir(path).with_context(context)?;
    }
    Ok(count)
}
