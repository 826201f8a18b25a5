//! The last step of a staged output: from its part file to its final name, without touching what is not the bag's.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bagpress_broker::ids::{Execution, TaskId, random_base32};
use bagpress_broker::result::FileId;
use bagpress_codec::Digest;
use rustix::fs::{
    AtFlags, CWD, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT, linkat, renameat_with,
    utimensat,
};
use rustix::io::Errno;

use super::parts::{BAD_DIR, Own, Parts, Replaced, Target, digest_of, mtime_ns, remove_if_there};

/// What became of an output that was to get its name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Placed {
    /// It has its name.
    Named,
    /// It has its name. What the bag itself had put there, and was no longer what it should be, is here now.
    Instead(PathBuf),
    /// Its bytes are in neither place.
    Lost,
    /// A file that the bag did not make has its name. Nothing was touched.
    Taken,
}

impl Parts {
    /// Moves the part file of a committed execution to its final name, with the mode and time of its source.
    ///
    /// Not durable before [`sync`](Self::sync). Safe to repeat: an output that is there already, with the right digest,
    /// is fine. Another file that has the name is moved aside, to `.bad/`, if the bag named it before, and replaced if it
    /// is the one that [`Target::replaces`]; any other stays as it is.
    ///
    /// # Errors
    ///
    /// What the system said; [`Parts::trouble`] tells what it means.
    pub fn place(
        &self,
        id: &TaskId,
        execution: &Execution,
        target: &Target,
        digest: &Digest,
    ) -> io::Result<Placed> {
        let part = self.part(id.index, id.round, execution);
        let last = self.root().join(&target.path);
        // Nobody writes to it any more, and who makes a file read-only may not be able to write to it again.
        match self.dress(&part, target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let there = match regular(&last) {
                    Ok(Some(file)) => digest_of(file)? == *digest,
                    Ok(None) => false,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                    Err(error) => return Err(error),
                };
                return Ok(if there { Placed::Named } else { Placed::Lost });
            }
            dressed => dressed?,
        }
        let named = self.make_folders(&last).and_then(|()| match rename_new(&part, &last) {
            // Another bag may have removed a folder that was empty until now.
            Err(Errno::NOENT) => {
                self.make_folders(&last)?;
                Ok(rename_new(&part, &last))
            }
            named => Ok(named),
        })?;
        match named {
            Ok(()) => Ok(Placed::Named),
            Err(Errno::EXIST) => self.place_over(&part, &last, target, digest),
            Err(error) => Err(error.into()),
        }
    }

    fn make_folders(&self, last: &Path) -> io::Result<()> {
        let Some(parent) = last.parent().filter(|parent| *parent != self.root()) else {
            return Ok(());
        };
        // Of a file in the way the system says that it exists.
        fs::create_dir_all(parent).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Errno::NOTDIR.into(),
            _ => error,
        })
    }

    /// Gives an output its name where something has it.
    fn place_over(
        &self,
        part: &Path,
        last: &Path,
        target: &Target,
        digest: &Digest,
    ) -> io::Result<Placed> {
        // What cannot be looked at just now is not called somebody else's.
        let Some(there) = regular(last)? else { return Ok(Placed::Taken) };
        let metadata = there.metadata()?;
        if let Some(replaces) = &target.replaces
            && replaces.is(&metadata)
        {
            return self.replace(part, last, replaces);
        }
        if digest_of(there)? == *digest {
            self.discard(part, target, digest)?;
            return Ok(Placed::Named);
        }
        let own = match target.own {
            Own::Nothing => false,
            Own::File(id) => FileId::of(&metadata) == Some(id),
            Own::Everything => true,
        };
        if !own {
            return Ok(Placed::Taken);
        }
        let aside = self.set_aside(last)?;
        match rename_new(part, last) {
            Ok(()) => Ok(Placed::Instead(aside)),
            // Somebody was faster, a second time: theirs stays.
            Err(Errno::EXIST) => Ok(Placed::Taken),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts `part` in the place of `last`, if that is still the file to replace; gives it back otherwise.
    fn replace(&self, part: &Path, last: &Path, replaces: &Replaced) -> io::Result<Placed> {
        match renameat_with(CWD, part, CWD, last, RenameFlags::EXCHANGE) {
            // Where two names cannot be exchanged: between our look and this nobody else should have come.
            Err(error) if cannot_flag(error) => fs::rename(part, last)?,
            exchanged => {
                exchanged?;
                if replaces.is(&fs::symlink_metadata(part)?) {
                    remove_if_there(part)?;
                } else if let Err(error) =
                    renameat_with(CWD, part, CWD, last, RenameFlags::EXCHANGE)
                {
                    let aside = self.set_aside(part)?;
                    tracing::warn!(%error, aside = %aside.display(), "another file came and could not be given back");
                    return Ok(Placed::Instead(aside));
                } else {
                    return Ok(Placed::Taken);
                }
            }
        }
        Ok(Placed::Named)
    }

    /// Removes a part file whose output has its name already. Who was killed in the middle of an exchange may have left
    /// another file there, which is moved aside unless it was to be replaced.
    fn discard(&self, part: &Path, target: &Target, digest: &Digest) -> io::Result<()> {
        let replaced = |metadata: &fs::Metadata| target.replaces.is_some_and(|r| r.is(metadata));
        let superfluous = match regular(part)? {
            Some(file) => replaced(&file.metadata()?) || digest_of(file)? == *digest,
            None => false,
        };
        if superfluous { remove_if_there(part) } else { self.set_aside(part).map(drop) }
    }

    fn set_aside(&self, file: &Path) -> io::Result<PathBuf> {
        let bad = self.root().join(BAD_DIR);
        fs::create_dir_all(&bad)?;
        // A name of any length fits with what is added to it.
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let end = name.floor_char_boundary(200);
        let aside = bad.join(format!("{}.{}", &name[..end], random_base32::<5>()));
        fs::rename(file, &aside)?;
        Ok(aside)
    }

    /// Gives a part file the time and mode of its target. A file system or an owner that cannot have them is noted, once:
    /// see [`undressed`](Self::undressed).
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn dress(&self, part: &Path, target: &Target) -> io::Result<()> {
        let Some((mode, mtime_ns)) = target.attributes else {
            return fs::symlink_metadata(part).map(drop);
        };
        let modified = Timespec {
            tv_sec: mtime_ns.div_euclid(1_000_000_000),
            tv_nsec: mtime_ns.rem_euclid(1_000_000_000) as _,
        };
        let kept = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ };
        let times = Timestamps { last_access: kept, last_modification: modified };
        let dressed =
            utimensat(CWD, part, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from);
        // Set-user-id and sticky bits belong to the program, not to its compressed copy.
        let mode = Permissions::from_mode(mode & 0o777);
        let dressed = dressed.and_then(|()| fs::set_permissions(part, mode));
        match dressed {
            Err(error) if cannot_be_had(&error) => {
                self.note_undressed(&target.path, &error);
                Ok(())
            }
            dressed => dressed,
        }
    }
}

