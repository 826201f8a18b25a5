//! From what a user asks for to a specification in a run folder.

use std::path::{Path, PathBuf};

use anyhow::Result;
use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::ids::{BagId, RunName, random_base32};
use bagpress_broker::result::wall_clock_us;
use bagpress_broker::{limits, quote};
use bagpress_codec::{Codec, Digest};
use bagpress_objstore::beneath::Dir;

use crate::error::Usage;
use crate::run_folder::folder::{RunFolder, SPECIFICATION, SUMMARY};
use crate::run_folder::inputs::existing::Outputs;
use crate::run_folder::inputs::find::find;
use crate::run_folder::inputs::finder::Found;
use crate::run_folder::inputs::folders;
use crate::run_folder::inputs::lists::{Finished, Lists};
use crate::run_folder::inputs::selection::Existing;
use crate::run_folder::lock::GatherLock;
use crate::run_folder::specification::{Data, Specification};
use crate::submit::request::{self, Generated, Request};

/// What a request came to.
#[derive(Debug)]
pub enum Preparation {
    /// A bag to run.
    Bag(Box<Prepared>),
    /// Everything is as it should be, and nothing was begun: how that is said.
    NothingToDo(Vec<String>),
}

/// A bag in its run folder.
#[derive(Debug)]
pub struct Prepared {
    /// The folder.
    pub folder: RunFolder,
    /// Nobody else gathers the run, or writes to its folder.
    pub lock: GatherLock,
    /// The specification.
    pub specification: Specification,
    /// Whether it is new, or an unfinished one that goes on.
    pub fresh: bool,
    /// What a user is told of how it was made.
    pub notes: Vec<String>,
}

/// Checks a request and writes its specification; an unfinished run of the same bag goes on.
///
/// # Errors
///
/// [`Usage`], before anything has been started or published.
pub fn prepare(request: &Request) -> Result<Preparation> {
    request::check(request)?;
    let name = request.name.clone().map_or_else(made_up_name, Ok)?;
    let folder = RunFolder::make(&request.runs, &name, request.results, request.trust)?;
    // Whoever else makes a run of that name now is refused, or refuses us.
    let lock = folder.lock()?;
    let existed = folder.has(SPECIFICATION);
    let new_out = request.out.as_ref().filter(|out| out.symlink_metadata().is_err());
    let made =
        if existed { go_on(request, &name, &folder) } else { begin(request, &name, &folder) };
    let notes = match made {
        Ok(Made { specification: Some(specification), notes }) => {
            let fresh = !existed;
            let prepared = Prepared { folder, lock, specification, fresh, notes };
            return Ok(Preparation::Bag(Box::new(prepared)));
        }
        Ok(Made { notes, .. }) => Ok(Preparation::NothingToDo(notes)),
        Err(error) => Err(error),
    };
    if !existed {
        lock.remove_unused(&folder);
    }
    if let Some(out) = new_out {
        // One that has something in it is somebody's.
        std::fs::remove_dir(out).ok();
    }
    notes
}

/// The bag of a run's folder, and what a user is told of it.
struct Made {
    /// None if there is nothing to do.
    specification: Option<Specification>,
    notes: Vec<String>,
}

impl Made {
    fn bag(specification: Specification, notes: Vec<String>) -> Self {
        Self { specification: Some(specification), notes }
    }
}

/// Writes a new run's folder.
fn begin(request: &Request, name: &RunName, folder: &RunFolder) -> Result<Made> {
    let out = request::make_out(request)?;
    let path = out.as_ref().map(|out| out.path.clone());
    if request.generated.is_some() {
        if let Some(out) = &out {
            out.open_unless(false)?;
        }
        let specification = specify(request, name, path, None)?;
        specification.write(folder)?;
        return Ok(Made::bag(specification, Vec::new()));
    }
    let (found, lists) = list(request, folder, path.as_deref(), false)?;
    if let Some(out) = &out {
        out.open_unless(found.closed)?;
    }
    let notes = notes(request, &found);
    if found.files == 0 {
        if let (Some(list), Some(out)) = (lists.folders()?, &path) {
            folders::make(list, &Dir::open(out)?)?;
        }
        return Ok(Made { specification: None, notes });
    }
    let specification = specify(request, name, path, Some((&found, lists.digest)))?;
    lists.name()?;
    specification.write(folder)?;
    Ok(Made::bag(specification, notes))
}

