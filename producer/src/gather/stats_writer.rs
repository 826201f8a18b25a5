//! The stats files of outcomes that are counted: written while the next batch is accepted.

use std::sync::Arc;

use bagpress_broker::result::TaskResult;
use bagpress_objstore::beneath::Dir;
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::warn;

use crate::summary::stats::write_stats;

/// Writes `stats_N.json` files, a batch at a time.
#[derive(Debug)]
pub(crate) struct StatsWriter {
    folder: Dir,
    codec: String,
    writing: Mutex<Option<JoinHandle<()>>>,
}

impl StatsWriter {
    pub(crate) fn new(folder: Dir, codec: String) -> Self {
        Self { folder, codec, writing: Mutex::default() }
    }

    /// Begins to write the files of a batch, once those of the last one are written.
    pub(crate) async fn write(&self, results: Vec<Arc<TaskResult>>) {
        let mut writing = self.writing.lock().await;
        wait_for(writing.take()).await;
        let (folder, codec) = (self.folder.clone(), self.codec.clone());
        *writing = Some(spawn_blocking(move || {
            for result in &results {
                write_stats(&folder, &codec, result);
            }
        }));
    }

    /// Waits for the last files.
    pub(crate) async fn finish(&self) {
        wait_for(self.writing.lock().await.take()).await;
    }
}

async fn wait_for(writing: Option<JoinHandle<()>>) {
    if let Some(writing) = writing
        && let Err(error) = writing.await
    {
        warn!(%error, "stats files not written");
    }
}
