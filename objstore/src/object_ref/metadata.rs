//! Metadata of an object is published, moved to another name or made a tombstone, each only over what was there.

use std::time::SystemTime;

use async_nats::header::{NATS_MESSAGE_TTL, NATS_ROLLUP};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::object_store::ObjectInfo;
use tracing::debug;

use super::bucket::Bucket;
use super::error::{Error, Fault};
use super::marks::{self, Freed};
use super::meta::{Info, Lookup, wire};
use super::names;
use super::resend::Resend;

pub(super) const WHAT: &str = "write an object's metadata";
/// How many times metadata may turn out to be another than the one just read.
pub(super) const RACES_MAX: u32 = 8;

/// What became of metadata that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Published {
    /// It is there, as this sequence.
    At(u64),
    /// It is not there and never will be, unless an earlier try of the same was stored.
    Conflict,
}

impl Bucket {
    /// Publishes metadata until it is stored or refused. Publishing it again does no harm: once one try
    /// is stored, all others expect a sequence that is no longer the last.
    pub(super) async fn publish_metadata(
        &self,
        wire: &ObjectInfo,
        expected: u64,
    ) -> Result<Published, Error> {
        let subject = names::metadata_subject(self.name(), &wire.name);
        let payload = serde_json::to_vec(wire);
        let payload = payload.map_err(|error| Error::unanswered(WHAT, &error))?;
        let mut message = PublishMessage::build()
            .payload(payload.into())
            .header(NATS_ROLLUP, "sub")
            .expected_last_subject_sequence(expected);
        if let Some(at) = marks::expires(&wire.metadata) {
            // It outlives the chunks, to say what became of them.
            let left = at.duration_since(SystemTime::now()).unwrap_or_default();
            let seconds = (left + marks::KNOWN_FOR).as_secs();
            message = message.header(NATS_MESSAGE_TTL, format!("{seconds}s").as_str());
        }
        let mut resend = Resend::new();
        let mut unknown = false;
        loop {
            let sent = match self.context().send_publish(subject.clone(), message.clone()).await {
                Ok(ack) => ack.await,
                Err(error) => Err(error),
            };
            let error = match sent {
                Ok(ack) => return Ok(Published::At(ack.sequence)),
                Err(error) => error,
            };
            let cause = match Fault::of(WHAT, self.name(), &error) {
                Fault::Conflict => return Ok(Published::Conflict),
                Fault::Final(Error::Full { why, .. }) if unknown => {
                    return Err(Error::Unanswered { what: WHAT, cause: why });
                }
                Fault::Final(error) => return Err(error),
                Fault::TooFast => "too many requests".to_owned(),
                Fault::Passing(cause) => cause,
                Fault::Unknown(cause) => {
                    unknown = true;
                    cause
                }
            };
            debug!(object = wire.name, cause, "metadata not acknowledged");
            if !resend.again().await {
                return Err(self.gone_or(Error::Unanswered { what: WHAT, cause }).await);
            }
        }
    }

    /// Gives an object the name `name`, whatever has it, and takes away the one that it has. For who decides which object
    /// counts. Safe to repeat.
    ///
    /// # Errors
    ///
    /// As [`Self::remove`].
    pub async fn rename(&self, info: &Info, name: &str) -> Result<(), Error> {
        if info.name == name {
            return Ok(());
        }
        let mut renamed = ObjectInfo { name: name.to_owned(), ..wire(info) };
        for _ in 0..RACES_MAX {
            let there = self.info_from_leader(name).await?;
            if let Lookup::Found(found) = &there {
                marks::carry_over(&found.metadata, &mut renamed.metadata);
            }
            let named = matches!(&there, Lookup::Found(found) if found.token == info.token);
            if named
                || matches!(
                    self.publish_metadata(&renamed, there.sequence()).await?,
                    Published::At(_)
                )
            {
                return self.purge(&names::metadata_subject(self.name(), &info.name)).await;
            }
        }
        Err(too_many_races("name an object", self.name(), name))
    }

    /// Purges the chunks of an object that was deleted, whose token its tombstone has: whoever deleted it may have died before it
    /// did. What has the name by now is another object, and stays; so do chunks that are `shared` and that another name has.
    ///
    /// # Errors
    ///
    /// As [`Self::remove`].
    pub async fn finish_removal(&self, token: &str, shared: bool) -> Result<(), Error> {
        self.purge_unless_named(token, shared).await
    }

    /// Deletes an object: its metadata becomes a tombstone, then its chunks go, unless another name has them. Whether there
    /// was one.
    ///
    /// # Errors
    ///
    /// [`Error::Unanswered`], transient; [`Error::NoBucket`], [`Error::Malformed`].
    pub async fn remove(&self, name: &str) -> Result<bool, Error> {
        for _ in 0..RACES_MAX {
            match self.info_from_leader(name).await? {
                Lookup::Missing => return Ok(false),
                Lookup::Deleted { token, shared, .. } => {
                    // The writer of the tombstone may have died before it purged the chunks.
                    self.purge_unless_named(&token, shared).await?;
                    return Ok(false);
                }
                lookup => {
                    let info = lookup.found(self.name(), name)?;
                    if self.remove_exactly(&info).await? {
                        return Ok(true);
                    }
                }
            }
        }
        Err(too_many_races("delete an object", self.name(), name))
    }

    /// Deletes an object if it is still the one that `info` describes; whether it was.
    ///
    /// # Errors
    ///
    /// As [`Self::remove`].
    pub async fn remove_exactly(&self, info: &Info) -> Result<bool, Error> {
        self.bury(info, wire(info)).await
    }

    /// The same, and its tombstone says who let go of it. An object that was pinned, or is read, since `info` was read is
    /// another one, and stays.
    ///
    /// # Errors
    ///
    /// As [`Self::remove`].
    pub async fn free_exactly(&self, info: &Info, freed: &Freed) -> Result<bool, Error> {
        let mut wire = wire(info);
        freed.mark(&mut wire.metadata);
        self.bury(info, wire).await
    }

    /// The same, and its tombstone says that `by` removed it to have it made again by its task.
    ///
    /// # Errors
    ///
    /// As [`Self::remove`].
    pub async fn remove_for_its_task(&self, info: &Info, by: &str) -> Result<bool, Error> {
        let mut wire = wire(info);
        marks::remove_for_its_task(&mut wire.metadata, by);
        self.bury(info, wire).await
    }

    async fn bury(&self, info: &Info, wire: ObjectInfo) -> Result<bool, Error> {
        let tombstone = ObjectInfo {
            bucket: self.name().to_owned(),
            size: 0,
            chunks: 0,
            modified: Some(SystemTime::now().into()),
            deleted: true,
            ..wire
        };
        let shared = match self.publish_metadata(&tombstone, info.sequence).await? {
            Published::At(_) => marks::is_shared(&info.metadata, &info.token),
            Published::Conflict => match self.info_from_leader(&info.name).await? {
                Lookup::Deleted { token, shared, .. } if token == info.token => shared,
                _ => return Ok(false),
            },
        };
        self.purge_unless_named(&info.token, shared).await?;
        Ok(true)
    }
}

pub(super) fn too_many_races(what: &'static str, bucket: &str, object: &str) -> Error {
    Error::Unanswered { what, cause: format!("obj://{bucket}/{object} changes all the time") }
}