/// Finds the bag of this name, if it is the one that is asked for, and not finished.
fn go_on(request: &Request, name: &RunName, folder: &RunFolder) -> Result<Made> {
    let before = Specification::read(folder)?;
    let finished = folder.has(SUMMARY);
    let path = quote::name(folder.path());
    let taken = |state: &str| {
        let hint = if finished {
            format!("choose another --name, or remove {path}")
        } else {
            format!("`bagpress gather {path}` goes on with that bag; or choose another --name")
        };
        let taken = format!("the name {name} is taken by {state} bag, {}", before.bag);
        Usage::error(taken, hint)
    };
    if request.selection.existing != Existing::Refuse && !finished {
        // Some of its outputs are there by now, and would not be made again: it would be another bag.
        return Err(taken("an unfinished"));
    }
    let out = request::make_out(request)?.map(|out| out.path);
    let mut notes = Vec::new();
    let asked = if request.generated.is_some() {
        specify(request, name, out, None)?
    } else {
        let (found, lists) = list(request, folder, out.as_deref(), true)?;
        notes = self::notes(request, &found);
        specify(request, name, out, Some((&found, lists.digest)))?
    };
    if !before.same_bag(&asked) {
        return Err(taken("another"));
    }
    if finished {
        return Err(taken("a finished"));
    }
    notes.push(format!("goes on with the unfinished run {path}"));
    Ok(Made::bag(before, notes))
}

fn list(
    request: &Request,
    folder: &RunFolder,
    out: Option<&Path>,
    goes_on: bool,
) -> Result<(Found, Finished)> {
    let mut lists = Lists::create(folder)?;
    let outputs = outputs(request, &folder.results(), out, goes_on)?;
    let own = Some(folder.path());
    let found = find(&request.inputs, &request.selection, outputs, own, &mut lists)?;
    Ok((found, lists.finish()?))
}

/// Where the outputs become files, if they do; `results` is where they are without another folder for them.
///
/// # Errors
///
/// If the codec cannot be made.
pub(crate) fn outputs(
    request: &Request,
    results: &Path,
    out: Option<&Path>,
    goes_on: bool,
) -> Result<Option<Outputs>> {
    let codec = codec(request)?;
    let root = match out {
        _ if codec.stores_nothing() => None,
        Some(out) => Some(out.to_owned()),
        None => (request.get || request.results == ResultPath::Staged).then(|| results.to_owned()),
    };
    Ok(root.map(|root| Outputs::new(root, codec, request.selection.existing, goes_on)))
}

fn codec(request: &Request) -> Result<Codec> {
    let default = if request.generated.is_none() { "gzip:6" } else { "zlib:6" };
    match request.codec {
        Some(codec) => Ok(codec),
        None => Ok(default.parse()?),
    }
}

/// What a user is told of how the files were chosen.
pub(crate) fn notes(request: &Request, found: &Found) -> Vec<String> {
    let mut notes = Vec::new();
    if !found.skipped.is_empty() {
        notes.push(format!("skipped: {}", found.skipped));
    }
    if request.selection.existing != Existing::Refuse {
        notes.push(found.selected.to_string());
    }
    if let Some(first) = &found.first_refused {
        let rest = match found.refused {
            1 => String::new(),
            refused => format!(", and {} more", refused - 1),
        };
        notes.push(format!("will fail: {first}{rest}"));
    }
    notes
}

fn specify(
    request: &Request,
    name: &RunName,
    out: Option<PathBuf>,
    files: Option<(&Found, Digest)>,
) -> Result<Specification> {
    let codec = codec(request)?;
    let (data, tasks, input_bytes) = match (&request.generated, files) {
        (Some(generated), _) => {
            let Generated { tasks, bytes, data, seed } = *generated;
            (Data::Generated { data, seed, bytes }, tasks, bytes.saturating_mul(u64::from(tasks)))
        }
        (None, Some((found, list))) => (
            Data::Files { list, largest: found.largest, roots: found.roots.clone() },
            found.files,
            found.bytes,
        ),
        (None, None) => anyhow::bail!("a bag of files needs its list"),
    };
    let is_files = request.generated.is_none();
    let chosen = is_files && request.selection.existing != Existing::Refuse;
    Ok(Specification {
        v: limits::WIRE_VERSION,
        bag: BagId::new(name),
        name: name.clone(),
        pool: request.pool.clone(),
        codec,
        library: codec.library(),
        delivery: request.delivery,
        results: request.results,
        verify: request.verify,
        transfer: request.transfer,
        attempts: request.attempts,
        tasks,
        input_bytes,
        data,
        out,
        get: request.get,
        keep_inputs: request.keep_inputs,
        stats: request.stats.unwrap_or(!is_files && tasks <= limits::STATS_FILES_MAX),
        created_us: wall_clock_us(),
        selection: files.filter(|_| chosen).map(|(found, _)| found.selected),
    })
}

fn made_up_name() -> Result<RunName> {
    let now = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
    let tail: String = random_base32::<5>().chars().take(4).collect();
    Ok(format!("{now}-{tail}").parse()?)
}
