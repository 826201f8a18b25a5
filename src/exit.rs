//! Errors to exit codes and messages.

use std::process::ExitCode;

use bagpress_broker::Error as BrokerError;
use bagpress_objstore::object_ref::Error as ObjectError;
use bagpress_producer::{Cancelled, Damaged, Interrupted, Stalled, Unwritable, Usage, message};

/// Some tasks failed, or some outputs are bad.
pub(crate) const SOME_FAILED: u8 = 1;
/// Not everything that was waited for was there in time: as `timeout` says it.
pub(crate) const TIMED_OUT: u8 = 124;
const USAGE: u8 = 2;
const BROKER: u8 = 3;
const STALLED: u8 = 4;

/// Ended by SIGINT, or by SIGTERM: as a shell says it.
#[derive(Debug, thiserror::Error)]
#[error("ended by {name}")]
pub(crate) struct Signalled {
    pub(crate) name: &'static str,
    pub(crate) code: u8,
}

/// Says what went wrong and what to try, and gives the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    // The end of a log has lines of its own; everything else is one.
    let many = error.chain().any(|cause| {
        matches!(cause.downcast_ref::<BrokerError>(), Some(BrokerError::NotReady { .. }))
    });
    let text = format!("error: {error:#}");
    if many {
        text.lines().for_each(message);
    } else {
        message(&text);
    }
    if let Some(hint) = hint(error) {
        message(&format!("hint: {hint}"));
    }
    ExitCode::from(code(error))
}

fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let usage = cause.downcast_ref::<Usage>().map(|usage| usage.hint.clone());
        let unwritable = cause.is::<Unwritable>().then(|| Unwritable::HINT.to_owned());
        usage
            .or(unwritable)
            .or_else(|| cause.downcast_ref::<BrokerError>()?.hint().map(str::to_owned))
            .or_else(|| match cause.downcast_ref::<ObjectError>()? {
                ObjectError::Full { .. } => Some(BrokerError::SPACE.to_owned()),
                _ => None,
            })
    })
}

fn code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(signalled) = cause.downcast_ref::<Signalled>() {
            return signalled.code;
        }
        if cause.is::<Cancelled>() || cause.is::<Damaged>() {
            return SOME_FAILED;
        }
        if cause.is::<Usage>() {
            return USAGE;
        }
        if cause.is::<Stalled>() || cause.is::<Interrupted>() {
            return STALLED;
        }
    }
    // What is left is between us and a broker, or a disk: both are for an operator.
    BROKER
}
