//! The files of a run folder: opened by name in the folder that is held, believed only if [`Trust`] allows it, and written
//! so that no link that somebody has put there is written through.
//!
//! [`Trust`]: crate::run_folder::trust::Trust

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use bagpress_broker::quote::name;
use rustix::fs::{OFlags, RenameFlags, fcntl_setfl, fstat};

use crate::run_folder::folder::{LOGS, RunFolder, is_no_file};

/// How often a file that others make and remove at the same time is opened again.
const RACES_MAX: usize = 16;

impl RunFolder {
    /// Opens a file of it that says what is done; none if it is not there.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::error::Usage) if it is not believed, or a link, or no file; what the system said.
    pub(crate) fn open(&self, inside: &str) -> Result<Option<File>> {
        match self.held().file(Path::new(inside)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", name(self.at(inside)))),
            Ok(None) => Err(self.no_file(inside)),
            Ok(Some(file)) => self.believed(inside, file).map(Some),
        }
    }

    /// As [`open`](Self::open), of a file that must be there, and reads it.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); if it is not there.
    pub(crate) fn read(&self, inside: &str) -> Result<Vec<u8>> {
        let context = || format!("read {}", name(self.at(inside)));
        let file = self.open(inside)?;
        let absent = || io::Error::from(io::ErrorKind::NotFound);
        let mut file = file.ok_or_else(absent).with_context(context)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).with_context(context)?;
        Ok(text)
    }

    /// Opens a file of it that says what is done, to read it and to append to it; it is made if it is not there.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub(crate) fn append(&self, inside: &str) -> Result<File> {
        self.believed(inside, self.append_to(inside)?)
    }

    /// Opens a log of it, to append to it.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::error::Usage) for a link; what the system said.
    pub fn log(&self, log: &str) -> Result<File> {
        self.append_to(&format!("{LOGS}/{log}"))
    }

    fn append_to(&self, inside: &str) -> Result<File> {
        let path = Path::new(inside);
        let once = || match self.held().write(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.held().create(path),
            opened => opened,
        };
        // Another process may make or remove it between the two steps.
        let settled = |opened: &io::Result<File>| {
            let kind = opened.as_ref().err().map(io::Error::kind);
            !matches!(kind, Some(io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound))
        };
        let mut tries = std::iter::repeat_with(once).take(RACES_MAX);
        let opened = tries.find(settled).unwrap_or_else(once);
        let file = match opened {
            Err(error) if is_no_file(&error) => return Err(self.no_file(inside)),
            opened => opened.with_context(|| format!("write {}", name(self.at(inside))))?,
        };
        fcntl_setfl(&file, OFlags::APPEND)?;
        Ok(file)
    }

    fn believed(&self, inside: &str, file: File) -> Result<File> {
        self.trust().check(&self.at(inside), &fstat(&file)?)?;
        Ok(file)
    }

    /// Whether a file of this name is in it.
    #[must_use]
    pub(crate) fn has(&self, inside: &str) -> bool {
        self.held().metadata(Path::new(inside)).is_ok_and(|found| found.is_file())
    }

    /// Makes a file again, whatever had its name.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn create(&self, inside: &str) -> io::Result<File> {
        self.remove(inside)?;
        self.held().create(Path::new(inside))
    }

    /// Gives a file of it another name, in the place of what has that.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.held().rename(Path::new(from), self.held(), Path::new(to), RenameFlags::empty())
    }

    /// Removes a file of it, or a link itself; that it is not there is fine.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn remove(&self, inside: &str) -> io::Result<()> {
        self.held().remove_file(Path::new(inside))
    }

    /// Writes a file so that after a crash it is whole or not there.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn write_durably(&self, inside: &str, bytes: &[u8]) -> Result<()> {
        self.write_durably_by(inside, |file| {
            let written = file.write_all(bytes);
            written.with_context(|| format!("write {}", name(self.at(inside))))
        })
    }

    /// The same, of what `write` writes.
    ///
    /// By hand, where `tempfile` would do it for a path: every name here is one in the folder that is held.
    ///
    /// # Errors
    ///
    /// What `write` or the system said.
    pub(crate) fn write_durably_by(
        &self,
        inside: &str,
        write: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
    ) -> Result<()> {
        let context = || format!("write {}", name(self.at(inside)));
        let part = part_of(inside);
        let mut file = BufWriter::new(self.create(&part).with_context(context)?);
        write(&mut file)?;
        let finish = || -> io::Result<()> {
            file.into_inner()?.sync_all()?;
            self.rename(&part, inside)?;
            self.held().itself()?.sync_all()
        };
        finish().with_context(context)
    }
}

/// What a file is called that is to become `inside`: who dies while it is written leaves it behind.
pub(crate) fn part_of(inside: &str) -> String {
    Path::new(inside).with_extension("part").to_string_lossy().into_owned()
}
