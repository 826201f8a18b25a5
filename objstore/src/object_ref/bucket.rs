//! A bucket's stream, and the requests that are answered by one message.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_nats::Client;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{
    DirectGetErrorKind, InfoError, InfoWithSubjects, PurgeErrorKind, RawMessageErrorKind, Stream,
};
use async_nats::jetstream::{self, Context};
use bagpress_broker::limits;
use bagpress_broker::retry::Retry;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::Error;
use super::meta::{Info, Lookup};
use super::names;

/// Unit in which bytes of reads in flight are counted.
const READ_UNIT: usize = 1024;
/// How a message is asked for again.
const GET_AGAIN: Retry = Retry::times(limits::GET_RETRIES + 1).growing();
const ASK_STATE: &str = "ask for a bucket's state";

/// An object bucket in the format of ADR-20: the stream `OBJ_<name>`. Cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    client: Client,
    context: Context,
    name: String,
    /// How many chunks a writer may have in flight; falls when the server says *too many*.
    window: Arc<AtomicUsize>,
    /// Bytes that readers may have in flight: the server cuts off a client for which 64 MiB wait.
    reads: Arc<Semaphore>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A message of a bucket's stream.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) sequence: u64,
    pub(super) payload: Bytes,
}

impl From<StreamMessage> for Message {
    fn from(message: StreamMessage) -> Self {
        Self { sequence: message.sequence, payload: message.payload }
    }
}

impl Bucket {
    /// Names a bucket, without asking whether it is there.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`], permanent.
    pub fn new(client: Client, context: Context, name: &str) -> Result<Self, Error> {
        names::check_token("a bucket", name)?;
        Ok(Self {
            client,
            context,
            name: name.to_owned(),
            window: Arc::new(AtomicUsize::new(limits::WINDOW_MAX)),
            reads: Arc::new(Semaphore::new(limits::WINDOWS_BYTES / READ_UNIT)),
        })
    }

    /// The bucket's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// What the bucket knows of a name, by direct get: with replicas it may lag.
    ///
    /// # Errors
    ///
    /// [`Error::Unanswered`], transient; [`Error::NoBucket`], [`Error::BadName`].
    pub async fn info(&self, name: &str) -> Result<Lookup, Error> {
        names::check_object(name)?;
        let subject = names::metadata_subject(&self.name, name);
        Ok(self.lookup(self.message_direct(None, &subject).await?))
    }

    /// What the bucket knows of a name, from the stream's leader: never older than any answer
    /// that was given before.
    ///
    /// # Errors
    ///
    /// As [`Self::info`].
    pub async fn info_from_leader(&self, name: &str) -> Result<Lookup, Error> {
        names::check_object(name)?;
        let subject = names::metadata_subject(&self.name, name);
        Ok(self.lookup(self.message_from_leader(None, &subject).await?))
    }

    fn lookup(&self, message: Option<Message>) -> Lookup {
        let read = |message: Message| Lookup::read(&self.name, message.sequence, &message.payload);
        message.map_or(Lookup::Missing, read)
    }

    /// The object of a name, if its metadata and all of its chunks are there. Reads no chunk.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] if chunks are missing, or the errors of [`Lookup::found`] and
    /// [`Self::info`].
    pub async fn check_present(&self, name: &str) -> Result<Info, Error> {
        let info = self.info(name).await?.found(&self.name, name)?;
        self.with_chunks(info).await
    }

    /// [`Self::check_present`] with metadata from the stream's leader.
    ///
    /// # Errors
    ///
    /// Those of [`Self::check_present`].
    pub async fn check_present_from_leader(&self, name: &str) -> Result<Info, Error> {
        let info = self.info_from_leader(name).await?.found(&self.name, name)?;
        self.with_chunks(info).await
    }

    async fn with_chunks(&self, info: Info) -> Result<Info, Error> {
        let found = self.count_chunks(&info.token).await?;
        if found == info.chunks { Ok(info) } else { Err(info.lost(found)) }
    }

    /// Bytes that the bucket holds, and that it may hold.
    ///
    /// # Errors
    ///
    /// [`Error::Unanswered`], transient; [`Error::NoBucket`].
    pub async fn usage(&self) -> Result<(u64, u64), Error> {
        let info = self.state("").await?.info;
        Ok((info.state.bytes, u64::try_from(info.config.max_bytes).unwrap_or(u64::MAX)))
    }

    /// How many chunks there are under a token, by the stream's leader.
    ///
    /// # Errors
    ///
    /// [`Error::Unanswered`], transient; [`Error::NoBucket`], [`Error::BadName`].
    pub async fn count_chunks(&self, token: &str) -> Result<u64, Error> {
        names::check_chunk_token(token)?;
        let mut state = self.state(&names::chunks_subject(&self.name, token)).await?;
        // They all have one subject.
        let count = state.next().await.transpose().map_err(|error| self.no_state(&error))?;
        Ok(count.map_or(0, |(_, count)| count as u64))
    }

