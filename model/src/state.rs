//! One state of the whole system: a task, its broker, two folders, two workers, a gatherer.

use crate::config::{Config, Faults};

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
    /// A file of ours that holds nobody's output any more.
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

/// A run folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Folder {
    /// The highest begun round in its manifest.
    pub(crate) round: u8,
    /// The outcome of that round in its manifest.
    pub(crate) outcome: Outcome,
    /// The last outcome of an earlier round.
    pub(crate) before: Outcome,
    /// Lines that count, by round.
    pub(crate) lines: [u8; ROUNDS],
    /// What has the output's final name.
    pub(crate) last: Named,
    /// Its manifest has a *done* line, of whatever round.
    pub(crate) named: bool,
    /// Part files, by execution.
    pub(crate) parts: [Bytes; EXECUTIONS],
    /// A fault destroyed bytes that were counted.
    pub(crate) tainted: bool,
}

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

/// Everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) tasks: [Task; ROUNDS],
    /// Results by round, and the order in which they were committed.
    pub(crate) results: [Outcome; ROUNDS],
    pub(crate) log: [u8; ROUNDS],
    pub(crate) chunks: [Bytes; EXECUTIONS],
    pub(crate) metadata: Named,
    /// Executions whose objects have a name beside the output's, as that has other bytes.
    pub(crate) beside: [bool; EXECUTIONS],
    /// What a replica that lags may still say.
    pub(crate) metadata_before: Named,
    pub(crate) folders: [Folder; FOLDERS],
    pub(crate) workers: [Worker; 2],
    pub(crate) gatherer: Gatherer,
    /// Faults that may still happen.
    pub(crate) left: Faults,
    /// The broker forgot something.
    pub(crate) forgot: bool,
    /// A property that a step broke; nothing goes on from here.
    pub(crate) broken: Option<crate::property::Broken>,
    /// A round beyond the bound would have begun here.
    pub(crate) cut: bool,
}

impl State {
    /// A fresh bag: its gatherer has started.
    pub(crate) fn first(config: &Config) -> Self {
        let folder = Folder {
            round: 0,
            outcome: Outcome::NOTHING,
            before: Outcome::NOTHING,
            lines: [0; ROUNDS],
            last: Named::Nothing,
            named: false,
            parts: [Bytes::Nothing; EXECUTIONS],
            tainted: false,
        };
        let begins = if config.queue_group() { Gathers::Loop } else { Gathers::Publish };
        let gatherer = Gatherer::new(begins, 0);
        Self {
            tasks: [Task::default(); ROUNDS],
            results: [Outcome::NOTHING; ROUNDS],
            log: [NONE; ROUNDS],
            chunks: [Bytes::Nothing; EXECUTIONS],
            metadata: Named::Nothing,
            beside: [false; EXECUTIONS],
            metadata_before: Named::Nothing,
            folders: [folder; FOLDERS],
            workers: [Worker::IDLE; 2],
            gatherer,
            left: config.faults,
            forgot: false,
            broken: None,
            cut: false,
        }
    }

    /// The folder that is gathered into, while a gatherer lives.
    pub(crate) fn serving(&self) -> Option<usize> {
        let off = matches!(self.gatherer.at, Gathers::Off | Gathers::Finished);
        (!off).then_some(self.gatherer.folder as usize)
    }

    /// The folder of the gatherer that lives, or lived last.
    pub(crate) fn folder(&self) -> &Folder {
        &self.folders[self.gatherer.folder as usize]
    }

    pub(crate) fn folder_mut(&mut self) -> &mut Folder {
        &mut self.folders[self.gatherer.folder as usize]
    }

    /// Number of results in the stream.
    pub(crate) fn committed(&self) -> usize {
        self.log.iter().take_while(|round| **round != NONE).count()
    }

    /// Appends a result if its subject is empty; whether it was.
    pub(crate) fn commit(&mut self, round: u8, outcome: Outcome, compare: bool) -> bool {
        if self.results[round as usize].is() {
            if !compare {
                self.results[round as usize] = outcome;
            }
            return !compare;
        }
        self.results[round as usize] = outcome;
        self.log[self.committed()] = round;
        true
    }

    pub(crate) fn set_metadata(&mut self, to: Named) {
        self.metadata_before = self.metadata;
        self.metadata = to;
    }

    /// Whether anything at all names an execution.
    fn in_use(&self, execution: u8) -> bool {
        let e = execution as usize;
        let of = |outcome: &Outcome| outcome.by == execution || outcome.bytes == execution;
        self.chunks[e] != Bytes::Nothing
            || self.beside[e]
            || self.metadata.names(execution)
            || self.metadata_before.names(execution)
            || self.results.iter().any(of)
            || of(&self.gatherer.taken)
            || self.gatherer.saw.names(execution)
            || self.folders.iter().any(|folder| {
                folder.parts[e] != Bytes::Nothing
                    || folder.last.names(execution)
                    || of(&folder.outcome)
                    || of(&folder.before)
            })
            || self.workers.iter().any(|worker| {
                worker.execution == execution
                    || worker.bytes == execution
                    || worker.saw.names(execution)
                    || of(&worker.record)
            })
    }

    /// Names for a new execution: one of each digest.
    pub(crate) fn free_executions(&self, config: &Config) -> impl Iterator<Item = u8> {
        let last = u8::try_from(EXECUTIONS).unwrap_or(NONE);
        let free = |digest: u8| {
            (0..last).filter(|e| !config.unequal || e % 2 == digest).find(|e| !self.in_use(*e))
        };
        let odd = if config.unequal { free(1) } else { None };
        [free(0), odd].into_iter().flatten()
    }

    /// The part files of one execution and the chunks that are room taken in the bucket.
    pub(crate) fn room(&self, config: &Config, execution: u8) -> bool {
        let others = self.chunks.iter().enumerate();
        let taken = others
            .filter(|(e, bytes)| *e != execution as usize && **bytes != Bytes::Nothing)
            .count();
        config.room == 0 || taken < config.room as usize
    }

    /// Equal states have equal forms: which of two workers is which does not matter, nor does what is
    /// never read again.
    pub(crate) fn canonical(mut self) -> Self {
        if self.workers[1] < self.workers[0] {
            self.workers.swap(0, 1);
        }
        if self.left.lags == 0 {
            self.metadata_before = Named::Nothing;
        }
        self
    }
}

/// Whether two executions gave the same bytes.
pub(crate) fn same_bytes(config: &Config, one: u8, other: u8) -> bool {
    one == other || !config.unequal || one % 2 == other % 2
}
