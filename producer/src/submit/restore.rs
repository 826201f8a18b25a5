//! What a restoring bag is made of: the outputs of a run, or compressed files.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bagpress_broker::descriptor::{Original, ResultPath};
use bagpress_broker::quote;
use bagpress_broker::result::{Cause, Outcome};

use bagpress_codec::Digest;

use crate::error::Usage;
use crate::run_folder::folder::{FOLDERS, RunFolder, SPECIFICATION};
use crate::run_folder::inputs::existing::Outputs;
use crate::run_folder::inputs::find::{find, find_compressed};
use crate::run_folder::inputs::finder::{Candidate, Finder, Found};
use crate::run_folder::inputs::folders::{self, FolderEntry};
use crate::run_folder::inputs::lists::Sink;
use crate::run_folder::inputs::refusal::{refused, unreadable};
use crate::run_folder::inputs::skipped::Kind;
use crate::run_folder::inputs::stream::{Recorded, Stream};
use crate::run_folder::plan::{BagPlan, read_plan};
use crate::run_folder::specification::Specification;
use crate::submit::references;
use crate::submit::request::Request;

/// Finds the files of a request, to be compressed or to be restored, and hands each to `sink`. `own` is the run's folder.
///
/// # Errors
///
/// [`Usage`]: nothing to do, or what cannot be done.
pub(crate) fn files_of(
    request: &Request,
    outputs: Option<Outputs>,
    own: Option<&Path>,
    sink: &mut dyn Sink,
) -> Result<Found> {
    if !request.references.is_empty() {
        return references::list(request, outputs.as_ref(), sink);
    }
    if !request.restore {
        return find(&request.inputs, (&request.selection, &request.codec()?), outputs, own, sink);
    }
    let runs: Vec<_> = request.inputs.iter().filter_map(|path| run_at(path)).collect();
    if let Some(run) = runs.first().filter(|_| request.remove_source) {
        return Err(Usage::error(
            format!(
                "--remove-source is for files, and would take the outputs of the run {}",
                quote::name(run)
            ),
            "restore the run without it; then `bagpress rm BAG --outputs` removes the run with its outputs",
        ));
    }
    match (&runs[..], request.inputs.len()) {
        ([], _) => find_compressed(&request.inputs, &request.selection, outputs, own, sink),
        ([run], 1) => {
            let folder = RunFolder::existing(run, request.trust)?;
            let mut finder = Finder::new(&request.selection, outputs, own, sink)?;
            of_run(&folder, &mut finder)?;
            Ok(finder.found())
        }
        ([run, ..], _) => Err(Usage::error(
            format!("{} is the folder of a run, and other things are named", quote::name(run)),
            "restore each run by itself, with --out DIR for all of them",
        )),
    }
}

/// The run's folder that a path leads to, also by the run's name: then it has one of both kinds.
pub(crate) fn run_at(path: &Path) -> Option<PathBuf> {
    let has_run = |folder: &Path| folder.join(SPECIFICATION).is_file();
    if has_run(path) {
        return Some(path.to_owned());
    }
    let kinds = [ResultPath::Staged, ResultPath::Objects].map(|kind| path.join(kind.as_str()));
    let [staged, objects] = kinds.map(|folder| has_run(&folder).then_some(folder));
    // Of two nobody can tell which is meant: as a folder it has no file to restore, which is said.
    staged.xor(objects)
}

/// Takes each file that a run made something of.
fn of_run(folder: &RunFolder, finder: &mut Finder<'_>) -> Result<()> {
    let specification = Specification::read(folder)?;
    let run = quote::name(folder.path());
    check(&specification, &run)?;
    let root = specification.output_root(folder);
    let absent = |error: io::Error| {
        Usage::error(
            format!("the outputs of {run} are not there: {}: {error}", quote::name(&root)),
            "bring the folder of the outputs back to its place, or restore the files themselves",
        )
    };
    let root = root.canonicalize().map_err(absent)?;
    let plan = read_plan(folder, specification)?;
    finder.reads(&root);
    // It stands for the folder that everything comes back to.
    finder.lies_in(Some(&root));
    let mut taken = HashMap::new();
    for index in 0..plan.specification.tasks {
        take(&plan, index, &root, (&mut taken, finder)).context("read the run")?;
    }
    let Some(list) = folder.open(FOLDERS)? else { return Ok(()) };
    for entry in folders::entries(list) {
        let entry = entry.with_context(|| format!("read {}", quote::name(folder.at(FOLDERS))))?;
        // The folders above it are those of the outputs, which have the modes of the ones they were made after.
        finder.folder(&FolderEntry { source: root.join(&entry.target), ..entry })?;
    }
    Ok(())
}

