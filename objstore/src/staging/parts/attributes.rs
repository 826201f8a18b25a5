//! What an output takes from its source: mode, time and owner. It is never more open than its source.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::beneath::Dir;

/// What is to be known of a file, or a folder, for its copy to be as wide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// The file, absolute. The folders above it lend theirs to the folders of its output.
    pub source: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// Its modification time, ns since 1970.
    pub mtime_ns: i64,
    /// Whose it is, if that is known.
    pub owner: Option<Owner>,
}

/// Whose a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl Owner {
    /// The owner of a file.
    #[must_use]
    pub fn of(metadata: &std::fs::Metadata) -> Self {
        Self { uid: metadata.uid(), gid: metadata.gid() }
    }
}

/// The permission bits of a copy. Set-user-id, set-group-id and sticky bits belong to the original. In another group the
/// copy is no more to its members than the original was to everybody, as they may be.
fn mode_of_copy(mode: u32, same_group: bool) -> u32 {
    // In a sticky folder others each write files of their own; without that bit they would write over one another.
    let mode = if mode & 0o1000 == 0 { mode & 0o777 } else { mode & 0o755 };
    if same_group { mode } else { mode & (0o707 | (mode & 0o007) << 3) }
}

/// Gives `name` in `dir`, of which nobody but us has had anything, owner, mode and time of its source.
///
/// # Errors
///
/// What the system said of mode and time. Another owner than ours only root can give, and another group only its members.
pub(super) fn apply_metadata(dir: &Dir, name: &Path, attributes: &Attributes) -> io::Result<()> {
    let found = dir.stat(name)?;
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    let mine = Owner { uid: found.st_uid, gid: found.st_gid };
    let same_group = own(mine, attributes.owner, |uid, gid| {
        rustix::fs::chownat(dir.as_fd(), name, uid, gid, nofollow)
    });
    let mode = Mode::from_raw_mode(mode_of_copy(attributes.mode, same_group));
    rustix::fs::chmodat(dir.as_fd(), name, mode, AtFlags::empty())?;
    let modified = Timespec {
        tv_sec: attributes.mtime_ns.div_euclid(1_000_000_000),
        tv_nsec: attributes.mtime_ns.rem_euclid(1_000_000_000) as _,
    };
    let kept = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ };
    let times = Timestamps { last_access: kept, last_modification: modified };
    Ok(rustix::fs::utimensat(dir.as_fd(), name, &times, nofollow)?)
}

/// Gives a directory owner and mode of another one, as far as they can be had.
///
/// # Errors
///
/// What the system said of its mode.
pub fn apply_dir_metadata(dir: &Dir, mode: u32, owner: Option<Owner>) -> io::Result<()> {
    let itself = dir.itself()?;
    let mine = Owner::of(&itself.metadata()?);
    let same_group = own(mine, owner, |uid, gid| rustix::fs::fchown(&itself, uid, gid));
    Ok(rustix::fs::fchmod(&itself, Mode::from_raw_mode(mode_of_copy(mode, same_group)))?)
}

/// Gives away what is `mine`, the group first, as gzip does. Returns whether it has the group now that it should have.
fn own(
    mine: Owner,
    wanted: Option<Owner>,
    chown: impl Fn(Option<Uid>, Option<Gid>) -> Result<(), Errno>,
) -> bool {
    let Some(wanted) = wanted else { return false };
    let same_group = mine.gid == wanted.gid || chown(None, Some(Gid::from_raw(wanted.gid))).is_ok();
    if mine.uid != wanted.uid && rustix::process::geteuid().is_root() {
        // Where root cannot, as on another machine's disk, it stays root's.
        chown(Some(Uid::from_raw(wanted.uid)), None).ok();
    }
    same_group
}

/// Mode and owner that folders of an output get when they are made, for each from the outputs' root down. `parent` is
/// relative to that root. A folder of another name than its source's is made for nobody else.
#[must_use]
pub fn metadata_of_folders(source: &Path, parent: &Path) -> Vec<(u32, Option<Owner>)> {
    let mut sources = source.ancestors().skip(1);
    let mut found: Vec<_> = parent
        .ancestors()
        .take_while(|folder| !folder.as_os_str().is_empty())
        .map(|folder| {
            let above = sources.next().filter(|above| {
                above.file_name().is_none_or(|name| Some(name) == folder.file_name())
            });
            match above.and_then(|above| above.metadata().ok()) {
                // Its owner must be able to write into it until the end.
                Some(found) => (found.mode() & 0o1777 | 0o700, Some(Owner::of(&found))),
                None => (0o700, None),
            }
        })
        .collect();
    found.reverse();
    found
}

/// Whether a mode or time is refused, as by a file system without them, rather than that something went wrong.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(
        errno,
        Some(Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_as_wide_as_its_source_and_no_wider() {
        for (mode, same, other) in [
            (0o644, 0o644, 0o644),
            (0o640, 0o640, 0o600),
            (0o664, 0o664, 0o644),
            (0o604, 0o604, 0o604),
            (0o6755, 0o755, 0o755),
            (0o1777, 0o755, 0o755),
            (0o070, 0o070, 0o000),
        ] {
            assert_eq!(mode_of_copy(mode, true), same, "{mode:o}");
            assert_eq!(mode_of_copy(mode, false), other, "{mode:o}");
        }
    }

    #[test]
    fn folders_are_matched_with_those_above_the_source() {
        let place = tempfile::tempdir().unwrap();
        let deep = place.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        for (folder, mode) in [("a", 0o2755), ("a/b", 0o550)] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(place.path().join(folder), mode).unwrap();
        }
        let modes = |source: &Path, parent: &str| {
            let found = metadata_of_folders(source, Path::new(parent));
            found.into_iter().map(|(mode, _)| mode).collect::<Vec<_>>()
        };
        assert_eq!(modes(&deep.join("file"), "a/b"), [0o755, 0o750]);
        assert_eq!(modes(&deep.join("file"), "other/b"), [0o700, 0o750]);
        assert_eq!(modes(&deep.join("gone/file"), "b/gone"), [0o750, 0o700]);
        assert_eq!(modes(Path::new("/etc/file"), "root/etc").len(), 2);
    }
}
