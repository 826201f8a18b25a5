//! A run's folder: where everything is that one run leaves behind.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::ids::RunName;
use bagpress_broker::quote::name;
use bagpress_broker::{limits, machine};
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
    file: File,
    identity: String,
}

impl Drop for GatherLock {
    fn drop(&mut self) {
        // Whoever looks sees that nobody holds it; a killed process leaves its id, which is dead.
        self.file.set_len(0).ok();
    }
}

impl GatherLock {
    /// Which lock this is: kernel, device and inode. No two processes hold the same one.
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }
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
            |inside| format!("did you mean {}?", bagpress_broker::quote::name(path.join(inside))),
        );
        Err(Usage::error(
            format!("{} is no run folder: it has no bag.json", bagpress_broker::quote::name(path)),
            hint,
        ))
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
                    format!(
                        "the run folder {} cannot be made: {error}",
                        bagpress_broker::quote::name(&folder)
                    ),
                    "choose a writable place with --runs DIR",
                )
            })?;
        }
        let probe = self.path.join(".lock");
        OpenOptions::new().create(true).append(true).open(&probe).map_err(|error| {
            Usage::error(
                format!(
                    "the run folder {} is not writable: {error}",
                    bagpress_broker::quote::name(&self.path)
                ),
                "choose a writable place with --runs DIR",
            )
        })?;
        Ok(())
    }

    /// Removes what [`create`](Self::create) made, when the bag was refused after all: nothing that has
    /// something in it.
    pub(crate) fn remove_unused(&self, lock: GatherLock) {
        fs::remove_file(self.path.join(".lock")).ok();
        self.remove_empty();
        drop(lock);
    }

    /// Removes those of the folders that are empty.
    pub(crate) fn remove_empty(&self) {
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
        let mut file = loop {
            let file =
                OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
            let file = file.map_err(|error| {
                Usage::error(
                    format!("the run folder {} is not writable: {error}", name(&self.path)),
                    "choose a writable place with --runs DIR",
                )
            })?;
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                return Err(Usage::error(
                    format!("{} is being gathered by process {}", name(&self.path), holder.trim()),
                    "wait for it, or stop it",
                ));
            }
            // Whoever held it before may have removed the file meanwhile: then it locks nothing.
            let held = file.metadata().context("lock the run folder")?.ino();
            if fs::metadata(&path).is_ok_and(|there| there.ino() == held) {
                break file;
            }
        };
        file.set_len(0).context("lock the run folder")?;
        writeln!(file, "{}", std::process::id()).context("lock the run folder")?;
        let metadata = file.metadata().context("lock the run folder")?;
        let kernel = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let identity = format!("{}/{}:{}", kernel.trim(), metadata.dev(), metadata.ino());
        Ok(GatherLock { file, identity })
    }

    /// As [`lock`](Self::lock), and waits for as long as `patience` for its holder to end.
    ///
    /// # Errors
    ///
    /// As [`lock`](Self::lock).
    pub async fn lock_within(&self, patience: Duration) -> Result<GatherLock> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            match self.lock() {
                Err(_) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(limits::RETRY_WAIT).await;
                }
                locked => return locked,
            }
        }
    }

    /// The process of this machine that gathers the run now, if one does.
    #[must_use]
    pub fn gatherer(&self) -> Option<u32> {
        let holder = fs::read_to_string(self.path.join(".lock")).ok()?;
        let pid: u32 = holder.trim().parse().ok()?;
        // Another process may have got the id of a killed one: the lock itself tells. It is not even
        // tried where nobody of that id lives, so that looking keeps no gatherer from starting.
        (machine::lives(pid) && self.is_locked()).then_some(pid)
    }

    fn is_locked(&self) -> bool {
        let Ok(file) = File::open(self.path.join(".lock")) else { return false };
        flock(&file, FlockOperation::NonBlockingLockShared).is_err()
    }

    /// Where the run's bag is: `local`, or the server's URL, without what lets one in.
    #[must_use]
    pub fn server(&self) -> Option<String> {
        let server = fs::read_to_string(self.path.join("server.txt")).ok()?;
        Some(server.trim().to_owned())
    }

    /// Notes where the run's bag is; none is its own server.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn note_server(&self, url: Option<&str>) -> Result<()> {
        let without_secrets = |url: &str| match url.split_once("://") {
            Some((scheme, rest)) => {
                format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
            }
            None => url.rsplit_once('@').map_or(url, |(_, host)| host).to_owned(),
        };
        let urls = |all: &str| all.split(',').map(without_secrets).collect::<Vec<_>>().join(",");
        let server = url.map_or_else(|| "local".to_owned(), urls);
        let path = self.path.join("server.txt");
        fs::write(&path, server + "\n")
            .with_context(|| format!("write {}", bagpress_broker::quote::name(&path)))
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

    /// `folders.jsonl`: the folders without files of a bag of files.
    #[must_use]
    pub(crate) fn folders(&self) -> PathBuf {
        self.path.join("folders.jsonl")
    }

    /// `manifest.jsonl`: the ledger.
    #[must_use]
    pub fn manifest(&self) -> PathBuf {
        self.path.join("manifest.jsonl")
    }

    /// `attempts.jsonl`: why deliveries were given back, when the server that knew is gone.
    #[must_use]
    pub fn attempts(&self) -> PathBuf {
        self.path.join("attempts.jsonl")
    }

    /// `failed.txt`: the failed tasks, if there are any when it is summed up.
    #[must_use]
    pub fn failed(&self) -> PathBuf {
        self.path.join("failed.txt")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_got_the_id_of_a_killed_gatherer_is_none() {
        let place = tempfile::tempdir().unwrap();
        let folder = RunFolder { path: place.path().to_owned() };
        let ours = std::process::id();
        // As a killed gatherer leaves it, whose id we have got.
        fs::write(folder.path().join(".lock"), format!("{ours}\n")).unwrap();
        assert_eq!(folder.gatherer(), None);
        let lock = folder.lock().unwrap();
        assert_eq!(folder.gatherer(), Some(ours));
        drop(lock);
        assert_eq!(folder.gatherer(), None);
    }
}
