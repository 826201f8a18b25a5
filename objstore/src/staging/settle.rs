//! Behind the CLOSE of an output: it is read back and made durable, however large it is.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bagpress_broker::ids::Execution;
use bagpress_broker::{limits, quote};
use tokio::sync::watch;

use super::messages::{Close, Closed};
use super::on_disk::on_disk;
use super::receiver::Shared;
use crate::trouble::Trouble;

/// What is known of a part file before it is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// It was hashed as it came.
    Whole,
    /// Somebody else wrote it: it is read back.
    ReadBack,
}

/// Outputs that are being made durable, each with the answer to its CLOSE once there is one.
#[derive(Debug, Default)]
pub(super) struct Settling(Mutex<HashMap<Execution, Settles>>);

#[derive(Debug, Clone)]
struct Settles {
    since: Instant,
    answer: watch::Receiver<Option<Closed>>,
}

impl Settling {
    fn lock(&self) -> MutexGuard<'_, HashMap<Execution, Settles>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Makes an output durable. A large one, or one on a slow disk, takes longer than its worker can be kept waiting:
    /// then it is told to ask again, and finds how far it got.
    pub(super) async fn settle(
        self: &Arc<Self>,
        close: &Close,
        part: &Path,
        trust: Trust,
    ) -> Closed {
        let settles = {
            let mut all = self.settling.lock();
            if all.len() >= limits::UPLOADS_MAX {
                // Whose worker never asked again.
                all.retain(|_, settles| settles.answer.borrow().is_none());
            }
            if all.len() >= limits::UPLOADS_MAX {
                return Closed::wait("thousands of outputs are being made durable".to_owned());
            }
            let (done, answer) = watch::channel(None);
            let settles = Settles { since: Instant::now(), answer };
            all.insert(close.execution.clone(), settles.clone());
            let (shared, close, part) = (self.clone(), close.clone(), part.to_owned());
            tokio::spawn(async move {
                done.send_replace(Some(shared.make_durable(&close, &part, trust).await));
            });
            settles
        };
        self.answer_of(close, settles).await
    }

    /// The answer to a CLOSE that came before; none if it is the first one.
    pub(super) async fn settled(&self, close: &Close) -> Option<Closed> {
        let settles = self.settling.lock().get(&close.execution).cloned()?;
        Some(self.answer_of(close, settles).await)
    }

    async fn answer_of(&self, close: &Close, Settles { since, mut answer }: Settles) -> Closed {
        let ready = tokio::time::timeout(limits::DISK_WAIT, answer.wait_for(Option::is_some)).await;
        let closed = match ready {
            Ok(Ok(closed)) => closed.clone(),
            // Its task has panicked.
            Ok(Err(_)) => Some(Closed::wait("the output was not made durable".to_owned())),
            Err(_) => None,
        };
        let closed = closed.unwrap_or_else(|| {
            let seconds = close.bytes / limits::DISK_BYTES_PER_SECOND_MIN;
            if since.elapsed() < limits::DISK_WAIT + Duration::from_secs(seconds) {
                return Closed::Reading;
            }
            Closed::wait(self.parts.unanswered(since.elapsed()))
        });
        if closed != Closed::Reading {
            self.settling.lock().remove(&close.execution);
        }
        closed
    }

    async fn make_durable(&self, close: &Close, part: &Path, trust: Trust) -> Closed {
        if trust == Trust::ReadBack
            && let Err(error) = self.read_back(close, part).await
        {
            return self.not_settled(close, &error);
        }
        match self.syncer.sync().await {
            Ok(()) => {
                let Close { index, round, execution, digest, .. } = close;
                self.parts.note_closed(*index, *round, execution, *digest);
                Closed::Durable
            }
            Err(error) => {
                if self.parts.trouble(&error) != Trouble::Passes {
                    let root = quote::name(self.parts.root());
                    self.room.lose(format!("{root} cannot be synced: {error}"));
                }
                Closed::wait(format!("{}: {error}", quote::name(part)))
            }
        }
    }

    async fn read_back(&self, close: &Close, part: &Path) -> io::Result<()> {
        let path = part.to_owned();
        // Few at a time: the turns of the disk are also those of small outputs, which take no time.
        let large = close.bytes >= limits::LARGE_OUTPUT_BYTES;
        let _turn = if large { self.large.acquire().await.ok() } else { None };
        let parts = self.parts.clone();
        let read = on_disk(self.disk.clone(), self.parts.clone(), move |under_way| {
            parts.hash_part(&path, || under_way.goes_on())
        });
        let (digest, bytes) = read.await?;
        if (digest, bytes) == (close.digest, close.bytes) {
            return Ok(());
        }
        let (wanted, announced) = (close.bytes, close.digest);
        let text =
            format!("{bytes} bytes, {digest} arrived; {wanted} bytes, {announced} announced");
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }

    /// What the worker of an output is told that could not be written or read back.
    pub(super) fn not_settled(&self, close: &Close, error: &io::Error) -> Closed {
        let other = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::NotFound);
        if other && self.parts.gone().is_none() {
            return Closed::Mismatch { message: error.to_string() };
        }
        match self.not_written(close.index, close.bytes, error) {
            Ok(failed) => Closed::Refused(failed),
            Err(reason) => Closed::wait(reason),
        }
    }
}
