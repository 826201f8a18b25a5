//! Where outcomes come from: committed in the stream, or handed over by who has a lease.

use std::collections::HashSet;

use anyhow::Result;
use bagpress_broker::{AttemptRecord, Error, Followed, Results, Verdict, limits};
use bagpress_objstore::staging::Plan as _;
use tokio::sync::mpsc;
use tracing::{debug, info};

use crate::deliver::dispatch::Dispatch;
use crate::deliver::handed::Handed;
use crate::gather::Gathering;

/// The source of a bag's outcomes.
#[derive(Debug)]
pub(crate) enum Outcomes {
    /// Results that workers committed.
    Committed(Results),
    /// Results that wait for our verdict.
    Handed {
        /// Who offers the tasks.
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

    /// What is known here alone of attempts that came to nothing: no disk had room for it.
    pub(crate) fn records(&self) -> Vec<AttemptRecord> {
        match self {
            Self::Committed(_) => Vec::new(),
            Self::Handed { dispatch, .. } => dispatch.table.journal.unwritten(),
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

    /// Leaves nothing on the server; the stream's results are read from there on when asked again.
    pub(crate) async fn close(&mut self) {
        if let Self::Committed(results) = self {
            results.close().await;
        }
    }
}

impl Gathering {
    /// Decides about outcomes that wait for it, and says so once the ledger has them.
    pub(crate) async fn take_handed(&mut self, batch: Vec<Handed>) -> Result<()> {
        let followed = |handed: &Handed| Followed { result: Ok(handed.result.clone()), bytes: 0 };
        let mut waiting: Vec<_> = batch.iter().map(followed).collect();
        let (mut lost, mut counted) = (HashSet::new(), HashSet::new());
        while !waiting.is_empty() {
            let mut accepted = self.accept(waiting).await?;
            waiting = std::mem::take(&mut accepted.later);
            lost.extend(std::mem::take(&mut accepted.lost));
            let lost_inputs = std::mem::take(&mut accepted.lost_inputs);
            lost.extend(&lost_inputs);
            waiting.extend(self.withdraw(lost_inputs, &batch).await);
            counted.extend(accepted.counted.iter().map(|result| result.execution.clone()));
            self.accepted(accepted).await?;
        }
        for handed in batch {
            let verdict = if counted.contains(&handed.result.execution) {
                Verdict::Counted
            } else if lost.contains(&handed.result.index) {
                Verdict::Withdrawn
            } else {
                self.verdict(&handed)
            };
            self.note(&handed, &verdict);
            handed.answer(&verdict).await;
        }
        Ok(())
    }

    /// Offers tasks no more whose inputs the broker lost: their next round begins when those are put again. Returns
    /// the failures of those that lost them too often.
    async fn withdraw(&mut self, lost_inputs: Vec<u32>, batch: &[Handed]) -> Vec<Followed> {
        if let Outcomes::Handed { dispatch, .. } = &self.outcomes {
            for result in batch.iter().map(|handed| &handed.result) {
                if lost_inputs.contains(&result.index) {
                    dispatch.table.input_lost(result);
                }
            }
        }
        self.vanish(lost_inputs).await
    }

    /// What there is to say of an outcome that was not counted just now.
    fn verdict(&self, handed: &Handed) -> Verdict {
        let result = &handed.result;
        match self.plan.decided(result.index, result.round) {
            // Its answer was lost, and it asks again.
            Some(line) if line.execution == result.execution => Verdict::Counted,
            Some(line) => Verdict::HaveIt(Box::new(line)),
            None => Verdict::Withdrawn,
        }
    }

    fn note(&self, handed: &Handed, verdict: &Verdict) {
        let Outcomes::Handed { dispatch, .. } = &self.outcomes else { return };
        let result = &handed.result;
        let key = (result.index, result.round);
        match verdict {
            Verdict::Withdrawn => {
                let (table, now) = (&dispatch.table, std::time::Instant::now());
                if let Some(planned) = table.lock().bytes_lost(key, &result.execution, now) {
                    table.journal.bytes_lost(result, planned);
                }
                table.changed.notify_one();
            }
            Verdict::HaveIt(winner) => {
                info!(index = result.index, winner = %winner.execution, "a duplicate came");
                dispatch.table.journal.duplicate(result, winner);
                dispatch.table.lock().decided(key);
                if let Some(parts) = &self.parts {
                    let part = parts.part(result.index, result.round, &result.execution);
                    let removed = parts.remove_part(&part);
                    debug!(ok = removed.is_ok(), "part file of a duplicate removed");
                }
            }
            Verdict::Counted if result.done().is_some() => {
                dispatch.table.lock().done(key, std::time::Instant::now());
            }
            Verdict::Counted => dispatch.table.lock().decided(key),
            Verdict::Held | Verdict::Wait { .. } => {}
        }
    }
}