/// Refuses a run of which nothing can be restored.
///
/// # Errors
///
/// [`Usage`].
pub(crate) fn check(specification: &Specification, run: &str) -> Result<()> {
    if specification.restores() {
        return Err(Usage::error(
            format!("{run} is a run that restored: its outputs are not compressed"),
            "name the run that compressed them, or compressed files",
        ));
    }
    if specification.codec.stores_nothing() {
        return Err(Usage::error(
            format!("{run} stored nothing: its codec is {}", specification.codec),
            "restore a run of another codec",
        ));
    }
    if !specification.has_files() {
        return Err(Usage::error(
            format!("the outputs of {run} are objects, and no files"),
            "`bagpress restore BAG --server URL` restores a bag of a server by its id, as `bagpress status` shows it; of a local run, fetch \
             them with `bagpress object get`, and restore the files; or run with --out or --get",
        ));
    }
    Ok(())
}

/// By the digest of what each file is called when it is restored: of what comes back, if that is known. Two can be called the same only where
/// tasks have codecs of their own.
type Taken = HashMap<Digest, Option<Digest>>;

/// Takes one file of a run, as it was recorded, or says why it does not come back.
fn take(
    plan: &BagPlan,
    index: u32,
    root: &Path,
    (taken, finder): (&mut Taken, &mut Finder<'_>),
) -> Result<()> {
    let specification = &plan.specification;
    let output = specification.target(plan.inputs.as_deref(), index, None)?.path;
    let path = root.join(&output);
    let (target, attributes) = match &plan.inputs {
        Some(_) => {
            let entry = plan.entry(index)?;
            let (mode, mtime_ns, owner) = (entry.mode, entry.mtime_ns, entry.owner);
            let recorded = entry.is_file().then_some(Recorded { mode, mtime_ns, owner });
            (entry.target, recorded)
        }
        None => (output, None),
    };
    let shown = path.clone();
    let file = Candidate { path: &path, shown: &shown, target, codec: None };
    let done = match plan.ledger.outcome(index, plan.ledger.round(index)).map(|of| of.outcome) {
        Some(Outcome::Done(done)) => done,
        Some(Outcome::Failed(failed)) => {
            let why = format!("the run has no output of it: {}", failed.cause);
            return finder.refuse(file, refused(Cause::InputMissing, &shown, &why));
        }
        None => {
            let why = "the run has no outcome of it: gather it, then restore it again";
            return finder.refuse(file, refused(Cause::InputMissing, &shown, why));
        }
    };
    // What the worker's decoder gave; of values that may be off and were not decoded, nothing is known.
    let codec = plan.codec(index)?;
    let decoded = done.decoded_digest(&codec);
    if specification.has_own_codecs() {
        let name = Digest::of(file.target.as_os_str().as_bytes());
        match taken.entry(name) {
            Entry::Vacant(name) => drop(name.insert(decoded)),
            Entry::Occupied(other) if decoded.is_some() && *other.get() == decoded => {
                finder.skip(Kind::Another, &shown);
                return Ok(());
            }
            Entry::Occupied(_) => {
                let why = "another output of the run comes back by the same name, and is another file; copy this one elsewhere, and restore it there";
                return finder.refuse(file, refused(Cause::OutputExists, &shown, why));
            }
        }
    }
    let original = decoded.map(|digest| Original { bytes: done.input_bytes, digest });
    let stream = Stream { codec, original, attributes };
    match fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_file() => finder.take_stream(&file, &metadata, stream),
        Ok(_) => {
            let failed = refused(Cause::InputUnreadable, &shown, "it is not a file");
            finder.refuse_stream(file, failed, Some(stream))
        }
        Err(error) => {
            let failed = unreadable(&shown, &error);
            finder.refuse_stream(file, failed, Some(stream))
        }
    }
}
