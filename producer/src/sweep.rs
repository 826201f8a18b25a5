//! Sweeping what no bag owns. In doubt it stays: each thing is named with the reason why it goes.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use bagpress_broker::quote::name;
use bagpress_broker::server::{self, remove_store};
use bagpress_broker::{BagLine, BagState, Broker, limits, machine};
use bagpress_objstore::staging::{part_folder, remove_parts};
use serde::Serialize;

use crate::accept::open_bucket;
use crate::folder::RunFolder;
use crate::spec::Specification;
use crate::{glance, lease};

/// One thing that no bag owns.
#[derive(Debug, Serialize)]
pub struct Swept {
    /// What it is; a file by its path, as it is.
    pub what: String,
    /// Whether that is a path.
    #[serde(skip)]
    pub is_path: bool,
    /// Why nobody needs it.
    pub why: String,
    /// Whether it was removed, or only found.
    pub removed: bool,
}

impl Swept {
    /// What it is, for people: a path is quoted where it must be.
    #[must_use]
    pub fn named(&self) -> String {
        if self.is_path { name(&self.what) } else { self.what.clone() }
    }
}

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
        broker.date(&bag, &mut of).await?;
        // Somebody may gather it without having written its line yet.
        let found = broker.find_bag(&bag).await?;
        // Nor is a line that cannot be read none.
        let owned = found.line.is_some() || found.unreadable.is_some();
        if of.age() < older_than || owned || broker.is_gathered(&bag).await {
            continue;
        }
        let buckets = if of.buckets.is_empty() {
            String::new()
        } else {
            format!(", buckets {}", of.buckets.join(", "))
        };
        swept.push(Swept {
            what: format!("bag {bag}: {} messages{buckets}", of.messages),
            why: format!(
                "it has no line, no gatherer, no worker, and was last written {} ago",
                humantime::format_duration(Duration::from_secs(of.age().as_secs()))
            ),
            removed: !dry_run,
            is_path: false,
        });
        if !dry_run {
            for name in &of.buckets {
                open_bucket(broker, name)?.delete().await.context("remove a bucket")?;
            }
            broker.remove_bag(&bag).await?;
        }
    }
    Ok(swept)
}

/// The line of a bag that is to go on, and of which there is nothing else: no task waits, and nobody
/// gathers. Who gathers it after all, from its run folder, writes another.
async fn bare_line(
    broker: &Broker,
    line: &BagLine,
    older_than: Duration,
    dry_run: bool,
) -> Result<Option<Swept>> {
    let open = matches!(line.state, BagState::Submitting | BagState::Running);
    let age = broker.line_age(&line.bag).await?;
    if !open || age < older_than || lease::is_held(broker, &line.bag).await? {
        return Ok(None);
    }
    if !dry_run {
        broker.remove_bag(&line.bag).await?;
    }
    let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
    Ok(Some(Swept {
        what: format!("line of bag {}", line.bag),
        why: format!(
            "it is {}, has no message, no bucket, no gatherer, no worker, and was last written {age} ago",
            line.state
        ),
        removed: !dry_run,
        is_path: false,
    }))
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
    if !over || (line.gatherer.is_some() && lease::is_held(broker, &line.bag).await?) {
        return Ok(swept);
    }
    for name in buckets {
        let bucket = open_bucket(broker, name)?;
        for orphan in bucket.orphans().await.context("look for chunks that no object names")? {
            swept.push(Swept {
                what: format!("{} chunks {} of bucket {name}", orphan.chunks, orphan.token),
                why: format!("no object names them, and bag {} is {}", line.bag, line.state),
                removed: !dry_run,
                is_path: false,
            });
            if !dry_run {
                bucket.purge_chunks(&orphan.token).await.context("remove chunks")?;
            }
        }
    }
    Ok(swept)
}

