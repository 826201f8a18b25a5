//! What a state is made of: messages, results, bytes and names.

use crate::config::Config;

/// Rounds that are told apart.
pub(crate) const ROUNDS: usize = 4;
/// Executions that leave traces at the same time. A number is used again when nothing names it.
pub(crate) const EXECUTIONS: usize = 6;
/// Run folders that the bag is gathered into.
pub(crate) const FOLDERS: usize = 2;
/// No execution, no folder.
pub(crate) const NONE: u8 = u8::MAX;
/// The execution of a failure that the gatherer found out.
pub(crate) const GATHERER: u8 = NONE - 1;

/// A message of `BAG_TASKS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) enum Waits {
    /// Acked, or never published.
    #[default]
    Absent,
    /// Nobody has it.
    Waiting,
    /// Handed out.
    Out,
}

/// One round's message and what the broker knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Task {
    pub(crate) waits: Waits,
    /// Deliveries less planned give-backs.
    pub(crate) spent: u8,
    /// Delivered more than once.
    pub(crate) again: bool,
    /// Published once: its message id is known.
    pub(crate) known: bool,
}

/// What a result says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) enum Kind {
    #[default]
    Nothing,
    Done,
    Failed,
    /// Failed, as a gatherer found the final name taken: its own finding about its folder, made of a *done*.
    Taken,
}

/// A result: whose, and whose bytes it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Outcome {
    pub(crate) kind: Kind,
    pub(crate) by: u8,
    /// The execution that made the bytes: another's if its object was adopted.
    pub(crate) bytes: u8,
}

impl Outcome {
    pub(crate) const NOTHING: Self = Self { kind: Kind::Nothing, by: NONE, bytes: NONE };

    pub(crate) fn is(self) -> bool {
        self.kind != Kind::Nothing
    }

    pub(crate) fn is_done(self) -> bool {
        self.kind == Kind::Done
    }
}

/// Bytes of one execution: the chunks of an object, or a part file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) enum Bytes {
    #[default]
    Nothing,
    Partial,
    Whole,
    /// As many as there should be, and others.
    Spoilt,
}

/// What is under an object's name, or an output's final name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) enum Named {
    #[default]
    Nothing,
    Tombstone,
    /// The bytes of an execution.
    Of(u8),
    /// A file of ours that contains no current output.
    Junk,
    /// Somebody else's file.
    Strangers,
}

impl Named {
    pub(crate) fn is_free(self) -> bool {
        matches!(self, Self::Nothing | Self::Tombstone)
    }

    pub(crate) fn names(self, execution: u8) -> bool {
        self == Self::Of(execution)
    }
}

/// Whether two executions gave the same bytes.
pub(crate) fn same_bytes(config: &Config, one: u8, other: u8) -> bool {
    one == other || !config.unequal || one % 2 == other % 2
}
