//! The last step of a written object: its metadata is created, or the object that is there adopted.

use std::time::SystemTime;

use async_nats::jetstream::object_store::{ObjectInfo, ObjectOptions};
use bagpress_codec::Digest;
use tracing::{debug, warn};

use super::bucket::Bucket;
use super::error::Error;
use super::marks;
use super::meta::{self, Info, Lookup};
use super::metadata::{Published, RACES_MAX, WHAT, too_many_races};
use super::names;

/// An object that is there for certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its metadata.
    pub info: Info,
    /// Whether it is the one just written, or another that was adopted.
    pub mine: bool,
}

/// An object whose chunks are all stored, in order, and which no metadata names yet.
#[derive(Debug)]
pub(super) struct Sealed {
    bucket: Bucket,
    /// As it will be there; its sequence is not known yet.
    info: Info,
    chunk_bytes: usize,
}

/// What becomes of an object that has the name and other bytes. Equal tasks give equal bytes: it was planted, or made by
/// another version of the codec, or in another round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// It is replaced: nobody else has anything to write there.
    Replaced,
    /// It stays, as its outcome may count, and the own one gets another name: whichever outcome counts, the gatherer
    /// gives its object the name.
    Stay,
    /// So does one that is broken, of which a part may be read still.
    StayBroken,
    /// They are what the name stands for, and the own object is given up.
    Refused,
}

impl Sealed {
    /// `info` says all of the object but its sequence and its time.
    pub(super) fn new(bucket: Bucket, info: Info, chunk_bytes: usize) -> Self {
        Self { bucket, info, chunk_bytes }
    }

    /// Size and digest.
    pub(super) fn content(&self) -> (u64, Digest) {
        (self.info.bytes, self.info.digest)
    }

    /// Writes the metadata, or adopts what is there if it is the very same. What becomes of other bytes, `others` says; what is
    /// broken is replaced, unless that is to stay as well.
    pub(super) async fn commit(mut self, others: Others) -> Result<Written, Error> {
        let mut expected = 0;
        if others == Others::Refused {
            let there = self.bucket.info_from_leader(&self.info.name).await?;
            self.expect_same(digest_of(&there)).await?;
        }
        for _ in 0..RACES_MAX {
            let other = match self.place(expected).await? {
                Placed::Mine(info) => return Ok(Written { info, mine: true }),
                Placed::Other(other) => other,
            };
            match self.read_back(&other).await {
                Ok(info) if (info.bytes, info.digest) == self.content() => {
                    self.drop_chunks().await;
                    return Ok(Written { info, mine: false });
                }
                Ok(info) => {
                    let (object, token) = (self.info.name.as_str(), &info.token);
                    warn!(object, token, ?others, "an object with other bytes is there");
                    match others {
                        Others::Replaced => {
                            marks::carry_over(&info.metadata, &mut self.info.metadata);
                            expected = info.sequence;
                        }
                        Others::Refused => self.expect_same(Some(info.digest)).await?,
                        Others::Stay | Others::StayBroken => expected = self.go_beside(),
                    }
                }
                Err(error) if error.is_broken_object() && others == Others::StayBroken => {
                    warn!(object = self.info.name, %error, "a broken object is there");
                    expected = self.go_beside();
                }
                Err(error) if error.is_broken_object() => {
                    if others == Others::Refused {
                        self.expect_same(digest_of(&other)).await?;
                    }
                    if let Lookup::Found(broken) = &other {
                        marks::carry_over(&broken.metadata, &mut self.info.metadata);
                    } else if others == Others::Refused {
                        // What it stands for cannot be read, so nobody knows that these are its bytes.
                        self.drop_chunks().await;
                        return Err(error);
                    }
                    warn!(object = self.info.name, %error, "broken object replaced");
                    // Its chunks stay: they are another execution's, and swept when no one
                    // names them.
                    expected = other.sequence();
                }
                Err(error) => return Err(error),
            }
        }
        Err(self.too_many_races())
    }

