//! The files of a bag, found: by walks from what was named, or from a list.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bagpress_broker::quote;
use bagpress_codec::Codec;

use super::existing::Outputs;
use super::finder::{Finder, Found};
use super::lists::Sink;
use super::roots::{last_component, same_target};
use super::selection::Selection;
use super::skipped::Kind;
use super::{listed, stream, walk};
use crate::error::Usage;

/// Finds the files of `paths`, or of a list, for a bag of `codec`, and hands each to `sink`.
///
/// Paths map as `cp -r` does: a folder keeps its last component. The order of a walk is the file names' own, so
/// that equal folders make equal lists; a list keeps its own. `own` is the run's folder.
///
/// # Errors
///
/// [`Usage`]: nothing to do, two inputs with one target, too many files, an output that is there.
pub(crate) fn find(
    paths: &[PathBuf],
    (selection, codec): (&Selection, &Codec),
    outputs: Option<Outputs>,
    own: Option<&Path>,
    sink: &mut dyn Sink,
) -> Result<Found> {
    let mut finder = Finder::new(selection, outputs, own, sink)?;
    match &selection.files_from {
        Some(from) => listed::read(&mut finder, (selection, from), codec)?,
        None => {
            for path in paths {
                walk::walk(&mut finder, path)?;
            }
        }
    }
    let found = finder.found();
    // A list may be empty on a quiet day.
    let listed = selection.files_from.is_some();
    let nothing_left =
        !listed && found.selected.up_to_date == 0 && found.skipped.of(Kind::Compressed) == 0;
    if found.files == 0 && nothing_left {
        let skipped = if found.skipped.is_empty() {
            String::new()
        } else {
            format!("; skipped: {}", found.skipped)
        };
        return Err(Usage::error(
            format!("there is no regular file to compress in what was named{skipped}"),
            "name files, or folders with files in them",
        ));
    }
    Ok(found)
}

/// Finds the compressed files of `paths`, and hands each to `sink`: as [`find`], and what a file is, is said by the end of its
/// name, which its output has not. A file in a folder whose name says nothing is a task that fails.
///
/// # Errors
///
/// [`Usage`], as [`find`]; a file is named whose name says nothing.
pub(crate) fn find_compressed(
    paths: &[PathBuf],
    selection: &Selection,
    outputs: Option<Outputs>,
    own: Option<&Path>,
    sink: &mut dyn Sink,
) -> Result<Found> {
    let is_none = |path: &&PathBuf| path.is_file() && stream::by_name(path).is_none();
    if let Some(path) = paths.iter().find(is_none) {
        return Err(Usage::error(
            format!("{} is not known to be compressed", quote::name(path)),
            format!("name files that end in one of {}, or a run folder", stream::endings()),
        ));
    }
    check_restored(paths)?;
    let mut finder = Finder::new(selection, outputs, own, sink)?.restoring();
    for path in paths {
        walk::walk(&mut finder, path)?;
    }
    let found = finder.found();
    if found.files == 0 && found.folders == 0 {
        return Err(Usage::error(
            "there is no file to restore in what was named",
            format!("name a run folder, or files that end in one of {}", stream::endings()),
        ));
    }
    Ok(found)
}

/// Refuses what was named and would come back by one name.
fn check_restored(paths: &[PathBuf]) -> Result<()> {
    let mut names: HashMap<OsString, &Path> = HashMap::new();
    for path in paths {
        let restored =
            stream::by_name(path).filter(|_| path.is_file()).map(|(_, restored)| restored);
        let name = last_component(restored.as_deref().unwrap_or(path))?;
        if let Some(other) = names.insert(name, path) {
            return Err(same_target(other, path));
        }
    }
    Ok(())
}
