//! The run folders beneath one, and which of their bags made a file that has an output's name.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use bagpress_broker::ids::BagId;
use bagpress_broker::quote::name;
use bagpress_broker::result::FileId;
use bagpress_objstore::beneath::Dir;
use serde::Serialize;

use crate::run_folder::folder::{RunFolder, SPECIFICATION};
use crate::run_folder::inputs::write_path;
use crate::run_folder::ledger::scan;
use crate::run_folder::specification::Specification;
use crate::run_folder::trust::Trust;

/// The run folders beneath `runs`, in order; those that are not believed with why.
///
/// # Errors
///
/// What the system said of `runs`.
pub(crate) fn run_folders(runs: &Path, trust: Trust) -> Result<Vec<(PathBuf, Result<RunFolder>)>> {
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

/// A bag that made a file, as the ledger in its run folder says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Maker {
    /// The bag.
    pub bag: BagId,
    /// Its run folder.
    #[serde(serialize_with = "write_path")]
    pub folder: PathBuf,
}

impl fmt::Display for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bag {} in {}", self.bag, name(&self.folder))
    }
}

/// The file that has an output's name in the place of the one that the bag `made`, as its ledger says. Where the file system does
/// not note when files are made, nobody can tell; and what lies in the run's own folder was put there by nobody else.
pub(crate) fn replaced_by(
    specification: &Specification,
    made: Option<FileId>,
    there: &Metadata,
) -> Option<FileId> {
    let there = FileId::of(there);
    there.filter(|_| specification.out.is_some() && made != there)
}

/// Which other bags made these `files`, as far as the run folders beside this one tell. Blocks: reads their ledgers.
pub(crate) fn makers(folder: &RunFolder, files: &HashSet<FileId>) -> HashMap<FileId, Maker> {
    let mut found = HashMap::new();
    if files.is_empty() {
        return found;
    }
    let own = Specification::read(folder).ok().map(|specification| specification.bag);
    // What cannot be read tells nothing: whose a file is only helps to say what to do.
    let Ok(beside) = run_folders(&runs_of(folder), folder.trust()) else { return found };
    for (path, other) in beside {
        let Ok(other) = other else { continue };
        let Ok(Specification { bag, tasks, out: Some(_), .. }) = Specification::read(&other) else {
            continue;
        };
        if Some(&bag) == own.as_ref() {
            continue;
        }
        let reading = scan::outcomes(&other, tasks, |result| {
            if let Some(file) = result.file.filter(|file| files.contains(file))
                && result.done().is_some()
            {
                found.insert(file, Maker { bag: bag.clone(), folder: path.clone() });
            }
        });
        reading.ok();
    }
    found
}

/// The folder of all runs that this one is in.
fn runs_of(folder: &RunFolder) -> PathBuf {
    let two_up = |path: &Path| Some(path.parent()?.parent()?.to_owned());
    let named = two_up(folder.path()).filter(|runs| runs.file_name().is_some());
    let found = || two_up(&folder.path().canonicalize().ok()?);
    named.or_else(found).unwrap_or_default()
}
