//! Decides about each thing that a walk or a list comes to: a task, left out and counted, or refused by name.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bagpress_broker::result::{Cause, Failed};
use bagpress_broker::{limits, quote};
use bagpress_codec::{Codec, DataKind};
use bagpress_objstore::staging::{Owner, mtime_ns};

use super::InputEntry;
use super::compressed::is_compressed;
use super::existing::{Comparison, Outputs};
use super::folders::FolderEntry;
use super::left_out::{LeftOut, Why};
use super::lists::Sink;
use super::refusal::refused;
use super::roots::Roots;
use super::selection::{Excluded, Selected, Selection};
use super::skipped::{Kind, Skipped};
use super::stream::{self, Stream};
use crate::error::Usage;
use crate::run_folder::data::OWN_CODECS_MAX;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// How many tasks: files to compress or to restore, and what is refused.
    pub(crate) files: u32,
    /// Bytes of those files.
    pub(crate) bytes: u64,
    /// Bytes of the largest.
    pub(crate) largest: u64,
    /// How many of the tasks are refused.
    pub(crate) refused: u32,
    /// The first of those, and why.
    pub(crate) first_refused: Option<String>,
    /// How many folders are to be made.
    pub(crate) folders: u64,
    /// What the outputs are to those that are there.
    pub(crate) selected: Selected,
    /// What was left out.
    pub(crate) skipped: Skipped,
    /// The codecs of tasks that have another one than the bag.
    pub(crate) codecs: Vec<Codec>,
    /// How many of the tasks are objects, or generated.
    pub(crate) no_files: u32,
    /// Whether any is a generated array.
    pub(crate) fields: bool,
    /// Whether a folder above anything that is read is closed to others.
    pub(crate) closed: bool,
    /// What workers of this machine are to read.
    pub(crate) roots: Roots,
}

/// A file that may become a task.
#[derive(Debug)]
pub(crate) struct Candidate<'a> {
    /// Its absolute path, without links.
    pub(crate) path: &'a Path,
    /// As its user called it.
    pub(crate) shown: &'a Path,
    /// Where its output belongs, without the extension.
    pub(crate) target: PathBuf,
    /// Its codec, if that is another one than the bag's.
    pub(crate) codec: Option<Codec>,
}

/// Decides about each thing that a walk or a list comes to.
pub(crate) struct Finder<'a> {
    excluded: Excluded,
    left_out: LeftOut,
    skip_compressed: bool,
    note_changes: bool,
    /// Whether files are to be restored that say by their names what they are.
    restores: bool,
    outputs: Option<Outputs>,
    sink: &'a mut dyn Sink,
    found: Found,
    /// The folder above what is read that was looked at last.
    looked_at: Option<PathBuf>,
}

impl<'a> Finder<'a> {
    /// # Errors
    ///
    /// [`Usage`] if a glob to exclude by is none.
    pub(crate) fn new(
        selection: &Selection,
        outputs: Option<Outputs>,
        own: Option<&Path>,
        sink: &'a mut dyn Sink,
    ) -> Result<Self> {
        Ok(Self {
            excluded: Excluded::new(&selection.exclude)?,
            left_out: LeftOut::new(own, outputs.as_ref().map(Outputs::root)),
            skip_compressed: selection.skip_compressed,
            note_changes: selection.note_changes,
            restores: false,
            outputs,
            sink,
            found: Found::default(),
            looked_at: None,
        })
    }

    /// The same for files that are compressed, by their names, and are to be restored.
    pub(super) fn restoring(self) -> Self {
        Self { restores: true, ..self }
    }

    /// What was found.
    pub(crate) fn found(self) -> Found {
        self.found
    }

    /// The globs to exclude by.
    pub(super) fn excluded(&self) -> &Excluded {
        &self.excluded
    }

    /// What runs write, and no walk enters.
    pub(super) fn left_out(&mut self) -> &mut LeftOut {
        &mut self.left_out
    }

    /// Notes what is read: a file, or a folder with all that is in it.
    pub(crate) fn reads(&mut self, path: &Path) {
        self.lies_in(path.parent());
        self.found.roots.add(path);
    }

    /// Notes in which folder something lies whose copy is to be no more open.
    pub(crate) fn lies_in(&mut self, folder: Option<&Path>) {
        if !self.found.closed && folder != self.looked_at.as_deref() {
            let open =
                |folder: &Path| folder.metadata().is_ok_and(|found| found.mode() & 0o001 != 0);
            self.found.closed = folder.is_some_and(|folder| !folder.ancestors().all(open));
            self.looked_at = folder.map(Path::to_owned);
        }
    }

    /// Leaves something out, and counts it.
    pub(crate) fn skip(&mut self, kind: Kind, shown: &Path) {
        self.found.skipped.add(kind, shown);
    }

    /// Leaves a folder out that no walk enters.
    pub(super) fn leave_out(&mut self, why: Why, shown: &Path) {
        match why {
            Why::Own => {}
            Why::Kind(kind) => self.skip(kind, shown),
        }
    }

