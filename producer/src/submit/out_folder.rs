//! The folder that a user names for outputs: made before anything else, or looked at.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bagpress_broker::ids::random_base32;
use bagpress_broker::quote;
use rustix::fs::{Access, access};

use crate::error::Usage;
use crate::run_folder::inputs::existing::canonical_if_made;
use crate::submit::request::Request;

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
