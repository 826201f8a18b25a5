//! Sweeping what no bag owns. In doubt it stays: each thing is named with the reason why it goes.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::quote::name;
use bagpress_broker::server::{self, remove_store};
use bagpress_broker::{BagLine, BagState, Broker, limits, machine};
use bagpress_objstore::beneath::Dir;
use bagpress_objstore::staging::{part_folder, remove_parts};
use serde::Serialize;

use crate::claim::buckets::open_bucket;
use crate::claim::holder;
use crate::run_folder::folder::{RunFolder, SPECIFICATION, STORE, SUMMARY};
use crate::run_folder::ledger::scan;
use crate::run_folder::lock::GatherLock;
use crate::run_folder::specification::Specification;
use crate::run_folder::trust::Trust;
use crate::upkeep::remove::Kept;

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
    if !open || age < older_than || holder::is_held(broker, &line.bag).await? {
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
    if !over || (line.gatherer.is_some() && holder::is_held(broker, &line.bag).await?) {
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

/// What sweeping the run folders came to.
#[derive(Debug, Default)]
pub struct Runs {
    /// What no run needs.
    pub swept: Vec<Swept>,
    /// Run folders that were left alone, each with why.
    pub skipped: Vec<Kept>,
}

/// Sweeps the run folders beneath `runs`: stores and part files of finished runs, and what servers that
/// were killed have left. A folder that is another user's, or is reached by a link, is left alone.
///
/// # Errors
///
/// If `runs` cannot be read, or something cannot be removed.
pub async fn runs(runs: &Path, trust: Trust, dry_run: bool) -> Result<Runs> {
    let mut all = Runs::default();
    for (path, folder) in run_folders(runs, trust)? {
        match folder.and_then(State::of) {
            Ok(state) => sweep(&mut all.swept, state, dry_run).await?,
            Err(error) => all.skipped.push(Kept { path, why: format!("{error:#}") }),
        }
    }
    Ok(all)
}

/// A run folder that may be swept.
struct State {
    folder: RunFolder,
    /// Held while it is swept: no gatherer starts meanwhile.
    _lock: GatherLock,
    specification: Specification,
    finished: bool,
    store: PathBuf,
}

impl State {
    fn of(folder: RunFolder) -> Result<Self> {
        let (lock, specification) = (folder.lock()?, Specification::read(&folder)?);
        let finished = is_finished(&folder, &specification)?;
        let store = folder.store()?;
        Ok(Self { folder, _lock: lock, specification, finished, store })
    }
}

async fn sweep(swept: &mut Vec<Swept>, state: State, dry_run: bool) -> Result<()> {
    let State { folder, specification, finished, store, .. } = &state;
    // A store that others can write to is left alone as well.
    let Ok(None) = server::running(store) else { return Ok(()) };
    if *finished && specification.results == ResultPath::Staged {
        if store.is_dir() {
            found(swept, store, "the run is finished, its outputs are files", dry_run);
            if !dry_run {
                remove_store(store).await?;
            }
        }
    } else {
        for leftover in server::leftovers(store)? {
            found(swept, &leftover, "its server is dead", dry_run);
            let inside = Path::new(STORE).join(leftover.file_name().unwrap_or_default());
            remove_file(folder, &inside, dry_run)?;
        }
    }
    if *finished {
        part_files(swept, folder, specification, dry_run)?;
    }
    for unfinished in half_written(folder) {
        let path = folder.path().join(&unfinished);
        found(swept, &path, "whoever wrote it was killed", dry_run);
        remove_file(folder, Path::new(&unfinished), dry_run)?;
    }
    Ok(())
}

/// Part files of a finished run: its own, in a folder that other bags may use too.
fn part_files(
    swept: &mut Vec<Swept>,
    folder: &RunFolder,
    specification: &Specification,
    dry_run: bool,
) -> Result<()> {
    let inside = part_folder(Path::new(""), &specification.bag);
    for root in [Some(folder.results()), specification.out.clone()].into_iter().flatten() {
        let Ok(held) = Dir::open(&root) else { continue };
        // One that is reached by a link is not the run's.
        if held.dir(&inside).is_ok() {
            let parts = root.join(&inside);
            found(swept, &parts, "the run is finished, every output has its name", dry_run);
            if !dry_run {
                let removing = remove_parts(&held, &specification.bag);
                removing.with_context(|| format!("remove {}", name(&parts)))?;
            }
        }
    }
    Ok(())
}

fn found(swept: &mut Vec<Swept>, path: &Path, why: &str, dry_run: bool) {
    let (what, why) = (path.display().to_string(), why.to_owned());
    swept.push(Swept { what, is_path: true, why, removed: !dry_run });
}

fn remove_file(folder: &RunFolder, inside: &Path, dry_run: bool) -> Result<()> {
    if dry_run {
        return Ok(());
    }
    let removing = folder.held().remove_file(inside);
    removing.with_context(|| format!("remove {}", name(folder.path().join(inside))))
}

/// The run folders beneath `runs`, in order; those that are not believed with why.
fn run_folders(runs: &Path, trust: Trust) -> Result<Vec<(PathBuf, Result<RunFolder>)>> {
    let all = match Dir::open(runs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        all => all.with_context(|| format!("read {}", name(runs)))?,
    };
    let mut folders = Vec::new();
    for run in all.entries().with_context(|| format!("read {}", name(runs)))? {
        for results in ["staged", "objects"] {
            let inside = Path::new(&run).join(results);
            let path = runs.join(&inside);
            let folder = match all.dir(&inside) {
                Ok(held) => RunFolder::of_held(&path, held, trust),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error.into()),
                // What a link leads to is not in `runs`, and is swept where it is.
                Err(_) if path.join(SPECIFICATION).is_file() => {
                    Err(anyhow!("a link leads to it, and is not followed"))
                }
                Err(_) => Ok(None),
            };
            folders.extend(folder.transpose().map(|folder| (path, folder)));
        }
    }
    folders.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(folders)
}

fn is_finished(folder: &RunFolder, specification: &Specification) -> Result<bool> {
    let tally = scan::outcomes(folder, specification.tasks, |_| {})?;
    // A run whose summary is not written yet goes on by `gather`.
    Ok(folder.has(SUMMARY) && tally.decided() >= u64::from(specification.tasks))
}

/// Files that are renamed when they are whole, and lists of a bag that never was.
fn half_written(folder: &RunFolder) -> Vec<OsString> {
    let half = |name: &OsString| {
        let path = Path::new(name);
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let list = path.file_stem().is_some_and(|stem| stem == "inputs" || stem == "folders");
        let dead = extension.parse().is_ok_and(|pid: u32| !machine::lives(pid));
        let is_folder = || folder.held().metadata(path).is_ok_and(|found| found.is_dir());
        (extension == "part" || (list && dead)) && !is_folder()
    };
    let entries = folder.held().entries().unwrap_or_default();
    entries.into_iter().filter(half).collect()
}
