//! The stats files of outcomes that are counted: written while the next batch is accepted.

use std::sync::Arc;

use bagpress_broker::result::TaskResult;
use bagpress_objstore::beneath::Dir;
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::warn;

use crate::run_folder::plan::BagPlan;
use crate::run_folder::stats::write_stats;

/// Writes `stats_N.json` files, a batch at a time.
#[derive(Debug)]
pub(crate) struct StatsWriter {
    folder: Dir,
    plan: BagPlan,
    writing: Mutex<Option<JoinHandle<()>>>,
}

impl StatsWriter {
    pub(crate) fn new(folder: Dir, plan: BagPlan) -> Self {
        Self { folder, plan, writing: Mutex::default() }
    }

    /// Begins to write the files of a batch, once those of the last one are written.
    pub(crate) async fn write(&self, results: Vec<Arc<TaskResult>>) {
        let mut writing = self.writing.lock().await;
        wait_for(writing.take()).await;
        let (folder, plan) = (self.folder.clone(), self.plan.clone());
        *writing = Some(spawn_blocking(move || {
            for result in &results {
                // A list that cannot be read says so elsewhere.
                let codec = plan.codec(result.index).unwrap_or(plan.specification.codec);
                write_stats(&folder, &codec.to_string(), result);
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