    /// Takes a regular file, unless there is a reason against it.
    pub(super) fn take(&mut self, file: &Candidate<'_>, metadata: &Metadata) -> Result<()> {
        let Candidate { path, shown, ref target, codec } = *file;
        if self.restores {
            let Some((codec, target)) = stream::by_name(target) else {
                let file = Candidate { path, shown, target: target.clone(), codec: None };
                let why = format!("its name ends in none of {}", stream::endings());
                return self.refuse(file, refused(Cause::InputUnreadable, path, &why));
            };
            let file = Candidate { path, shown, target, codec: None };
            if let Some(twin) = stream::twin(path) {
                let why = format!("{} would come back by the same name", quote::name(twin));
                return self.refuse(file, refused(Cause::OutputExists, path, &why));
            }
            return self.take_stream(&file, metadata, Stream::of(codec));
        }
        let outputs = self.outputs.as_ref().map(|outputs| outputs.of_codec(codec));
        if outputs.is_some_and(|outputs| outputs.is_ours(path, target, metadata)) {
            self.skip(Kind::Ours, shown);
            return Ok(());
        }
        if self.skip_compressed && is_compressed(path) {
            self.skip(Kind::Compressed, shown);
            return Ok(());
        }
        self.take_as(file, metadata, None)
    }

    /// Takes a file that is to be restored.
    pub(crate) fn take_stream(
        &mut self,
        file: &Candidate<'_>,
        metadata: &Metadata,
        stream: Stream,
    ) -> Result<()> {
        self.take_as(file, metadata, Some(stream))
    }

    fn take_as(
        &mut self,
        file: &Candidate<'_>,
        metadata: &Metadata,
        stream: Option<Stream>,
    ) -> Result<()> {
        let Candidate { path, shown, ref target, codec } = *file;
        let mut entry = InputEntry {
            bytes: metadata.len(),
            mtime_ns: mtime_ns(metadata),
            mode: metadata.mode() & 0o7777,
            inode: metadata.ino(),
            changed_ns: changed_ns(metadata).filter(|_| self.note_changes),
            owner: Some(Owner::of(metadata)),
            stream,
            codec,
            ..InputEntry::named(path.to_owned(), target.clone())
        };
        if metadata.len() > limits::INPUT_BYTES_MAX {
            let why = format!(
                "it has {} bytes; at most {} are allowed",
                metadata.len(),
                limits::INPUT_BYTES_MAX
            );
            entry.refused = Some(refused(Cause::InputUnreadable, path, &why));
            return self.add(shown, &entry);
        }
        match &self.outputs {
            None => {}
            Some(outputs) => match outputs.of_codec(codec).judge(path, target, metadata)? {
                Comparison::New => self.found.selected.new += 1,
                Comparison::Changed(before) => {
                    self.found.selected.changed += 1;
                    entry.replaces = Some(before);
                }
                Comparison::UpToDate => {
                    self.found.selected.up_to_date += 1;
                    return Ok(());
                }
                Comparison::Refused(failed) => entry.refused = Some(failed),
            },
        }
        self.add(shown, &entry)
    }

    /// Makes a task that fails of what cannot even be looked at.
    pub(crate) fn refuse(&mut self, file: Candidate<'_>, failed: Failed) -> Result<()> {
        self.refuse_stream(file, failed, None)
    }

    /// The same of a file that could be restored if it were there.
    pub(crate) fn refuse_stream(
        &mut self,
        file: Candidate<'_>,
        failed: Failed,
        stream: Option<Stream>,
    ) -> Result<()> {
        let entry = InputEntry {
            refused: Some(failed),
            stream,
            codec: file.codec,
            ..InputEntry::named(file.path.to_owned(), file.target)
        };
        self.add(file.shown, &entry)
    }

    /// Takes a task whose input is no file.
    pub(super) fn take_made(&mut self, mut entry: InputEntry) -> Result<()> {
        if let Some(outputs) = &self.outputs
            && let Comparison::Refused(failed) =
                outputs.of_codec(entry.codec).judge_made(&entry.target)?
        {
            entry.refused = Some(failed);
        }
        let shown = entry.path.clone();
        self.add(&shown, &entry)
    }

    /// How many tasks there are so far.
    pub(super) fn tasks(&self) -> u32 {
        self.found.files
    }

    /// Notes a folder that no output makes.
    pub(crate) fn folder(&mut self, entry: &FolderEntry) -> Result<()> {
        // Where outputs become no files it is kept beside them.
        self.found.folders += u64::from(self.outputs.is_some());
        self.sink.folder(entry)
    }

    fn add(&mut self, shown: &Path, entry: &InputEntry) -> Result<()> {
        if self.found.files >= limits::BAG_TASKS_MAX {
            return Err(Usage::error(
                format!("there are more than {} files", limits::BAG_TASKS_MAX),
                "give them to several runs",
            ));
        }
        self.found.files += 1;
        if let Some(codec) = entry.codec.filter(|codec| !self.found.codecs.contains(codec)) {
            if self.found.codecs.len() >= OWN_CODECS_MAX {
                return Err(Usage::error(
                    format!(
                        "its tasks have more than {OWN_CODECS_MAX} codecs besides that of the bag"
                    ),
                    "give them to several runs",
                ));
            }
            self.found.codecs.push(codec);
        }
        self.found.no_files += u32::from(!entry.is_file());
        self.found.fields |=
            entry.generate.is_some_and(|of| matches!(of.data, DataKind::Field { .. }));
        if let Some(failed) = &entry.refused {
            self.found.refused += 1;
            self.found.first_refused.get_or_insert_with(|| failed.message.clone());
        } else {
            self.found.bytes += entry.bytes;
            if entry.is_file() {
                self.found.largest = self.found.largest.max(entry.bytes);
            }
        }
        self.sink.file(shown, entry)
    }
}

/// When anything of a file was last changed, ns since 1970.
fn changed_ns(metadata: &Metadata) -> Option<i64> {
    metadata.ctime().checked_mul(1_000_000_000)?.checked_add(metadata.ctime_nsec())
}
