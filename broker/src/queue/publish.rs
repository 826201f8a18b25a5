//! Publishing on a condition, and why a stream refused.

use async_nats::HeaderMap;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::{self, ErrorCode};
use bytes::Bytes;

use crate::Broker;
use crate::loss::BoxError;

/// Why a publish with an expectation failed.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Something is on that subject already.
    Taken,
    /// The stream is full.
    Full(String),
    /// Nobody knows; it may have been stored.
    Unknown(BoxError),
}

impl Broker {
    /// Publishes on the conditions of `headers`, and waits until it is stored.
    pub(crate) async fn publish_expecting(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<PublishAck, Refused> {
        let sent = self.jetstream().publish_with_headers(subject, headers, payload).await;
        let answer = match sent {
            Ok(ack) => ack.await,
            Err(error) => Err(error),
        };
        answer.map_err(refused)
    }
}

/// Sorts what the server said to a publish.
pub(crate) fn refused(error: PublishError) -> Refused {
    use std::error::Error as _;
    if error.kind() == PublishErrorKind::WrongLastSequence {
        return Refused::Taken;
    }
    let Some(inner) = error.source().and_then(|s| s.downcast_ref::<jetstream::Error>()) else {
        return Refused::Unknown(error.into());
    };
    // This code has two meanings, told apart only by its description.
    if inner.error_code() == ErrorCode::STREAM_STORE_FAILED {
        if inner.to_string().contains("per subject") {
            return Refused::Taken;
        }
        return Refused::Full(inner.to_string());
    }
    Refused::Unknown(inner.clone().into())
}
