//! Reading what a stream holds: the last message on a subject, or all that are on some, once.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, pull};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Message, StatusCode};
use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use crate::ids::random_base32;
use crate::wire::ack::AckSubject;
use crate::{Broker, Error, Role, limits};

use super::pull::{Pull, Pulled};

/// Status of the message behind the last one of a batch.
const END_OF_BATCH: u16 = 204;

/// Where a stream has a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredAt {
    /// Its sequence.
    pub(crate) sequence: u64,
    /// For how long it had been there when the reading began, by the server's own clock.
    pub(crate) age: Duration,
}

impl StoredAt {
    fn of(message: &Message, now_ns: i128) -> Self {
        let ack = message.reply.as_deref().and_then(AckSubject::parse);
        let age = ack.map_or(0, |ack| now_ns - i128::from(ack.stored_ns));
        let age = u64::try_from(age).unwrap_or(0);
        let sequence = ack.map_or(0, |ack| ack.stream_sequence);
        Self { sequence, age: Duration::from_nanos(age) }
    }
}

/// A message, as the leader of its stream has it.
#[derive(Deserialize)]
pub(super) struct OnLeader {
    pub(super) subject: String,
    pub(super) seq: u64,
    /// In base64.
    #[serde(default)]
    data: String,
}

impl Broker {
    /// Reads every message of `stream` that is on a subject that matches `filter` now, oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: what was seen so far may be incomplete.
    pub(crate) async fn read_all(
        &self,
        stream: &str,
        filter: &str,
        mut see: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        if self.role() == Role::Observer {
            return self.read_directly(stream, filter, see).await;
        }
        let all = DeliverPolicy::All;
        self.read_from(stream, filter, all, |message, _| see(&message.payload)).await
    }

    /// Reads without a consumer, which an observer may not make; a copy of the stream that answers may lag.
    async fn read_directly(
        &self,
        stream: &str,
        filter: &str,
        mut see: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        let during = Error::during("read a stream");
        let api = format!("$JS.API.DIRECT.GET.{stream}");
        let inbox = self.client().new_inbox();
        let answers = self.client().subscribe(inbox.clone()).await;
        let mut answers = answers.map_err(|e| during.lost(e))?;
        let (mut sequence, mut more) = (1_u64, true);
        while more {
            let batch = limits::GATHER_BATCH;
            let ask = json!({ "seq": sequence, "next_by_subj": filter, "batch": batch });
            let asked = self.client().publish_with_reply(
                api.clone(),
                inbox.clone(),
                ask.to_string().into(),
            );
            asked.await.map_err(|e| during.lost(e))?;
            loop {
                let answer = timeout(limits::REQUEST_TIMEOUT, answers.next()).await;
                let answer = answer.map_err(|e| during.lost(e))?;
                let answer = answer.ok_or_else(|| during.lost("the connection is closed"))?;
                let number = |header| number(&answer, header);
                match answer.status {
                    None => {
                        let at =
                            number("Nats-Sequence").ok_or_else(|| during.lost("no sequence"))?;
                        sequence = at + 1;
                        see(&answer.payload);
                    }
                    Some(StatusCode::NOT_FOUND) => return Ok(()),
                    Some(status) if status.as_u16() == END_OF_BATCH => {
                        more = number("Nats-Num-Pending").is_some_and(|pending| pending > 0);
                        break;
                    }
                    Some(status) => return Err(during.lost(status.to_string())),
                }
            }
        }
        Ok(())
    }

