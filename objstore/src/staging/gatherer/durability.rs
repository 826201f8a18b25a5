//! After CLOSE: hashes the part file if needed, syncs it, and answers.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bagpress_broker::ids::Execution;
use bagpress_broker::{limits, quote};
use bagpress_codec::Digest;
use tokio::sync::{Semaphore, watch};

use super::disk::Disk;
use super::outputs::Outputs;
use crate::staging::messages::{Close, Closed};
use crate::staging::parts::Syncer;

/// What is known of a part file before it is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// It was hashed as it came.
    Whole,
    /// Somebody else wrote it: it is read back.
    ReadBack,
}

/// Makes outputs durable, each with the answer to its CLOSE once there is one.
#[derive(Debug)]
pub(super) struct Durability {
    outputs: Arc<Outputs>,
    disk: Disk,
    syncer: Syncer,
    /// Large outputs that may be read back at a time.
    large: Semaphore,
    pending: Mutex<HashMap<Execution, Pending>>,
}

#[derive(Debug, Clone)]
struct Pending {
    since: Instant,
    answer: watch::Receiver<Option<Closed>>,
}

impl Durability {
    pub(super) fn new(outputs: Arc<Outputs>, disk: Disk, syncer: Syncer) -> Self {
        let (large, pending) = (Semaphore::new(limits::LARGE_OUTPUTS_READ), Mutex::default());
        Self { outputs, disk, syncer, large, pending }
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<Execution, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an output durable. A large one, or one on a slow disk, takes longer than its worker can be kept waiting:
    /// then it is told to ask again, and finds how far it got.
    pub(super) async fn make(self: &Arc<Self>, close: &Close, part: &Path, trust: Trust) -> Closed {
        let pending = {
            let mut all = self.pending();
            if all.len() >= limits::UPLOADS_MAX {
                // Whose worker never asked again.
                all.retain(|_, pending| pending.answer.borrow().is_none());
            }
            if all.len() >= limits::UPLOADS_MAX {
                return Closed::wait("thousands of outputs are being made durable".to_owned());
            }
            let (done, answer) = watch::channel(None);
            let pending = Pending { since: Instant::now(), answer };
            all.insert(close.execution.clone(), pending.clone());
            let (durability, close, part) = (self.clone(), close.clone(), part.to_owned());
            tokio::spawn(async move {
                done.send_replace(Some(durability.make_now(&close, &part, trust).await));
            });
            pending
        };
        self.answer_of(close, pending).await
    }

    /// Whether [`make`](Self::make) was called for an execution whose CLOSE has no final answer yet.
    pub(super) fn is_pending(&self, execution: &Execution) -> bool {
        self.pending().contains_key(execution)
    }

    /// The answer to a CLOSE that came before; none if it is the first one.
    pub(super) async fn answer(&self, close: &Close) -> Option<Closed> {
        let pending = self.pending().get(&close.execution).cloned()?;
        Some(self.answer_of(close, pending).await)
    }

    async fn answer_of(&self, close: &Close, Pending { since, mut answer }: Pending) -> Closed {
        let ready = tokio::time::timeout(limits::DISK_WAIT, answer.wait_for(Option::is_some)).await;
        let closed = match ready {
            Ok(Ok(closed)) => closed.clone(),
            // Its task has panicked.
            Ok(Err(_)) => Some(Closed::wait("the output was not made durable".to_owned())),
            Err(_) => None,
        };
        let closed = closed.unwrap_or_else(|| {
            let seconds =
                close.bytes / limits::DISK_BYTES_PER_SECOND_MIN + close.files.len() as u64;
            if since.elapsed() < limits::DISK_WAIT + Duration::from_secs(seconds) {
                return Closed::Reading;
            }
            Closed::wait(self.outputs.parts().unanswered(since.elapsed()))
        });
        if closed != Closed::Reading {
            self.pending().remove(&close.execution);
        }
        closed
    }

    async fn make_now(&self, close: &Close, part: &Path, trust: Trust) -> Closed {
        if trust == Trust::ReadBack
            && let Err(closed) = self.read_back(close).await
        {
            return closed;
        }
        match self.syncer.sync().await {
            Ok(()) => {
                for Close { index, round, execution, digest, .. } in close.each() {
                    self.outputs.parts().note_closed(index, round, &execution, digest);
                }
                Closed::Durable
            }
            Err(error) => {
                let closed = Closed::wait(format!("{}: {error}", quote::name(part)));
                let outputs = self.outputs.clone();
                // Its worker comes again either way.
                self.disk.run(move |_| outputs.not_synced(&error)).await.ok();
                closed
            }
        }
    }

    /// Reads the part files, unless the task has its outcome: then they are removed.
    async fn read_back(&self, close: &Close) -> Result<(), Closed> {
        // Few at a time: the turns of the disk are also those of small outputs, which take no time.
        let large = close.bytes >= limits::LARGE_OUTPUT_BYTES;
        let _turn = if large { self.large.acquire().await.ok() } else { None };
        let (outputs, close) = (self.outputs.clone(), close.clone());
        let read = self.disk.run(move |under_way| {
            if let Some(result) = outputs.closed_already(&close) {
                return Err(Closed::HaveIt(Box::new(result)));
            }
            for one in close.each() {
                let part = outputs.parts().part(one.index, one.round, &one.execution);
                let found = outputs.parts().hash_part(&part, || under_way.goes_on());
                found
                    .and_then(|found| check(&one, found))
                    .map_err(|error| outputs.not_closed(&one, &error))?;
            }
            Ok(())
        });
        read.await.unwrap_or_else(|reason| Err(Closed::wait(reason)))
    }
}

/// Whether a part file holds what its CLOSE says.
fn check(close: &Close, (digest, bytes): (Digest, u64)) -> io::Result<()> {
    if (digest, bytes) == (close.digest, close.bytes) {
        return Ok(());
    }
    let (wanted, announced) = (close.bytes, close.digest);
    let text = format!("{bytes} bytes, {digest} arrived; {wanted} bytes, {announced} announced");
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}
