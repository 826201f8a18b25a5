//! What holds of every message and every metadata that is accepted: it is within its bounds and reads
//! back as itself.
//!
//! Fuzzers call these functions with whatever they find, and `cargo test` with the committed corpus.

use std::fmt::Debug;

use async_nats::jetstream::object_store::ObjectInfo;
use bagpress_broker::descriptor::decode_json;
use bagpress_broker::limits;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::object_ref::{Info, Lookup};
use crate::staging::messages::{
    Chunked, Close, Closed, InputRequest, NoRoom, Open, Opened, PackInput,
};

/// Reads each message between worker and gatherer from any bytes. Returns how many kinds they are.
///
/// # Panics
///
/// If one is accepted that does not read back, or that is of another version.
#[must_use]
pub fn staging_messages(payload: &[u8]) -> usize {
    let questions = [
        question::<Open>(payload, |open| open.v),
        question::<Close>(payload, |close| close.v),
        question::<InputRequest>(payload, |request| request.v),
        question::<NoRoom>(payload, |no_room| no_room.v),
    ];
    let answers = [
        answer::<Opened>(payload),
        answer::<Chunked>(payload),
        answer::<Closed>(payload),
        answer::<Vec<Option<PackInput>>>(payload),
    ];
    questions.into_iter().chain(answers).map(usize::from).sum()
}

/// As the gatherer reads: bounded, and of our version.
fn question<T>(payload: &[u8], version: impl Fn(&T) -> u32) -> bool
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let Ok(message) = decode_json::<T>(payload) else { return false };
    assert!(payload.len() <= limits::MESSAGE_BYTES_MAX);
    assert_eq!(version(&message), limits::WIRE_VERSION);
    reads_back(&message, |written| decode_json(written).ok());
    true
}

/// As the worker reads.
fn answer<T>(payload: &[u8]) -> bool
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let Ok(message) = serde_json::from_slice::<T>(payload) else { return false };
    reads_back(&message, |written| serde_json::from_slice(written).ok());
    true
}

fn reads_back<T: Serialize + PartialEq + Debug>(
    message: &T,
    read: impl FnOnce(&[u8]) -> Option<T>,
) {
    let written = serde_json::to_vec(message).unwrap_or_default();
    let again = read(&written);
    assert_eq!(again.as_ref(), Some(message));
    assert_eq!(serde_json::to_vec(&again).ok(), Some(written));
}

/// Reads an object's metadata from any bytes. Returns whether they name an object.
///
/// # Panics
///
/// If metadata is accepted that names chunks by more than one token, or a size that no object has, or
/// that does not read back.
#[must_use]
pub fn object_meta(payload: &[u8]) -> bool {
    const SEQUENCE: u64 = 7;
    let lookup = Lookup::read("bag-t", SEQUENCE, payload);
    assert_eq!(lookup.sequence(), SEQUENCE);
    match &lookup {
        Lookup::Missing | Lookup::Malformed { .. } => return false,
        Lookup::Deleted { token, .. } => is_one_token(token),
        Lookup::Found(info) => is_an_object(info),
    }
    // What another client writes of it, with all that we pass over, is the same to us.
    let foreign: Result<ObjectInfo, _> = serde_json::from_slice(payload);
    let written = foreign.and_then(|foreign| serde_json::to_vec(&foreign)).unwrap_or_default();
    assert_eq!(Lookup::read("bag-t", SEQUENCE, &written), lookup);
    matches!(lookup, Lookup::Found(_))
}

fn is_an_object(info: &Info) {
    is_one_token(&info.token);
    assert_eq!(info.bucket, "bag-t");
    assert!(info.bytes <= 2 * limits::INPUT_BYTES_MAX);
    assert!(info.chunks <= info.bytes.max(1));
    let wire = format!("SHA-256={}", data_encoding::BASE64URL.encode(info.digest.bytes()));
    assert_eq!(crate::object_ref::read_digest(&wire), Some(info.digest));
}

fn is_one_token(token: &str) {
    assert!((1..=128).contains(&token.len()), "{token:?}");
    assert!(!token.contains(['.', '*', '>', ' ', '$']), "{token:?}");
}
