//! One gatherer at a time: the lock of a run folder.

use std::fs::{File, Metadata, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use bagpress_broker::machine;
use bagpress_broker::quote::name;
use bagpress_broker::retry::Retry;

use crate::error::Usage;
use crate::run_folder::folder::{LOCK, RunFolder};

/// Longest process id with its line end.
const PID_BYTES_MAX: u64 = 32;

/// Held by the one gatherer of a run; the kernel gives it back when the process ends.
#[derive(Debug)]
pub struct GatherLock {
    file: File,
    identity: String,
}

impl Drop for GatherLock {
    fn drop(&mut self) {
        // An empty lock file says that nobody holds it; a killed process leaves its id, which is dead.
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
    /// Becomes its one gatherer.
    ///
    /// # Errors
    ///
    /// If another process is, naming it; [`Usage`] if the lock is not to be believed.
    pub fn lock(&self) -> Result<GatherLock> {
        let mut file = loop {
            let file = self.append(LOCK).map_err(|error| self.not_writable(error))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("lock {}", name(self.path())));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Usage::error(
                        format!(
                            "{} is being gathered by process {}",
                            name(self.path()),
                            holder(&file)
                        ),
                        "wait for it, or stop it",
                    ));
                }
            }
            // The holder before may have removed the file meanwhile: then it locks nothing.
            let held = file.metadata().context("lock the run folder")?.ino();
            let there = self.held().metadata(Path::new(LOCK));
            if there.is_ok_and(|there| there.ino() == held) {
                break file;
            }
        };
        file.set_len(0).context("lock the run folder")?;
        writeln!(file, "{}", std::process::id()).context("lock the run folder")?;
        let metadata = file.metadata().context("lock the run folder")?;
        Ok(GatherLock { file, identity: identity(&metadata) })
    }

    /// As [`lock`](Self::lock), and waits for as long as `patience` for its holder to end.
    ///
    /// # Errors
    ///
    /// As [`lock`](Self::lock).
    pub async fn lock_within(&self, patience: Duration) -> Result<GatherLock> {
        Retry::within(patience).run(async || self.lock(), |_| true).await
    }

    /// Removes what [`make`](Self::make) made, when the bag was refused after all: nothing that has
    /// something in it.
    pub(crate) fn remove_unused(&self, lock: GatherLock) {
        self.remove(LOCK).ok();
        self.remove_empty();
        // Held until now: nobody else makes a run of this name meanwhile.
        drop(lock);
    }

    /// Whether the gatherer that held the lock of this `identity` has ended: the lock is this folder's, and nobody holds it.
    pub(crate) fn has_ended(&self, identity: &str) -> bool {
        let lock = self.open(LOCK).ok().flatten().and_then(|file| file.metadata().ok());
        let is_this = lock.is_some_and(|metadata| self::identity(&metadata) == identity);
        is_this && !machine::boot_id().is_empty() && self.gatherer().is_none()
    }

    /// The process of this machine that gathers the run now, if one does.
    #[must_use]
    pub fn gatherer(&self) -> Option<u32> {
        let file = self.open(LOCK).ok()??;
        let pid: u32 = holder(&file).parse().ok()?;
        // Another process may have got the id of a killed one: the lock itself tells. It is not even
        // tried where nobody of that id lives, so that looking keeps no gatherer from starting.
        let is_locked = || matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
        (machine::lives(pid) && is_locked()).then_some(pid)
    }
}

/// Which lock a file is: kernel, device and inode.
fn identity(file: &Metadata) -> String {
    format!("{}/{}:{}", machine::boot_id(), file.dev(), file.ino())
}

/// What the holder of a lock has written into it.
fn holder(file: &File) -> String {
    let mut text = String::new();
    // A lock that cannot be read names nobody.
    file.take(PID_BYTES_MAX).read_to_string(&mut text).ok();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use bagpress_broker::descriptor::ResultPath;

    use super::*;
    use crate::run_folder::trust::Trust;

    fn make(place: &Path) -> RunFolder {
        let run = "t".parse().unwrap();
        RunFolder::make(place, &run, ResultPath::Staged, Trust::Ours).unwrap()
    }

    #[test]
    fn who_comes_at_the_same_time_gets_the_lock_or_is_told_who_has_it() {
        let place = tempfile::tempdir().unwrap();
        let folder = make(place.path());
        let locks = || {
            for _ in 0..300 {
                match folder.lock() {
                    // As a run that is refused does.
                    Ok(_lock) => folder.remove(LOCK).unwrap(),
                    Err(error) => {
                        assert!(error.to_string().contains("is being gathered"), "{error:#}");
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(locks);
            }
        });
    }

    #[test]
    fn a_process_that_got_the_id_of_a_killed_gatherer_is_none() {
        let place = tempfile::tempdir().unwrap();
        let folder = make(place.path());
        let ours = std::process::id();
        // As a killed gatherer leaves it, whose id we have got.
        std::fs::write(folder.path().join(".lock"), format!("{ours}\n")).unwrap();
        assert_eq!(folder.gatherer(), None);
        let lock = folder.lock().unwrap();
        assert_eq!(folder.gatherer(), Some(ours));
        let identity = lock.identity().to_owned();
        assert!(!folder.has_ended(&identity));
        drop(lock);
        assert_eq!(folder.gatherer(), None);
        // The lock tells of its own holders, and of no others.
        assert!(folder.has_ended(&identity));
        assert!(!folder.has_ended(&format!("{identity}1")));
        std::fs::write(folder.path().join(".lock"), format!("{ours}\n")).unwrap();
        assert!(folder.has_ended(&identity));
    }
}
