//! Where what was found goes: the lists of a run folder.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use bagpress_broker::quote;
use bagpress_codec::{Digest, Hasher};

use super::folders::FolderEntry;
use super::{InputEntry, InputList};
use crate::run_folder::earlier::EarlierOutput;
use crate::run_folder::folder::{EARLIER, FOLDERS, INPUTS, RunFolder, TWINS};
use crate::run_folder::twins::Twin;

/// Receives what was found.
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
    folder: RunFolder,
    hasher: Hasher,
}

impl Lists {
    /// Begins them in a run's folder.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn create(folder: &RunFolder) -> Result<Self> {
        let inputs = List::create(folder, "inputs")?;
        Ok(Self { inputs, folders: None, folder: folder.clone(), hasher: Hasher::new() })
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
        let digest = hasher.finish();
        Ok(Finished { inputs, folders, twins: None, earlier: None, digest })
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
            none => none.insert(List::create(&self.folder, "folders")?),
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
    twins: Option<List>,
    earlier: Option<List>,
    /// Of the list of inputs.
    pub(crate) digest: Digest,
}

impl Finished {
    /// Gives them their names.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn name(self) -> Result<()> {
        self.twins.map_or(Ok(()), |list| list.rename(TWINS))?;
        self.earlier.map_or(Ok(()), |list| list.rename(EARLIER))?;
        self.inputs.rename(INPUTS)?;
        self.folders.map_or(Ok(()), |list| list.rename(FOLDERS))
    }

    /// The list of inputs, to be read.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn inputs(&self) -> Result<InputList> {
        let List { folder, name, .. } = &self.inputs;
        let absent = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let file = folder.open(name)?.ok_or_else(absent);
        let list = file.and_then(InputList::of);
        list.with_context(|| format!("read {}", quote::name(folder.at(name))))
    }

    /// Lists a file that seems to have the content of another one.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn twin(&mut self, twin: Twin) -> Result<()> {
        let list = match &mut self.twins {
            Some(list) => list,
            none => none.insert(List::create(&self.inputs.folder, "twins")?),
        };
        let mut line = serde_json::to_vec(&twin)?;
        line.push(b'\n');
        list.write(&line)
    }

    /// Makes what [`twin`](Self::twin) listed durable.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn end_twins(&mut self) -> Result<()> {
        self.twins.as_mut().map_or(Ok(()), List::sync)
    }

    /// Lists an output of an earlier run that files may have.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn earlier(&mut self, output: &EarlierOutput) -> Result<()> {
        let list = match &mut self.earlier {
            Some(list) => list,
            none => none.insert(List::create(&self.inputs.folder, "earlier")?),
        };
        let mut line = serde_json::to_vec(output)?;
        line.push(b'\n');
        list.write(&line)
    }

    /// Makes what [`earlier`](Self::earlier) listed durable.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn end_earlier(&mut self) -> Result<()> {
        self.earlier.as_mut().map_or(Ok(()), List::sync)
    }

    /// The list of folders, to be read.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn folders(&self) -> Result<Option<File>> {
        self.folders.as_ref().map_or(Ok(None), |list| list.folder.open(&list.name))
    }
}

/// Lists the twins of a bag without a list of inputs, durably.
///
/// # Errors
///
/// What the system said.
pub(crate) fn list_alone(folder: &RunFolder, twins: impl Iterator<Item = Twin>) -> Result<()> {
    let mut list: Option<List> = None;
    for twin in twins {
        let list = match &mut list {
            Some(list) => list,
            none => none.insert(List::create(folder, "twins")?),
        };
        let mut line = serde_json::to_vec(&twin)?;
        line.push(b'\n');
        list.write(&line)?;
    }
    let Some(mut list) = list else { return Ok(()) };
    list.sync()?;
    list.rename(TWINS)
}

#[derive(Debug)]
struct List {
    folder: RunFolder,
    name: String,
    writer: BufWriter<File>,
    named: bool,
}

impl Drop for List {
    fn drop(&mut self) {
        if !self.named {
            self.folder.remove(&self.name).ok();
        }
    }
}

impl List {
    fn create(folder: &RunFolder, kind: &str) -> Result<Self> {
        let (folder, name) = (folder.clone(), format!("{kind}.{}", std::process::id()));
        let file = folder.create(&name);
        let file = file.with_context(|| format!("write {}", quote::name(folder.at(&name))))?;
        Ok(Self { folder, name, writer: BufWriter::new(file), named: false })
    }

    fn at(&self) -> String {
        format!("write {}", quote::name(self.folder.at(&self.name)))
    }

    fn write(&mut self, line: &[u8]) -> Result<()> {
        let written = self.writer.write_all(line);
        written.with_context(|| self.at())
    }

    fn sync(&mut self) -> Result<()> {
        let synced = self.writer.flush().and_then(|()| self.writer.get_ref().sync_all());
        synced.with_context(|| self.at())
    }

    fn rename(mut self, to: &str) -> Result<()> {
        self.folder.rename(&self.name, to).with_context(|| self.at())?;
        self.named = true;
        Ok(())
    }
}