/// Sweeps the run folders below `runs`: stores and part files of finished runs, and what servers that
/// were killed have left.
///
/// # Errors
///
/// If a folder cannot be read, or something cannot be removed.
pub async fn runs(runs: &Path, dry_run: bool) -> Result<Vec<Swept>> {
    let mut swept = Vec::new();
    for folder in run_folders(runs)? {
        // Held while it is swept: no gatherer starts meanwhile.
        let Ok(lock) = folder.lock() else { continue };
        let Ok(specification) = Specification::read(&folder) else { continue };
        let finished = is_finished(&folder, &specification)?;
        let store = folder.broker();
        if server::running(&store).is_some() {
            continue;
        }
        if finished && specification.results == bagpress_broker::descriptor::ResultPath::Staged {
            if store.is_dir() {
                found(&mut swept, &store, "the run is finished, its outputs are files", dry_run);
                if !dry_run {
                    remove_store(&store).await?;
                }
            }
        } else {
            for leftover in server::leftovers(&store) {
                found(&mut swept, &leftover, "its server is dead", dry_run);
                remove_file(&leftover, dry_run)?;
            }
        }
        if finished {
            part_files(&mut swept, &folder, &specification, dry_run)?;
        }
        for unfinished in half_written(&folder) {
            found(&mut swept, &unfinished, "whoever wrote it was killed", dry_run);
            remove_file(&unfinished, dry_run)?;
        }
        drop(lock);
    }
    Ok(swept)
}

/// Part files of a finished run: its own, in a folder that other bags may use too.
fn part_files(
    swept: &mut Vec<Swept>,
    folder: &RunFolder,
    specification: &Specification,
    dry_run: bool,
) -> Result<()> {
    for root in [Some(folder.results()), specification.out.clone()].into_iter().flatten() {
        let parts = part_folder(&root, &specification.bag);
        if parts.is_dir() {
            found(swept, &parts, "the run is finished, every output has its name", dry_run);
            if !dry_run {
                remove_parts(&root, &specification.bag)
                    .with_context(|| format!("remove {}", name(&parts)))?;
            }
        }
    }
    Ok(())
}

fn found(swept: &mut Vec<Swept>, path: &Path, why: &str, dry_run: bool) {
    let (what, why) = (path.display().to_string(), why.to_owned());
    swept.push(Swept { what, is_path: true, why, removed: !dry_run });
}

fn remove_file(path: &Path, dry_run: bool) -> Result<()> {
    if dry_run {
        return Ok(());
    }
    fs::remove_file(path).with_context(|| format!("remove {}", name(path)))
}

fn run_folders(runs: &Path) -> Result<Vec<RunFolder>> {
    let mut folders = Vec::new();
    let entries = match fs::read_dir(runs) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(folders),
        read => read.with_context(|| format!("read {}", name(runs)))?,
    };
    for entry in entries {
        let path = entry.with_context(|| format!("read {}", name(runs)))?.path();
        let inside = ["staged", "objects"].map(|results| path.join(results));
        folders.extend(inside.iter().filter_map(|path| RunFolder::existing(path).ok()));
    }
    folders.sort_by(|a, b| a.path().cmp(b.path()));
    Ok(folders)
}

fn is_finished(folder: &RunFolder, specification: &Specification) -> Result<bool> {
    let tally = glance::outcomes(&folder.manifest(), specification.tasks, |_| {});
    let tally = tally.context("read a ledger")?;
    // A run whose summary is not written yet goes on by `gather`.
    let summed_up = folder.path().join("summary.json").is_file();
    Ok(summed_up && tally.decided() >= u64::from(specification.tasks))
}

/// Files that are renamed when they are whole, and lists of a bag that never was.
fn half_written(folder: &RunFolder) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder.path()) else { return Vec::new() };
    let half = |path: &PathBuf| {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let list = path.file_stem().is_some_and(|stem| stem == "inputs" || stem == "folders");
        let dead = extension.parse().is_ok_and(|pid: u32| !machine::lives(pid));
        extension == "part" || (list && dead)
    };
    entries.filter_map(Result::ok).map(|entry| entry.path()).filter(half).collect()
}
