//! The metadata of an object whose chunks are stored: written once, or another's adopted.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use async_nats::header::NATS_ROLLUP;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::object_store::{ObjectInfo, ObjectOptions};
use bagpress_codec::Digest;
use tokio::time::{self, Instant};
use tracing::{debug, warn};

use super::error::Fault;
use super::{
    Bucket, Error, Info, Lookup, RACES_MAX, RESEND_WAIT, RESEND_WAIT_MAX, RESEND_WITHIN, meta,
};

const WHAT: &str = "write an object's metadata";

/// How writing an object ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finished {
    /// The object is there.
    Created(Info),
    /// Another was there already; the own chunks are still there.
    Exists(Info),
}

/// An object that is there for certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its metadata.
    pub info: Info,
    /// Whether it is the one just written, or another that was adopted.
    pub mine: bool,
}

/// An object whose chunks are all stored, in order, and which no metadata names yet.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) bucket: Bucket,
    pub(super) name: String,
    pub(super) token: String,
    pub(super) description: String,
    pub(super) metadata: HashMap<String, String>,
    pub(super) ttl: Option<Duration>,
    pub(super) digest: Digest,
    pub(super) bytes: u64,
    pub(super) chunks: u64,
    pub(super) chunk_bytes: usize,
}

/// What becomes of an object that has the name and other bytes. Equal tasks give equal bytes: it was planted, or made by
/// another version of the codec, or in another round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// It is replaced: nobody else has anything to write there.
    Replaced,
    /// It stays, as its outcome may count, and the own one gets a name beside it: whichever outcome counts, who counts it
    /// gives its object the name.
    Stay,
}

/// What became of metadata that was sent.
pub(super) enum Sent {
    /// It is there, as this sequence.
    Stored(u64),
    /// It is not there and never will be, unless an earlier try of the same was stored.
    Conflict,
}

impl Sealed {
    /// Writes the metadata if there is none, or only a tombstone.
    pub(super) async fn create(self) -> Result<Finished, Error> {
        match self.place(0).await? {
            Placed::Mine(info) => Ok(Finished::Created(info)),
            Placed::Other(Lookup::Found(info)) => Ok(Finished::Exists(info)),
            Placed::Other(lookup) => {
                lookup.found(&self.bucket.name, &self.name).map(Finished::Exists)
            }
        }
    }

    /// Writes the metadata, or adopts what is there if it is the very same, or replaces it if it is broken. What becomes
    /// of other bytes, `others` says.
    pub(super) async fn create_or_adopt(mut self, others: Others) -> Result<Stored, Error> {
        let mut expected = 0;
        for _ in 0..RACES_MAX {
            let other = match self.place(expected).await? {
                Placed::Mine(info) => return Ok(Stored { info, mine: true }),
                Placed::Other(other) => other,
            };
            match self.read_back(&other).await {
                Ok(info) if (info.bytes, info.digest) == (self.bytes, self.digest) => {
                    self.drop_chunks().await;
                    return Ok(Stored { info, mine: false });
                }
                Ok(info) => {
                    let (object, token) = (self.name.as_str(), &info.token);
                    warn!(object, token, ?others, "an object with other bytes is there");
                    match others {
                        Others::Replaced => expected = info.sequence,
                        Others::Stay => {
                            // Nobody else writes under that name.
                            self.name = meta::beside(&self.name, &self.token);
                            expected = 0;
                        }
                    }
                }
                Err(error) if error.is_broken_object() => {
                    warn!(object = self.name, %error, "broken object replaced");
                    // Its chunks stay: they are another execution's, and swept when no one
                    // names them.
                    expected = other.sequence();
                }
                Err(error) => return Err(error),
            }
        }
        Err(self.too_many_races())
    }

    /// Purges the own chunks, which no metadata names: the leader named another token, and nothing of ours that expects an
    /// older sequence can be stored any more. Should this fail, they are swept later.
    async fn drop_chunks(&self) {
        if let Err(error) = self.bucket.purge_chunks(&self.token).await {
            debug!(token = self.token, %error, "own chunks left behind");
        }
    }

    async fn read_back(&self, other: &Lookup) -> Result<Info, Error> {
        let info = other.clone().found(&self.bucket.name, &self.name)?;
        self.bucket.read_back(&info).await?;
        Ok(info)
    }

