//! Commits results, and answers deliveries: ack, nak, term, or a reply to an offer.

use std::time::Duration;

use bagpress_broker::ids::{Execution, TaskId};
use bagpress_broker::result::{
    Cause, Done, Failed, Outcome, Place, TaskResult, Times, wall_clock_us,
};
use bagpress_broker::{AttemptRecord, Broker, Committed, Error, Holder, Standing, limits};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::assignment::Assignment;

/// Answers in the name of one worker.
#[derive(Debug)]
pub(crate) struct Answers {
    broker: Broker,
    holder: Holder,
    drain: CancellationToken,
}

/// How often a task's round was given to a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Count {
    /// Which attempt this is, from 1.
    pub(crate) number: u32,
    /// Planned give-backs before it, which spent none.
    pub(crate) planned: u32,
}

impl Count {
    fn of(delivered: u32, planned: u32) -> Self {
        Self { number: delivered.saturating_sub(planned).max(1), planned }
    }
}

impl Answers {
    pub(crate) fn new(broker: &Broker, holder: Holder, drain: CancellationToken) -> Self {
        Self { broker: broker.clone(), holder, drain }
    }

    /// The worker's id.
    pub(crate) fn worker(&self) -> &str {
        &self.holder.worker
    }

    /// An outcome as this worker tells it, made now.
    pub(crate) fn result(
        &self,
        id: &TaskId,
        execution: &Execution,
        attempt: u32,
        outcome: Outcome,
    ) -> TaskResult {
        TaskResult {
            v: limits::WIRE_VERSION,
            bag: id.bag.clone(),
            index: id.index,
            round: id.round,
            execution: execution.clone(),
            attempt,
            worker: self.holder.worker.clone(),
            host: self.holder.host.clone(),
            outcome,
            times: Times { made_us: wall_clock_us(), ..Times::default() },
            descriptor: None,
            file: None,
            twin_of: None,
            members: Vec::new(),
        }
    }

    /// Counts attempts; none if the task has its outcome already, and was acknowledged.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: the lease then decides.
    pub(crate) async fn count(&self, assignment: &Assignment) -> Result<Option<Count>, Error> {
        let delivery = match assignment {
            Assignment::Offered(offer) => return Ok(Some(Count::of(offer.attempt(), 0))),
            Assignment::Pulled(delivery) => delivery,
        };
        if delivery.delivered() <= 1 {
            return Ok(Some(Count::of(1, 0)));
        }
        // An outcome that cannot be read is the round's all the same.
        let standing = self.broker.standing(delivery.id()).await?;
        if !matches!(standing, Standing::Open) {
            debug!(?standing, "committed before, acknowledged again");
            delivery.ack().await?;
            return Ok(None);
        }
        let planned = self.broker.planned_give_backs(delivery.id()).await?;
        Ok(Some(Count::of(delivery.delivered(), planned)))
    }

