//! Outcomes that are handed to the gatherer.

use std::sync::Arc;

use bagpress_broker::result::{Cause, Failed, TaskResult};
use bagpress_broker::{Reply, Verdict};
use tokio::sync::OwnedSemaphorePermit;

/// An outcome, and where its verdict is waited for.
#[derive(Debug, Clone)]
pub(crate) struct Handed {
    pub(crate) result: Arc<TaskResult>,
    pub(crate) reply: Option<Reply>,
    /// Its share of the files that may wait.
    pub(crate) share: Option<Arc<OwnedSemaphorePermit>>,
}

impl Handed {
    pub(crate) async fn answer(&self, verdict: &Verdict) {
        if let Some(reply) = &self.reply {
            reply.answer(verdict).await;
        }
    }
}

/// What a task fails with whose bytes vanished `times` times.
pub(crate) fn too_often(times: u32) -> Failed {
    let text =
        format!("{times} outcomes arrived, and each time the bytes were gone or did not match");
    Failed::new(Cause::BytesLost, text)
}
