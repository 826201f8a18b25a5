//! Exactly one outcome: results are committed by compare-and-set, and followed by the gatherer.

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::{self, ErrorCode};

use crate::ids::{BagId, TaskId};
use crate::result::TaskResult;
use crate::{Broker, Error, limits, subjects};

/// Whose outcome a task now has.
#[derive(Debug)]
pub enum Committed {
    /// This execution's.
    Mine,
    /// Another's, which came first: this execution is a duplicate.
    Other(Box<TaskResult>),
}

/// Why a publish with an expectation failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Something is on that subject already.
    Taken,
    /// The stream is full.
    Full(String),
    /// Nobody knows; it may have been stored.
    Unknown(String),
}

/// Sorts what the server said to a publish. Code 10077 has two meanings, told apart only by its
/// description.
pub(crate) fn refused(error: &jetstream::context::PublishError) -> Refused {
    use std::error::Error as _;
    if error.kind() == PublishErrorKind::WrongLastSequence {
        return Refused::Taken;
    }
    let Some(inner) = error.source().and_then(|s| s.downcast_ref::<jetstream::Error>()) else {
        return Refused::Unknown(error.to_string());
    };
    let text = inner.to_string();
    if inner.error_code() == ErrorCode::STREAM_STORE_FAILED {
        if text.contains("per subject") {
            return Refused::Taken;
        }
        return Refused::Full(text);
    }
    Refused::Unknown(text)
}

impl Broker {
    /// Commits an outcome: the first one for a task's round wins, for ever.
    ///
    /// Tries again while the broker is out of reach, at most `limits::COMMIT_TRIES` times; a lost
    /// answer is resolved by reading the committed result and comparing executions. Cancelling leaves
    /// the outcome unknown.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] if the stream of results is, [`Error::Lost`]: both transient.
    pub async fn commit(&self, result: &TaskResult) -> Result<Committed, Error> {
        let subject = subjects::result(&result.id());
        let payload: bytes::Bytes = result.encode().into();
        let mut lost = String::new();
        for _ in 0..limits::COMMIT_TRIES {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
            let sent = self
                .jetstream()
                .publish_with_headers(subject.clone(), headers, payload.clone())
                .await;
            let answer = match sent {
                Ok(ack) => ack.await,
                Err(error) => Err(error),
            };
            let refused = match answer {
                Ok(_) => return Ok(Committed::Mine),
                Err(error) => refused(&error),
            };
            match refused {
                Refused::Full(why) => {
                    return Err(Error::Full { what: format!("stream {}", subjects::RESULTS), why });
                }
                Refused::Taken => {}
                Refused::Unknown(why) => lost = why,
            }
            match self.committed(&result.id()).await {
                Ok(Some(found)) if found.execution == result.execution => {
                    return Ok(Committed::Mine);
                }
                Ok(Some(found)) => return Ok(Committed::Other(Box::new(found))),
                Ok(None) => {}
                Err(error) => lost = error.to_string(),
            }
            tokio::time::sleep(limits::RETRY_WAIT).await;
        }
        Err(Error::Lost { what: "commit a result", cause: lost })
    }

    /// The committed result of a task, from the leader: a direct get may lag.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`], or [`Error::Unexpected`] if what is there is not readable.
    pub async fn committed(&self, id: &TaskId) -> Result<Option<TaskResult>, Error> {
        let Some(payload) = self.last_from_leader(subjects::RESULTS, &subjects::result(id)).await?
        else {
            return Ok(None);
        };
        TaskResult::decode(&payload).map(Some).map_err(|error| Error::Unexpected {
            what: "read a committed result",
            cause: error.to_string(),
        })
    }

    /// The committed results of one task, or of all tasks of a bag, by any round, oldest first; those that
    /// cannot be read are passed over.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: what was seen so far may be incomplete.
    pub async fn results(
        &self,
        bag: &BagId,
        index: Option<u32>,
        mut see: impl FnMut(TaskResult),
    ) -> Result<(), Error> {
        let filter = index.map_or_else(
            || subjects::results_of(bag),
            |index| subjects::results_of_task(bag, index),
        );
        self.read_all(subjects::RESULTS, &filter, |payload| {
            if let Ok(result) = TaskResult::decode(payload) {
                see(result);
            }
        })
        .await
    }

    /// The last message on `subject`, read from the stream's leader (`STREAM.MSG.GET`).
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub async fn last_from_leader(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<Vec<u8>>, Error> {
        let found = self.last_with_sequence(stream, subject).await?;
        Ok(found.map(|(_, payload)| payload))
    }

    /// The last message on `subject` and its sequence, read from the stream's leader.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub(crate) async fn last_with_sequence(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<(u64, Vec<u8>)>, Error> {
        #[derive(serde::Deserialize)]
        struct Answer {
            message: Option<Stored>,
            error: Option<jetstream::Error>,
        }
        #[derive(serde::Deserialize)]
        struct Stored {
            seq: u64,
            #[serde(default)]
            data: String,
        }
        let lost = Error::lost("read from the leader");
        let request = serde_json::json!({ "last_by_subj": subject });
        let answer: Answer = self
            .jetstream()
            .request(format!("STREAM.MSG.GET.{stream}"), &request)
            .await
            .map_err(|e| lost(&e))?;
        match (answer.message, answer.error) {
            (Some(stored), _) => {
                let data = data_encoding::BASE64.decode(stored.data.as_bytes());
                data.map(|data| Some((stored.seq, data))).map_err(|e| lost(&e))
            }
            (None, Some(error)) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => Ok(None),
            (None, Some(error)) => Err(lost(&error)),
            (None, None) => Err(lost(&"empty answer")),
        }
    }
}
