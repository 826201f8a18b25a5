//! Errors about objects.

use std::time::SystemTime;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use bagpress_codec::Digest;

use super::marks::Freed;

/// An error of a bucket or an object in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that no bucket, object or chunk token may have.
    #[error("{name:?} is not a valid name for {what}")]
    BadName {
        /// Of what.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// There is no such bucket.
    #[error("there is no object bucket {bucket}")]
    NoBucket {
        /// Which.
        bucket: String,
    },
    /// The bucket never had such an object, or no longer knows of it.
    #[error("there is no object obj://{bucket}/{object}")]
    NotFound {
        /// The bucket.
        bucket: String,
        /// The object.
        object: String,
    },
    /// The object was deleted.
    #[error("object obj://{bucket}/{object} was {}", how_deleted(.again.as_deref()))]
    Deleted {
        /// The bucket.
        bucket: String,
        /// The object.
        object: String,
        /// Who removed it to have it made again by its task; none if another program deleted it.
        again: Option<String>,
    },
    /// Somebody let go of the object.
    #[error("object obj://{bucket}/{object} was freed by {}{}", .freed.by, for_its_task(freed))]
    Freed {
        /// The bucket.
        bucket: String,
        /// The object.
        object: String,
        /// Who, when, and why.
        freed: Freed,
    },
    /// Its time was over.
    #[error("object obj://{bucket}/{object} has expired")]
    Expired {
        /// The bucket.
        bucket: String,
        /// The object.
        object: String,
        /// When.
        at: SystemTime,
    },
    /// The name has, or had, other bytes: a reference never changes what it stands for.
    #[error("obj://{bucket}/{object} stands for other bytes, with the digest {digest}")]
    Exists {
        /// The bucket.
        bucket: String,
        /// The object.
        object: String,
        /// Digest of what the name stands for.
        digest: Digest,
    },
    /// Metadata is there, but not all chunks are.
    #[error("object obj://{bucket}/{object} is lost: {found} of its {wanted} chunks are there")]
    Lost {
        /// The bucket.
        bucket: String,
        /// The object.
        object: String,
        /// Chunks found.
        found: u64,
        /// Chunks that the metadata names.
        wanted: u64,
    },
    /// The bytes are not those that were written.
    #[error("object obj://{bucket}/{object} is corrupt: its digest is {found}, not {wanted}")]
    Digest {
        /// The bucket.
        bucket: String,
        /// The object.
        object: String,
        /// Digest of what was read.
        found: Digest,
        /// Digest that the metadata names.
        wanted: Digest,
    },
    /// The metadata cannot be used.
    #[error("metadata of obj://{bucket}/{object}: {why}")]
    Malformed {
        /// The bucket.
        bucket: String,
        /// The object.
        object: String,
        /// What is wrong with it.
        why: String,
    },
    /// The object is larger than the caller allows.
    #[error("object obj://{bucket}/{object} has {bytes} bytes, more than the {max} allowed")]
    TooLarge {
        /// The bucket.
        bucket: String,
        /// The object.
        object: String,
        /// Its size.
        bytes: u64,
        /// What the caller allows.
        max: u64,
    },
    /// There is no room in the bucket, or none to reserve for it.
    #[error("bucket {bucket} is full: {why}")]
    Full {
        /// Which.
        bucket: String,
        /// What the server said.
        why: String,
    },
    /// The bucket has other settings than ours.
    #[error("bucket {bucket} has {field} = {found}, but {wanted} is needed")]
    Unfit {
        /// Which.
        bucket: String,
        /// The setting.
        field: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        wanted: String,
    },
    /// Chunks are there already under the token that was to be written.
    #[error("chunk token {token} of bucket {bucket} is in use")]
    TokenUsed {
        /// The bucket.
        bucket: String,
        /// The token.
        token: String,
    },
    /// The server refused a chunk and took a later one; the object was given up.
    #[error("chunks of obj://{bucket}/{object} were stored out of order")]
    OutOfOrder {
        /// The bucket.
        bucket: String,
        /// The object.
        object: String,
    },
    /// The writer failed before; its chunks are gone.
    #[error("the writer of obj://{bucket}/{object} failed before")]
    Abandoned {
        /// The bucket.
        bucket: String,
        /// The object.
        object: String,
    },
    /// The broker went away, or did not answer in time.
    #[error("{what}: {cause}")]
    Unanswered {
        /// What we were doing.
        what: &'static str,
        /// What the client said.
        cause: String,
    },
    /// The server refused, and will again.
    #[error("{what}: the server refused: {cause}")]
    Refused {
        /// What we were doing.
        what: &'static str,
        /// What the server said.
        cause: String,
    },
}

