//! Why a call to a broker did not do what it should, sorted by what a caller can do about it.

use std::error::Error as StdError;

use async_nats::jetstream::context::{
    AccountError, AccountErrorKind, CreateStreamError, CreateStreamErrorKind, GetStreamError,
    GetStreamErrorKind, PublishError, PublishErrorKind,
};
use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{RequestError, RequestErrorKind};

/// An error of any kind, as it came.
pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a call did not do what it should. By JetStream's error codes, never by its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// No answer in time.
    Timeout,
    /// Nobody answers on that subject.
    Nobody,
    /// The stream, the consumer or the message is not there.
    NotFound,
    /// There is no room for it, or no right to more.
    NoSpace,
    /// The server does not do what was asked, however often it is asked.
    Refused,
    /// Anything else, such as a connection that is down.
    Other,
}

impl Loss {
    /// Whether the same call may succeed later. A stream that is not there may be made; a worker waits for it.
    #[must_use]
    pub fn passes(self) -> bool {
        self != Self::Refused
    }

    /// Sorts an error by the first of its causes that tells.
    pub(crate) fn of(error: &(dyn StdError + 'static)) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(loss) = Self::of_one(error) {
                return loss;
            }
            cause = error.source();
        }
        Self::Other
    }

    fn of_one(error: &(dyn StdError + 'static)) -> Option<Self> {
        if let Some(answer) = answered(error) {
            return Some(Self::of_answer(&answer));
        }
        if error.is::<tokio::time::error::Elapsed>() {
            return Some(Self::Timeout);
        }
        if let Some(error) = error.downcast_ref::<RequestError>() {
            return match error.kind() {
                RequestErrorKind::TimedOut => Some(Self::Timeout),
                RequestErrorKind::NoResponders => Some(Self::Nobody),
                _ => None,
            };
        }
        match error.downcast_ref::<PublishError>()?.kind() {
            PublishErrorKind::TimedOut => Some(Self::Timeout),
            PublishErrorKind::StreamNotFound => Some(Self::NotFound),
            _ => None,
        }
    }

    fn of_answer(answer: &jetstream::Error) -> Self {
        match answer.error_code() {
            ErrorCode::STREAM_NOT_FOUND
            | ErrorCode::CONSUMER_NOT_FOUND
            | ErrorCode::NO_MESSAGE_FOUND => Self::NotFound,
            ErrorCode::STORAGE_RESOURCES_EXCEEDED => Self::NoSpace,
            // A cluster says it so; of the reasons of this code only the description tells.
            ErrorCode::CLUSTER_NO_PEERS if answer.to_string().contains("insufficient storage") => {
                Self::NoSpace
            }
            // A disk that is full from the start; of the reasons of this code, too, only the description tells.
            ErrorCode::STREAM_CREATE if answer.to_string().contains("error creating store") => {
                Self::NoSpace
            }
            ErrorCode::BAD_REQUEST
            | ErrorCode::INVALID_JSON
            | ErrorCode::STREAM_INVALID_CONFIG
            | ErrorCode::STREAM_SUBJECT_OVERLAP => Self::Refused,
            _ => Self::Other,
        }
    }
}

/// What JetStream answered, if that is what went wrong: the client has it in the kind of some errors, not in the source.
fn answered(error: &(dyn StdError + 'static)) -> Option<jetstream::Error> {
    if let Some(answer) = error.downcast_ref::<jetstream::Error>() {
        return Some(answer.clone());
    }
    if let Some(error) = error.downcast_ref::<CreateStreamError>() {
        return match error.kind() {
            CreateStreamErrorKind::JetStream(answer) => Some(answer),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<GetStreamError>() {
        return match error.kind() {
            GetStreamErrorKind::JetStream(answer) => Some(answer),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<ConsumerError>() {
        return match error.kind() {
            ConsumerErrorKind::JetStream(answer) => Some(answer),
            _ => None,
        };
    }
    match error.downcast_ref::<AccountError>()?.kind() {
        AccountErrorKind::JetStream(answer) => Some(answer),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    fn answer(code: u64, description: &str) -> jetstream::Error {
        let json = serde_json::json!({ "code": 400, "err_code": code, "description": description });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn an_error_is_sorted_by_its_code_wherever_the_client_has_it() {
        let full = answer(10_047, "insufficient storage resources available");
        let not_found = answer(10_059, "stream not found");
        for (error, loss) in [
            (BoxError::from(full.clone()), Loss::NoSpace),
            (
                CreateStreamError::new(CreateStreamErrorKind::JetStream(full.clone())).into(),
                Loss::NoSpace,
            ),
            (ConsumerError::new(ConsumerErrorKind::JetStream(full)).into(), Loss::NoSpace),
            (
                answer(10_005, "no suitable peers for placement, insufficient storage").into(),
                Loss::NoSpace,
            ),
            (answer(10_005, "no suitable peers for placement").into(), Loss::Other),
            (answer(10_049, "error creating store for stream").into(), Loss::NoSpace),
            (answer(10_049, "duplicate subjects detected").into(), Loss::Other),
            (GetStreamError::new(GetStreamErrorKind::JetStream(not_found)).into(), Loss::NotFound),
            (
                PublishError::with_source(PublishErrorKind::Other, answer(10_003, "bad request"))
                    .into(),
                Loss::Refused,
            ),
            (RequestError::new(RequestErrorKind::NoResponders).into(), Loss::Nobody),
            (PublishError::new(PublishErrorKind::TimedOut).into(), Loss::Timeout),
            ("insufficient storage 10047".into(), Loss::Other),
        ] {
            assert_eq!(Loss::of(&*error), loss, "{error:?}");
            assert_eq!(Error::during("ask").lost(error).is_transient(), loss != Loss::Refused);
        }
    }
}
