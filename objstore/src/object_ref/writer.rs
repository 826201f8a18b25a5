//! Writing the chunks of an object, in order.

use std::collections::HashMap;
use std::mem;
use std::time::{Duration, SystemTime};

use async_nats::HeaderValue;
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_TTL};
use async_nats::jetstream::context::{PublishAckFuture, PublishError};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use bagpress_broker::{ids, limits};
use bagpress_codec::{Digest, Hasher};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};
use tracing::debug;

use super::bucket::Bucket;
use super::commit::{Others, Sealed, Written};
use super::error::{Error, Fault};
use super::marks;
use super::meta::Info;
use super::names;
use super::resend::Resend;

const WHAT: &str = "write a chunk";
/// Bytes that a message's headers and subject may add to a chunk.
const HEADER_BYTES: usize = 4 * 1024;

/// Writes one object: chunks under a window, then metadata.
///
/// **Order.** A reader takes the chunks of a token in the order of the stream, so they must lie there as they were
/// sent. Should the server refuse or lose one of several in flight, it is sent again with the same message id before
/// any new one, and each later one is looked at in turn; a chunk whose sequence is not above its predecessor's ends the
/// writer with [`Error::OutOfOrder`]: its chunks are purged, and the caller begins again. After the server said *too
/// many requests* all writers of the [`Bucket`] send one chunk at a time for a while, and then a refused chunk is
/// always sent again in its place.
///
/// **Failure.** After an error the chunks are purged as far as possible and the writer is of no more use. After
/// [`Error::Full`] the same token may be written again, after any other take a new one. A writer that is dropped, or
/// whose future is, leaves chunks behind: [`Bucket::orphans`].
#[derive(Debug)]
pub struct Writer {
    bucket: Bucket,
    name: String,
    token: String,
    description: String,
    metadata: HashMap<String, String>,
    /// Part of each message id, so that a token which was purged can be written again at once.
    nonce: String,
    subject: String,
    chunk_bytes: usize,
    tail: BytesMut, // no whole chunk yet
    hasher: Hasher,
    expected: Option<(u64, Digest)>, // by the caller
    ttl: Option<Duration>,           // of the object
    bytes: u64,
    chunks: u64,
    /// Chunks sent and not yet acknowledged, oldest first, and all waited for at the same time.
    sent: FuturesOrdered<BoxFuture<'static, Sent>>,
    /// Where the last acknowledged chunk lies.
    sequence: u64,
    /// Something was sent twice: one at a time from here on, and the count is checked at the end.
    careful: bool,
    failed: bool,
}

/// A chunk, and what became of it.
#[derive(Debug)]
struct Sent {
    number: u64,
    bytes: Bytes,
    acked: Acked,
}

type Acked = Result<PublishAck, PublishError>;
async fn acked(sent: Result<PublishAckFuture, PublishError>) -> Acked {
    sent?.await
}

impl Writer {
    pub(super) fn new(bucket: Bucket, name: &str, token: &str) -> Self {
        let max_payload = bucket.client().server_info().max_payload;
        let fits = max_payload.saturating_sub(HEADER_BYTES).max(HEADER_BYTES);
        Self {
            subject: names::chunks_subject(bucket.name(), token),
            bucket,
            name: name.to_owned(),
            token: token.to_owned(),
            description: String::new(),
            metadata: HashMap::new(),
            nonce: ids::random_base32::<5>(),
            chunk_bytes: limits::CHUNK_BYTES.min(fits),
            tail: BytesMut::new(),
            hasher: Hasher::new(),
            expected: None,
            ttl: None,
            bytes: 0,
            chunks: 0,
            sent: FuturesOrdered::new(),
            sequence: 0,
            careful: false,
            failed: false,
        }
    }

    /// Says for people what the object is.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Labels the object.
    #[must_use]
    pub fn metadata(mut self, metadata: HashMap<String, String>) -> Self {
        self.metadata = metadata;
        self
    }

    /// Says what must arrive: before the metadata is written it is compared with what did.
    #[must_use]
    pub fn expecting(mut self, bytes: u64, digest: Digest) -> Self {
        self.expected = Some((bytes, digest));
        self
    }

    /// Has the object expire this long from now, at least a second.
    #[must_use]
    pub fn expiring(mut self, ttl: Duration) -> Self {
        marks::expire_at(&mut self.metadata, SystemTime::now() + ttl);
        self.ttl = Some(ttl);
        self
    }