    /// Gives the own object up unless the name stands for its bytes, or for none.
    async fn expect_same(&self, digest: Option<Digest>) -> Result<(), Error> {
        let Some(digest) = digest.filter(|digest| *digest != self.info.digest) else {
            return Ok(());
        };
        self.drop_chunks().await;
        let (bucket, object) = (self.bucket.name().to_owned(), self.info.name.clone());
        Err(Error::Exists { bucket, object, digest })
    }

    /// Takes a name under which nobody else writes, and returns what is expected there.
    fn go_beside(&mut self) -> u64 {
        self.info.name = names::beside(&self.info.name, &self.info.token);
        0
    }

    /// Purges the own chunks, which no metadata names: the leader named another token, and nothing of ours that expects an
    /// older sequence can be stored any more. Should this fail, they are swept later.
    async fn drop_chunks(&self) {
        if let Err(error) = self.bucket.purge_chunks(&self.info.token).await {
            debug!(token = self.info.token, %error, "own chunks left behind");
        }
    }

    async fn read_back(&self, other: &Lookup) -> Result<Info, Error> {
        let info = other.clone().found(self.bucket.name(), &self.info.name)?;
        self.bucket.read_back(&info).await?;
        Ok(info)
    }

    /// Writes the metadata over what is `expected` there, or over nothing or a tombstone.
    async fn place(&self, mut expected: u64) -> Result<Placed, Error> {
        let options = ObjectOptions { link: None, max_chunk_size: Some(self.chunk_bytes) };
        let wire = ObjectInfo {
            options: Some(options),
            modified: Some(SystemTime::now().into()),
            ..meta::wire(&self.info)
        };
        for _ in 0..RACES_MAX {
            match self.bucket.publish_metadata(&wire, expected).await {
                Ok(Published::At(sequence)) => {
                    let modified = wire.modified.map(Into::into);
                    return Ok(Placed::Mine(Info { sequence, modified, ..self.info.clone() }));
                }
                Ok(Published::Conflict) => {}
                Err(error @ Error::Full { .. }) => {
                    // It was refused for certain, whatever an earlier try did: nothing names us.
                    return Err(self.give_up(error).await);
                }
                Err(error) => return Err(error),
            }
            match self.bucket.info_from_leader(&self.info.name).await? {
                // An earlier try was stored, and only its acknowledgement was lost.
                Lookup::Found(info) if info.token == self.info.token => {
                    return Ok(Placed::Mine(info));
                }
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
        match self.bucket.info_from_leader(&self.info.name).await {
            Ok(Lookup::Found(info)) if info.token == self.info.token => error,
            Ok(_) => match self.bucket.purge_chunks(&self.info.token).await {
                Ok(()) => error,
                Err(_) => Error::unanswered(WHAT, &error),
            },
            Err(_) => Error::unanswered(WHAT, &error),
        }
    }

    fn too_many_races(&self) -> Error {
        too_many_races(WHAT, self.bucket.name(), &self.info.name)
    }
}

/// Digest of the bytes that a name stands for, as far as metadata or a tombstone says.
fn digest_of(lookup: &Lookup) -> Option<Digest> {
    match lookup {
        Lookup::Found(info) => Some(info.digest),
        Lookup::Deleted { digest, .. } => *digest,
        Lookup::Missing | Lookup::Malformed { .. } => None,
    }
}

/// Whose metadata is there.
enum Placed {
    Mine(Info),
    /// Never missing, deleted or of the own token; read from the leader.
    Other(Lookup),
}

impl Bucket {
    /// The object of a name, if it is another's than `token`'s and reads back with its digest.
    pub(super) async fn adoptable(&self, name: &str, token: &str) -> Option<Info> {
        let found = self.info_from_leader(name).await.ok()?;
        let info = found.found(self.name(), name).ok().filter(|info| info.token != token)?;
        self.read_back(&info).await.ok()?;
        Some(info)
    }
}
