//! Turns a user's request into a specification in a run folder.

use std::path::{Path, PathBuf};

use anyhow::Result;
use bagpress_broker::ids::{RunName, random_base32};
use bagpress_broker::quote;
use bagpress_objstore::beneath::Dir;

use crate::error::Usage;
use crate::run_folder::folder::{RunFolder, SPECIFICATION, SUMMARY};
use crate::run_folder::inputs::finder::Found;
use crate::run_folder::inputs::folders;
use crate::run_folder::inputs::lists::{Finished, Lists};
use crate::run_folder::inputs::selection::Existing;
use crate::run_folder::lock::GatherLock;
use crate::run_folder::specification::Specification;
use crate::submit::earlier;
use crate::submit::out_folder::make_out;
use crate::submit::request::{Request, check};
use crate::submit::restore::files_of;
use crate::submit::specify::{notes, specify};
use crate::submit::twins;

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
    /// The folder for outputs, if it was made.
    pub new_out: Option<PathBuf>,
    /// What a user is told of how it was made.
    pub notes: Vec<String>,
}

/// Checks a request and writes its specification; an unfinished run of the same bag goes on.
///
/// # Errors
///
/// [`Usage`], before anything has been started or published.
pub fn prepare(request: &Request) -> Result<Preparation> {
    check(request)?;
    let name = request.name.clone().map_or_else(made_up_name, Ok)?;
    let folder = RunFolder::make(&request.runs, &name, request.results, request.trust)?;
    // Another process that makes a run of that name now is refused, or refuses this one.
    let lock = folder.lock()?;
    let fresh = !folder.has(SPECIFICATION);
    let new_out = request.out.as_ref().filter(|out| out.symlink_metadata().is_err());
    let made = if fresh { begin(request, &name, &folder) } else { go_on(request, &name, &folder) };
    let nothing = match made {
        Ok(Made { specification: Some(specification), notes }) => {
            let new_out = new_out.cloned();
            let prepared = Prepared { folder, lock, specification, fresh, new_out, notes };
            return Ok(Preparation::Bag(Box::new(prepared)));
        }
        Ok(Made { specification: None, notes }) => Ok(Preparation::NothingToDo(notes)),
        Err(error) => Err(error),
    };
    if fresh {
        folder.remove_unused(lock);
    }
    if let Some(out) = new_out {
        // One that has something in it is somebody's.
        std::fs::remove_dir(out).ok();
    }
    nothing
}

/// The bag of a run's folder, and what a user is told of it.
struct Made {
    /// None if there is nothing to do.
    specification: Option<Specification>,
    notes: Vec<String>,
}

/// Writes a new run's folder.
fn begin(request: &Request, name: &RunName, folder: &RunFolder) -> Result<Made> {
    let out = make_out(request)?;
    let path = out.as_ref().map(|out| out.path.clone());
    let (mut notes, mut listed) = (Vec::new(), None);
    if request.generated.is_none() {
        let (found, mut lists) = list(request, folder, path.as_deref(), false)?;
        notes = self::notes(request, &found);
        if request.may_have_twins()? {
            twins::find(&mut lists, request.references.is_empty())?;
            earlier::find(request, folder, path.as_deref(), &mut lists)?;
        }
        listed = Some((found, lists));
    }
    if let Some(out) = &out {
        out.open_unless(listed.as_ref().is_some_and(|(found, _)| found.closed))?;
    }
    if let Some((_, lists)) = listed.as_ref().filter(|(found, _)| found.files == 0) {
        if let (Some(list), Some(out)) = (lists.folders()?, &path) {
            folders::make(list, &Dir::open(out)?)?;
        }
        return Ok(Made { specification: None, notes });
    }
    let files = listed.as_ref().map(|(found, lists)| (found, lists.digest));
    let specification = specify(request, name, path, files)?;
    match (listed, request.generated) {
        (Some((_, lists)), _) => lists.name()?,
        (None, Some(generated)) if request.may_have_twins()? => {
            twins::list_generated(folder, generated)?;
        }
        (None, _) => {}
    }
    specification.write(folder)?;
    Ok(Made { specification: Some(specification), notes })
}

/// Finds the bag of this name, if it is the one that is asked for, and not finished.
fn go_on(request: &Request, name: &RunName, folder: &RunFolder) -> Result<Made> {
    let before = Specification::read(folder)?;
    let finished = folder.has(SUMMARY);
    let path = quote::name(folder.path());
    let taken = |state: &str| {
        let hint = if finished {
            format!("leave --name out or choose another, or remove {path}")
        } else {
            format!("`bagpress gather {path}` continues that bag; or choose another --name")
        };
        let taken = format!("the name {name} is taken by {state} bag, {}", before.bag);
        Usage::error(taken, hint)
    };
    if request.selection.existing != Existing::Refuse && !finished {
        // Some of its outputs are there by now, and would not be made again: it would be another bag.
        return Err(taken("an unfinished"));
    }
    let out = make_out(request)?.map(|out| out.path);
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
    notes.push(format!("continues the unfinished run {path}"));
    Ok(Made { specification: Some(before), notes })
}

/// Finds the files of a request and writes their lists, which are not yet called what a run's are.
fn list(
    request: &Request,
    folder: &RunFolder,
    out: Option<&Path>,
    goes_on: bool,
) -> Result<(Found, Finished)> {
    let mut lists = Lists::create(folder)?;
    let outputs = request.outputs(&folder.results(), out, goes_on)?;
    let own = Some(folder.path());
    let found = files_of(request, outputs, own, &mut lists)?;
    Ok((found, lists.finish()?))
}

fn made_up_name() -> Result<RunName> {
    let now = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
    let tail: String = random_base32::<5>().chars().take(4).collect();
    Ok(format!("{now}-{tail}").parse()?)
}