    /// Appends bytes, any number of them. Returns when at most a window of chunks is in flight. Not cancel-safe: a writer
    /// whose `write` was dropped must be dropped too.
    ///
    /// # Errors
    ///
    /// [`Error::Full`], [`Error::Unanswered`] and [`Error::OutOfOrder`], all transient;
    /// [`Error::TokenUsed`], [`Error::NoBucket`] and [`Error::Refused`], which are not.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        self.check_usable()?;
        while self.tail.len() + bytes.len() >= self.chunk_bytes {
            let part = bytes.split_to(self.chunk_bytes - self.tail.len());
            let chunk = if self.tail.is_empty() {
                part
            } else {
                self.tail.extend_from_slice(&part);
                mem::take(&mut self.tail).freeze()
            };
            self.send(chunk).await?;
        }
        self.tail.extend_from_slice(&bytes);
        Ok(())
    }

    /// Writes the metadata, create-only, when all chunks are acknowledged; if another is there already, adopts that object
    /// and purges the own chunks if it has the very bytes, and replaces it otherwise.
    ///
    /// # Errors
    ///
    /// As [`Self::write`], and [`Error::Digest`] if other bytes arrived than were
    /// [expected](Self::expecting). After [`Error::Unanswered`] the object may be there all the same.
    pub async fn commit_or_adopt(self) -> Result<Written, Error> {
        self.commit(Others::Replaced).await
    }

    /// The same, but an object that reads back and has other bytes stays where it is: the own one gets another
    /// name, until [`Bucket::rename`] gives it its own.
    ///
    /// # Errors
    ///
    /// As [`Self::commit_or_adopt`].
    pub async fn commit_beside(self) -> Result<Written, Error> {
        self.commit(Others::Stay).await
    }

    /// The same, for a name that a user chose: other bytes under it, there or freed, are refused, and nothing is written. What
    /// is lost of the very bytes is made whole.
    ///
    /// # Errors
    ///
    /// As [`Self::commit_or_adopt`], and [`Error::Exists`], permanent.
    pub async fn commit_new(self) -> Result<Written, Error> {
        self.commit(Others::Refused).await
    }

    /// The same, but a broken object stays, too: of what it holds of more than one task, a part may count and be read still.
    pub(crate) async fn commit_beside_broken(self) -> Result<Written, Error> {
        self.commit(Others::StayBroken).await
    }

    async fn commit(self, others: Others) -> Result<Written, Error> {
        let (bucket, name, token) = (self.bucket.clone(), self.name.clone(), self.token.clone());
        let (stored, own) = match Box::pin(self.seal()).await {
            Ok(sealed) => {
                let own = sealed.content();
                (Box::pin(sealed.commit(others)).await, own)
            }
            Err((error, own)) => (Err(error), own),
        };
        match stored {
            // Another execution may have filled the bucket with this very object.
            Err(error @ Error::Full { .. }) => match bucket.adoptable(&name, &token).await {
                Some(info) if (info.bytes, info.digest) == own => Ok(Written { info, mine: false }),
                _ => Err(error),
            },
            stored => stored,
        }
    }

    /// Gives the object up and purges its chunks; after an error that was done already.
    ///
    /// # Errors
    ///
    /// [`Error::Unanswered`] if chunks may be left behind.
    pub async fn abandon(mut self) -> Result<(), Error> {
        if self.failed {
            return Ok(()); // and what is under a token that was in use is not this writer's
        }
        self.settle().await;
        self.bucket.purge_chunks(&self.token).await
    }

    /// The object that is there already, if there is one that reads back with its digest: for a caller that found no room for
    /// another, and will know only later whether it is the same.
    pub async fn adoptable(&mut self) -> Option<Info> {
        self.bucket.adoptable(&self.name, &self.token).await
    }

    fn check_usable(&self) -> Result<(), Error> {
        let (bucket, object) = (self.bucket.name().to_owned(), self.name.clone());
        if self.failed { Err(Error::Abandoned { bucket, object }) } else { Ok(()) }
    }

    /// Sends what is left and waits for all chunks to be acknowledged. With an error comes what they would have been.
    async fn seal(mut self) -> Result<Sealed, (Error, (u64, Digest))> {
        let bytes = self.bytes + self.tail.len() as u64;
        let sent = self.send_the_rest().await;
        let digest = mem::take(&mut self.hasher).finish();
        sent.map_err(|error| (error, (bytes, digest)))?;
        if let Some((expected, wanted)) = self.expected
            && (expected, wanted) != (self.bytes, digest)
        {
            let (bucket, object) = (self.bucket.name().to_owned(), self.name.clone());
            let error = Error::Digest { bucket, object, found: digest, wanted };
            return Err((self.fail(error).await, (bytes, digest)));
        }
        let info = Info {
            bucket: self.bucket.name().to_owned(),
            name: self.name,
            token: self.token,
            bytes: self.bytes,
            chunks: self.chunks,
            digest,
            sequence: 0,
            description: self.description,
            metadata: self.metadata,
            modified: None,
        };
        Ok(Sealed::new(self.bucket, info, self.chunk_bytes))
    }

    async fn send_the_rest(&mut self) -> Result<(), Error> {
        self.check_usable()?;
        if !self.tail.is_empty() {
            let chunk = mem::take(&mut self.tail).freeze();
            self.send(chunk).await?;
        }
        self.settle_down_to(0).await?;
        if self.careful {
            return self.check_count().await;
        }
        self.bucket.speed_up();
        Ok(())
    }

    /// A chunk that was sent twice must be there once.
    async fn check_count(&mut self) -> Result<(), Error> {
        match self.bucket.count_chunks(&self.token).await {
            Ok(count) if count == self.chunks => Ok(()),
            Ok(_) => Err(self.fail(self.out_of_order()).await),
            Err(error) => Err(self.fail(error).await),
        }
    }

    async fn send(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.hasher.update(&bytes);
        // The second chunk waits for the first: it says whether the token is free.
        let window = if self.careful || self.chunks == 1 { 1 } else { self.bucket.window() };
        self.settle_down_to(window - 1).await?;
        let number = self.chunks;
        self.bytes += bytes.len() as u64;
        self.chunks += 1;
        let mut message = self.message(number, bytes.clone());
        if number == 0 {
            // Nobody wrote under this token before.
            let none = HeaderValue::from(0_u64);
            message = message.header(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, none);
        }
        let ack = self.bucket.context().send_publish(self.subject.clone(), message).await;
        let sent = acked(ack).map(move |acked| Sent { number, bytes, acked });
        self.sent.push_back(sent.boxed());
        Ok(())
    }

    fn message(&self, number: u64, bytes: Bytes) -> PublishMessage {
        let id = format!("{}.{}.{number}", self.token, self.nonce);
        let message = PublishMessage::build().payload(bytes).message_id(id);
        let Some(ttl) = self.ttl else { return message };
        message.header(NATS_MESSAGE_TTL, format!("{}s", ttl.as_secs().max(1)).as_str())
    }

    /// Waits for acknowledgements, oldest first, until at most `most` are missing.
    async fn settle_down_to(&mut self, most: usize) -> Result<(), Error> {
        while self.sent.len() > if self.careful { 0 } else { most } {
            let Some(oldest) = self.sent.next().await else { break };
            let sequence = match oldest.acked {
                Ok(ack) => ack.sequence,
                // Boxed, since it is rare and large.
                Err(error) => Box::pin(self.resend(oldest.number, oldest.bytes, error)).await?,
            };
            if sequence <= self.sequence {
                return Err(self.fail(self.out_of_order()).await);
            }
            self.sequence = sequence;
        }
        Ok(())
    }

    /// Sends a chunk again until it is acknowledged, and returns its sequence. Its message id is
    /// the same, so one that was stored after all is not stored twice.
    async fn resend(
        &mut self,
        number: u64,
        bytes: Bytes,
        mut error: PublishError,
    ) -> Result<u64, Error> {
        self.careful = true;
        let mut resend = Resend::new();
        loop {
            let cause = match Fault::of(WHAT, self.bucket.name(), &error) {
                Fault::Final(error) => return Err(self.fail(error).await),
                Fault::Conflict => {
                    let bucket = self.bucket.name().to_owned();
                    self.failed = true; // and nothing is purged: those chunks are not this writer's
                    return Err(Error::TokenUsed { bucket, token: self.token.clone() });
                }
                Fault::TooFast => {
                    self.bucket.slow_down();
                    "too many requests".to_owned()
                }
                Fault::Unknown(cause) | Fault::Passing(cause) => cause,
            };
            debug!(chunk = number, cause, "chunk not acknowledged");
            if !resend.again().await {
                let error = self.bucket.gone_or(Error::Unanswered { what: WHAT, cause }).await;
                return Err(self.fail(error).await);
            }
            let message = self.message(number, bytes.clone());
            let sent = self.bucket.context().send_publish(self.subject.clone(), message).await;
            match acked(sent).await {
                Ok(ack) => return Ok(ack.sequence),
                Err(again) => error = again,
            }
        }
    }

    fn out_of_order(&self) -> Error {
        Error::OutOfOrder { bucket: self.bucket.name().to_owned(), object: self.name.clone() }
    }

    /// Purges the own chunks; the error that the caller gets.
    async fn fail(&mut self, error: Error) -> Error {
        self.failed = true;
        let certain = self.settle().await;
        let purged = self.bucket.purge_chunks(&self.token).await;
        match error {
            // The token may be written again only if nothing of it is left or will come.
            Error::Full { why, .. } if !certain || purged.is_err() => {
                Error::Unanswered { what: WHAT, cause: why }
            }
            error => error,
        }
    }

    /// Waits until nothing is in flight; whether it is known of every chunk what became of it.
    async fn settle(&mut self) -> bool {
        let mut certain = true;
        while let Some(sent) = self.sent.next().await {
            let fault = sent.acked.as_ref().err().map(|error| Fault::of(WHAT, "", error));
            certain &= !matches!(fault, Some(Fault::Unknown(_)));
        }
        certain
    }
}
