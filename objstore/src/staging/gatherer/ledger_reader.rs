//! Outcomes that are in the ledger, for those who may not wait for a disk themselves.

use std::sync::Arc;

use bagpress_broker::result::TaskResult;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tracing::warn;

use super::plan::Plan;

/// Threads that may ask the ledger for an outcome at a time.
const ASKING_MAX: usize = 4;

/// Asks the ledger in turns, each on a thread of its own: what hangs at the outputs' or the inputs' disk takes no thread from
/// these. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct LedgerReader {
    plan: Arc<dyn Plan>,
    turns: Arc<Semaphore>,
}

impl LedgerReader {
    pub(super) fn new(plan: Arc<dyn Plan>) -> Self {
        Self { plan, turns: Arc::new(Semaphore::new(ASKING_MAX)) }
    }

    /// As [`Plan::decided`]; none also if that panics.
    pub(super) async fn decided(&self, index: u32, round: u32) -> Option<TaskResult> {
        let _turn = self.turns.acquire().await.ok()?;
        let plan = self.plan.clone();
        let asked = spawn_blocking(move || plan.decided(index, round)).await;
        asked.inspect_err(|error| warn!(%error, "the ledger was not asked")).ok().flatten()
    }
}
