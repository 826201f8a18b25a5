//! Requests to a bucket's stream, each answered by one message.

use std::collections::HashMap;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::DirectGetErrorKind;
use bagpress_broker::limits;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time;

use super::{Bucket, Error, meta};

/// A message of a bucket's stream.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) sequence: u64,
    pub(super) payload: Bytes,
}

/// The part of a stream's information that is read here.
#[derive(Debug, Deserialize)]
pub(super) struct StreamInfo {
    pub(super) config: StreamConfig,
    pub(super) state: StreamState,
    /// How many subjects there are, in all pages.
    #[serde(default)]
    pub(super) total: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamConfig {
    pub(super) num_replicas: usize,
    pub(super) max_bytes: i64,
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamState {
    pub(super) bytes: u64,
    #[serde(default)]
    pub(super) subjects: HashMap<String, u64>,
}

#[derive(Debug, Deserialize)]
struct Got {
    message: GotMessage,
}

#[derive(Debug, Deserialize)]
struct GotMessage {
    seq: u64,
    #[serde(default)]
    data: String,
}

#[derive(Debug, Deserialize)]
struct Purged {}

impl Bucket {
    /// One request to the JetStream API; the inner error is JetStream's answer.
    pub(super) async fn request<T: DeserializeOwned>(
        &self,
        what: &'static str,
        verb: &str,
        body: &impl Serialize,
    ) -> Result<Result<T, async_nats::jetstream::Error>, Error> {
        let subject = format!("{verb}.{}", meta::stream(&self.name));
        let answer = self.context.request(subject, body).await;
        match answer.map_err(|error| Error::unanswered(what, &error))? {
            Response::Err { error } => Ok(Err(error)),
            Response::Ok(answer) => Ok(Ok(answer)),
        }
    }

    /// Information on the bucket's stream with the subjects that match, from `offset` on.
    pub(super) async fn stream_info(
        &self,
        subjects: &str,
        offset: usize,
    ) -> Result<StreamInfo, Error> {
        let what = "ask for a bucket's state";
        let body = json!({ "subjects_filter": subjects, "offset": offset });
        let answer = self.request(what, "STREAM.INFO", &body).await?;
        answer.map_err(|error| Error::answered(what, &self.name, &error))
    }

    /// The next message from `sequence` on of a subject, or without a sequence its last one; read
    /// from the leader.
    pub(super) async fn message_from_leader(
        &self,
        sequence: Option<u64>,
        subject: &str,
    ) -> Result<Option<Message>, Error> {
        let mut tried = 0;
        loop {
            match self.ask_leader(sequence, subject).await {
                Err(error) if error.is_transient() && tried < limits::GET_RETRIES => tried += 1,
                answer => return answer,
            }
            time::sleep(limits::RETRY_WAIT * tried).await;
        }
    }

    async fn ask_leader(
        &self,
        sequence: Option<u64>,
        subject: &str,
    ) -> Result<Option<Message>, Error> {
        let what = "read from a bucket's leader";
        let body = match sequence {
            Some(sequence) => json!({ "seq": sequence, "next_by_subj": subject }),
            None => json!({ "last_by_subj": subject }),
        };
        let got: Got = match self.request(what, "STREAM.MSG.GET", &body).await? {
            Ok(got) => got,
            Err(error) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => return Ok(None),
            Err(error) => return Err(Error::answered(what, &self.name, &error)),
        };
        let payload = data_encoding::BASE64.decode(got.message.data.as_bytes());
        let payload = payload.map_err(|error| Error::unanswered(what, &error))?;
        Ok(Some(Message { sequence: got.message.seq, payload: payload.into() }))
    }

    /// As [`Self::message_from_leader`], from any server that has the stream.
    pub(super) async fn message_direct(
        &self,
        sequence: Option<u64>,
        subject: &str,
    ) -> Result<Option<Message>, Error> {
        let what = "read from a bucket";
        let stream = self.context.get_stream_no_info(meta::stream(&self.name)).await;
        let stream = stream.map_err(|error| Error::unanswered(what, &error))?;
        let mut tried = 0;
        loop {
            let get = stream.direct_get_builder();
            let got = match sequence {
                Some(sequence) => get.sequence(sequence).next_by_subject(subject),
                None => get.last_by_subject(subject),
            };
            match got.send().await {
                Ok(got) => {
                    return Ok(Some(Message { sequence: got.sequence, payload: got.payload }));
                }
                Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(None),
                Err(error) if tried == limits::GET_RETRIES => {
                    return Err(self.gone_or(Error::unanswered(what, &error)).await);
                }
                Err(_) => tried += 1,
            }
            time::sleep(limits::RETRY_WAIT * tried).await;
        }
    }

    /// A bucket without a leader and one that is not there answer alike: asks which it is.
    pub(super) async fn gone_or(&self, error: Error) -> Error {
        match self.stream_info("", 0).await {
            Err(gone @ Error::NoBucket { .. }) => gone,
            _ => error,
        }
    }

    /// Removes all messages of a subject.
    pub(super) async fn purge(&self, subject: &str) -> Result<(), Error> {
        let what = "purge chunks";
        let answer = self.request(what, "STREAM.PURGE", &json!({ "filter": subject })).await?;
        let purged: Result<Purged, _> = answer;
        purged.map(drop).map_err(|error| Error::answered(what, &self.name, &error))
    }
}
