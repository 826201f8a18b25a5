//! What is explored: the dimensions and bounds of each configuration.

pub use crate::clause::Clause;

/// What a bag consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bag {
    /// One task.
    Task,
    /// Two files that are delivered as a pack.
    Pack,
    /// A file that is cut into two blocks.
    Blocks,
}

/// How tasks reach workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The work queue `BAG_TASKS` and committed results.
    JetStream,
    /// Offers and leases; the gatherer decides.
    QueueGroup,
}

/// How outputs come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// A part file, renamed by the gatherer.
    Staged,
    /// An object with metadata.
    Objects,
}

/// How often each fault may happen in one run. A crash is one of anything at any step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Faults {
    /// Workers that are killed.
    pub worker_crashes: u8,
    /// Gatherers that are killed.
    pub gatherer_crashes: u8,
    /// Leases that run out under a worker that lives.
    pub early: u8,
    /// Attempts that fail and may be tried again; answers that are lost.
    pub transient: u8,
    /// Acknowledged things that the broker forgets: a task, an acknowledgement, the last result,
    /// chunks, metadata.
    pub forgets: u8,
    /// Direct reads that answer what was there before.
    pub lags: u8,
    /// Stored bytes that change.
    pub flips: u8,
    /// Disks found full.
    pub full: u8,
    /// Gatherings of the same bag into another folder.
    pub other_folder: u8,
    /// Rounds that a user begins: `--retry-failed` or `--repair`.
    pub rounds: u8,
    /// Files of others that get an output's final name while it is free. Their owners may take them away again.
    pub strangers: u8,
}

/// One exploration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// What it is called in reports.
    pub name: &'static str,
    /// What the bag consists of.
    pub bag: Bag,
    /// How tasks reach workers.
    pub delivery: Delivery,
    /// How outputs come back.
    pub path: Path,
    /// `--transfer auto`: workers may see the gatherer's folder.
    pub auto: bool,
    /// Executions may give other bytes than one another (`--any-codec-version`).
    pub unequal: bool,
    /// Outputs that the bucket has room for; 0: any number.
    pub room: u8,
    /// `--attempts`.
    pub attempts: u8,
    /// The task kills every worker that executes it.
    pub poison: bool,
    /// The bounds.
    pub faults: Faults,
    /// What is taken out of the design.
    pub without: Option<Clause>,
}

impl Config {
    /// The same without one clause.
    #[must_use]
    pub fn without(self, clause: Clause) -> Self {
        Self { without: Some(clause), ..self }
    }

    pub(crate) fn lacks(&self, clause: Clause) -> bool {
        self.without == Some(clause)
    }

    pub(crate) fn staged(&self) -> bool {
        self.path == Path::Staged
    }

    pub(crate) fn queue_group(&self) -> bool {
        self.delivery == Delivery::QueueGroup
    }
}

pub(crate) const NO: Faults = Faults {
    worker_crashes: 0,
    gatherer_crashes: 0,
    early: 0,
    transient: 0,
    forgets: 0,
    lags: 0,
    flips: 0,
    full: 0,
    other_folder: 0,
    rounds: 0,
    strangers: 0,
};

pub(crate) const STAGED: Config = Config {
    name: "",
    bag: Bag::Task,
    delivery: Delivery::JetStream,
    path: Path::Staged,
    auto: false,
    unequal: false,
    room: 0,
    attempts: 3,
    poison: false,
    faults: NO,
    without: None,
};

const OBJECTS: Config = Config { path: Path::Objects, ..STAGED };

const CRASHES: Faults = Faults { worker_crashes: 1, gatherer_crashes: 1, early: 1, ..NO };

