//! A held directory and what is beneath it: no name leads out of it, and no link is followed.
//!
//! A user who may write into some folder of a path can have it lead elsewhere between a check and a use. What is named
//! relative to a held directory, without links, cannot: see `openat2(2)`, `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use bagpress_broker::result::FileId;
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Stat, StatxFlags, Uid,
};
use rustix::io::Errno;

pub use self::paths::{below_root, inside};

/// How often a path is followed again whose folders are being renamed meanwhile.
const AGAIN_MAX: u32 = 64;
/// Folders within one another that [`Dir::remove_all`] goes down: each holds a file descriptor.
const DEPTH_MAX: u32 = 256;

/// A held directory. Cheap to clone; every name is relative to it.
#[derive(Debug, Clone)]
pub struct Dir(Arc<OwnedFd>);

impl Dir {
    /// Holds the directory at `path`, which its user named: links are followed.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self::from(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Holds the root of the file system, beneath which every absolute path without links is found.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn root() -> io::Result<Self> {
        Self::open(Path::new("/"))
    }

    /// Holds a directory beneath this one; the empty path is this one.
    ///
    /// # Errors
    ///
    /// What the system said: `ELOOP` or `ENOTDIR` for a link on the way.
    pub fn dir(&self, path: &Path) -> io::Result<Self> {
        if path.as_os_str().is_empty() {
            return Ok(self.clone());
        }
        self.open_at(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).map(Self::from)
    }

    /// Opens a regular file to read it; none if it is something else: a FIFO is not waited for, and a link not followed.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn file(&self, path: &Path) -> io::Result<Option<File>> {
        Ok(self.file_and_metadata(path)?.map(|(file, _)| file))
    }

    /// The same, with what is said of it.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn file_and_metadata(&self, path: &Path) -> io::Result<Option<(File, fs::Metadata)>> {
        regular(self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()))
    }

    /// Makes a file that was not there, for its owner alone, to write and read it.
    ///
    /// # Errors
    ///
    /// What the system said: `EEXIST` also for a link that leads nowhere.
    pub fn create(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        self.open_at(path, flags, Mode::RUSR | Mode::WUSR).map(File::from)
    }

    /// The same, for whoever the user's mask allows.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn create_as_usual(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        self.open_at(path, flags, Mode::from_raw_mode(0o666)).map(File::from)
    }

    /// Opens a regular file that is there to write and read it.
    ///
    /// # Errors
    ///
    /// What the system said; `ELOOP` for a link, `EINVAL` for what is no file.
    pub fn write(&self, path: &Path) -> io::Result<File> {
        let file = self.open_at(path, OFlags::RDWR | OFlags::NONBLOCK, Mode::empty())?;
        let file = File::from(file);
        if file.metadata()?.is_file() { Ok(file) } else { Err(Errno::INVAL.into()) }
    }

    /// What is said of a path, of a link itself.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn metadata(&self, path: &Path) -> io::Result<fs::Metadata> {
        let (dir, name) = self.parent(path)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        File::from(rustix::fs::openat(&dir, name, flags, Mode::empty())?).metadata()
    }

    /// Which file has a name, if its file system notes when files are made: as [`FileId::of`], in one call of the system.
    #[must_use]
    pub fn file_id(&self, name: &Path) -> Option<FileId> {
        let wanted = StatxFlags::INO | StatxFlags::BTIME;
        let found = rustix::fs::statx(&self.0, name, AtFlags::SYMLINK_NOFOLLOW, wanted).ok()?;
        if found.stx_mask & wanted.bits() != wanted.bits() {
            return None;
        }
        let born = found.stx_btime;
        let seconds = u64::try_from(born.tv_sec).ok()?;
        let born_ns = seconds.checked_mul(1_000_000_000)?.checked_add(born.tv_nsec.into())?;
        Some(FileId { inode: found.stx_ino, born_ns })
    }

    /// The same as [`metadata`](Self::metadata) but for when it was made, in one call of the system.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn stat(&self, path: &Path) -> io::Result<Stat> {
        let (dir, name) = self.parent(path)?;
        Ok(rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Whose this directory is.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn owner(&self) -> io::Result<(Uid, Gid)> {
        let stat = rustix::fs::fstat(&self.0)?;
        Ok((Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid)))
    }

    /// Makes a directory, for its owner alone.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn make_dir(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        Ok(rustix::fs::mkdirat(&dir, name, Mode::RWXU)?)
    }

    /// Removes a file, or a link itself; that it is not there is fine.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.remove(path, AtFlags::empty())
    }

    /// Removes an empty directory; that it is not there is fine.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.remove(path, AtFlags::REMOVEDIR)
    }

    fn remove(&self, path: &Path, flags: AtFlags) -> io::Result<()> {
        let removed =
            self.parent(path).and_then(|(dir, name)| Ok(rustix::fs::unlinkat(&dir, name, flags)?));
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Removes a directory with everything in it. Links in it are removed, never followed; one in its place is an error.
    ///
    /// # Errors
    ///
    /// What the system said; that it is not there is fine.
    pub fn remove_all(&self, path: &Path) -> io::Result<()> {
        let dir = match self.dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            dir => dir?,
        };
        dir.empty()?;
        self.remove_dir(path)
    }

    /// Removes everything in this directory, as [`remove_all`](Self::remove_all) does.
    ///
    /// # Errors
    ///
    /// What the system said; that the directory itself is gone is fine.
    pub fn empty(&self) -> io::Result<()> {
        match self.clear(DEPTH_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            emptied => emptied,
        }
    }

    fn clear(&self, depth: u32) -> io::Result<()> {
        for entry in self.entries()? {
            let name = Path::new(&entry);
            match self.remove_file(name) {
                // Of a directory some systems say the one, and some the other.
                Err(error)
                    if matches!(
                        Errno::from_io_error(&error),
                        Some(Errno::ISDIR | Errno::PERM | Errno::ACCESS)
                    ) && self.metadata(name).is_ok_and(|found| found.is_dir()) =>
                {
                    let depth = depth.checked_sub(1).ok_or(Errno::NAMETOOLONG)?;
                    self.dir(name)?.clear(depth)?;
                    self.remove_dir(name)?;
                }
                removed => removed?,
            }
        }
        Ok(())
    }

    /// The names in this directory.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn entries(&self) -> io::Result<Vec<OsString>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::Dir::new(rustix::fs::openat(&self.0, ".", flags, Mode::empty())?)?;
        let mut names = Vec::new();
        for entry in dir {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(names)
    }

    /// Opens this directory itself as a file, to sync it or its file system, or to give it a mode.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn itself(&self) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.0, ".", flags, Mode::empty())?))
    }

    /// Renames; `flags` say what happens to what has the new name already.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn rename(
        &self,
        from: &Path,
        into: &Self,
        to: &Path,
        flags: RenameFlags,
    ) -> io::Result<()> {
        let ((from_dir, from), (to_dir, to)) = (self.parent(from)?, into.parent(to)?);
        if flags.is_empty() {
            return Ok(rustix::fs::renameat(&from_dir, from, &to_dir, to)?);
        }
        Ok(rustix::fs::renameat_with(&from_dir, from, &to_dir, to, flags)?)
    }

    /// Gives a file a second name that was not there.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn link(&self, from: &Path, into: &Self, to: &Path) -> io::Result<()> {
        let ((from_dir, from), (to_dir, to)) = (self.parent(from)?, into.parent(to)?);
        Ok(rustix::fs::linkat(&from_dir, from, &to_dir, to, AtFlags::empty())?)
    }

    /// The directory in which the last component of `path` is, and that component.
    fn parent<'path>(&self, path: &'path Path) -> io::Result<(Self, &'path OsStr)> {
        inside(path)?;
        let name = path.file_name().ok_or(Errno::INVAL)?;
        Ok((self.dir(path.parent().unwrap_or(Path::new("")))?, name))
    }

    fn open_at(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        inside(path)?;
        let flags = flags | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match again(|| rustix::fs::openat2(&self.0, path, flags, mode, resolve)) {
            Err(error) if is_unknown(error) => self.walk_to(path, flags, mode),
            opened => Ok(opened?),
        }
    }

    /// The same, a component at a time.
    fn walk_to(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut above: Option<OwnedFd> = None;
        let mut components = path.components().peekable();
        loop {
            let Some(component) = components.next() else { return Err(Errno::INVAL.into()) };
            let last = components.peek().is_none();
            let (flags, mode) =
                if last { (flags | OFlags::NOFOLLOW, mode) } else { (step, Mode::empty()) };
            let from = above.as_ref().map_or(self.0.as_fd(), AsFd::as_fd);
            let opened = rustix::fs::openat(from, component.as_os_str(), flags, mode)?;
            if last {
                return Ok(opened);
            }
            above = Some(opened);
        }
    }
}