    /// Writes the metadata over what is `expected` there, or over nothing or a tombstone.
    async fn place(&self, mut expected: u64) -> Result<Placed, Error> {
        let wire = self.wire();
        for _ in 0..RACES_MAX {
            match self.bucket.publish_metadata(&wire, expected, self.ttl).await {
                Ok(Sent::Stored(sequence)) => return Ok(Placed::Mine(self.info(&wire, sequence))),
                Ok(Sent::Conflict) => {}
                Err(error @ Error::Full { .. }) => {
                    // It was refused for certain, whatever an earlier try did: nothing names us.
                    return Err(self.give_up(error).await);
                }
                Err(error) => return Err(error),
            }
            match self.bucket.info_from_leader(&self.name).await? {
                // An earlier try was stored, and only its acknowledgement was lost.
                Lookup::Found(info) if info.token == self.token => return Ok(Placed::Mine(info)),
                nothing @ (Lookup::Missing | Lookup::Deleted { .. }) => {
                    expected = nothing.sequence();
                }
                other if other.sequence() == expected => {}
                other => return Ok(Placed::Other(other)),
            }
        }
        Err(self.too_many_races())
    }

    /// Purges the own chunks if the leader says that no metadata names them.
    async fn give_up(&self, error: Error) -> Error {
        match self.bucket.info_from_leader(&self.name).await {
            Ok(Lookup::Found(info)) if info.token == self.token => error,
            Ok(_) => match self.bucket.purge_chunks(&self.token).await {
                Ok(()) => error,
                Err(_) => Error::unanswered(WHAT, &error),
            },
            Err(_) => Error::unanswered(WHAT, &error),
        }
    }

    fn too_many_races(&self) -> Error {
        let cause = format!("obj://{}/{} changes all the time", self.bucket.name, self.name);
        Error::Unanswered { what: WHAT, cause }
    }

    fn wire(&self) -> ObjectInfo {
        ObjectInfo {
            name: self.name.clone(),
            description: (!self.description.is_empty()).then(|| self.description.clone()),
            metadata: self.metadata.clone(),
            headers: None,
            options: Some(ObjectOptions { link: None, max_chunk_size: Some(self.chunk_bytes) }),
            bucket: self.bucket.name.clone(),
            nuid: self.token.clone(),
            size: usize::try_from(self.bytes).unwrap_or(usize::MAX),
            chunks: usize::try_from(self.chunks).unwrap_or(usize::MAX),
            modified: Some(SystemTime::now().into()),
            digest: Some(meta::write_digest(&self.digest)),
            deleted: false,
        }
    }

    fn info(&self, wire: &ObjectInfo, sequence: u64) -> Info {
        Info {
            bucket: self.bucket.name.clone(),
            name: self.name.clone(),
            token: self.token.clone(),
            bytes: self.bytes,
            chunks: self.chunks,
            digest: self.digest,
            sequence,
            description: self.description.clone(),
            metadata: self.metadata.clone(),
            modified: wire.modified.map(Into::into),
        }
    }
}

/// An object's metadata as it was read, to be written again.
pub(super) fn wire_of(info: &Info) -> ObjectInfo {
    ObjectInfo {
        name: info.name.clone(),
        description: (!info.description.is_empty()).then(|| info.description.clone()),
        metadata: info.metadata.clone(),
        headers: None,
        options: None,
        bucket: info.bucket.clone(),
        nuid: info.token.clone(),
        size: usize::try_from(info.bytes).unwrap_or(usize::MAX),
        chunks: usize::try_from(info.chunks).unwrap_or(usize::MAX),
        modified: info.modified.map(Into::into),
        digest: Some(meta::write_digest(&info.digest)),
        deleted: false,
    }
}

/// Whose metadata is there.
enum Placed {
    Mine(Info),
    /// Never missing, deleted or of the own token; read from the leader.
    Other(Lookup),
}