    /// The outcome that the task's round has, where that can be known without asking for ours.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub(crate) async fn standing(&self, assignment: &Assignment) -> Result<Standing, Error> {
        match assignment {
            Assignment::Pulled(delivery) => self.broker.standing(delivery.id()).await,
            Assignment::Offered(_) => Ok(Standing::Open),
        }
    }

    /// Makes an outcome the task's, unless another came first. A delivery is to be answered then; the
    /// gatherer that offered a task needs no answer more.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]; [`Error::Full`] while the worker drains.
    pub(crate) async fn commit(
        &self,
        assignment: &Assignment,
        result: &TaskResult,
    ) -> Result<Committed, Error> {
        match assignment {
            Assignment::Offered(offer) => {
                self.keep_lineage(result).await;
                offer.conclude(result, &self.drain).await
            }
            Assignment::Pulled(_) => self.commit_when_not_full(result).await,
        }
    }

    /// What is handed over of an object is kept on the broker before, too: it says what the object was made of, when gatherer and
    /// ledger are gone. Another execution's says the same; of a pack it may name another tar, which is told by its digest. Nothing else needs it, so nothing is done where it cannot be kept.
    async fn keep_lineage(&self, result: &TaskResult) {
        if !is_lineage(result) {
            return;
        }
        if let Err(error) = self.broker.commit_if_possible(result).await {
            debug!(%error, task = %result.id(), "its lineage is not kept");
        }
    }

    /// A full stream of results is no failure: the delivery is held meanwhile, and no attempt is spent.
    async fn commit_when_not_full(&self, result: &TaskResult) -> Result<Committed, Error> {
        let mut tries = 0;
        loop {
            match self.broker.commit(result).await {
                Err(error @ Error::Full { .. }) if !self.drain.is_cancelled() => {
                    let delay = Cause::Full.give_back_delay(tries).min(limits::LEASE_RENEWAL);
                    debug!(%error, ?delay, "the result waits");
                    tokio::time::sleep(delay).await;
                    tries += 1;
                }
                committed => return committed,
            }
        }
    }

    /// Answers that the task has its outcome.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: the lease then brings the task to a worker that finds it committed.
    pub(crate) async fn settle(&self, assignment: &Assignment) -> Result<(), Error> {
        match assignment {
            Assignment::Pulled(delivery) => delivery.ack().await,
            Assignment::Offered(_) => Ok(()),
        }
    }

    /// Answers that nothing more comes, and that no other worker need try. A gatherer knows that of what
    /// it offered.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: the lease then decides.
    pub(crate) async fn discard(&self, assignment: &Assignment, why: &str) -> Result<(), Error> {
        match assignment {
            Assignment::Pulled(delivery) => delivery.term(why).await,
            Assignment::Offered(_) => Ok(()),
        }
    }

    /// Gives it back, after `delay` where that is ours to choose, and says why; `planned` counts the
    /// planned give-backs before.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: the lease then decides.
    pub(crate) async fn give_back(
        &self,
        assignment: &Assignment,
        planned: u32,
        failed: Failed,
        execution: Option<Execution>,
        delay: Duration,
    ) -> Result<(), Error> {
        let delivery = match assignment {
            Assignment::Offered(offer) => return offer.give_back(failed).await,
            Assignment::Pulled(delivery) => delivery,
        };
        let mut record = self.record(assignment, planned, failed.cause);
        record.message = failed.message;
        record.execution = execution;
        record.reply = (!delay.is_zero()).then(|| delivery.reply().to_owned());
        // First the record: it must be there when the next worker counts.
        self.broker.record_attempt(&delivery.id().bag, &record).await?;
        delivery.nak(delay).await
    }

    /// Gives back, at once, what came after the worker began to drain.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: the lease then decides.
    pub(crate) async fn give_back_unstarted(&self, assignment: &Assignment) -> Result<(), Error> {
        let failed = Failed::new(Cause::Drain, "the worker is draining");
        let planned = self.broker.planned_give_backs(assignment.id()).await.unwrap_or(0);
        self.give_back(assignment, planned, failed, None, Duration::ZERO).await
    }

    /// Records, durably, that `execution` lost its round to `winner`, or to an outcome that cannot be
    /// read. Comes before the answer to the delivery.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: the lease then brings the task to a worker that finds it decided.
    pub(crate) async fn record_duplicate(
        &self,
        assignment: &Assignment,
        execution: &Execution,
        winner: Option<&Execution>,
    ) -> Result<(), Error> {
        let unknown = "an outcome that cannot be read".to_owned();
        let winner = winner.map_or(unknown, |winner| format!("execution {winner}"));
        let id = assignment.id();
        info!(task = %id, winner, "another execution came first, this one is a duplicate");
        if assignment.is_offered() {
            // The gatherer decided that it came too late, and has counted it.
            return Ok(());
        }
        let mut record = self.record(assignment, 0, Cause::Duplicate);
        record.message = format!("{winner} came first");
        record.execution = Some(execution.clone());
        self.broker.record_attempt(&id.bag, &record).await
    }

    fn record(&self, assignment: &Assignment, planned: u32, cause: Cause) -> AttemptRecord {
        let Holder { worker, host, .. } = &self.holder;
        let (id, delivered) = (assignment.id(), assignment.delivered());
        let mut record = AttemptRecord::new(id, delivered, planned, cause, worker);
        record.host.clone_from(host);
        record
    }
}

/// Whether a result says what an object was made of, or each file in a tar.
fn is_lineage(result: &TaskResult) -> bool {
    let is_in_tar =
        |outcome: &Outcome| matches!(outcome, Outcome::Done(Done { place: Place::Tar { .. }, .. }));
    let is_object = |done: &Done| matches!(done.place, Place::Object { .. });
    result.members.iter().flatten().any(is_in_tar)
        || result.descriptor.is_some() && result.done().is_some_and(is_object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planned_give_backs_spend_no_attempt() {
        assert_eq!(Count::of(1, 0).number, 1);
        assert_eq!(Count::of(4, 3).number, 1);
        assert_eq!(Count::of(4, 1).number, 3);
        // Records outlive the stream of tasks: a task that was published again starts again.
        assert_eq!(Count::of(1, 3).number, 1);
    }
}