/// Every configuration of one task, small enough for each run of the tests.
pub const SMALL: &[Config] = &[
    Config {
        name: "staged: crashes, early redelivery, full disk",
        faults: Faults { full: 1, ..CRASHES },
        ..STAGED
    },
    Config {
        name: "staged: crashes, early redelivery, failed attempts, unequal digests",
        unequal: true,
        faults: Faults { transient: 1, worker_crashes: 1, early: 1, ..NO },
        ..STAGED
    },
    Config {
        name: "staged, transfer auto: crashes, early redelivery, unequal digests",
        auto: true,
        unequal: true,
        faults: CRASHES,
        ..STAGED
    },
    Config {
        name: "staged, transfer auto: repair and retry after flips and failures",
        auto: true,
        unequal: true,
        attempts: 1,
        faults: Faults { flips: 1, transient: 1, rounds: 1, gatherer_crashes: 1, early: 1, ..NO },
        ..STAGED
    },
    Config {
        name: "staged: a broker that forgets, gatherer restarted",
        faults: Faults { forgets: 1, worker_crashes: 1, gatherer_crashes: 1, ..NO },
        ..STAGED
    },
    Config {
        name: "staged: a broker that forgets, gatherer restarted, unequal digests",
        unequal: true,
        faults: Faults { forgets: 1, gatherer_crashes: 1, ..NO },
        ..STAGED
    },
    Config {
        name: "staged: somebody's file under the final name, crashes, early redelivery",
        faults: Faults { strangers: 1, ..CRASHES },
        ..STAGED
    },
    Config {
        name: "staged: somebody's file under the final name, flips, repair and retry",
        faults: Faults { strangers: 1, flips: 1, rounds: 2, gatherer_crashes: 1, ..NO },
        ..STAGED
    },
    Config {
        name: "staged: gathered into another folder, retry, early redelivery",
        attempts: 2,
        faults: Faults { other_folder: 1, gatherer_crashes: 1, early: 1, rounds: 1, ..NO },
        ..STAGED
    },
    Config {
        name: "staged: repaired, then gathered into another folder",
        faults: Faults { other_folder: 1, flips: 1, rounds: 1, early: 1, ..NO },
        ..STAGED
    },
    Config {
        name: "staged: gathered into another folder, a broker that forgets",
        faults: Faults { other_folder: 1, gatherer_crashes: 1, forgets: 1, ..NO },
        ..STAGED
    },
    Config {
        name: "staged: a task that kills every worker",
        poison: true,
        attempts: 2,
        faults: Faults { gatherer_crashes: 1, early: 1, rounds: 1, ..NO },
        ..STAGED
    },
    Config {
        name: "objects: crashes, early redelivery, lost answers, unequal digests",
        unequal: true,
        faults: Faults { transient: 1, ..CRASHES },
        ..OBJECTS
    },
    Config {
        name: "objects: flips, crashes, early redelivery",
        faults: Faults { flips: 1, ..CRASHES },
        ..OBJECTS
    },
    Config {
        name: "objects: flips, unequal digests, repair",
        unequal: true,
        faults: Faults { flips: 1, early: 1, gatherer_crashes: 1, rounds: 1, ..NO },
        ..OBJECTS
    },
    Config {
        name: "objects: a broker that forgets, direct reads that lag",
        faults: Faults { forgets: 1, lags: 1, early: 1, ..NO },
        ..OBJECTS
    },
    Config {
        name: "objects: a broker that forgets, crashes, unequal digests",
        unequal: true,
        faults: Faults { forgets: 1, worker_crashes: 1, gatherer_crashes: 1, ..NO },
        ..OBJECTS
    },
    Config {
        name: "objects: a bucket with room for one output, crashes, reads that lag",
        room: 1,
        faults: Faults { lags: 1, transient: 1, worker_crashes: 1, early: 1, ..NO },
        ..OBJECTS
    },
    Config {
        name: "objects: a bucket with room for one output, repair half begun",
        room: 1,
        faults: Faults { flips: 1, rounds: 1, worker_crashes: 1, gatherer_crashes: 2, ..NO },
        ..OBJECTS
    },
    Config {
        name: "objects: gathered into another folder, early redelivery",
        faults: Faults { other_folder: 1, gatherer_crashes: 1, early: 1, forgets: 1, ..NO },
        ..OBJECTS
    },
    Config {
        name: "objects: a task that kills every worker",
        poison: true,
        attempts: 2,
        faults: Faults { gatherer_crashes: 1, early: 1, rounds: 1, ..NO },
        ..OBJECTS
    },
    Config {
        name: "queue group, staged: crashes, early lease end, full disk, unequal digests",
        delivery: Delivery::QueueGroup,
        unequal: true,
        faults: Faults { full: 1, ..CRASHES },
        ..STAGED
    },
    Config {
        name: "queue group, staged, transfer auto: crashes, early lease end, failed attempts",
        delivery: Delivery::QueueGroup,
        auto: true,
        faults: Faults { transient: 1, ..CRASHES },
        ..STAGED
    },
    Config {
        name: "queue group, staged: flips, repair, another folder",
        delivery: Delivery::QueueGroup,
        faults: Faults {
            flips: 1,
            rounds: 1,
            other_folder: 1,
            early: 1,
            gatherer_crashes: 1,
            ..NO
        },
        ..STAGED
    },
    Config {
        name: "queue group, staged: somebody's file under the final name, crashes, early lease end",
        delivery: Delivery::QueueGroup,
        faults: Faults { strangers: 1, ..CRASHES },
        ..STAGED
    },
    Config {
        name: "queue group, staged: somebody's file, unequal digests, flips, repair and retry",
        delivery: Delivery::QueueGroup,
        unequal: true,
        faults: Faults { strangers: 1, flips: 1, rounds: 2, gatherer_crashes: 1, ..NO },
        ..STAGED
    },
    Config {
        name: "queue group, staged: a task that kills every worker",
        delivery: Delivery::QueueGroup,
        poison: true,
        attempts: 2,
        faults: Faults { gatherer_crashes: 1, early: 1, rounds: 1, ..NO },
        ..STAGED
    },
    Config {
        name: "queue group, objects: crashes, early lease end, unequal digests",
        delivery: Delivery::QueueGroup,
        unequal: true,
        faults: CRASHES,
        ..OBJECTS
    },
    Config {
        name: "queue group, objects: chunks forgotten, reads that lag, early lease end",
        delivery: Delivery::QueueGroup,
        faults: Faults { forgets: 1, lags: 1, early: 1, gatherer_crashes: 1, ..NO },
        ..OBJECTS
    },
    Config {
        name: "queue group, objects: a bucket with room for one output",
        delivery: Delivery::QueueGroup,
        room: 1,
        faults: Faults { transient: 1, ..CRASHES },
        ..OBJECTS
    },
];
