//! What the receiver asks the disk for: in turns, with a bound on the waiting, and what it is told of errors.

use std::sync::Arc;

use bagpress_broker::limits;
use bagpress_broker::result::Failed;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tracing::debug;

use super::parts::{Parts, UnderWay};
use super::receiver::Shared;
use crate::output_failed;
use crate::trouble::{Trouble, is_full};

impl Shared {
    /// Why a task's output, of which `bytes` more are about to come, is to wait.
    pub(super) fn no_room(&self, index: u32, bytes: u64) -> Option<String> {
        let hangs = self.parts.hangs();
        hangs.or_else(|| self.room.refuses(&self.parts, index, bytes))
    }

    /// The same behind an OPEN, when `arrived` bytes of it are there: if they have no room, how much does not fit is noted.
    pub(super) fn no_room_for(&self, index: u32, arrived: u64, bytes: u64) -> Option<String> {
        let why = self.no_room(index, bytes);
        // A disk that hangs says nothing of its room.
        if why.is_some() && self.parts.lacks(bytes).is_some() {
            self.found_no_room(index, arrived + bytes);
        }
        why
    }

    /// Notes that a task's output found no room after so many bytes. What is needed is more than that, and not more than
    /// its codec can make of its input.
    pub(super) fn found_no_room(&self, index: u32, bytes: u64) {
        let name = self.plan.target(index).map(|target| target.path).unwrap_or_default();
        let input = self.plan.input(index).map_or(u64::MAX, |input| input.bytes);
        let most = if input == u64::MAX { input } else { self.plan.output_bytes_max(input) };
        self.room.note(index, bytes, most, &name);
    }

    /// The same where a disk said so: if it has more bytes free than that, it is something else that is used up.
    pub(super) fn was_full(&self, index: u32, bytes: u64) {
        self.found_no_room(index, bytes);
        if self.parts.lacks(bytes).is_none() {
            self.room.full_after_all(&self.parts);
        }
    }

    /// What a worker is told whose output could not be written after `bytes` of it: to come again, or that it never can.
    pub(super) fn not_written(
        &self,
        index: u32,
        bytes: u64,
        error: &std::io::Error,
    ) -> Result<Failed, String> {
        let failed = output_failed("write the part file", error);
        match self.parts.trouble(error) {
            Trouble::Passes => {
                if is_full(error) {
                    self.was_full(index, bytes);
                } else {
                    self.inputs.close();
                    self.room.hold_up(&failed.message);
                }
                Err(failed.message)
            }
            Trouble::Run => {
                self.room.lose(self.parts.gone().unwrap_or_else(|| failed.message.clone()));
                Err(failed.message)
            }
            Trouble::Own => Ok(failed),
        }
    }

    /// Does what may wait for the disk, or says that it waits; then it is done some time, for nobody, or never if its
    /// turn had not come.
    pub(super) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<std::io::Result<T>, String> {
        let working = on_disk(self.disk.clone(), self.parts.clone(), |_| work());
        match tokio::time::timeout(limits::DISK_WAIT, working).await {
            Ok(done) => Ok(done),
            Err(_) => Err(self.parts.unanswered(limits::DISK_WAIT)),
        }
    }

    /// Removes a part file before anything is answered, unless the disk hangs: then some time.
    pub(super) async fn remove_first(&self, part: &std::path::Path) {
        let removing = self.remove(part);
        tokio::time::timeout(limits::DISK_WAIT, removing).await.ok();
    }

    /// Removes a part file some time, whether or not that is waited for.
    pub(super) fn remove(&self, part: &std::path::Path) -> tokio::task::JoinHandle<()> {
        let (disk, parts, part) = (self.disk.clone(), self.parts.clone(), part.to_owned());
        tokio::spawn(async move {
            let (path, ours) = (part.clone(), parts.clone());
            let removed = on_disk(disk, parts, move |_| ours.remove_part(&path)).await;
            debug!(ok = removed.is_ok(), part = %part.display(), "part file removed");
        })
    }
}

/// Does what may wait for the disk when its turn comes, on a thread of its own. Once begun, it is done even if nobody
/// waits for it any more.
pub(super) async fn on_disk<T: Send + 'static>(
    disk: Arc<Semaphore>,
    parts: Arc<Parts>,
    work: impl FnOnce(&mut UnderWay) -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    let turn = disk.acquire_owned().await;
    // Only now: whoever waits for a turn does not wait for the disk.
    let under_way = parts.begin();
    // Back with what was done, so that the thread is idle before whoever is next looks for one.
    let working = spawn_blocking(move || {
        let mut under_way = under_way;
        let done = work(&mut under_way);
        drop(under_way);
        (done, turn)
    });
    match working.await {
        Ok((done, _turn)) => done,
        Err(error) => Err(std::io::Error::other(error)),
    }
}
