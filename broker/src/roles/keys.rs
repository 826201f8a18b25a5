//! A folder of keys by role, and the server's configuration with their public halves.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use nkeys::KeyPair;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, fchmod, fstat, mkdirat, openat, renameat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::conf::configuration;
use super::rights::{Account, ROLES};
use crate::ids::random_base32;
use crate::{Error, Role, limits};

/// Where the configuration is, below the folder.
pub const CONFIGURATION: &str = "server/auth.conf";
const SERVER: &str = "server";
const FILE: &str = "auth.conf";
/// The server may be somebody else, and there is nothing secret in its folder.
const PUBLIC: (Mode, Mode) = (Mode::from_raw_mode(0o755), Mode::from_raw_mode(0o644));
const SECRET: (Mode, Mode) = (Mode::from_raw_mode(0o700), Mode::from_raw_mode(0o600));

/// The key of one role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Whose it is.
    pub role: Role,
    /// The file with its seed.
    pub path: PathBuf,
    /// Whether it was made now; otherwise it was there.
    pub new: bool,
}

/// Makes the keys that are missing in `folder`, each as `<role>/<role>.nk`, and writes the configuration for all of
/// them again, for the account `account`.
///
/// A key that is there is kept: remove its file to get another. Nothing is followed that is a link, and nothing is
/// used that belongs to somebody else or that others could have changed.
///
/// # Errors
///
/// [`Error::Io`], with what is wrong about the file or folder.
pub fn write_auth(folder: &Path, account: &Account) -> Result<Vec<Key>, Error> {
    let held = KeyFolder::open(folder, SECRET.0)?;
    let mut keys = Vec::new();
    let mut public = Vec::new();
    for role in ROLES {
        let name = role.as_str();
        let place = held.below(name, SECRET.0)?;
        let (pair, new) = place.key(&format!("{name}.nk"))?;
        public.push((role, pair.public_key()));
        keys.push(Key { role, path: folder.join(name).join(format!("{name}.nk")), new });
    }
    let key = |role| public.iter().find(|(of, _)| *of == role).map(|(_, key)| key.clone());
    let text = configuration(account, |role| key(role).unwrap_or_default());
    held.below(SERVER, PUBLIC.0)?.replace(FILE, text.as_bytes())?;
    Ok(keys)
}

/// A folder that is open: what is in it is found by name below it, whatever becomes of its path.
#[derive(Debug)]
struct KeyFolder {
    path: PathBuf,
    folder: File,
}

impl KeyFolder {
    /// Opens a folder, and makes it if it is not there.
    fn open(path: &Path, mode: Mode) -> Result<Self, Error> {
        Self::at(CWD, path, path, mode)
    }

    fn below(&self, name: &str, mode: Mode) -> Result<Self, Error> {
        let held = Self::at(&self.folder, Path::new(name), &self.path.join(name), mode)?;
        fchmod(&held.folder, mode)
            .map_err(|error| failed("set the mode of", &held.path)(error.into()))?;
        Ok(held)
    }

    fn at(
        above: impl std::os::fd::AsFd,
        name: &Path,
        path: &Path,
        mode: Mode,
    ) -> Result<Self, Error> {
        let io = |what| failed(what, path);
        match mkdirat(&above, name, mode) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(io("make the folder")(error.into())),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = openat(&above, name, flags, Mode::empty());
        let folder = File::from(folder.map_err(|error| io("open the folder")(error.into()))?);
        ours(&folder, FileType::Directory, 0o022).map_err(io("use the folder"))?;
        Ok(Self { path: path.to_owned(), folder })
    }

    /// The key in the file `name`, and whether it was made now.
    fn key(&self, name: &str) -> Result<(KeyPair, bool), Error> {
        let path = self.path.join(name);
        if let Some(text) = self.read(name).map_err(failed("read", &path))? {
            let pair = KeyPair::from_seed(text.trim()).map_err(|_| {
                failed("read", &path)(io::Error::other(
                    "it is not an nkey seed; remove it to get a new one",
                ))
            })?;
            return Ok((pair, false));
        }
        let pair = KeyPair::new_user();
        let seed = pair.seed().map_err(|error| failed("make", &path)(io::Error::other(error)))?;
        self.create(name, format!("{seed}\n").as_bytes(), SECRET.1)
            .map_err(failed("make", &path))?;
        Ok((pair, true))
    }

    fn read(&self, name: &str) -> io::Result<Option<String>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.folder, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        ours(&file, FileType::RegularFile, 0o077)?;
        let mut text = String::new();
        file.take(limits::SECRET_BYTES_MAX).read_to_string(&mut text)?;
        Ok(Some(text))
    }

    fn create(&self, name: &str, bytes: &[u8], mode: Mode) -> io::Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.folder, name, flags, mode)?);
        // Whatever the umask is: a server that is somebody else reads its configuration.
        fchmod(&file, mode)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        if written.is_err() {
            // Half of it would be taken for the whole the next time.
            unlinkat(&self.folder, name, AtFlags::empty())?;
        }
        written.and_then(|()| self.folder.sync_all())
    }

    /// Puts a new file in place of whatever has this name: a server that reads it meanwhile sees one of both.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let failed = |error| failed("write", &self.path.join(name))(error);
        let part = format!(".{name}.{}", random_base32::<10>());
        self.create(&part, bytes, PUBLIC.1).map_err(failed)?;
        renameat(&self.folder, &part, &self.folder, name).map_err(|error| failed(error.into()))?;
        self.folder.sync_all().map_err(failed)
    }
}

/// Refuses what is not of this kind, what is not ours, and what others may do something with, by the bits `others`.
fn ours(file: &File, kind: FileType, others: u32) -> io::Result<()> {
    let stat = fstat(file)?;
    let why = if FileType::from_raw_mode(stat.st_mode) != kind {
        "it is something else"
    } else if stat.st_uid != geteuid().as_raw() {
        "it belongs to another user"
    } else if stat.st_mode & others != 0 {
        "others have access to it; `chmod go=` takes that away"
    } else {
        return Ok(());
    };
    Err(io::Error::other(why))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}
