//! Errors between a worker and the place of its output.

use bagpress_broker::result::{Cause, Failed};

use crate::object_ref;

/// An error of a result path. All of them pass, and the task is executed again, unless the output itself cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no room. No attempt is spent.
    #[error("no space: {0}")]
    Full(String),
    /// Nobody gathers the bag. No attempt is spent.
    #[error("the bag has no gatherer now")]
    Absent,
    /// What was stored is not what was made.
    #[error("the output arrived changed: {0}")]
    Digest(String),
    /// An answer was lost, or the other side cannot be understood.
    #[error("{what}: {cause}")]
    Lost {
        /// What we were doing.
        what: &'static str,
        /// What was said.
        cause: String,
    },
    /// The output could not be written, here or at the gatherer's.
    #[error("{}", .0.message)]
    Output(Failed),
}

impl StoreError {
    pub(crate) fn lost(what: &'static str, cause: &dyn std::fmt::Display) -> Self {
        Self::Lost { what, cause: cause.to_string() }
    }

    /// As what it is recorded.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Full(_) => Cause::Full,
            Self::Absent => Cause::GathererAbsent,
            Self::Digest(_) => Cause::OutputDigest,
            Self::Lost { .. } => Cause::TransferError,
            Self::Output(failed) => failed.cause,
        }
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::new(error.cause(), error.to_string())
    }
}

impl From<object_ref::Error> for StoreError {
    fn from(error: object_ref::Error) -> Self {
        match error {
            // Without its bucket a bag is as full as can be: the gatherer makes it again.
            object_ref::Error::Full { .. } | object_ref::Error::NoBucket { .. } => {
                Self::Full(error.to_string())
            }
            object_ref::Error::Digest { .. } => Self::Digest(error.to_string()),
            other => Self::lost("store an object", &other),
        }
    }
}

/// What a failed read of an object means for the task whose input it is.
pub(crate) fn input_failed(error: &object_ref::Error) -> Failed {
    use object_ref::Error;
    let cause = match error {
        Error::NotFound { .. }
        | Error::Deleted { .. }
        | Error::Freed { .. }
        | Error::Expired { .. }
        | Error::Lost { .. }
        | Error::NoBucket { .. } => Cause::InputMissing,
        Error::Exists { .. } => Cause::InputChanged,
        Error::Digest { .. } => Cause::InputDigest,
        _ if error.is_transient() => Cause::TransferError,
        _ => Cause::InputUnreadable,
    };
    Failed::new(cause, error.to_string())
}