impl Error {
    /// Whether the same work may succeed later with nothing changed by a person.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unanswered { .. } | Self::OutOfOrder { .. } | Self::Full { .. })
    }

    /// Whether the object's metadata is there and its bytes are not what it says.
    #[must_use]
    pub fn is_broken_object(&self) -> bool {
        matches!(
            self,
            Self::Lost { .. } | Self::Expired { .. } | Self::Digest { .. } | Self::Malformed { .. }
        )
    }

    pub(super) fn unanswered(what: &'static str, cause: &dyn std::fmt::Display) -> Self {
        Self::Unanswered { what, cause: cause.to_string() }
    }

    /// What an error that JetStream answered means here.
    pub(super) fn answered(
        what: &'static str,
        bucket: &str,
        error: &async_nats::jetstream::Error,
    ) -> Self {
        match error.error_code() {
            ErrorCode::STREAM_NOT_FOUND => Self::NoBucket { bucket: bucket.to_owned() },
            code if is_full(code) => {
                Self::Full { bucket: bucket.to_owned(), why: error.to_string() }
            }
            // 429 and 503: too fast for it, or its leader is away.
            _ if matches!(error.code(), 408 | 429 | 503) => Self::unanswered(what, error),
            _ => Self::Refused { what, cause: error.to_string() },
        }
    }
}

fn how_deleted(again: Option<&str>) -> String {
    again.map_or_else(
        || "deleted".to_owned(),
        |by| format!("removed by {by}, a gatherer of its bag: what is wanted of it is made again"),
    )
}

fn for_its_task(freed: &Freed) -> &'static str {
    if freed.is_input { ", as the task whose input it was is done" } else { "" }
}

fn is_full(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::STREAM_STORE_FAILED
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::MEMORY_RESOURCES_EXCEEDED
            | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
    )
}

impl From<Error> for bagpress_broker::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Full { bucket, why } => Self::Full { what: format!("bucket {bucket}"), why },
            Error::Unanswered { what, cause } => Self::during(what).lost(cause),
            Error::NoBucket { bucket } => Self::Missing { what: format!("bucket {bucket}") },
            Error::Unfit { bucket, field, found, wanted } => {
                Self::Unfit { what: format!("bucket {bucket}"), field, found, wanted }
            }
            error if error.is_transient() => Self::during("transfer an object").lost(error),
            error => Self::Unexpected { what: "use an object", cause: error.to_string() },
        }
    }
}

/// Why a publish was not acknowledged.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server has too much to do: send less at a time.
    TooFast,
    /// Nobody knows whether it was stored.
    Unknown(String),
    /// It was certainly not stored, and may be later.
    Passing(String),
    /// Another message is the last of its subject than was expected.
    Conflict,
    /// It was certainly not stored.
    Final(Error),
}

impl Fault {
    pub(super) fn of(what: &'static str, bucket: &str, error: &PublishError) -> Self {
        match error.kind() {
            PublishErrorKind::WrongLastSequence | PublishErrorKind::WrongLastMessageId => {
                return Self::Conflict;
            }
            PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => {
                return Self::Unknown(error.to_string());
            }
            // A stream whose leader is away answers like one that is not there.
            PublishErrorKind::StreamNotFound | PublishErrorKind::MaxAckPending => {
                return Self::Passing(error.to_string());
            }
            PublishErrorKind::MaxPayloadExceeded => {
                return Self::Final(Error::Refused { what, cause: error.to_string() });
            }
            PublishErrorKind::Other => {}
        }
        let source = std::error::Error::source(error);
        let answered = source.and_then(|source| source.downcast_ref());
        let Some(answered) = answered else { return Self::Unknown(error.to_string()) };
        match Error::answered(what, bucket, answered) {
            _ if answered.code() == 429 => Self::TooFast,
            Error::Unanswered { cause, .. } => Self::Passing(cause),
            error => Self::Final(error),
        }
    }
}
