//! Reading a message: its length and its version before anything else.

use bagpress_codec::{Codec, Error};
use serde::Deserialize;

use crate::limits;

/// Why a payload is not a descriptor. Permanent: the same payload will never decode.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The payload is larger than any of ours.
    #[error("the message has {bytes} bytes; the largest allowed is {}", limits::MESSAGE_BYTES_MAX)]
    TooLong {
        /// Its size.
        bytes: usize,
    },
    /// Not JSON, or not ours.
    #[error("not readable as JSON of this version: {0}")]
    Json(String),
    /// A codec, or a switch of one, that this version does not know. A later one may.
    #[error("{reason}; update this side")]
    Codec {
        /// What is not known.
        reason: String,
    },
    /// Written by another version of Bagpress.
    #[error(
        "protocol version {found}; this is version {}: update the older side",
        limits::WIRE_VERSION
    )]
    Version {
        /// What it says.
        found: u64,
    },
    /// A field is out of its bounds.
    #[error("{0}")]
    Bounds(String),
    /// Payload and subject name different tasks.
    #[error("the payload is for task {payload}, its subject for {subject}")]
    OtherTask {
        /// What the payload says.
        payload: String,
        /// What the subject says.
        subject: String,
    },
}

/// Reads a message of our own, version first, so that another version is named as such.
///
/// # Errors
///
/// [`DecodeError`], always permanent.
pub fn decode_json<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Result<T, DecodeError> {
    if payload.len() > limits::MESSAGE_BYTES_MAX {
        return Err(DecodeError::TooLong { bytes: payload.len() });
    }
    match serde_json::from_slice(payload) {
        Ok(message) => {
            check_version(payload)?;
            Ok(message)
        }
        Err(error) => {
            check_version(payload)?;
            Err(DecodeError::Json(error.to_string()))
        }
    }
}

/// Why the codec of a descriptor is one of another version, if it is.
pub(super) fn unknown_codec(payload: &[u8]) -> Option<DecodeError> {
    #[derive(Deserialize)]
    struct Wanted {
        codec: String,
    }
    let wanted: Wanted = serde_json::from_slice(payload).ok()?;
    match wanted.codec.parse::<Codec>() {
        Err(error @ (Error::UnknownCodec { .. } | Error::BadSwitch { .. })) => {
            Some(DecodeError::Codec { reason: error.to_string() })
        }
        Ok(_) | Err(_) => None,
    }
}

fn check_version(payload: &[u8]) -> Result<(), DecodeError> {
    #[derive(Deserialize)]
    struct Version {
        v: u64,
    }
    // Every writer of ours puts the version first, which spares a second parse on the hot path.
    if payload.starts_with(br#"{"v":1,"#) {
        return Ok(());
    }
    match serde_json::from_slice::<Version>(payload) {
        Ok(Version { v }) if v == u64::from(limits::WIRE_VERSION) => Ok(()),
        Ok(Version { v }) => Err(DecodeError::Version { found: v }),
        Err(error) => Err(DecodeError::Json(error.to_string())),
    }
}
