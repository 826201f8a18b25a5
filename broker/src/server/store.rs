//! The folder of a server: ours alone. Creating files in it follows no link, and nothing that was planted is
//! written to.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::Error;

/// What nobody but its owner may do with a file.
const OWNERS: Mode = Mode::RUSR.union(Mode::WUSR);
/// Permissions of everybody else, and of those the ones to write.
const OTHERS: u32 = 0o077;
const OTHERS_WRITE: u32 = 0o022;

/// A store's folder, held open: renaming it or putting another in its place changes nothing for us.
#[derive(Debug)]
pub(crate) struct Store {
    folder: OwnedFd,
    path: PathBuf,
}

impl Store {
    /// Opens the folder, made if need be, for its owner alone.
    ///
    /// # Errors
    ///
    /// [`Error::NotOurs`] if it is a link, if it is another user's, or if others can write to it: nothing in
    /// it can be trusted then, not even a name. [`Error::Io`].
    pub(crate) fn make(path: &Path) -> Result<Self, Error> {
        make_folder(path).map_err(io("make", path))?;
        let store = Self::open(path)?.ok_or_else(|| Errno::NOENT.into());
        store.map_err(io("open", path))
    }

    /// Opens the folder if it is there, and takes from others whatever they may do with it.
    ///
    /// # Errors
    ///
    /// As [`make`](Self::make).
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, Error> {
        let Some(store) = Self::hold(path)? else { return Ok(None) };
        let mode = store.metadata()?.mode();
        if mode & OTHERS_WRITE != 0 {
            return Err(
                store.not_ours(format!("others can write to it (mode {:o})", mode & 0o7777))
            );
        }
        if mode & OTHERS != 0 {
            let owners = rustix::fs::fchmod(&store.folder, Mode::RWXU);
            owners.map_err(|error| io("close to others", path)(error.into()))?;
        }
        Ok(Some(store))
    }

    /// Opens the folder if it is there, and ours, whatever others can do with it: good enough to remove it.
    pub(super) fn hold(path: &Path) -> Result<Option<Self>, Error> {
        // With a slash behind it, a link would be followed.
        let path: PathBuf = path.components().collect();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let why = "it is a link or not a folder".to_owned();
                return Err(Error::NotOurs { path, why });
            }
            Err(error) => return Err(io("open", &path)(error.into())),
        };
        let store = Self { folder, path };
        let owner = store.metadata()?.uid();
        if owner != geteuid().as_raw() {
            return Err(store.not_ours(format!("it belongs to user {owner}")));
        }
        Ok(Some(store))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A path that leads to the folder itself, for this process and until one that it forks has become a program.
    pub(super) fn itself(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd()))
    }

    fn not_ours(&self, why: String) -> Error {
        Error::NotOurs { path: self.path.clone(), why }
    }

    fn metadata(&self) -> Result<fs::Metadata, Error> {
        let folder = self.folder.try_clone().map(File::from);
        folder.and_then(|folder| folder.metadata()).map_err(io("look at", &self.path))
    }

    /// Opens a file of ours, or makes it if `flags` say so, for its owner alone.
    ///
    /// # Errors
    ///
    /// Also if it is a link, of either kind, or no file: somebody has planted it.
    pub(crate) fn file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        ours_alone(rustix::fs::openat(&self.folder, name, flags, OWNERS))
    }

    /// Puts a file of these bytes in the place of whatever has the name, for its owner alone. It is there as a
    /// whole, or not at all.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let new = format!("{name}.new");
        self.remove(&new)?;
        let io = || io("write", &self.path.join(name));
        write_new(&self.folder, &new, bytes).map_err(io())?;
        let renamed = rustix::fs::renameat(&self.folder, &new, &self.folder, name);
        renamed.map_err(|error| io()(error.into()))
    }

    /// Removes a file, or a link itself; one that is not there is no error.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Error> {
        match rustix::fs::unlinkat(&self.folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(io("remove", &self.path.join(name))(error.into())),
        }
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    if let Some(above) = path.parent() {
        fs::create_dir_all(above)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}

/// The opened file, if it is one, has no second name, and is ours.
fn ours_alone(opened: rustix::io::Result<OwnedFd>) -> io::Result<File> {
    let planted = || io::Error::other("it is a link or not your file: remove it");
    let file = match opened {
        Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => return Err(planted()),
        opened => File::from(opened?),
    };
    let metadata = file.metadata()?;
    // One without any name was removed a moment ago.
    let ours = metadata.uid() == geteuid().as_raw();
    if metadata.is_file() && metadata.nlink() <= 1 && ours { Ok(file) } else { Err(planted()) }
}

fn write_new(folder: impl std::os::fd::AsFd, name: &str, bytes: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(folder, name, flags, OWNERS)?);
    file.write_all(bytes)
}

/// Makes a file that was not there, for its owner alone.
pub(super) fn create_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Err(io::Error::other("its name is not UTF-8"));
    };
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    let folder = File::open(above.unwrap_or(Path::new(".")))?;
    write_new(&folder, name, bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_folder_that_others_can_write_or_that_is_a_link_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        Store::make(&store).unwrap();
        assert_eq!(mode(&store), 0o700);
        for writable in [0o770, 0o702, 0o1777] {
            fs::set_permissions(&store, fs::Permissions::from_mode(writable)).unwrap();
            let refused = Store::make(&store).unwrap_err();
            assert!(matches!(&refused, Error::NotOurs { .. }), "{refused}");
            assert_eq!(mode(&store), writable, "it is left as it is");
        }
        fs::set_permissions(&store, fs::Permissions::from_mode(0o755)).unwrap();
        Store::make(&store).unwrap();
        assert_eq!(mode(&store), 0o700, "others could only read");
        let link = folder.path().join("link");
        symlink(&store, &link).unwrap();
        for path in [link.clone(), folder.path().join("link/"), folder.path().join("link/.")] {
            let refused = Store::make(&path).unwrap_err();
            assert!(refused.to_string().contains("link"), "{refused}");
        }
    }

    #[test]
    fn what_was_planted_is_neither_followed_nor_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let store = Store::make(&folder.path().join("store")).unwrap();
        for name in ["a", "a.new", "b", "b.new"] {
            let planted = store.path().join(name);
            let hard = name.starts_with('b');
            if hard { fs::hard_link(&victim, planted) } else { symlink(&victim, planted) }.unwrap();
            let why = store.file(name, OFlags::WRONLY | OFlags::CREATE).unwrap_err();
            assert!(why.to_string().contains("it is a link"), "{name}: {why}");
        }
        for name in ["a", "b"] {
            store.replace(name, b"ours").unwrap();
            assert_eq!(fs::read(store.path().join(name)).unwrap(), b"ours");
            assert_eq!(mode(&store.path().join(name)), 0o600);
        }
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }
}
