//! Where a range goes: to stdout, or into a file that has its name only once it is whole.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bagpress_broker::ids::random_base32;
use bagpress_broker::quote::name;
use bagpress_objstore::beneath::Dir;
use rustix::fs::{Mode, RenameFlags, fchmod};
use rustix::io::Errno;

use crate::error::Usage;

/// A file that is being written, under another name. Dropping it removes it.
pub(super) struct NewFile {
    folder: Dir,
    part: PathBuf,
    name: PathBuf,
    shown: PathBuf,
    file: File,
    overwrite: bool,
}

impl NewFile {
    /// Makes it beside where it is to be, as open as `mode` is but for what nobody may do with an output.
    ///
    /// # Errors
    ///
    /// [`Usage`] if it cannot be there.
    pub(super) fn make(path: &Path, overwrite: bool, mode: u32) -> Result<Self> {
        let shown = path.to_owned();
        let taken = |what: &str, hint| Err(Usage::error(format!("{} {what}", name(path)), hint));
        let Some(file_name) = path.file_name().filter(|_| !path.is_dir()) else {
            return taken(
                "is a folder",
                "a range goes to one file: --out FILE, or to stdout: --out -",
            );
        };
        if !overwrite && path.symlink_metadata().is_ok() {
            return taken("exists", "choose another --out, or replace it with --overwrite");
        }
        let above = path.parent().filter(|above| !above.as_os_str().is_empty());
        let above = above.unwrap_or(Path::new("."));
        let part = PathBuf::from(format!(".bagpress-range-{}", random_base32::<8>()));
        let opened = Dir::open(above).and_then(|folder| Ok((folder.create(&part)?, folder)));
        let (file, folder) = opened.map_err(|error| {
            Usage::error(
                format!("{} cannot be made: {error}", name(path)),
                "name a file in a folder that is there and writable, or --out - for stdout",
            )
        })?;
        let new = Self { folder, part, name: file_name.into(), shown, file, overwrite };
        fchmod(&new.file, Mode::from_raw_mode(mode & 0o666)).context("set its mode")?;
        Ok(new)
    }

    /// Gives it its name, durably.
    ///
    /// # Errors
    ///
    /// What the system said; [`Usage`] if something has the name by now.
    pub(super) fn finish(self) -> Result<()> {
        self.file.sync_all()?;
        let rename = |flags| self.folder.rename(&self.part, &self.folder, &self.name, flags);
        let named = if self.overwrite {
            rename(RenameFlags::empty())
        } else {
            match rename(RenameFlags::NOREPLACE) {
                // Where names cannot be given so, a second name is never one that was there.
                Err(error)
                    if matches!(
                        Errno::from_io_error(&error),
                        Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
                    ) =>
                {
                    self.folder.link(&self.part, &self.folder, &self.name)
                }
                renamed => renamed,
            }
        };
        named.with_context(|| format!("give {} its name", name(&self.shown)))?;
        self.folder.itself()?.sync_all()?;
        Ok(())
    }
}

impl Write for NewFile {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.file.write(piece)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // It is not there any more once it has its name.
        self.folder.remove_file(&self.part).ok();
    }
}
