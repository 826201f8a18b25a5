//! Work that waits for the outputs' disk: in turns, each on a thread of its own, with a bound on how long workers wait.

use std::path::Path;
use std::sync::Arc;

use bagpress_broker::limits;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tracing::debug;

use crate::staging::parts::{Parts, UnderWay};

/// The disk of a bag's outputs. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    parts: Arc<Parts>,
    /// What may wait for it at a time; the rest waits for its turn, without a thread.
    turns: Arc<Semaphore>,
}

impl Disk {
    pub(super) fn new(parts: Arc<Parts>) -> Self {
        Self { parts, turns: Arc::new(Semaphore::new(limits::file_threads())) }
    }

    /// Does `work` when its turn comes. Once begun, it is done even if nobody waits for it any more.
    ///
    /// # Errors
    ///
    /// In words, if its thread has panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut UnderWay) -> T + Send + 'static,
    ) -> Result<T, String> {
        let turn = self.turns.clone().acquire_owned().await;
        // Only now: waiting for a turn is not waiting for the disk.
        let mut under_way = self.parts.begin();
        // Back with what was done, so that the thread is idle before the next job looks for one.
        let working = spawn_blocking(move || {
            let done = work(&mut under_way);
            drop(under_way);
            (done, turn)
        });
        let (done, _turn) = working.await.map_err(|error| error.to_string())?;
        Ok(done)
    }

    /// The same for a worker that waits: after [`limits::DISK_WAIT`] it is done some time, for nobody, or never if its turn
    /// had not come.
    ///
    /// # Errors
    ///
    /// Also that the disk has not answered.
    pub(super) async fn run_within<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        match timeout(limits::DISK_WAIT, self.run(|_| work())).await {
            Ok(done) => done,
            Err(_) => Err(self.parts.unanswered(limits::DISK_WAIT)),
        }
    }

    /// Removes a part file before anything is answered, unless the disk hangs: then some time.
    pub(super) async fn remove_first(&self, part: &Path) {
        // Either way it is removed; what came of it is in the log.
        timeout(limits::DISK_WAIT, self.remove(part)).await.ok();
    }

    /// Removes a part file some time, whether or not that is waited for.
    pub(super) fn remove(&self, part: &Path) -> JoinHandle<()> {
        let (disk, part) = (self.clone(), part.to_owned());
        tokio::spawn(async move {
            let (parts, path) = (disk.parts.clone(), part.clone());
            let removed = disk.run(move |_| parts.remove_part(&path)).await;
            debug!(ok = matches!(removed, Ok(Ok(()))), part = %part.display(), "part file removed");
        })
    }
}
