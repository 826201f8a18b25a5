//! Paths that somebody wrote down: beneath a directory by their text.

use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

/// Whether a path that somebody wrote down stays beneath the directory that it is relative to.
///
/// # Errors
///
/// `EXDEV`, as of `RESOLVE_BENEATH`, for an absolute path and for one with `..` in it; `ENOENT` for an empty one.
pub fn inside(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() {
        return Err(Errno::NOENT.into());
    }
    let normal = |component| matches!(component, Component::Normal(_) | Component::CurDir);
    if path.components().all(normal) { Ok(()) } else { Err(Errno::XDEV.into()) }
}

/// An absolute path as one beneath the root of the file system.
///
/// # Errors
///
/// As [`inside`]; also for a relative one.
pub fn below_root(path: &Path) -> io::Result<PathBuf> {
    let below = path.strip_prefix("/").map_err(|_| Errno::XDEV)?;
    if !below.as_os_str().is_empty() {
        inside(below)?;
    }
    Ok(below.to_owned())
}