/// Whether a mode or time is refused, as by a file system without them, rather than that something went wrong.
fn cannot_be_had(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(
        errno,
        Some(Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS)
    )
}

impl Replaced {
    /// What is to be known of a file to recognise it.
    #[must_use]
    pub fn of(metadata: &fs::Metadata) -> Self {
        Self { bytes: metadata.len(), mtime_ns: mtime_ns(metadata), inode: metadata.ino() }
    }

    fn is(&self, metadata: &fs::Metadata) -> bool {
        *self == Self::of(metadata)
    }
}

/// Renames without replacing. NFS and some file systems of FUSE cannot: there a second name is made and the first one
/// removed; where that cannot be had either, it is looked first.
fn rename_new(from: &Path, to: &Path) -> Result<(), Errno> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(error) if cannot_flag(error) => link_new(from, to),
        renamed => renamed,
    }
}

fn link_new(from: &Path, to: &Path) -> Result<(), Errno> {
    match linkat(CWD, from, CWD, to, AtFlags::empty()) {
        Ok(()) => rustix::fs::unlink(from),
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
            if to.symlink_metadata().is_ok() {
                return Err(Errno::EXIST);
            }
            rustix::fs::rename(from, to)
        }
        Err(error) => Err(error),
    }
}

fn cannot_flag(error: Errno) -> bool {
    matches!(error, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
}

/// Opens a regular file; none if it is something else: a link is not followed, and a FIFO is not waited for.
fn regular(path: &Path) -> io::Result<Option<File>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => Ok(file.metadata()?.is_file().then_some(file)),
        Err(error) => match Errno::from_io_error(&error) {
            // A link, a socket, a device without a driver; and what is not ours to read is not ours.
            Some(Errno::LOOP | Errno::NXIO | Errno::NODEV | Errno::ACCESS | Errno::PERM) => {
                Ok(None)
            }
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As on a file system that cannot rename without replacing.
    #[test]
    fn a_link_gives_a_name_without_replacing_too() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, b"output").unwrap();
        link_new(&from, &to).unwrap();
        assert!(!from.exists());
        fs::write(&from, b"another").unwrap();
        assert_eq!(link_new(&from, &to), Err(Errno::EXIST));
        assert_eq!(fs::read(&to).unwrap(), b"output");
        assert_eq!(fs::read(&from).unwrap(), b"another");
    }
}
