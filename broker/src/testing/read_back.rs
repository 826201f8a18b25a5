//! What holds of every payload that is accepted: it is within its bounds and reads back as itself.
//!
//! Fuzzers call these functions with whatever they find, and `cargo test` with the committed corpus.

use crate::descriptor::{DecodeError, TaskDescriptor, decode_json};
use crate::ids::{BagId, Execution, TaskId};
use crate::limits;
use crate::result::{Cause, Failed, Outcome, TaskResult, Times};

/// Reads a task descriptor from any bytes. Returns whether they are one.
///
/// # Panics
///
/// If one is accepted that is out of bounds, does not read back, is taken for another task, or is too
/// large for the result that must carry it.
#[must_use]
pub fn descriptor(payload: &[u8]) -> bool {
    let Ok(any) = decode_json::<TaskDescriptor>(payload) else { return false };
    let id = any.id();
    let task = match TaskDescriptor::decode(payload, &id) {
        Ok(task) => task,
        Err(error) => {
            assert!(matches!(error, DecodeError::Bounds(_)), "{error}");
            return false;
        }
    };
    assert_eq!(task, any);
    assert_eq!(task.v, limits::WIRE_VERSION);
    assert!(task.input.bytes() <= limits::INPUT_BYTES_MAX);
    assert!(task.index < limits::BAG_TASKS_MAX);
    assert!((1..=limits::ATTEMPTS_MAX).contains(&task.attempts));
    is_one_token(&task.bag);

    let written = task.encode();
    assert_eq!(TaskDescriptor::decode(&written, &id).ok().as_ref(), Some(&task));
    assert_eq!(task.encode(), written);

    let other = TaskId { round: id.round ^ 1, ..id.clone() };
    let refused = TaskDescriptor::decode(payload, &other);
    assert!(matches!(refused, Err(DecodeError::OtherTask { .. })), "{refused:?}");

    // Whatever is accepted can also end: with the longest failure that there is, each byte escaped.
    let failed = Failed::new(Cause::CodecError, "\u{1}".repeat(2 * limits::FAILURE_BYTES_MAX));
    let result = TaskResult {
        v: limits::WIRE_VERSION,
        bag: id.bag,
        index: id.index,
        round: id.round,
        execution: Execution::random(),
        attempt: u32::MAX,
        worker: "w".repeat(64),
        host: "h".repeat(255),
        outcome: Outcome::Failed(failed),
        times: Times::default(),
        descriptor: Some(Box::new(task)),
        file: None,
        twin_of: None,
        members: Vec::new(),
    };
    assert_eq!(TaskResult::decode(&result.encode()).ok(), Some(result));
    true
}

/// Reads a result from any bytes. Returns whether they are one.
///
/// # Panics
///
/// If one is accepted that is out of bounds, does not read back, or carries another task's descriptor.
#[must_use]
pub fn result(payload: &[u8]) -> bool {
    let Ok(result) = TaskResult::decode(payload) else { return false };
    assert_eq!(result.v, limits::WIRE_VERSION);
    assert!(result.index < limits::BAG_TASKS_MAX);
    is_one_token(&result.bag);
    match &result.outcome {
        Outcome::Done(done) => assert_eq!(result.done(), Some(done)),
        Outcome::Failed(failed) => assert!(failed.message.len() <= limits::FAILURE_BYTES_MAX),
    }
    if let Some(task) = &result.descriptor {
        assert_eq!(task.id(), result.id());
        assert!(TaskDescriptor::decode(&task.encode(), &result.id()).is_ok());
    }
    let written = result.encode();
    assert!(written.len() <= limits::MESSAGE_BYTES_MAX);
    assert_eq!(TaskResult::decode(&written).ok().as_ref(), Some(&result));
    assert_eq!(result.encode(), written);
    true
}

fn is_one_token(bag: &BagId) {
    let text = bag.as_str();
    assert!((1..=limits::BAG_ID_BYTES_MAX).contains(&text.len()), "{text:?}");
    assert!(!text.contains(['.', '*', '>', ' ', '/']), "{text:?}");
    assert_eq!(text.parse().ok().as_ref(), Some(bag));
}
