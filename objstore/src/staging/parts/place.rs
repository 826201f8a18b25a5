//! The last step of a staged output: from its part file to its final name, without touching what is not the bag's.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bagpress_broker::ids::{Execution, TaskId, random_base32};
use bagpress_broker::result::FileId;
use bagpress_codec::Digest;
use rustix::fs::RenameFlags;
use rustix::io::Errno;

use super::attributes::{apply_dir_metadata, apply_metadata, is_unsupported, metadata_of_folders};
use super::files::{Parts, name_of, part_name};
use super::hash::digest_of;
use super::target::{Own, Replaced, Target};
use crate::beneath::Dir;

/// Folder of files that had an output's name and not its digest.
pub const BAD_DIR: &str = ".bad";

/// What became of an output that was to get its name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Placed {
    /// It has its name.
    Named,
    /// It has its name. What the bag itself had put there, and was no longer what it should be, is here now.
    Instead(PathBuf),
    /// Another file has its name, and its bytes. It counts as the output, and stays whose it is.
    Same,
    /// Its bytes are in neither place.
    Lost,
    /// A file that the bag did not make has its name. Nothing was touched.
    Taken,
}

/// Gives outputs their final names, one after another. Those that come together are mostly in one folder, which is kept.
#[derive(Debug)]
pub struct Placer<'parts> {
    parts: &'parts Parts,
    /// The folder of the last output, relative to the outputs' root, and held.
    last: Option<(PathBuf, Dir)>,
}

impl<'parts> Placer<'parts> {
    /// For outputs that get their names now: a folder that is kept for long may be another one's by then.
    #[must_use]
    pub fn new(parts: &'parts Parts) -> Self {
        Self { parts, last: None }
    }

    /// Moves the part file of a committed execution to its final name, with the mode and time of its source.
    ///
    /// Not durable before [`Parts::sync`]. Safe to repeat: an output that is there already, with the right digest,
    /// is fine. Another file that has the name is moved aside, to `.bad/`, if the bag named it before, and replaced if it
    /// is the one that [`Target::replaces`]; any other stays as it is.
    ///
    /// # Errors
    ///
    /// What the system said; [`Parts::trouble`] tells what it means.
    pub fn place(
        &mut self,
        id: &TaskId,
        execution: &Execution,
        target: &Target,
        digest: &Digest,
    ) -> io::Result<Placed> {
        let parts = self.parts;
        let part = part_name(id.index, id.round, execution);
        let (part, last) = (Path::new(&part), target.path.as_path());
        // Nothing writes to it any more, and a file that was made read-only may not be writable again.
        match parts.apply_metadata(part, target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let there = match parts.outputs().file(last) {
                    Ok(Some(file)) => digest_of(file)? == *digest,
                    Ok(None) => false,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                    Err(error) => return Err(error),
                };
                return Ok(if there { Placed::Named } else { Placed::Lost });
            }
            applied => applied?,
        }
        let name = name_of(last)?;
        let named = match name_new(parts.private(), part, &self.folder(target)?, name) {
            // Another bag may have removed a folder that was empty until now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.last = None;
                name_new(parts.private(), part, &self.folder(target)?, name)
            }
            named => named,
        };
        match named {
            Ok(()) => Ok(Placed::Named),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                parts.place_over(id, part, target, digest)
            }
            Err(error) => Err(error),
        }
    }

    /// Which file has the name of an output that was placed, if its file system notes when files are made.
    #[must_use]
    pub fn file_id(&mut self, target: &Target) -> Option<FileId> {
        self.folder(target).ok()?.file_id(name_of(&target.path).ok()?)
    }

    /// The folder of an output, held.
    fn folder(&mut self, target: &Target) -> io::Result<Dir> {
        let parent = target.path.parent().unwrap_or(Path::new(""));
        match &self.last {
            Some((path, folder)) if path == parent => Ok(folder.clone()),
            _ => {
                let folder = self.parts.make_folders(target)?;
                self.last = Some((parent.to_owned(), folder.clone()));
                Ok(folder)
            }
        }
    }
}

impl Parts {
    /// The folder of an output. Those that are missing are made, each as wide as the folder of its input.
    fn make_folders(&self, target: &Target) -> io::Result<Dir> {
        let parent = target.path.parent().unwrap_or(Path::new(""));
        match self.outputs().dir(parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            there => return there,
        }
        let source = target.attributes.as_ref().map(|attributes| attributes.source.as_path());
        let modes = source.map(|source| metadata_of_folders(source, parent));
        let mut above = self.outputs().clone();
        for (at, component) in parent.components().enumerate() {
            let name = Path::new(component.as_os_str());
            let is_new = match above.make_dir(name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                made => made.map(|()| true)?,
            };
            above = above.dir(name)?;
            if is_new {
                let (mode, owner) = modes.as_ref().map_or((0o700, None), |modes| modes[at]);
                match apply_dir_metadata(&above, mode, owner) {
                    Err(error) if is_unsupported(&error) => {
                        self.note_without_metadata(&target.path, &error);
                    }
                    applied => applied?,
                }
            }
        }
        Ok(above)
    }

