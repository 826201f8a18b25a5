//! A range of one file is restored without a bag: by this process, out of those parts of the file that have it.
//!
//! ```text
//! mod: which file ─► pieces: where it can be entered ─► read: decoded, compared ─► output
//! ```

mod output;
mod pieces;
mod read;
mod span;
#[cfg(test)]
mod tests;

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use bagpress_broker::quote::name;
use bagpress_broker::result::{Done, Failed, Outcome};
use bagpress_codec::Codec;
use bagpress_objstore::beneath::{Dir, absolute_file};

pub use self::span::Span;

use self::output::NewFile;
use self::pieces::{Check, Pieces, by_beginning, by_entry_points, by_ledger, by_table};
use self::read::{Trouble, copy};
use crate::error::{Damaged, Usage};
use crate::run_folder::folder::RunFolder;
use crate::run_folder::inputs::stream::{by_name, endings};
use crate::run_folder::plan::read_plan;
use crate::run_folder::specification::Specification;
use crate::run_folder::trust::Trust;
use crate::status::which::which;
use crate::submit::restore::{check, run_at};

/// What is wanted.
#[derive(Debug)]
pub struct RangeRequest {
    /// A compressed file; the folder of a run of one file; or the folder of a run and one of its files.
    pub inputs: Vec<PathBuf>,
    /// Which bytes of what it was made of.
    pub span: Span,
    /// The file that gets them; none: stdout.
    pub out: Option<PathBuf>,
    /// Whether a file that is there is replaced.
    pub overwrite: bool,
    /// Whose run folders are believed.
    pub trust: Trust,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredRange {
    /// Bytes of the range.
    pub bytes: u64,
    /// What was read, and what it was compared with, for people.
    pub how: String,
}

/// A file that is open, and where it can be entered.
struct Source {
    file: File,
    metadata: Metadata,
    codec: Codec,
    shown: PathBuf,
    pieces: Pieces,
    /// Why it is read from its start, if it is.
    from_start: Option<String>,
}

/// Restores a range of one file. It is written to a new file, which gets its name once everything was compared, or to
/// `stdout`, where what was written stays. None if a reader of `stdout` has left. Blocks.
///
/// # Errors
///
/// [`Usage`] for what cannot be; [`Damaged`] if the file is not what it should be; what the system said.
pub fn restore_range(
    request: &RangeRequest,
    stdout: &mut dyn Write,
    stopped: &AtomicBool,
) -> Result<Option<RestoredRange>> {
    let mut source = source(request)?;
    let bytes = match &request.out {
        None => written(&mut source, request.span, stdout, stopped)?,
        Some(path) => {
            let there = path.metadata().map(|there| (there.dev(), there.ino()));
            if there.is_ok_and(|there| there == (source.metadata.dev(), source.metadata.ino())) {
                return Err(Usage::error(
                    format!("{} is the file that the range is of", name(path)),
                    "choose another --out",
                ));
            }
            let mut new = NewFile::make(path, request.overwrite, source.metadata.mode())?;
            let bytes = written(&mut source, request.span, &mut new, stopped)?;
            new.finish()?;
            bytes
        }
    };
    Ok(bytes.map(|bytes| RestoredRange { bytes, how: source.how() }))
}

fn written(
    source: &mut Source,
    span: Span,
    output: &mut dyn Write,
    stopped: &AtomicBool,
) -> Result<Option<u64>> {
    let Source { file, codec, pieces, shown, .. } = source;
    let copied = copy(file, codec, pieces, span, output, stopped);
    match copied.and_then(|bytes| output.flush().map(|()| bytes).map_err(Trouble::Output)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Trouble::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(None),
        Err(Trouble::Output(error)) => Err(error).context("write the range"),
        Err(Trouble::Input(error)) => Err(error).with_context(|| format!("read {}", name(shown))),
        Err(Trouble::Stopped) => anyhow::bail!("stopped before the range was whole"),
        Err(Trouble::Short(bytes)) => Err(Usage::error(
            format!("{} gives {bytes} bytes, and the range is not within them", name(shown)),
            "choose a range that ends before; FROM.. goes to the end",
        )),
        Err(Trouble::Failed(Failed { cause, message })) => {
            Err(Damaged(format!("{}: {cause}: {message}", name(shown))).into())
        }
    }
}

/// Opens the one file that is meant.
fn source(request: &RangeRequest) -> Result<Source> {
    let one = "a range is of one file: name a compressed file, or BAG and one of its files";
    match &request.inputs[..] {
        [path] => match run_at(path) {
            Some(run) => of_run(&run, None, request),
            None if is_absent(path) && by_name(path).is_none() => Err(absent(path)),
            None => of_file(path, request.span),
        },
        [path, file] => match run_at(path) {
            Some(run) => of_run(&run, Some(file), request),
            None if is_absent(path) => Err(absent(path)),
            None => Err(Usage::error("more than one file is named", one)),
        },
        _ => Err(Usage::error("more than one file is named", one)),
    }
}

fn is_absent(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn absent(path: &Path) -> anyhow::Error {
    Usage::error(
        format!("there is no file and no run {}", name(path)),
        "name a compressed file, or the folder of a run, such as runs/NAME/staged, and one of its files",
    )
}

/// A file of which nothing is known but what it says itself.
fn of_file(path: &Path, span: Span) -> Result<Source> {
    let no_file = || {
        Usage::error(
            format!("{} is no regular file", name(path)),
            "a range is read from the middle of a file; decompress a pipe or a device as a whole",
        )
    };
    if path.is_dir() {
        return Err(Usage::error(
            format!("{} is a folder, and no run's", name(path)),
            "a range is of one file: name it",
        ));
    }
    let (codec, _) = by_name(path).ok_or_else(|| {
        Usage::error(
            format!("the name of {} does not say how it was compressed", name(path)),
            format!("rename it so that it ends in one of {}", endings()),
        )
    })?;
    let opened = path.canonicalize().and_then(|path| absolute_file(&path));
    let opened = opened.map_err(|error| {
        Usage::error(
            format!("{} cannot be read: {error}", name(path)),
            "name a file that you may read",
        )
    })?;
    let (mut file, metadata) = opened.ok_or_else(no_file)?;
    let (pieces, from_start) = entered(&mut file, &codec, span)?;
    Ok(Source { file, metadata, codec, shown: path.to_owned(), pieces, from_start })
}

/// Where a file can be entered that no ledger knows; and why it cannot.
fn entered(file: &mut File, codec: &Codec, span: Span) -> Result<(Pieces, Option<String>)> {
    let no_index = |why: &str| (Pieces::whole(Check::Nothing), Some(why.to_owned()));
    if let Some(pieces) = by_beginning(file, codec, span).context("read its beginning")? {
        return Ok((pieces, None));
    }
    if !codec.has_seek_table() {
        return Ok(no_index("no index"));
    }
    match by_table(file, span) {
        Ok(Some(pieces)) => Ok((pieces, None)),
        Ok(None) => Ok(no_index("no index")),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Ok(no_index(&format!("its index is of no use: {error}")))
        }
        Err(error) => Err(error).context("read its table"),
    }
}

/// A file that a run made.
fn of_run(run: &Path, file: Option<&Path>, request: &RangeRequest) -> Result<Source> {
    let folder = RunFolder::existing(run, request.trust)?;
    let specification = Specification::read(&folder)?;
    let shown = name(folder.path());
    check(&specification, &shown)?;
    let index = match (file, specification.tasks) {
        (Some(file), _) => which(Some(&folder), &file.to_string_lossy())?,
        (None, 1) => 0,
        (None, files) => {
            return Err(Usage::error(
                format!("{shown} has {files} files, and a range is of one"),
                format!("name it: bagpress restore {shown} FILE --range FROM..TO --out FILE"),
            ));
        }
    };
    let root = specification.output_root(&folder);
    let plan = read_plan(&folder, specification)?;
    let target = plan.specification.target(plan.inputs.as_deref(), index, None)?.path;
    let shown = root.join(&target);
    let none = |why: String| {
        Usage::error(
            format!("the run has no output {}: {why}", name(&shown)),
            "gather the run first, with --retry-failed for what failed, or name another file",
        )
    };
    let result = plan.ledger.outcome(index, plan.ledger.round(index));
    let result = result.ok_or_else(|| none("it has no outcome yet".to_owned()))?;
    let done = match &result.outcome {
        Outcome::Done(done) => done,
        Outcome::Failed(failed) => return Err(none(failed.cause.to_string())),
    };
    let opened = root.canonicalize().and_then(|root| Dir::open(&root)?.file_and_metadata(&target));
    let opened = opened.map_err(|error| none(error.to_string()))?;
    let (mut file, metadata) = opened.ok_or_else(|| none("it is no regular file".to_owned()))?;
    if metadata.len() != done.output_bytes {
        let text = format!(
            "{} has {} bytes, and the run made {} of it; `bagpress verify` looks at all of them",
            name(&shown),
            metadata.len(),
            done.output_bytes
        );
        return Err(Damaged(text).into());
    }
    let (codec, span) = (plan.codec(index).context("read the list of inputs")?, request.span);
    let (mut pieces, from_start) = match by_ledger(&plan, &result, span) {
        Some(pieces) => (pieces, None),
        None => recorded(&mut file, &codec, done, span)?,
    };
    if from_start.is_some()
        && let Some(digest) = done.decoded_digest(&codec)
    {
        pieces = Pieces::whole(Check::Whole(digest));
    }
    if pieces.input_bytes.is_some_and(|bytes| bytes != done.input_bytes) {
        let text = format!("{}: its index is not that of what the run recorded", name(&shown));
        return Err(Damaged(text).into());
    }
    pieces.input_bytes = Some(done.input_bytes);
    Ok(Source { file, metadata, codec, shown, pieces, from_start })
}

/// Where a file in one piece can be entered, as its run recorded that or as it says itself; and why it cannot.
fn recorded(
    file: &mut File,
    codec: &Codec,
    done: &Done,
    span: Span,
) -> Result<(Pieces, Option<String>)> {
    if done.entry_points.is_empty() {
        return entered(file, codec, span);
    }
    let pieces = by_entry_points(file, codec, &done.entry_points, span);
    let pieces = pieces.context("read its beginning")?;
    // Those of another array would lead anywhere.
    let pieces = pieces.filter(|pieces| pieces.input_bytes == Some(done.input_bytes));
    Ok(pieces.map_or_else(
        || {
            let why = "what its run recorded of where it can be entered does not fit it";
            (Pieces::whole(Check::Nothing), Some(why.to_owned()))
        },
        |pieces| (pieces, None),
    ))
}

impl Source {
    fn how(&self) -> String {
        let Pieces { list, all, .. } = &self.pieces;
        let by_rate = list.first().filter(|piece| piece.check == Check::Nothing);
        if let Some(section) = by_rate.and_then(|piece| piece.section.as_ref()) {
            let read = section.parts.end - section.parts.start;
            return format!(
                "read {read} of {all} parts; its format has no checksum to compare them with"
            );
        }
        if let Some(why) = &self.from_start {
            let compared = match list.first().map(|piece| piece.check) {
                Some(Check::Whole(_)) => "compared with the digest that the run recorded",
                // Of an array nothing but its shape.
                _ if self.codec.takes_arrays() => "its format has no checksum to compare it with",
                _ => "compared with the checksum of its format",
            };
            return format!("read from the start: {why}, and to its end; {compared}");
        }
        let compared = match list.first().map(|piece| piece.check) {
            Some(Check::Digest(_)) => "compared with the digests that the run recorded",
            Some(Check::Frame(Some(_))) => {
                "compared with the checksums of its table and its frames"
            }
            Some(Check::Frame(None)) => {
                "compared with the checksums of its frames, where they have one"
            }
            Some(Check::Whole(_) | Check::Nothing) | None => "nothing to compare it with",
        };
        format!("read {} of {all} parts; {compared}", list.len())
    }
}
