//! Where what was found goes: the lists of a run folder.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bagpress_codec::{Digest, Hasher};

use super::InputEntry;
use super::folders::FolderEntry;
use crate::folder::RunFolder;

/// Who is told what was found.
pub(crate) trait Sink {
    /// A task; `shown` is the file as its user called it.
    fn file(&mut self, shown: &Path, entry: &InputEntry) -> Result<()>;
    /// A folder without files.
    fn folder(&mut self, entry: &FolderEntry) -> Result<()>;
}

/// The lists of a bag that is not specified yet. Dropping them removes what has no name yet.
#[derive(Debug)]
pub(crate) struct Lists {
    inputs: List,
    folders: Option<List>,
    folders_path: PathBuf,
    hasher: Hasher,
}

impl Lists {
    /// Begins them in a run's folder.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn create(folder: &RunFolder) -> Result<Self> {
        let id = std::process::id();
        let inputs = List::create(folder.path().join(format!("inputs.{id}")))?;
        let folders_path = folder.path().join(format!("folders.{id}"));
        Ok(Self { inputs, folders: None, folders_path, hasher: Hasher::new() })
    }

    /// Ends them, gives them their names, and tells the digest of the list of inputs.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn finish(mut self) -> Result<Finished> {
        self.inputs.sync()?;
        if let Some(folders) = &mut self.folders {
            folders.sync()?;
        }
        let Self { inputs, folders, hasher, .. } = self;
        Ok(Finished { inputs, folders, digest: hasher.finish() })
    }
}

impl Sink for Lists {
    fn file(&mut self, _: &Path, entry: &InputEntry) -> Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.hasher.update(&line);
        self.inputs.write(&line)
    }

    fn folder(&mut self, entry: &FolderEntry) -> Result<()> {
        let list = match &mut self.folders {
            Some(list) => list,
            none => none.insert(List::create(self.folders_path.clone())?),
        };
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        list.write(&line)
    }
}

/// Lists that are whole and durable, without a name yet.
#[derive(Debug)]
pub(crate) struct Finished {
    inputs: List,
    folders: Option<List>,
    /// Of the list of inputs.
    pub(crate) digest: Digest,
}

impl Finished {
    /// Gives them their names in the run's folder.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn name(self, folder: &RunFolder) -> Result<()> {
        self.inputs.name(&folder.inputs())?;
        match self.folders {
            Some(list) => list.name(&folder.folders()),
            None => Ok(()),
        }
    }

    /// Where the list of folders is meanwhile.
    pub(crate) fn folders(&self) -> Option<&Path> {
        self.folders.as_ref().map(|list| list.path.as_path())
    }
}

#[derive(Debug)]
struct List {
    path: PathBuf,
    writer: BufWriter<File>,
    named: bool,
}

impl Drop for List {
    fn drop(&mut self) {
        if !self.named {
            fs::remove_file(&self.path).ok();
        }
    }
}

impl List {
    fn create(path: PathBuf) -> Result<Self> {
        let file = File::create(&path).with_context(|| format!("write {}", path.display()))?;
        Ok(Self { path, writer: BufWriter::new(file), named: false })
    }

    fn write(&mut self, line: &[u8]) -> Result<()> {
        let written = self.writer.write_all(line);
        written.with_context(|| format!("write {}", self.path.display()))
    }

    fn sync(&mut self) -> Result<()> {
        let synced = self.writer.flush().and_then(|()| self.writer.get_ref().sync_all());
        synced.with_context(|| format!("write {}", self.path.display()))
    }

    fn name(mut self, path: &Path) -> Result<()> {
        fs::rename(&self.path, path).with_context(|| format!("write {}", path.display()))?;
        self.named = true;
        Ok(())
    }
}
