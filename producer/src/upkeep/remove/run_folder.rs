//! Removing a run folder, and what its bag wrote to its `--out` folder.

use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use bagpress_broker::quote::name;
use bagpress_broker::server::{self, remove_store};
use bagpress_objstore::beneath::Dir;
use bagpress_objstore::staging::{BAD_DIR, part_folder, remove_parts};
use tokio::task::spawn_blocking;

use super::kept::{How, Removed};
use super::outputs::{Output, Outputs};
use crate::error::Usage;
use crate::run_folder::files::part_of;
use crate::run_folder::folder::{
    ATTEMPTS, EARLIER, FAILED, FOLDERS, INPUTS, LOCK, LOGS, MANIFEST, RESULTS, RunFolder, SERVER,
    SPECIFICATION, STORE, SUMMARY, SUMMARY_TEXT, TWINS,
};
use crate::run_folder::inputs::folders;
use crate::run_folder::ledger::scan;
use crate::run_folder::lock::GatherLock;
use crate::run_folder::plan::open_plan;
use crate::run_folder::specification::Specification;

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
            "wait until it ends, or stop it",
        )),
        _ => Ok(()),
    }
}

/// Removes what the bag has left in its `--out` folder: part files, and the outputs if that was asked for.
fn remove_from_out(
    folder: &RunFolder,
    specification: Specification,
    out: &Path,
    how: How,
    removed: &mut Removed,
) -> Result<()> {
    let mut done = Vec::new();
    scan::outcomes(folder, specification.tasks, |result| {
        if let Some(done_as) = result.done() {
            done.push(Output {
                index: result.index,
                digest: done_as.output_digest,
                file: result.file,
            });
        }
    })?;
    // Held: whatever its path leads to meanwhile, nothing outside it is touched.
    let root = match Dir::open(out) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        root => root.with_context(|| format!("open {}", name(out)))?,
    };
    let (bag, parts) = (&specification.bag, part_folder(Path::new(""), &specification.bag));
    match if how.dry_run { count(&root, &parts) } else { remove_parts(&root, bag) } {
        Ok(files) => removed.files += files,
        Err(error) => removed.keep(out.join(parts), error.to_string()),
    }
    if root.metadata(Path::new(BAD_DIR)).is_ok() {
        removed.keep(out.join(BAD_DIR), "files that had an output's name");
    }
    if how.outputs {
        let plan = open_plan(folder, specification)?;
        if !how.dry_run
            && let Some(list) = folder.open(FOLDERS)?
        {
            // Folders without files, first: those above them may be an output's.
            let removing = folders::remove_empty(list, &root);
            removing.context("remove the folders that were made")?;
        }
        let outputs = Outputs { folder, plan: &plan, out, root: &root };
        return outputs.remove(&done, how, removed);
    }
    if !done.is_empty() {
        removed.keep(out, "your outputs; `--outputs` removes them too");
    }
    Ok(())
}

/// What a run writes into its folder. The specification goes last of all: while it is there, the folder is a run's, and
/// removing goes on.
const OWN: [&str; 14] = [
    RESULTS,
    LOGS,
    INPUTS,
    MANIFEST,
    FOLDERS,
    TWINS,
    EARLIER,
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
    let parts = OWN.map(part_of);
    // The specification goes last of all, and the lock behind it.
    for own in parts.iter().map(String::as_str).chain(OWN) {
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
        let parts = parts.iter().map(String::as_str);
        let own: Vec<_> = parts.chain(OWN).chain([STORE]).collect();
        entries.iter().any(|entry| !own.iter().any(|own| entry == *own))
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
