//! What a run would do, without doing any of it.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bagpress_broker::quote;
use bagpress_broker::result::Failed;
use bagpress_codec::Codec;
use serde::Serialize;

use crate::run_folder::folder::{RESULTS, RunFolder};
use crate::run_folder::inputs::InputEntry;
use crate::run_folder::inputs::folders::FolderEntry;
use crate::run_folder::inputs::lists::Sink;
use crate::run_folder::inputs::selection::Selected;
use crate::submit::out_folder::out_if_made;
use crate::submit::request::{Request, check};
use crate::submit::restore::files_of;
use crate::submit::specify::notes;

/// What a run would come to.
#[derive(Debug, Default, Serialize)]
pub struct Preview {
    /// Files that would be compressed, or restored.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Folders without files that would be made.
    pub folders: u64,
    /// Files that would be removed once they are compressed.
    pub removed: u64,
    /// What would fail at once.
    pub refused: Vec<Refused>,
    /// What the files are to the outputs that are there, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selected>,
    /// How many of what was left out, by kind.
    pub skipped: BTreeMap<&'static str, u64>,
    /// What a user is told of how the files were chosen.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// A file that would fail at once.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// The file, as its user called it.
    pub path: String,
    /// Why.
    #[serde(flatten)]
    pub failed: Failed,
}

/// Finds out what a run of `request` would do, and writes nothing but a line a file to `lines`.
///
/// # Errors
///
/// As [`prepare`](crate::submit::prepare::prepare), or if `lines` cannot be written to.
pub fn preview(request: &Request, lines: Option<&mut dyn Write>) -> Result<Preview> {
    check(request)?;
    let out = out_if_made(request)?;
    // A name is looked at, and none is made up.
    let name = request.name.clone().map_or_else(|| "name".parse(), Ok)?;
    let results = RunFolder::path_of(&request.runs, &name, request.results).join(RESULTS);
    let outputs = request.outputs(&results, out.as_deref(), false)?;
    let shown_out = request.out.clone().or_else(|| outputs.is_some().then_some(results));
    let codec = request.codec()?;
    let removals = request.remove_source.then(Removals::default);
    let mut sink = Lines { to: lines, out: shown_out, codec, removals, refused: Vec::new() };
    let found = files_of(request, outputs, None, &mut sink)?;
    Ok(Preview {
        files: u64::from(found.files - found.refused),
        bytes: found.bytes,
        folders: found.folders,
        removed: sink.removals.as_ref().map_or(0, Removals::count),
        refused: sink.refused,
        selection: request.selects().then_some(found.selected),
        skipped: found.skipped.counts(),
        notes: notes(request, &found),
    })
}

/// Which inputs would be removed, as far as a look at each tells.
#[derive(Default)]
struct Removals {
    alone: u64,
    /// Of files with several names, by device and inode: how many names they have, and how many of these are inputs.
    linked: HashMap<(u64, u64), (u64, u64)>,
}

impl Removals {
    /// What would become of an input, in words behind those about its output.
    fn expect(&mut self, path: &Path) -> &'static str {
        let Ok(there) = path.symlink_metadata() else { return "" };
        if rustix::fs::access(path, rustix::fs::Access::READ_OK).is_err() {
            return ""; // its task fails
        }
        if there.nlink() == 1 {
            self.alone += 1;
            return ", then removed";
        }
        let file = self.linked.entry((there.dev(), there.ino()));
        file.or_insert((there.nlink(), 0)).1 += 1;
        ", then removed if all hard links of it are inputs"
    }

    fn count(&self) -> u64 {
        let whole = self.linked.values().filter(|(names, inputs)| inputs >= names);
        self.alone + whole.map(|(_, inputs)| inputs).sum::<u64>()
    }
}

struct Lines<'a> {
    to: Option<&'a mut dyn Write>,
    /// Where outputs become files, as the user called it.
    out: Option<PathBuf>,
    codec: Codec,
    removals: Option<Removals>,
    refused: Vec<Refused>,
}

impl Lines<'_> {
    fn line(&mut self, line: &str) -> Result<()> {
        match &mut self.to {
            Some(to) => Ok(writeln!(to, "{line}")?),
            None => Ok(()),
        }
    }
}

impl Sink for Lines<'_> {
    fn file(&mut self, shown: &Path, entry: &InputEntry) -> Result<()> {
        let source = quote::name(shown);
        if let Some(failed) = &entry.refused {
            let (path, failed) = (shown.to_string_lossy().into_owned(), failed.clone());
            self.line(&format!("{source} fails: {}: {}", failed.cause, failed.message))?;
            self.refused.push(Refused { path, failed });
            return Ok(());
        }
        match &self.out {
            Some(out) => {
                let mut target = out.join(&entry.target).into_os_string();
                target.push(entry.codec.unwrap_or(self.codec).extension());
                let replaces = if entry.replaces.is_some() { " (replaced)" } else { "" };
                let removes = match &mut self.removals {
                    Some(removals) => removals.expect(&entry.path),
                    None => "",
                };
                self.line(&format!("{source} -> {}{replaces}{removes}", quote::name(target)))
            }
            None => self.line(&source),
        }
    }

    fn folder(&mut self, entry: &FolderEntry) -> Result<()> {
        match &self.out {
            Some(out) => {
                let folder = quote::name(out.join(&entry.target));
                self.line(&format!("{folder}/ is created"))
            }
            None => Ok(()),
        }
    }
}
