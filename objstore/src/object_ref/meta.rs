//! An object's metadata, from and to the JSON of ADR-20.

use std::collections::HashMap;
use std::time::SystemTime;

use async_nats::jetstream::object_store::ObjectInfo;
use bagpress_codec::Digest;
use data_encoding::BASE64URL;

use super::error::Error;
use super::marks::{self, Freed};
use super::names::{OBJECT_BYTES_MAX, check_chunk_token};

const DIGEST_PREFIX: &str = "SHA-256=";

/// An object that is there, as its metadata describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The bucket.
    pub bucket: String,
    /// The object's name.
    pub name: String,
    /// Under which token its chunks are.
    pub token: String,
    /// Its size, in bytes.
    pub bytes: u64,
    /// How many chunks it has.
    pub chunks: u64,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Sequence of the metadata in the bucket's stream.
    pub sequence: u64,
    /// For people.
    pub description: String,
    /// Labels.
    pub metadata: HashMap<String, String>,
    /// When it was written, by its writer's clock.
    pub modified: Option<SystemTime>,
}

impl Info {
    /// Whether its chunks may have other names.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        marks::is_shared(&self.metadata, &self.token)
    }

    /// That not all chunks of the object are there: those of one that expires went with time.
    pub(super) fn lost(&self, found: u64) -> Error {
        let (bucket, object) = (self.bucket.clone(), self.name.clone());
        match marks::expires(&self.metadata) {
            Some(at) => Error::Expired { bucket, object, at },
            None => Error::Lost { bucket, object, found, wanted: self.chunks },
        }
    }
}

/// What a bucket knows of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// Nothing.
    Missing,
    /// It was deleted; the tombstone stays.
    Deleted {
        /// Sequence of the tombstone.
        sequence: u64,
        /// Under which token its chunks were.
        token: String,
        /// Who freed it; none if it was removed to be made again, or by another program than ours.
        freed: Option<Freed>,
        /// Who removed it to have it made again by its task, if anybody did.
        again: Option<String>,
        /// Whether its chunks may have other names.
        shared: bool,
        /// Digest of what it was, if the tombstone says so.
        digest: Option<Digest>,
    },
    /// Something that we cannot use.
    Malformed {
        /// Its sequence.
        sequence: u64,
        /// What is wrong with it.
        why: String,
    },
    /// An object.
    Found(Info),
}

impl Lookup {
    /// The object that is there.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Freed`], [`Error::Deleted`] or [`Error::Malformed`], all permanent.
    pub fn found(self, bucket: &str, name: &str) -> Result<Info, Error> {
        let (bucket, object) = (bucket.to_owned(), name.to_owned());
        match self {
            Self::Found(info) => Ok(info),
            Self::Missing => Err(Error::NotFound { bucket, object }),
            Self::Deleted { freed: Some(freed), .. } => Err(Error::Freed { bucket, object, freed }),
            Self::Deleted { again, .. } => Err(Error::Deleted { bucket, object, again }),
            Self::Malformed { why, .. } => Err(Error::Malformed { bucket, object, why }),
        }
    }

    /// Which sequence the next metadata must expect to be the last.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        match self {
            Self::Missing => 0,
            Self::Deleted { sequence, .. } | Self::Malformed { sequence, .. } => *sequence,
            Self::Found(info) => info.sequence,
        }
    }

    /// Reads metadata from the payload of the message that is `sequence` of the bucket's stream.
    pub(crate) fn read(bucket: &str, sequence: u64, payload: &[u8]) -> Self {
        match read(bucket, sequence, payload) {
            Ok(lookup) => lookup,
            Err(why) => Self::Malformed { sequence, why },
        }
    }
}

