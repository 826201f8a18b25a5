//! Which tasks are with some worker: for giving back what a dead one received and never reported.

use async_nats::jetstream::consumer::{Consumer, pull};

use crate::ids::{BagId, Pool, TaskId};
use crate::wire::ack;
use crate::{Broker, Error, subjects};

/// A task that was handed out and is not answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnansweredTask {
    /// The task.
    pub id: TaskId,
    /// A subject on which its delivery can be answered.
    pub reply: String,
}

impl Broker {
    /// The tasks of `bag` that were handed out and are not answered, at most `most`, oldest first.
    ///
    /// The queue keeps no answered message and hands out in order, so these are its messages up to the
    /// last one that was handed out. To answer one the server wants its sequence in the stream and any
    /// sequence of the consumer above its floor: the last one always is.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub async fn unanswered_tasks(
        &self,
        pool: &Pool,
        bag: &BagId,
        most: usize,
    ) -> Result<Vec<UnansweredTask>, Error> {
        let during = Error::during("list the tasks in execution");
        let durable = subjects::durable(pool);
        let consumer: Consumer<pull::Config> = self
            .jetstream()
            .get_consumer_from_stream(&durable, subjects::TASKS)
            .await
            .map_err(|e| during.lost(e))?;
        let delivered = &consumer.cached_info().delivered;
        let mut found = Vec::new();
        let mut sequence = 1;
        while found.len() < most && sequence <= delivered.stream_sequence {
            let request =
                serde_json::json!({ "seq": sequence, "next_by_subj": subjects::tasks_of(bag) });
            let Some(stored) = self.ask_leader(subjects::TASKS, &request).await? else { break };
            if stored.seq > delivered.stream_sequence {
                break;
            }
            sequence = stored.seq + 1;
            if let Some((_, id)) = subjects::parse_task(&stored.subject) {
                let newest = delivered.consumer_sequence;
                let reply = ack::subject(subjects::TASKS, &durable, stored.seq, newest);
                found.push(UnansweredTask { id, reply });
            }
        }
        Ok(found)
    }
}