impl From<OwnedFd> for Dir {
    fn from(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Opens a regular file by its absolute path to read it, as [`Dir::file_and_metadata`] of the root does, in one call of the
/// system.
///
/// # Errors
///
/// As [`below_root`]; what the system said.
pub fn absolute_file(path: &Path) -> io::Result<Option<(File, fs::Metadata)>> {
    let below = below_root(path)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = || rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    match again(open) {
        Err(error) if is_unknown(error) => Dir::root()?.file_and_metadata(&below),
        opened => regular(opened.map_err(io::Error::from)),
    }
}

/// Follows a path again whose folders are being renamed meanwhile.
fn again(open: impl Fn() -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    let mut tries = (0..AGAIN_MAX).map(|_| open());
    tries.find(|opened| !matches!(opened, Err(Errno::AGAIN))).unwrap_or(Err(Errno::AGAIN))
}

/// Older kernels, and sandboxes, do not know `openat2`. A permission that is missing is so a component at a time, too.
fn is_unknown(error: Errno) -> bool {
    matches!(error, Errno::NOSYS | Errno::PERM)
}

/// What was opened, if it is a regular file.
fn regular(opened: io::Result<OwnedFd>) -> io::Result<Option<(File, fs::Metadata)>> {
    match opened {
        Ok(opened) => {
            let file = File::from(opened);
            let metadata = file.metadata()?;
            Ok(metadata.is_file().then_some((file, metadata)))
        }
        // A link, a socket, a device without a driver.
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::LOOP | Errno::NXIO | Errno::NODEV) => Ok(None),
            _ => Err(error),
        },
    }
}

mod paths;
#[cfg(test)]
mod tests;
