//! Why an attempt or a task failed, and what follows from it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits;

/// Why a task failed or a delivery was given back. A closed list: scripts match on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The input is not there.
    InputMissing,
    /// The input cannot be read.
    InputUnreadable,
    /// The input is not what it was when the bag was made, or changed while it was read.
    InputChanged,
    /// The input arrived with other bytes than were sent.
    InputDigest,
    /// The codec refused its input, or panicked.
    CodecError,
    /// The output does not give its input again.
    VerifyFailed,
    /// The input that was to be restored is no whole stream of its format.
    InputCorrupt,
    /// What was restored is not what was compressed, as its run recorded it.
    OriginalDiffers,
    /// The output is larger than the codec's bound, or a value of it is further off than was asked.
    BoundViolated,
    /// The output could not be stored.
    TransferError,
    /// The output that was stored is not what the worker made.
    OutputDigest,
    /// The output's final name belongs to a file that the bag did not make.
    OutputExists,
    /// The output cannot be written under its name: too long, not permitted, a file where a folder is needed.
    OutputUnwritable,
    /// The execution took longer than the worker's time limit: another worker, or the same later, may be faster.
    Timeout,
    /// The worker died.
    WorkerLost,
    /// Every worker that had the task died.
    CrashLimit,
    /// The descriptor cannot be read, or is of another task.
    BadDescriptor,
    /// The descriptor was written by another version of Bagpress.
    ProtocolVersion,
    /// The worker has another version of the codec's library.
    CodecVersion,
    /// The worker is draining.
    Drain,
    /// There is no room for the output.
    Full,
    /// The bag's gatherer does not answer.
    GathererAbsent,
    /// The output was durable, and its bytes were gone when they were to get their name.
    BytesLost,
    /// The bag was cancelled.
    Cancelled,
    /// Another execution's outcome came first.
    Duplicate,
    /// The input is no array that the codec takes.
    ArrayUnsupported,
    /// The input has another size than its type and shape say.
    ShapeMismatch,
    /// The input has a value that is not a finite number, and not every bit was to be kept.
    NonFinite,
    /// The codec's mode is none of the input's type.
    ModeDtype,
    /// The input has an integer that is too large where not every bit is kept.
    IntRange,
    /// The codec's rate is too low for the input's type and dimensions.
    RateTooLow,
}

impl Cause {
    /// Every cause there is.
    pub const ALL: [Self; 31] = [
        Self::InputMissing,
        Self::InputUnreadable,
        Self::InputChanged,
        Self::InputDigest,
        Self::CodecError,
        Self::VerifyFailed,
        Self::InputCorrupt,
        Self::OriginalDiffers,
        Self::BoundViolated,
        Self::TransferError,
        Self::OutputDigest,
        Self::OutputExists,
        Self::OutputUnwritable,
        Self::Timeout,
        Self::WorkerLost,
        Self::CrashLimit,
        Self::BadDescriptor,
        Self::ProtocolVersion,
        Self::CodecVersion,
        Self::Drain,
        Self::Full,
        Self::GathererAbsent,
        Self::BytesLost,
        Self::Cancelled,
        Self::Duplicate,
        Self::ArrayUnsupported,
        Self::ShapeMismatch,
        Self::NonFinite,
        Self::ModeDtype,
        Self::IntRange,
        Self::RateTooLow,
    ];

    /// Whether giving a delivery back for this cause is planned, hence no attempt spent.
    #[must_use]
    pub fn is_planned(self) -> bool {
        matches!(
            self,
            Self::Drain | Self::Full | Self::GathererAbsent | Self::CodecVersion | Self::BytesLost
        )
    }

    /// For how long a task that was given back for this cause, after `before` such give-backs, is not
    /// handed out: it doubles, up to a bound.
    #[must_use]
    pub fn give_back_delay(self, before: u32) -> Duration {
        let most = match self {
            Self::Drain => Duration::ZERO,
            Self::Full => limits::FULL_DELAY_MAX,
            _ => limits::GIVE_BACK_DELAY_MAX,
        };
        limits::GIVE_BACK_DELAY.saturating_mul(1 << before.min(16)).min(most)
    }

    /// Whether the same attempt may succeed later with nothing changed by a person.
    #[must_use]
    pub fn is_transient(self) -> bool {
        self.is_planned()
            || matches!(
                self,
                Self::TransferError
                    | Self::OutputDigest
                    | Self::InputDigest
                    | Self::Timeout
                    | Self::WorkerLost
                    | Self::CodecError
                    | Self::VerifyFailed
                    | Self::BoundViolated
            )
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

const _: () =
    assert!(Cause::ALL.len() == Cause::RateTooLow as usize + 1, "a cause is not in the list");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_no_room_comes_back_soon_after_there_is_some() {
        assert_eq!(Cause::Drain.give_back_delay(9), Duration::ZERO);
        for cause in [Cause::Full, Cause::GathererAbsent, Cause::TransferError] {
            assert_eq!(cause.give_back_delay(0), limits::GIVE_BACK_DELAY);
            assert_eq!(cause.give_back_delay(1), limits::GIVE_BACK_DELAY * 2);
        }
        assert_eq!(Cause::Full.give_back_delay(u32::MAX), limits::FULL_DELAY_MAX);
        assert_eq!(Cause::GathererAbsent.give_back_delay(u32::MAX), limits::GIVE_BACK_DELAY_MAX);
    }
}