    /// Gives an output its name where something has it.
    fn place_over(
        &self,
        id: &TaskId,
        part: &Path,
        target: &Target,
        digest: &Digest,
    ) -> io::Result<Placed> {
        let last = target.path.as_path();
        let there = match self.outputs().file(last) {
            // What is not ours to read is not ours.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            there => there?,
        };
        // What cannot be looked at just now is not called somebody else's.
        let Some(there) = there else { return Ok(Placed::Taken) };
        let metadata = there.metadata()?;
        if let Some(replaces) = &target.replaces
            && replaces.is(&metadata)
        {
            return self.replace(part, last, replaces);
        }
        let own = match target.own {
            Own::Nothing => false,
            Own::File(id) => FileId::of(&metadata) == Some(id),
            Own::Everything => true,
        };
        if digest_of(there)? == *digest {
            // When the bag was made, no file had the name but one to replace: a gatherer of ours that was killed before it
            // wrote its line may have named this one. In a later round another bag may have made it long ago, unless the part
            // file shows that it was exchanged or linked.
            let left = self.private().metadata(part)?;
            let named = target.replaces.is_some_and(|replaces| replaces.is(&left))
                || (left.dev(), left.ino()) == (metadata.dev(), metadata.ino());
            let own = own || named || id.round == 0;
            self.discard(part, target, digest)?;
            return Ok(if own { Placed::Named } else { Placed::Same });
        }
        if !own {
            return Ok(Placed::Taken);
        }
        let aside = self.set_aside(self.outputs(), last)?;
        match name_new(self.private(), part, self.outputs(), last) {
            Ok(()) => Ok(Placed::Instead(aside)),
            // Somebody was faster, a second time: theirs stays.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Placed::Taken),
            Err(error) => Err(error),
        }
    }

    /// Puts `part` in the place of `last`, if that is still the file to replace; gives it back otherwise.
    fn replace(&self, part: &Path, last: &Path, replaces: &Replaced) -> io::Result<Placed> {
        let rename = |flags| self.private().rename(part, self.outputs(), last, flags);
        match rename(RenameFlags::EXCHANGE) {
            // Where two names cannot be exchanged: between our look and this nobody else should have come.
            Err(error) if cannot_flag(&error) => rename(RenameFlags::empty())?,
            exchanged => {
                exchanged?;
                if replaces.is(&self.private().metadata(part)?) {
                    self.private().remove_file(part)?;
                } else if let Err(error) = rename(RenameFlags::EXCHANGE) {
                    let aside = self.set_aside(self.private(), part)?;
                    tracing::warn!(%error, aside = %aside.display(), "another file appeared and could not be put back");
                    return Ok(Placed::Instead(aside));
                } else {
                    return Ok(Placed::Taken);
                }
            }
        }
        Ok(Placed::Named)
    }

    /// Removes a part file whose output has its name already. A gatherer that was killed during an exchange may have left
    /// another file there, which is moved aside unless it was to be replaced.
    fn discard(&self, part: &Path, target: &Target, digest: &Digest) -> io::Result<()> {
        let replaced = |metadata: &fs::Metadata| target.replaces.is_some_and(|r| r.is(metadata));
        let superfluous = match self.private().file(part)? {
            Some(file) => replaced(&file.metadata()?) || digest_of(file)? == *digest,
            None => false,
        };
        if superfluous {
            self.private().remove_file(part)
        } else {
            self.set_aside(self.private(), part).map(drop)
        }
    }

    fn set_aside(&self, dir: &Dir, file: &Path) -> io::Result<PathBuf> {
        let bad = Path::new(BAD_DIR);
        match self.outputs().make_dir(bad) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // A name of any length fits with what is added to it.
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let end = name.floor_char_boundary(200);
        let aside = bad.join(format!("{}.{}", &name[..end], random_base32::<5>()));
        dir.rename(file, self.outputs(), &aside, RenameFlags::empty())?;
        Ok(self.root().join(aside))
    }

    /// Gives a part file the owner, mode and time of its source. A file system or an owner that cannot have them is noted,
    /// once: see [`without_metadata`](Self::without_metadata).
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn apply_metadata(&self, part: &Path, target: &Target) -> io::Result<()> {
        let part = name_of(part)?;
        let Some(attributes) = &target.attributes else {
            return self.private().stat(part).map(drop);
        };
        match apply_metadata(self.private(), part, attributes) {
            Err(error) if is_unsupported(&error) => {
                self.note_without_metadata(&target.path, &error);
                Ok(())
            }
            applied => applied,
        }
    }
}

/// Renames without replacing; `EEXIST` if something has the name. NFS and some file systems of FUSE cannot: there a second name is made and the first one
/// removed; where that cannot be had either, it is looked first.
///
/// # Errors
///
/// What the system said.
pub fn name_new(from_dir: &Dir, from: &Path, to_dir: &Dir, to: &Path) -> io::Result<()> {
    match from_dir.rename(from, to_dir, to, RenameFlags::NOREPLACE) {
        Err(error) if cannot_flag(&error) => link_new(from_dir, from, to_dir, to),
        renamed => renamed,
    }
}

fn link_new(from_dir: &Dir, from: &Path, to_dir: &Dir, to: &Path) -> io::Result<()> {
    let Err(error) = from_dir.link(from, to_dir, to) else { return from_dir.remove_file(from) };
    match Errno::from_io_error(&error) {
        Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
            if to_dir.metadata(to).is_ok() {
                return Err(Errno::EXIST.into());
            }
            from_dir.rename(from, to_dir, to, RenameFlags::empty())
        }
        _ => Err(error),
    }
}

fn cannot_flag(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As on a file system that cannot rename without replacing.
    #[test]
    fn a_link_gives_a_name_without_replacing_too() {
        let folder = tempfile::tempdir().unwrap();
        let dir = Dir::open(folder.path()).unwrap();
        let (from, to) = (Path::new("from"), Path::new("to"));
        let write = |bytes: &[u8]| fs::write(folder.path().join(from), bytes).unwrap();
        write(b"output");
        link_new(&dir, from, &dir, to).unwrap();
        assert!(!folder.path().join(from).exists());
        write(b"another");
        let refused = link_new(&dir, from, &dir, to).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(folder.path().join(to)).unwrap(), b"output");
        assert_eq!(fs::read(folder.path().join(from)).unwrap(), b"another");
    }
}
