//! Descriptors into the queue, and what waits there.

use std::future::Future;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use futures::TryStreamExt;

use crate::descriptor::TaskDescriptor;
use crate::ids::{BagId, Pool, TaskId};
use crate::{Broker, Error, subjects};

use super::publish::{Refused, refused};

/// What became of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// It waits now.
    New,
    /// It was waiting already, or had been published before.
    Already,
}

impl Broker {
    /// Publishes a descriptor; the future that comes back resolves when it is stored.
    ///
    /// With `message_id` a repeat within the server's window is dropped, also when the task was
    /// executed meanwhile; without, only the rule of one message a subject guards.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] or [`Error::Lost`], now or from the future: publish again.
    pub async fn submit(
        &self,
        pool: &Pool,
        task: &TaskDescriptor,
        message_id: bool,
    ) -> Result<impl Future<Output = Result<Submitted, Error>> + Send + use<>, Error> {
        let id = task.id();
        let subject = subjects::task(pool, &id);
        let mut headers = HeaderMap::new();
        if message_id {
            headers.insert(NATS_MESSAGE_ID, id.to_string());
        }
        let context = self.jetstream();
        let sent = context.publish_with_headers(subject, headers, task.encode().into()).await;
        let sent = sent.map_err(failed);
        let ack = match sent {
            Ok(ack) => Some(ack),
            Err(None) => None,
            Err(Some(error)) => return Err(error),
        };
        Ok(async move {
            let Some(ack) = ack else { return Ok(Submitted::Already) };
            match ack.await {
                Ok(ack) if ack.duplicate => Ok(Submitted::Already),
                Ok(_) => Ok(Submitted::New),
                Err(error) => failed(error).map_or(Ok(Submitted::Already), Err),
            }
        })
    }

    /// The tasks of `bag` that wait or run, by any round, one call of `see` each.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: ask again; what was seen so far may be incomplete.
    pub async fn waiting(&self, bag: &BagId, mut see: impl FnMut(TaskId)) -> Result<(), Error> {
        let during = Error::during("list the waiting tasks");
        let stream = self.stream(subjects::TASKS).await?;
        let subjects = stream.info_with_subjects(subjects::tasks_of(bag)).await;
        let mut subjects = subjects.map_err(|e| during.lost(e))?;
        while let Some((subject, _)) = subjects.try_next().await.map_err(|e| during.lost(e))? {
            if let Some((_, id)) = subjects::parse_task(&subject) {
                see(id);
            }
        }
        Ok(())
    }

    /// Takes one task of `bag` out of the queue, in any round, where there is a queue.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub async fn purge_task(&self, bag: &BagId, index: u32) -> Result<(), Error> {
        match self.purge(subjects::TASKS, &subjects::rounds_of(bag, index)).await {
            Ok(_) | Err(Error::Missing { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes the waiting and the running tasks of `bag` out of the queue.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] or [`Error::Missing`].
    pub async fn purge_tasks(&self, bag: &BagId) -> Result<(), Error> {
        let stream = self.stream(subjects::TASKS).await?;
        let purged = stream.purge().filter(subjects::tasks_of(bag)).await;
        purged.map_err(|e| Error::during("purge the tasks").lost(e))?;
        Ok(())
    }
}

/// None where the task is there already.
fn failed(error: async_nats::jetstream::context::PublishError) -> Option<Error> {
    match refused(error) {
        Refused::Taken => None,
        Refused::Full(why) => {
            Some(Error::Full { what: format!("stream {}", subjects::TASKS), why })
        }
        Refused::Unknown(cause) => Some(Error::during("publish a task").lost(cause)),
    }
}
