//! Where a drill happens: a temporary folder, with a small disk that can be filled.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bagpress_producer::message;
use tempfile::TempDir;

use super::isolate;

/// The run folders' disk: small enough to be filled, large enough for two bags.
const DISK_BYTES: u64 = 512 << 20;

/// Where a drill happens: a temporary folder, with a disk in it that can be filled.
pub(super) struct DrillFolder {
    folder: Option<TempDir>,
    path: PathBuf,
    disk: Option<PathBuf>,
}

impl DrillFolder {
    pub(super) fn make(dir: &Path, isolated: bool) -> Result<Self> {
        let dir = dir.canonicalize().with_context(|| format!("find {}", dir.display()))?;
        let folder = TempDir::with_prefix_in("drill-", dir).context("make a folder")?;
        let path = folder.path().to_owned();
        for name in ["runs", "inputs", "logs"] {
            fs::create_dir(path.join(name))?;
        }
        let mut disk = isolated.then(|| path.join("runs"));
        if let Some(runs) = &disk
            && let Err(error) = isolate::mount(runs, DISK_BYTES)
        {
            message(&format!("note: {error:#}"));
            disk = None;
        }
        if disk.is_none() {
            message("note: nothing can be mounted here: no disk will be full in this drill");
        }
        Ok(Self { folder: Some(folder), path, disk })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where run folders are.
    pub(super) fn runs(&self) -> PathBuf {
        self.path.join("runs")
    }

    /// The disk of the run folders, if there is one that can be filled.
    pub(super) fn disk(&self) -> Option<PathBuf> {
        self.disk.clone()
    }

    /// Removes all, or says where it stays.
    pub(super) fn end(mut self, good: bool) -> Result<Option<PathBuf>> {
        self.unmount()?;
        match self.folder.take() {
            Some(folder) if good => folder.close().context("remove the folder").map(|()| None),
            Some(folder) => Ok(Some(folder.keep())),
            None => Ok(None),
        }
    }

    fn unmount(&mut self) -> Result<()> {
        self.disk.take().map_or(Ok(()), |disk| isolate::unmount(&disk))
    }
}

impl Drop for DrillFolder {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            message(&format!("note: {error:#}"));
        }
    }
}