fn read(bucket: &str, sequence: u64, payload: &[u8]) -> Result<Lookup, String> {
    let wire: ObjectInfo = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    // The token becomes part of a subject that chunks are purged by.
    check_chunk_token(&wire.nuid).map_err(|error| error.to_string())?;
    if wire.deleted {
        let freed = Freed::of(&wire.metadata, wire.modified.map(Into::into));
        let digest = wire.digest.as_deref().and_then(read_digest);
        let shared = marks::is_shared(&wire.metadata, &wire.nuid);
        let again = marks::removed_for_its_task(&wire.metadata);
        return Ok(Lookup::Deleted { sequence, token: wire.nuid, freed, again, shared, digest });
    }
    if wire.options.as_ref().is_some_and(|options| options.link.is_some()) {
        return Err("it is a link".to_owned());
    }
    let text = wire.digest.as_deref().unwrap_or_default();
    let digest = read_digest(text).ok_or_else(|| format!("{text:?} is not a SHA-256 digest"))?;
    let (bytes, chunks) = (wire.size as u64, wire.chunks as u64);
    if bytes > OBJECT_BYTES_MAX || chunks > bytes.max(1) {
        return Err(format!("{bytes} bytes in {chunks} chunks is not a valid object"));
    }
    Ok(Lookup::Found(Info {
        bucket: bucket.to_owned(),
        name: wire.name,
        token: wire.nuid,
        bytes,
        chunks,
        digest,
        sequence,
        description: wire.description.unwrap_or_default(),
        metadata: wire.metadata,
        modified: wire.modified.map(Into::into),
    }))
}

pub(crate) fn read_digest(text: &str) -> Option<Digest> {
    let encoded = text.strip_prefix(DIGEST_PREFIX)?;
    let bytes = BASE64URL.decode(encoded.as_bytes()).ok()?;
    bytes.try_into().ok().map(Digest::from_bytes)
}

fn write_digest(digest: &Digest) -> String {
    format!("{DIGEST_PREFIX}{}", BASE64URL.encode(digest.bytes()))
}

/// The metadata of an object, as ADR-20 writes it.
pub(super) fn wire(info: &Info) -> ObjectInfo {
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
        digest: Some(write_digest(&info.digest)),
        deleted: false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::hash_map;
    use proptest::prelude::*;

    use super::*;

    fn info() -> impl Strategy<Value = Info> {
        let text = || proptest::collection::vec(any::<char>(), 0..40).prop_map(String::from_iter);
        let numbers = (0..=OBJECT_BYTES_MAX, any::<u64>(), any::<u64>(), 0..4_000_000_000_u64);
        let names = (text(), "[a-zA-Z0-9_-]{1,128}", text());
        (names, any::<[u8; 32]>(), numbers, hash_map(text(), text(), 0..4)).prop_map(
            |((name, token, description), digest, numbers, metadata)| {
                let (bytes, chunks, sequence, seconds) = numbers;
                Info {
                    bucket: "b".to_owned(),
                    name,
                    token,
                    bytes,
                    chunks: chunks % (bytes.max(1) + 1),
                    digest: Digest::from_bytes(digest),
                    sequence,
                    description,
                    metadata,
                    modified: Some(
                        SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds),
                    ),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn metadata_reads_back(info in info()) {
            let payload = serde_json::to_vec(&wire(&info)).unwrap();
            let lookup = Lookup::read(&info.bucket, info.sequence, &payload);
            prop_assert_eq!(lookup, Lookup::Found(info));
        }
    }

    #[test]
    fn a_token_that_would_match_other_chunks_is_refused() {
        for token in ["", ">", "*", "a.b", "a b", "a.>", &"x".repeat(129)] {
            let payload = format!(r#"{{"name":"n","bucket":"b","nuid":"{token}","deleted":true}}"#);
            let lookup = Lookup::read("b", 1, payload.as_bytes());
            assert!(matches!(lookup, Lookup::Malformed { sequence: 1, .. }), "{token}");
        }
    }

    #[test]
    fn digests_convert_both_ways() {
        let digest = Digest::of(b"abc");
        let text = write_digest(&digest);
        assert_eq!(text, "SHA-256=ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0=");
        assert_eq!(read_digest(&text), Some(digest));
        assert_eq!(read_digest("SHA-256=AAAA"), None);
        assert_eq!(read_digest(""), None);
    }
}
