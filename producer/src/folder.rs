//! A run's folder: where everything is that one run leaves behind.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::ids::RunName;
use rustix::fs::{FlockOperation, flock};

use crate::Usage;

/// `runs/<name>/<staged|objects>/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

/// Held by the one gatherer of a run; the kernel gives it back when the process ends.
#[derive(Debug)]
pub struct GatherLock {
    _file: File,
}

impl RunFolder {
    /// The folder of run `name`, with results by `results`, below `runs`.
    #[must_use]
    pub fn of(runs: &Path, name: &RunName, results: ResultPath) -> Self {
        Self { path: runs.join(name.as_str()).join(results.as_str()) }
    }

    /// A folder that somebody named.
    ///
    /// # Errors
    ///
    /// If it holds no run.
    pub fn existing(path: &Path) -> Result<Self> {
        let folder = Self { path: path.to_owned() };
        if folder.specification().is_file() {
            return Ok(folder);
        }
        let inside = ["staged", "objects"].iter().find(|p| path.join(p).join("bag.json").is_file());
        let hint = inside.map_or_else(
            || "name the folder that holds bag.json, such as runs/NAME/staged".to_owned(),
            |inside| format!("did you mean {}?", path.join(inside).display()),
        );
        Err(Usage::error(format!("{} is no run folder: it has no bag.json", path.display()), hint))
    }

    /// Makes the folder, and those in it.
    ///
    /// # Errors
    ///
    /// If that is not possible, naming the folder.
    pub fn create(&self) -> Result<()> {
        for folder in [self.results(), self.logs()] {
            fs::create_dir_all(&folder).map_err(|error| {
                Usage::error(
                    format!("the run folder {} cannot be made: {error}", folder.display()),
                    "choose a writable place with --runs DIR",
                )
            })?;
        }
        let probe = self.path.join(".lock");
        OpenOptions::new().create(true).append(true).open(&probe).map_err(|error| {
            Usage::error(
                format!("the run folder {} is not writable: {error}", self.path.display()),
                "choose a writable place with --runs DIR",
            )
        })?;
        Ok(())
    }

    /// Removes what [`create`](Self::create) made, when the bag was refused after all: nothing that has
    /// something in it.
    pub(crate) fn remove_unused(&self) {
        fs::remove_file(self.path.join(".lock")).ok();
        let mut folders = vec![self.results(), self.logs(), self.path.clone()];
        folders.extend(self.path.parent().map(Path::to_owned));
        for folder in folders {
            fs::remove_dir(folder).ok();
        }
    }

    /// Becomes its one gatherer.
    ///
    /// # Errors
    ///
    /// If another process is, naming it.
    pub fn lock(&self) -> Result<GatherLock> {
        let path = self.path.join(".lock");
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.as_mut().map_err(|error| {
            Usage::error(
                format!("the run folder {} is not writable: {error}", self.path.display()),
                "choose a writable place with --runs DIR",
            )
        })?;
        let mut file = file.try_clone().context("lock the run folder")?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let holder = fs::read_to_string(&path).unwrap_or_default();
            return Err(Usage::error(
                format!("{} is being gathered by process {}", self.path.display(), holder.trim()),
                "wait for it, or stop it",
            ));
        }
        file.set_len(0).context("lock the run folder")?;
        writeln!(file, "{}", std::process::id()).context("lock the run folder")?;
        Ok(GatherLock { _file: file })
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `bag.json`: the specification.
    #[must_use]
    pub fn specification(&self) -> PathBuf {
        self.path.join("bag.json")
    }

    /// `inputs.jsonl`: the files of a bag of files.
    #[must_use]
    pub fn inputs(&self) -> PathBuf {
        self.path.join("inputs.jsonl")
    }

    /// `manifest.jsonl`: the ledger.
    #[must_use]
    pub fn manifest(&self) -> PathBuf {
        self.path.join("manifest.jsonl")
    }

    /// `results/`.
    #[must_use]
    pub fn results(&self) -> PathBuf {
        self.path.join("results")
    }

    /// `logs/`.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// `.broker/`: the store of the run's own server.
    #[must_use]
    pub fn broker(&self) -> PathBuf {
        self.path.join(".broker")
    }
}
