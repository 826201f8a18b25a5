//! Files that arrive together become durable together: one `syncfs` for all of them.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use bagpress_broker::limits;
use tokio::sync::{mpsc, oneshot};

use super::files::Parts;
use crate::trouble;

/// A thread that syncs. Cheap to clone; ends with the last clone.
#[derive(Debug, Clone)]
pub struct Syncer {
    requests: mpsc::Sender<oneshot::Sender<io::Result<()>>>,
}

impl Syncer {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn start(parts: Arc<Parts>) -> io::Result<Self> {
        let (requests, receiver) = mpsc::channel(limits::SYNC_BATCH * 4);
        std::thread::Builder::new().name("sync".to_owned()).spawn(move || run(&parts, receiver))?;
        Ok(Self { requests })
    }

    /// Waits until everything written before the call is durable.
    ///
    /// # Errors
    ///
    /// What the system said to the `syncfs`.
    pub async fn sync(&self) -> io::Result<()> {
        let (answer, answered) = oneshot::channel();
        let gone = || io::Error::other("the sync thread ended");
        self.requests.send(answer).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

fn run(parts: &Parts, mut requests: mpsc::Receiver<oneshot::Sender<io::Result<()>>>) {
    while let Some(first) = requests.blocking_recv() {
        let mut batch = vec![first];
        let deadline = Instant::now() + limits::SYNC_WITHIN;
        while batch.len() < limits::SYNC_BATCH {
            match requests.try_recv() {
                Ok(request) => batch.push(request),
                Err(_) if Instant::now() < deadline => {
                    std::thread::sleep(limits::SYNC_WITHIN / 8);
                }
                Err(_) => break,
            }
        }
        let synced = {
            let _under_way = parts.begin();
            parts.sync()
        };
        for request in batch {
            let copy = synced.as_ref().copied().map_err(trouble::copy);
            // The caller may be gone; then the answer is not needed.
            request.send(copy).ok();
        }
    }
}
