//! What a user asks for, what can be said of it before any file is looked for, and the folder that it names for outputs.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bagpress_broker::descriptor::{DeliveryPath, ResultPath, Transfer, Verify};
use bagpress_broker::ids::{Pool, RunName, random_base32};
use bagpress_broker::{limits, quote};
use bagpress_codec::{Codec, DataKind};
use rustix::fs::{Access, access};

use crate::error::Usage;
use crate::run_folder::inputs::existing::canonical_if_made;
use crate::run_folder::inputs::roots::check_roots;
use crate::run_folder::inputs::selection::Selection;
use crate::run_folder::trust::Trust;

/// A bag that a user asks for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Files and folders; none: a generated bag, or a list.
    pub inputs: Vec<PathBuf>,
    /// Which of the files.
    pub selection: Selection,
    /// A generated bag: how many tasks, bytes of each, what kind, from which seed.
    pub generated: Option<Generated>,
    /// Codec and level; the default depends on the kind of bag.
    pub codec: Option<Codec>,
    /// How the tasks reach the workers.
    pub delivery: DeliveryPath,
    /// How the outputs come back.
    pub results: ResultPath,
    /// Folder that receives the outputs.
    pub out: Option<PathBuf>,
    /// Fetch objects as they come.
    pub get: bool,
    /// Keep inputs in their bucket.
    pub keep_inputs: bool,
    /// Name of the run; one is made up.
    pub name: Option<RunName>,
    /// Folder of all runs.
    pub runs: PathBuf,
    /// Whose run folders are believed, if there is one of that name already.
    pub trust: Trust,
    /// Whose workers take it.
    pub pool: Pool,
    /// Attempts of each task.
    pub attempts: u32,
    /// Who checks the outputs.
    pub verify: Verify,
    /// Whether files may be handed over by path.
    pub transfer: Transfer,
    /// Whether `stats_N.json` files are written; the default depends on the bag.
    pub stats: Option<bool>,
}

/// A generated bag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generated {
    /// How many tasks.
    pub tasks: u32,
    /// Bytes of each.
    pub bytes: u64,
    /// What kind.
    pub data: DataKind,
    /// From which seed.
    pub seed: u64,
}

/// Refuses what cannot work whatever the files are.
///
/// # Errors
///
/// [`Usage`].
pub(crate) fn check(request: &Request) -> Result<()> {
    let listed = request.selection.files_from.is_some();
    match (&request.generated, request.inputs.is_empty()) {
        (None, true) if !listed => {
            return Err(Usage::error(
                "there is nothing to compress",
                "name files or folders, or ask for generated data: --tasks 24 --bytes 2MiB",
            ));
        }
        (Some(_), false) => {
            return Err(Usage::error(
                "a bag has either inputs or --tasks, not both",
                "leave one of them out",
            ));
        }
        _ => {}
    }
    match &request.generated {
        Some(generated) => check_generated(generated)?,
        None if request.results == ResultPath::Staged && request.out.is_none() => {
            return Err(Usage::error(
                "a bag of files needs a folder for its outputs",
                "name one with --out DIR, or leave them in the object store with --results objects",
            ));
        }
        None => {}
    }
    check_roots(&request.inputs, request.out.as_deref())?;
    if !(1..=limits::ATTEMPTS_MAX).contains(&request.attempts) {
        return Err(Usage::error(
            format!("{} attempts: 1 to {} are possible", request.attempts, limits::ATTEMPTS_MAX),
            "choose another --attempts",
        ));
    }
    Ok(())
}

fn check_generated(generated: &Generated) -> Result<()> {
    if generated.tasks == 0 || generated.tasks > limits::BAG_TASKS_MAX {
        return Err(Usage::error(
            format!("{} tasks: a bag has 1 to {}", generated.tasks, limits::BAG_TASKS_MAX),
            "choose another --tasks",
        ));
    }
    if generated.bytes > limits::INPUT_BYTES_MAX {
        return Err(Usage::error(
            format!(
                "{} bytes a task: at most {} are allowed",
                generated.bytes,
                limits::INPUT_BYTES_MAX
            ),
            "choose a smaller --bytes",
        ));
    }
    Ok(())
}

/// Makes the folder for outputs, if one was named; its canonical path.
///
/// # Errors
///
/// [`Usage`] if that is not possible, or nothing can be written there.
pub(crate) fn make_out(request: &Request) -> Result<Option<Out>> {
    let Some(out) = &request.out else { return Ok(None) };
    let is_new = out.symlink_metadata().is_err();
    let made = fs::create_dir_all(out).and_then(|()| out.canonicalize());
    let made = made.map_err(|error| cannot_be_made(out, &error))?;
    let probe = made.join(format!(".bagpress-probe-{}", random_base32::<5>()));
    let probed = File::create_new(&probe).and_then(|_| fs::remove_file(&probe));
    probed.map_err(|error| not_writable(out, &error))?;
    let mut wide = None;
    if is_new {
        let closing = fs::metadata(&made).and_then(|found| {
            wide = Some(found.mode() & 0o777);
            fs::set_permissions(&made, fs::Permissions::from_mode(0o700))
        });
        closing.with_context(|| format!("close {} to others", quote::name(&made)))?;
    }
    Ok(Some(Out { path: made, wide }))
}

/// A folder for outputs.
#[derive(Debug)]
pub(crate) struct Out {
    /// Absolute, without links.
    pub(crate) path: PathBuf,
    /// Permission bits that it is to get, if this run made it: it is closed until then.
    wide: Option<u32>,
}

impl Out {
    /// Opens a folder that this run made, unless anything that is read lies in a `closed` one: a copy would be open to who
    /// never found the way to it.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn open_unless(&self, closed: bool) -> Result<()> {
        let Some(wide) = self.wide.filter(|_| !closed) else { return Ok(()) };
        let opened = fs::set_permissions(&self.path, fs::Permissions::from_mode(wide));
        opened.with_context(|| format!("open {} to others", quote::name(&self.path)))
    }
}

/// What [`make_out`] would give, and refuse, if it were called. Makes nothing.
///
/// # Errors
///
/// [`Usage`], as it would be.
pub(crate) fn out_if_made(request: &Request) -> Result<Option<PathBuf>> {
    let Some(out) = &request.out else { return Ok(None) };
    let made = canonical_if_made(out).map_err(|error| cannot_be_made(out, &error))?;
    let there = made.ancestors().find(|path| path.symlink_metadata().is_ok());
    let there = there.unwrap_or(Path::new("/"));
    if !there.is_dir() {
        return Err(cannot_be_made(out, &std::io::ErrorKind::NotADirectory.into()));
    }
    access(there, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| not_writable(out, &error.into()))?;
    Ok(Some(made))
}

fn cannot_be_made(out: &Path, error: &std::io::Error) -> anyhow::Error {
    Usage::error(
        format!("the output folder {} cannot be made: {error}", quote::name(out)),
        "choose a writable --out DIR",
    )
}

fn not_writable(out: &Path, error: &std::io::Error) -> anyhow::Error {
    Usage::error(
        format!("the output folder {} is not writable: {error}", quote::name(out)),
        "choose a writable --out DIR",
    )
}