impl Bucket {
    /// Sends metadata until it is stored or refused. Sending it again does no harm: once one try
    /// is stored, all others expect a sequence that is no longer the last.
    pub(super) async fn publish_metadata(
        &self,
        wire: &ObjectInfo,
        expected: u64,
        ttl: Option<Duration>,
    ) -> Result<Sent, Error> {
        let subject = meta::metadata_subject(&self.name, &wire.name);
        let payload = serde_json::to_vec(wire);
        let payload = payload.map_err(|error| Error::unanswered(WHAT, &error))?;
        let mut message = PublishMessage::build()
            .payload(payload.into())
            .header(NATS_ROLLUP, "sub")
            .expected_last_subject_sequence(expected);
        if let Some(ttl) = ttl {
            message = message.ttl(ttl);
        }
        let began = Instant::now();
        let mut wait = RESEND_WAIT;
        let mut unknown = false;
        loop {
            let sent = match self.context.send_publish(subject.clone(), message.clone()).await {
                Ok(ack) => ack.await,
                Err(error) => Err(error),
            };
            let error = match sent {
                Ok(ack) => return Ok(Sent::Stored(ack.sequence)),
                Err(error) => error,
            };
            let cause = match Fault::of(WHAT, &self.name, &error) {
                Fault::Conflict => return Ok(Sent::Conflict),
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
            if began.elapsed() > RESEND_WITHIN {
                return Err(self.gone_or(Error::Unanswered { what: WHAT, cause }).await);
            }
            debug!(object = wire.name, cause, "metadata sent again");
            time::sleep(wait).await;
            wait = (wait * 2).min(RESEND_WAIT_MAX);
        }
    }

    /// Reads an object through, to know that it is whole. Keeps nothing of it.
    ///
    /// # Errors
    ///
    /// Those of [`Reader::next`](super::Reader::next).
    pub async fn read_back(&self, info: &Info) -> Result<(), Error> {
        let mut reader = self.reader(info);
        while reader.next().await?.is_some() {}
        Ok(())
    }

    /// The object of a name, if it is another's than `token`'s and reads back with its digest.
    pub(super) async fn adoptable(&self, name: &str, token: &str) -> Option<Info> {
        let found = self.info_from_leader(name).await.ok()?;
        let info = found.found(&self.name, name).ok().filter(|info| info.token != token)?;
        self.read_back(&info).await.ok()?;
        Some(info)
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
        let wire = ObjectInfo { name: name.to_owned(), ..wire_of(info) };
        for _ in 0..RACES_MAX {
            let there = self.info_from_leader(name).await?;
            let named = matches!(&there, Lookup::Found(found) if found.token == info.token);
            if named
                || matches!(
                    self.publish_metadata(&wire, there.sequence(), None).await?,
                    Sent::Stored(_)
                )
            {
                return self.purge(&meta::metadata_subject(&self.name, &info.name)).await;
            }
        }
        Err(Error::Unanswered { what: "name an object", cause: "it changes all the time".into() })
    }

    /// Deletes an object: its metadata becomes a tombstone, then its chunks go. Whether there was
    /// one.
    ///
    /// # Errors
    ///
    /// [`Error::Unanswered`], transient; [`Error::NoBucket`], [`Error::Malformed`].
    pub async fn remove(&self, name: &str) -> Result<bool, Error> {
        for _ in 0..RACES_MAX {
            match self.info_from_leader(name).await? {
                Lookup::Missing => return Ok(false),
                Lookup::Deleted { token, .. } => {
                    // Who wrote the tombstone may have died before it purged the chunks.
                    self.purge_chunks(&token).await?;
                    return Ok(false);
                }
                lookup => {
                    let info = lookup.found(&self.name, name)?;
                    if self.remove_exactly(&info).await? {
                        return Ok(true);
                    }
                }
            }
        }
        Err(Error::Unanswered { what: "delete an object", cause: "it changes all the time".into() })
    }

    /// Deletes an object if it is still the one that `info` describes; whether it was.
    ///
    /// # Errors
    ///
    /// As [`Self::remove`].
    pub async fn remove_exactly(&self, info: &Info) -> Result<bool, Error> {
        let tombstone = ObjectInfo {
            bucket: self.name.clone(),
            size: 0,
            chunks: 0,
            modified: Some(SystemTime::now().into()),
            deleted: true,
            ..wire_of(info)
        };
        let removed = match self.publish_metadata(&tombstone, info.sequence, None).await? {
            Sent::Stored(_) => true,
            Sent::Conflict => matches!(
                self.info_from_leader(&info.name).await?,
                Lookup::Deleted { token, .. } if token == info.token
            ),
        };
        if removed {
            self.purge_chunks(&info.token).await?;
        }
        Ok(removed)
    }
}
