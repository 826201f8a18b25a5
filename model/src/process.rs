//! Where a worker and the gatherer are in their steps, and what they remember.

use crate::values::{Kind, NONE, Named, Outcome};

/// Where a worker is in its attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) enum At {
    #[default]
    Idle,
    Look,
    Open,
    Write,
    WriteMore,
    Close,
    LookWhenFull,
    Metadata,
    MetadataUnanswered,
    ReadMetadata,
    ReadBack,
    PurgeOwn,
    PurgeRefused,
    Commit,
    CommitFailed,
    CommitRecord,
    Lost,
    Ack,
    /// Acked first, where that clause is taken out.
    CommitAfterAck,
    /// Waits for the gatherer's answer to its result (queue group).
    Answer,
}

/// A worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Worker {
    pub(crate) at: At,
    pub(crate) round: u8,
    pub(crate) execution: u8,
    /// Attempts spent, this one included, when it was delivered.
    pub(crate) spent: u8,
    pub(crate) again: bool,
    /// Folder that it hands its output over to by path.
    pub(crate) share: u8,
    /// Metadata that it expects, or found.
    pub(crate) saw: Named,
    /// Whose bytes its result names.
    pub(crate) bytes: u8,
    /// The record that it was answered, and its round.
    pub(crate) record: Outcome,
    pub(crate) record_round: u8,
    /// Has a valid lease (queue group).
    pub(crate) leased: bool,
}

impl Worker {
    pub(crate) const IDLE: Self = Self {
        at: At::Idle,
        round: 0,
        execution: NONE,
        spent: 0,
        again: false,
        share: NONE,
        saw: Named::Nothing,
        bytes: NONE,
        record: Outcome::NOTHING,
        record_round: 0,
        leased: false,
    };

    pub(crate) fn outcome(&self, kind: Kind) -> Outcome {
        let bytes = if kind == Kind::Done { self.bytes } else { NONE };
        Outcome { kind, by: self.execution, bytes }
    }
}

/// Where the gatherer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) enum Gathers {
    /// No process, and the bag not ended in this folder.
    #[default]
    Off,
    /// No process: it ended well.
    Finished,
    Start,
    ReadWaiting,
    Loop,
    Place,
    /// Within the same placing, after the bag's own file was moved aside.
    PlaceAgain,
    CheckObject,
    Count,
    Begin,
    ReadOld,
    BuryOld,
    PurgeOld,
    Publish,
}

/// The gatherer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Gatherer {
    pub(crate) at: Gathers,
    pub(crate) folder: u8,
    /// Results read so far.
    pub(crate) read: u8,
    /// The result being accepted.
    pub(crate) taken: Outcome,
    /// Reconciling: whether a message of the round waited; none outside of one.
    pub(crate) waited: Option<bool>,
    pub(crate) saw: Named,
    /// Came from its start: reads what waits next.
    pub(crate) starting: bool,
    /// Publishes for a reconciliation.
    pub(crate) missing: bool,
    /// Attempts that its offers spent (queue group).
    pub(crate) spent: u8,
}

impl Gatherer {
    /// One that has just begun, and knows what is in its folder.
    pub(crate) const fn new(at: Gathers, folder: u8) -> Self {
        Self {
            at,
            folder,
            read: 0,
            taken: Outcome::NOTHING,
            waited: None,
            saw: Named::Nothing,
            starting: false,
            missing: false,
            spent: 0,
        }
    }
}
