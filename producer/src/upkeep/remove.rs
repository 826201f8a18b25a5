//! Removing a bag: what it made on the broker and in its run folder, and nothing else; or only looking what
//! that would be.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bagpress_broker::ids::BagId;
use bagpress_broker::quote::{name, words};
use bagpress_broker::server::{self, remove_store};
use bagpress_broker::{BagState, Broker, limits};
use bagpress_objstore::beneath::Dir;
use bagpress_objstore::staging::{BAD_DIR, hash_file, part_folder, remove_parts};
use serde::Serialize;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::claim::buckets::open_bucket;
use crate::claim::holder;
use crate::error::Usage;
use crate::run_folder::folder::{
    ATTEMPTS, FAILED, FOLDERS, INPUTS, LOCK, LOGS, MANIFEST, RESULTS, RunFolder, SERVER,
    SPECIFICATION, STORE, SUMMARY, SUMMARY_TEXT,
};
use crate::run_folder::inputs::folders;
use crate::run_folder::ledger::scan;
use crate::run_folder::lock::GatherLock;
use crate::run_folder::plan::open_plan;
use crate::run_folder::specification::Specification;
use crate::status::unknown;

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
        holder::expect_unheld(broker, bag, lock).await?;
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
        remove_store(&folder.store()?).await?;
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
    let store = folder.store()?;
    match server::running(&store)? {
        Some(at) if !how.force => Err(Usage::error(
            format!("the store {} is in use by the server at {}", name(store), at.url()),
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
    let tally = scan::outcomes(folder, tasks, |result| {
        if let Some(done_as) = result.done() {
            done.push((result.index, done_as.output_digest));
        }
    })?;
    // Held: whatever its path leads to meanwhile, nothing outside it is touched.
    let root = match Dir::open(out) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        root => root.with_context(|| format!("open {}", name(out)))?,
    };
    let parts = part_folder(Path::new(""), &specification.bag);
    let bag = &specification.bag;
    match if how.dry_run { count(&root, &parts) } else { remove_parts(&root, bag) } {
        Ok(files) => removed.files += files,
        Err(error) => removed.keep(out.join(parts), error.to_string()),
    }
    if root.metadata(Path::new(BAD_DIR)).is_ok() {
        removed.keep(out.join(BAD_DIR), "files that had an output's name");
    }
    if !how.outputs {
        if tally.done > 0 {
            removed.keep(out, "your outputs; `--outputs` removes them too");
        }
        return Ok(());
    }
    let plan = open_plan(folder, specification)?;
    if !how.dry_run
        && let Some(list) = folder.open(FOLDERS)?
    {
        // Folders without files, first: those above them may be an output's.
        let removing = folders::remove_empty(list, &root);
        removing.context("remove the folders that were made")?;
    }
    for (index, digest) in done {
        let target = plan.specification.target(plan.inputs.as_deref(), index)?.path;
        let path = out.join(&target);
        match hash_file(&root, &target) {
            Ok((found, _)) if found == digest => {
                if !how.dry_run {
                    let removing = root.remove_file(&target);
                    removing.with_context(|| format!("remove {}", name(&path)))?;
                    folders::remove_while_empty(target.parent().unwrap_or(Path::new("")), &root);
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

/// What a run writes into its folder. The specification goes last of all: while it is there, the folder is a run's, and
/// removing goes on.
const OWN: [&str; 12] = [
    RESULTS,
    LOGS,
    INPUTS,
    MANIFEST,
    FOLDERS,
    ATTEMPTS,
    FAILED,
    SUMMARY_TEXT,
    SUMMARY,
    SERVER,
    SPECIFICATION,
    LOCK,
];

/// Removes what a run writes into its folder, then the folder, if nothing else is in it.
fn remove_own(folder: &RunFolder, how: How, removed: &mut Removed) -> Result<()> {
    for own in OWN {
        let context = || format!("remove {}", name(folder.at(own)));
        let (held, own) = (folder.held(), Path::new(own));
        removed.files += count(held, own).with_context(context)?;
        if !how.dry_run {
            remove_all(held, own).with_context(context)?;
        }
    }
    let stays = if how.dry_run {
        let entries = folder.held().entries();
        let entries = entries.with_context(|| format!("read {}", name(folder.path())))?;
        // Its store is removed, and not counted.
        entries.iter().any(|entry| !OWN.iter().chain([&STORE]).any(|own| entry == *own))
    } else {
        folder.remove_itself().is_err()
    };
    if stays {
        removed.keep(folder.path(), "it holds files that no run made");
    }
    Ok(())
}

/// Removes a file, a link itself, or a folder with all that is in it, beneath `dir`; that it is not there is fine.
fn remove_all(dir: &Dir, path: &Path) -> io::Result<()> {
    match dir.metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(found) if found.is_dir() => dir.remove_all(path),
        _ => dir.remove_file(path),
    }
}

/// Counts what [`remove_all`] would remove: files, and whatever else is no folder.
fn count(dir: &Dir, path: &Path) -> io::Result<u64> {
    match dir.metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Ok(found) if found.is_dir() => {}
        found => return found.map(|_| 1),
    }
    let folder = dir.dir(path)?;
    folder.entries()?.iter().map(|entry| count(&folder, Path::new(entry))).sum()
}
