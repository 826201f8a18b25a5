//! Where outcomes come from: committed in the stream, or sent by workers with leases.

use std::collections::HashSet;
use std::sync::Arc;

use bagpress_broker::ids::Execution;
use bagpress_broker::{AttemptRecord, Error, Followed, Results, Verdict, limits};
use bagpress_objstore::staging::{Parts, Plan as _};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tracing::{debug, info};

use crate::deliver::dispatch::Dispatch;
use crate::deliver::handed::Handed;
use crate::run_folder::plan::BagPlan;

/// The source of a bag's outcomes.
#[derive(Debug)]
pub(crate) enum Outcomes {
    /// Results that workers committed.
    Committed(Results),
    /// Results that wait for our verdict.
    Handed {
        /// Offers the tasks.
        dispatch: Dispatch,
        /// What came back.
        receiver: mpsc::Receiver<Handed>,
        /// Second outcomes of a task whose first was in the last batch.
        later: Vec<Handed>,
    },
}

/// What came at once.
#[derive(Debug)]
pub(crate) enum Batch {
    Committed(Vec<Followed>),
    Handed(Vec<Handed>),
}

impl Outcomes {
    /// Waits for outcomes. Cancel-safe.
    ///
    /// # Errors
    ///
    /// As [`Results::next_batch`].
    pub(crate) async fn next_batch(&mut self) -> Result<Batch, Error> {
        match self {
            Self::Committed(results) => results.next_batch().await.map(Batch::Committed),
            Self::Handed { receiver, later, .. } => {
                let mut waiting = std::mem::take(later);
                if waiting.is_empty() {
                    receiver.recv_many(&mut waiting, limits::GATHER_BATCH).await;
                }
                // The first for a task's round is decided about before there is a second one.
                let mut seen = HashSet::new();
                let mut batch = Vec::new();
                for handed in waiting {
                    if seen.insert((handed.result.index, handed.result.round)) {
                        batch.push(handed);
                    } else {
                        later.push(handed);
                    }
                }
                Ok(Batch::Handed(batch))
            }
        }
    }

    /// Whether everything that had been committed when the last batch came was seen.
    pub(crate) fn caught_up(&self) -> bool {
        match self {
            Self::Committed(results) => results.caught_up(),
            Self::Handed { .. } => true,
        }
    }

    /// Failed attempts that are known only here, because no disk had space for them.
    pub(crate) fn records(&self) -> Vec<AttemptRecord> {
        match self {
            Self::Committed(_) => Vec::new(),
            Self::Handed { dispatch, .. } => dispatch.table().unwritten(),
        }
    }

    /// Whether tasks and results are kept by the broker.
    pub(crate) fn is_committed(&self) -> bool {
        matches!(self, Self::Committed(_))
    }

    /// Reads the committed results again, from the first on.
    pub(crate) async fn restart(&mut self) {
        if let Self::Committed(results) = self {
            results.restart().await;
        }
    }

    /// Leaves nothing on the server, and nothing unwritten; the stream's results are read from there on when asked again.
    pub(crate) async fn close(&mut self) {
        match self {
            Self::Committed(results) => results.close().await,
            Self::Handed { dispatch, .. } => {
                let settled = dispatch.table().settled();
                // What a disk that hangs does not take is in `records`.
                tokio::time::timeout(limits::DISK_WAIT, settled).await.ok();
            }
        }
    }

    /// Offers tasks no more whose workers found no input: their next round begins once those are put again.
    pub(crate) fn withdraw(&self, lost_inputs: &[u32], batch: &[Handed]) {
        let Self::Handed { dispatch, .. } = self else { return };
        for result in batch.iter().map(|handed| &handed.result) {
            if lost_inputs.contains(&result.index) {
                dispatch.table().input_lost(result);
            }
        }
    }

    /// Notes what became of an outcome that was handed over, before its worker hears of it.
    pub(crate) fn note(&self, handed: &Handed, verdict: &Verdict, parts: Option<&Arc<Parts>>) {
        let Self::Handed { dispatch, .. } = self else { return };
        let (table, result) = (dispatch.table(), &handed.result);
        match verdict {
            Verdict::Withdrawn => table.bytes_lost(result),
            Verdict::HaveIt(winner) => {
                info!(index = result.index, winner = %winner.execution, "a duplicate came");
                table.duplicate(result, winner);
                if let Some(parts) = parts {
                    let (parts, under_way) = (parts.clone(), parts.begin());
                    let (result, files) = (result.clone(), u32::try_from(result.members.len()));
                    spawn_blocking(move || {
                        let _under_way = under_way;
                        for place in 0..files.unwrap_or(0).max(1) {
                            let index = result.index.saturating_add(place);
                            let part = parts.part(index, result.round, &result.execution);
                            let removed = parts.remove_part(&part);
                            debug!(ok = removed.is_ok(), index, "part file of a duplicate removed");
                        }
                    });
                }
            }
            Verdict::Counted => table.counted(result),
            Verdict::Held | Verdict::Wait { .. } => {}
        }
    }
}

/// What there is to say of an outcome, once those executions were counted, and the bytes of those tasks were not there.
pub(crate) fn verdict(
    handed: &Handed,
    counted: &HashSet<Execution>,
    lost: &HashSet<u32>,
    plan: &BagPlan,
) -> Verdict {
    let (index, round) = handed.result.key();
    if counted.contains(&handed.result.execution) {
        return Verdict::Counted;
    }
    if lost.contains(&index) {
        return Verdict::Withdrawn;
    }
    match plan.decided(index, round) {
        // Its answer was lost, and it asks again.
        Some(line) if line.execution == handed.result.execution => Verdict::Counted,
        Some(line) => Verdict::HaveIt(Box::new(line)),
        None => Verdict::Withdrawn,
    }
}
