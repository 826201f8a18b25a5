//! Sweeping the run folders beneath one: what finished runs and killed processes have left in them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::machine;
use bagpress_broker::quote::name;
use bagpress_broker::server::{self, remove_store};
use bagpress_objstore::beneath::Dir;
use bagpress_objstore::staging::{part_folder, remove_parts};

use super::swept::Swept;
use crate::run_folder::folder::{RunFolder, STORE, SUMMARY};
use crate::run_folder::ledger::scan;
use crate::run_folder::lock::GatherLock;
use crate::run_folder::runs::run_folders;
use crate::run_folder::specification::Specification;
use crate::run_folder::trust::Trust;
use crate::upkeep::remove::Kept;

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
        match folder.and_then(Sweepable::of) {
            Ok(run) => sweep(&mut all.swept, run, dry_run).await?,
            Err(error) => all.skipped.push(Kept { path, why: format!("{error:#}") }),
        }
    }
    Ok(all)
}

/// A run folder that may be swept.
struct Sweepable {
    folder: RunFolder,
    /// Held while it is swept: no gatherer starts meanwhile.
    _lock: GatherLock,
    specification: Specification,
    finished: bool,
    store: PathBuf,
}

impl Sweepable {
    fn of(folder: RunFolder) -> Result<Self> {
        let (lock, specification) = (folder.lock()?, Specification::read(&folder)?);
        let finished = is_finished(&folder, &specification)?;
        let store = folder.store()?;
        Ok(Self { folder, _lock: lock, specification, finished, store })
    }
}

async fn sweep(swept: &mut Vec<Swept>, run: Sweepable, dry_run: bool) -> Result<()> {
    let Sweepable { folder, specification, finished, store, .. } = &run;
    // A store that others can write to is left alone as well.
    let Ok(None) = server::running(store) else { return Ok(()) };
    if *finished && specification.results == ResultPath::Staged {
        if store.is_dir() {
            swept.push(Swept::at(store, "the run is finished, its outputs are files", dry_run));
            if !dry_run {
                remove_store(store).await?;
            }
        }
    } else {
        for leftover in server::leftovers(store)? {
            swept.push(Swept::at(&leftover, "its server is dead", dry_run));
            let inside = Path::new(STORE).join(leftover.file_name().unwrap_or_default());
            remove_file(folder, &inside, dry_run)?;
        }
    }
    if *finished {
        part_files(swept, folder, specification, dry_run)?;
    }
    for unfinished in half_written(folder) {
        let path = folder.path().join(&unfinished);
        swept.push(Swept::at(&path, "the process that wrote it was killed", dry_run));
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
            swept.push(Swept::at(
                &parts,
                "the run is finished, every output has its name",
                dry_run,
            ));
            if !dry_run {
                let removing = remove_parts(&held, &specification.bag);
                removing.with_context(|| format!("remove {}", name(&parts)))?;
            }
        }
    }
    Ok(())
}

fn remove_file(folder: &RunFolder, inside: &Path, dry_run: bool) -> Result<()> {
    if dry_run {
        return Ok(());
    }
    let removing = folder.held().remove_file(inside);
    removing.with_context(|| format!("remove {}", name(folder.path().join(inside))))
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
