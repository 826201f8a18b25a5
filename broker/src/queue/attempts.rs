//! Why deliveries were given back, and how many attempts a task has spent.

use serde::{Deserialize, Serialize};

use crate::ids::{BagId, Execution, TaskId};
use crate::result::{Cause, wall_clock_us};
use crate::{Broker, Error, bounded, limits, subjects};

/// One delivery that was given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// [`limits::WIRE_VERSION`].
    pub v: u32,
    /// The task's place in its bag.
    #[serde(deserialize_with = "bounded::index")]
    pub index: u32,
    /// The task's round.
    #[serde(deserialize_with = "bounded::round")]
    pub round: u32,
    /// The broker's count of deliveries when it was given back.
    pub delivered: u32,
    /// Why.
    pub cause: Cause,
    /// Why, for people.
    #[serde(deserialize_with = "bounded::message")]
    pub message: String,
    /// The execution, where one had begun.
    pub execution: Option<Execution>,
    /// The worker.
    #[serde(deserialize_with = "bounded::text")]
    pub worker: String,
    /// The worker's host.
    #[serde(default, deserialize_with = "bounded::text")]
    pub host: String,
    /// Planned give-backs of this round so far, this one included: they spend no attempt.
    pub planned: u32,
    /// When, µs since 1970 by the writer's clock.
    #[serde(deserialize_with = "bounded::time_us")]
    pub at_us: u64,
    /// The subject on which its delivery is answered, where it waits out a delay: a gatherer that knows that the
    /// reason is gone gives it back once more, without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
}

impl AttemptRecord {
    /// A record of a delivery of `id` that is given back now; `planned` counts the earlier ones.
    #[must_use]
    pub fn new(id: &TaskId, delivered: u32, planned: u32, cause: Cause, worker: &str) -> Self {
        Self {
            v: limits::WIRE_VERSION,
            index: id.index,
            round: id.round,
            delivered,
            cause,
            message: String::new(),
            execution: None,
            worker: worker.to_owned(),
            host: String::new(),
            planned: planned.saturating_add(u32::from(cause.is_planned())),
            at_us: wall_clock_us(),
            reply: None,
        }
    }
}

impl Broker {
    /// Records why a delivery is given back, or that an execution came too late. Comes before the
    /// answer to its delivery: it must be there when the next worker counts, and when the bag is over.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] if it was not stored.
    pub async fn record_attempt(&self, bag: &BagId, record: &AttemptRecord) -> Result<(), Error> {
        let during = Error::during("record an attempt");
        let payload = serde_json::to_vec(record).map_err(|e| during.lost(e))?;
        let subject = match record.cause {
            Cause::Duplicate => subjects::duplicate(bag, record.index),
            _ => subjects::attempt(bag, record.index),
        };
        let ack =
            self.jetstream().publish(subject, payload.into()).await.map_err(|e| during.lost(e))?;
        ack.await.map_err(|e| during.lost(e))?;
        Ok(())
    }

    /// How many executions of a bag came too late, as far as their workers could say.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] or [`Error::Missing`].
    pub async fn duplicates(&self, bag: &BagId) -> Result<u64, Error> {
        let mut count = 0;
        self.count_subjects(subjects::ATTEMPTS, &subjects::duplicates_of(bag), |_, n| count += n)
            .await?;
        Ok(count)
    }

    /// The give-backs and the duplicates of one task, or of all tasks of a bag, oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: what was seen so far may be incomplete.
    pub async fn attempts(
        &self,
        bag: &BagId,
        index: Option<u32>,
        mut see: impl FnMut(AttemptRecord),
    ) -> Result<(), Error> {
        let filter = index.map_or_else(
            || subjects::recorded_of(bag),
            |index| subjects::recorded_of_task(bag, index),
        );
        self.read_all(subjects::ATTEMPTS, &filter, |payload| {
            if let Ok(record) = serde_json::from_slice(payload) {
                see(record);
            }
        })
        .await
    }

    /// Planned give-backs that the round of `id` has seen.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub async fn planned_give_backs(&self, id: &TaskId) -> Result<u32, Error> {
        Ok(self.last_attempt(id).await?.map_or(0, |record| record.planned))
    }

    /// The last give-back of the round of `id`.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub async fn last_attempt(&self, id: &TaskId) -> Result<Option<AttemptRecord>, Error> {
        let subject = subjects::attempt(&id.bag, id.index);
        let payload = self.last_from_leader(subjects::ATTEMPTS, &subject).await?;
        let record: Option<AttemptRecord> = payload.and_then(|p| serde_json::from_slice(&p).ok());
        Ok(record.filter(|record| record.round == id.round))
    }
}