    /// As [`read_all`](Self::read_all), from where `policy` says, and with each message's place.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: what was seen so far may be incomplete.
    pub(crate) async fn read_from(
        &self,
        stream: &str,
        filter: &str,
        deliver_policy: DeliverPolicy,
        mut see: impl FnMut(&Message, &StoredAt),
    ) -> Result<(), Error> {
        let during = Error::during("read a stream");
        let name = format!("read-{}", random_base32::<10>());
        let config = pull::Config {
            name: Some(name.clone()),
            description: Some("Reads once".to_owned()),
            filter_subject: filter.to_owned(),
            ack_policy: AckPolicy::None,
            deliver_policy,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: Duration::from_mins(1),
            ..pull::Config::default()
        };
        let made = self.jetstream().create_consumer_on_stream(config, stream).await;
        let mut consumer: Consumer<pull::Config> = made.map_err(|e| during.lost(e))?;
        let mut left = consumer.cached_info().num_pending;
        // The server's clock, a moment ago.
        let now = consumer.cached_info().created.unix_timestamp_nanos();
        let mut pull = Pull::open(self, stream, &name).await?;
        let mut read = 0_u64;
        let mut asked_at = u64::MAX;
        while left > 0 {
            if pull.outstanding() == 0 {
                if asked_at == read {
                    // A whole request brought nothing: what is missing was removed meanwhile, or lost.
                    let info = consumer.info().await.map_err(|e| during.lost(e))?;
                    if info.num_pending == 0 {
                        break;
                    }
                    return Err(during.lost("messages are missing"));
                }
                asked_at = read;
                pull.request(limits::GATHER_BATCH).await?;
            }
            match pull.next().await {
                Pulled::Message(message) => {
                    (left, read) = (left - 1, read + 1);
                    see(&message, &StoredAt::of(&message, now));
                }
                Pulled::Ended => {}
                Pulled::Gone(why) => return Err(during.lost(why)),
            }
        }
        if let Err(error) = self.jetstream().delete_consumer_from_stream(&name, stream).await {
            tracing::debug!(%error, "consumer not removed, it goes by itself");
        }
        Ok(())
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
        let request = json!({ "last_by_subj": subject });
        let Some(stored) = self.ask_leader(stream, &request).await? else { return Ok(None) };
        let data = data_encoding::BASE64.decode(stored.data.as_bytes());
        data.map(|data| Some((stored.seq, data)))
            .map_err(|e| Error::during("read from the leader").lost(e))
    }

    /// One message, read from the stream's leader as `request` says.
    pub(super) async fn ask_leader(
        &self,
        stream: &str,
        request: &serde_json::Value,
    ) -> Result<Option<OnLeader>, Error> {
        #[derive(Deserialize)]
        struct Answer {
            message: Option<OnLeader>,
            error: Option<jetstream::Error>,
        }
        let during = Error::during("read from the leader");
        let asked = self.jetstream().request(format!("STREAM.MSG.GET.{stream}"), request).await;
        match asked.map_err(|e| during.lost(e))? {
            Answer { message: Some(stored), .. } => Ok(Some(stored)),
            Answer { error: Some(e), .. } if e.error_code() == ErrorCode::NO_MESSAGE_FOUND => {
                Ok(None)
            }
            Answer { error: Some(error), .. } => Err(during.lost(error)),
            Answer { .. } => Err(during.lost("empty answer")),
        }
    }

    /// How many messages `stream` has on each subject that matches `filter`.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] or [`Error::Lost`].
    pub(crate) async fn count_subjects(
        &self,
        stream: &str,
        filter: &str,
        mut see: impl FnMut(&str, u64),
    ) -> Result<(), Error> {
        let during = Error::during("count messages");
        let stream = self.stream(stream).await?;
        let counts = stream.info_with_subjects(filter).await;
        let mut counts = counts.map_err(|e| during.lost(e))?;
        while let Some((subject, count)) = counts.try_next().await.map_err(|e| during.lost(e))? {
            see(&subject, count as u64);
        }
        Ok(())
    }

    /// Removes every message of `stream` that is on a subject that matches `filter`.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] or [`Error::Lost`].
    pub(crate) async fn purge(&self, stream: &str, filter: &str) -> Result<u64, Error> {
        let found = self.stream(stream).await?;
        let purged = found.purge().filter(filter).await;
        purged.map(|purged| purged.purged).map_err(|e| Error::during("purge").lost(e))
    }
}

fn number(message: &Message, header: &str) -> Option<u64> {
    message.headers.as_ref()?.get(header)?.as_str().parse().ok()
}