    /// Removes all chunks under a token.
    ///
    /// # Errors
    ///
    /// As [`Self::count_chunks`].
    pub async fn purge_chunks(&self, token: &str) -> Result<(), Error> {
        names::check_chunk_token(token)?;
        self.purge(&names::chunks_subject(&self.name, token)).await
    }

    /// Removes all messages of a subject.
    pub(super) async fn purge(&self, subject: &str) -> Result<(), Error> {
        let what = "purge chunks";
        let purged = self.stream(what).await?.purge().filter(subject).await;
        purged.map(drop).map_err(|error| match error.kind() {
            PurgeErrorKind::JetStream(answer) => Error::answered(what, &self.name, &answer),
            _ => Error::unanswered(what, &error),
        })
    }

    /// The state of the bucket's stream, and its subjects that match, with the number of messages of each.
    pub(super) async fn state(&self, subjects: &str) -> Result<InfoWithSubjects, Error> {
        let state = self.stream(ASK_STATE).await?.info_builder().subjects(subjects).fetch().await;
        state.map_err(|error| self.no_state(&error))
    }

    pub(super) fn no_state(&self, error: &InfoError) -> Error {
        let source = std::error::Error::source(error);
        match source.and_then(|source| source.downcast_ref::<jetstream::Error>()) {
            Some(answer) => Error::answered(ASK_STATE, &self.name, answer),
            None => Error::unanswered(ASK_STATE, error),
        }
    }

    /// The next message from `sequence` on of a subject, or without a sequence its last one; read
    /// from the leader.
    pub(super) async fn message_from_leader(
        &self,
        sequence: Option<u64>,
        subject: &str,
    ) -> Result<Option<Message>, Error> {
        let what = "read from a bucket's leader";
        let stream = self.stream(what).await?;
        let once = async || {
            let get = stream.raw_message_builder();
            let got = match sequence {
                Some(sequence) => get.sequence(sequence).next_by_subject(subject),
                None => get.last_by_subject(subject),
            };
            match got.send().await {
                Ok(got) => Ok(Some(got.into())),
                Err(error) => match error.kind() {
                    RawMessageErrorKind::NoMessageFound => Ok(None),
                    RawMessageErrorKind::JetStream(answer) => {
                        Err(Error::answered(what, &self.name, &answer))
                    }
                    _ => Err(Error::unanswered(what, &error)),
                },
            }
        };
        GET_AGAIN.run(once, Error::is_transient).await
    }

    /// As [`Self::message_from_leader`], from any server that has the stream.
    pub(super) async fn message_direct(
        &self,
        sequence: Option<u64>,
        subject: &str,
    ) -> Result<Option<Message>, Error> {
        let what = "read from a bucket";
        let stream = self.stream(what).await?;
        let once = async || {
            let get = stream.direct_get_builder();
            let got = match sequence {
                Some(sequence) => get.sequence(sequence).next_by_subject(subject),
                None => get.last_by_subject(subject),
            };
            match got.send().await {
                Ok(got) => Ok(Some(got.into())),
                Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        };
        match GET_AGAIN.run(once, |_| true).await {
            Ok(found) => Ok(found),
            Err(error) => Err(self.gone_or(Error::unanswered(what, &error)).await),
        }
    }

    /// A bucket without a leader and one that is not there answer alike: asks which it is.
    pub(super) async fn gone_or(&self, error: Error) -> Error {
        match self.state("").await {
            Err(gone @ Error::NoBucket { .. }) => gone,
            _ => error,
        }
    }

    /// The stream, without asking for it.
    async fn stream(&self, what: &'static str) -> Result<Stream<()>, Error> {
        let stream = self.context.get_stream_no_info(names::stream(&self.name)).await;
        stream.map_err(|error| Error::unanswered(what, &error))
    }

    /// Waits until readers may have so many bytes more in flight; they may until what is returned is dropped.
    pub(super) async fn begin_read(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes / READ_UNIT + 1).unwrap_or(u32::MAX);
        self.reads.clone().acquire_many_owned(units).await.ok()
    }

    pub(super) fn window(&self) -> usize {
        self.window.load(Ordering::Relaxed)
    }

    /// Sends one chunk at a time from now on.
    pub(super) fn slow_down(&self) {
        self.window.store(1, Ordering::Relaxed);
    }

    /// Allows one more, after an object that went well.
    pub(super) fn speed_up(&self) {
        let window = self.window();
        if window < limits::WINDOW_MAX {
            // A concurrent change wins, slowing down above all.
            let order = Ordering::Relaxed;
            self.window.compare_exchange(window, window + 1, order, order).ok();
        }
    }
}
