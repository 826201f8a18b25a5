//! One state: a file and its two blocks, the messages that deliver them, two workers, a gatherer and its joiner.

use crate::broken::Broken;
use crate::config::{Config, Faults};
use crate::values::{NONE, Waits};

/// The file's index. Behind it are its blocks (`Cuts::blocks`).
pub(crate) const FILE: usize = 0;
pub(crate) const BLOCKS: std::ops::Range<usize> = 1..3;
pub(crate) const TASKS: usize = 3;
/// Rounds that are told apart.
pub(crate) const ROUNDS: usize = 3;
const SUBJECTS: usize = TASKS * ROUNDS;
/// Executions that leave traces at the same time.
pub(crate) const EXECUTIONS: usize = 8;
/// The execution of the outcome that comes of a join.
pub(crate) const JOINER: u8 = NONE - 1;
/// Length of a joined file with its end, in blocks.
pub(crate) const WHOLE: u8 = 3;

/// A task and its round. The file in round 0 is delivered to nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) task: u8,
    pub(crate) round: u8,
}

impl Key {
    pub(crate) fn of(task: usize, round: u8) -> Self {
        Self { task: u8::try_from(task).unwrap_or(NONE), round }
    }

    pub(crate) fn task(self) -> usize {
        self.task as usize
    }

    pub(crate) fn is_block(self) -> bool {
        self.task() != FILE
    }

    pub(crate) fn is_join(self) -> bool {
        !self.is_block() && self.round == 0
    }

    pub(crate) fn subject(self) -> usize {
        self.task() * ROUNDS + self.round as usize
    }

    pub(crate) fn of_subject(subject: usize) -> Self {
        Self::of(subject / ROUNDS, u8::try_from(subject % ROUNDS).unwrap_or(NONE))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) enum Says {
    #[default]
    Nothing,
    Done,
    Failed,
}

/// A committed result, or what is being accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Outcome {
    pub(crate) says: Says,
    pub(crate) by: u8,
}

impl Outcome {
    pub(crate) const NOTHING: Self = Self { says: Says::Nothing, by: NONE };
}

/// What the ledger has of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) round: u8,
    pub(crate) outcome: Outcome,
    /// Lines that count, by round.
    pub(crate) lines: [u8; ROUNDS],
    /// A fault destroyed its bytes.
    pub(crate) tainted: bool,
}

/// The part file of a join, as long as it has its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Part {
    pub(crate) there: bool,
    /// How much is written, in blocks, and of that synced.
    pub(crate) written: u8,
    pub(crate) synced: u8,
    /// It has other bytes than its length says.
    pub(crate) wrong: bool,
}

impl Part {
    pub(crate) const NONE: Self = Self { there: false, written: 0, synced: 0, wrong: false };
}

/// The note of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Note {
    /// How many blocks are joined; 0: there is no note.
    pub(crate) blocks: u8,
    /// It names a part file that another one has taken the place of.
    pub(crate) stale: bool,
}

impl Note {
    pub(crate) const NONE: Self = Self { blocks: 0, stale: false };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Last {
    Nothing,
    Whole,
    Junk,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum At {
    Idle,
    Open,
    Close,
    Commit,
    Ack,
    /// Waits for the gatherer's answer to its result (queue group).
    Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Worker {
    pub(crate) at: At,
    pub(crate) key: Key,
    pub(crate) execution: u8,
    pub(crate) says: Says,
    /// Has a valid lease (queue group).
    pub(crate) leased: bool,
}

impl Worker {
    pub(crate) const IDLE: Self = Self {
        at: At::Idle,
        key: Key { task: NONE, round: 0 },
        execution: NONE,
        says: Says::Nothing,
        leased: false,
    };
}

/// How far the joiner is in making durable what is joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Settles {
    No,
    /// The part file is synced; or, without the clause, noted.
    Half,
    /// Both; the blocks' part files are to be removed.
    Noted,
}

/// The part file that the joiner has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Holds {
    Nothing,
    Part,
    /// One that has its name no more: what is written has none.
    Unnamed,
}

impl Holds {
    /// The part file got another name, or none.
    pub(crate) fn lose_name(&mut self) {
        if *self == Self::Part {
            *self = Self::Unnamed;
        }
    }
}

/// What the joiner has in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Joiner {
    /// It is to look at the file (`Joins::counted`).
    pub(crate) look: bool,
    pub(crate) holds: Holds,
    pub(crate) blocks: u8,
    /// Of these, those whose own part files it has removed.
    pub(crate) settled: u8,
    pub(crate) settles: Settles,
    /// The outcome that it has for the gatherer.
    pub(crate) says: Says,
    /// It has given an outcome.
    pub(crate) given: bool,
}

impl Joiner {
    /// `Joins::start`.
    pub(crate) const START: Self = Self {
        look: true,
        holds: Holds::Nothing,
        blocks: 0,
        settled: 0,
        settles: Settles::No,
        says: Says::Nothing,
        given: false,
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Gathers {
    /// No process, and the bag not ended.
    Off,
    /// No process: it ended well.
    Finished,
    Start,
    ReadWaiting,
    Loop,
    Place,
    /// The part file is what it should be.
    Rename,
    Count,
    /// The joiner is to look at the file (`Joins::counted`).
    Tell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Gatherer {
    pub(crate) at: Gathers,
    /// Results read so far.
    pub(crate) read: u8,
    /// What is being accepted, and of what.
    pub(crate) taken: Outcome,
    pub(crate) key: Key,
    /// Tasks whose next round begins later, with the round that is over.
    pub(crate) due: [Option<u8>; TASKS],
    /// Reconciling: which tasks waited; none outside of one.
    pub(crate) waited: Option<[bool; TASKS]>,
    /// To be published.
    pub(crate) publish: [bool; TASKS],
    /// Offered to workers (queue group).
    pub(crate) offered: [bool; TASKS],
    pub(crate) joiner: Joiner,
}

impl Gatherer {
    pub(crate) const fn new(at: Gathers) -> Self {
        Self {
            at,
            read: 0,
            taken: Outcome::NOTHING,
            key: Key { task: 0, round: 0 },
            due: [None; TASKS],
            waited: None,
            publish: [false; TASKS],
            offered: [false; TASKS],
            joiner: Joiner::START,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// Messages and results by subject, and the order in which results were committed.
    pub(crate) waits: [Waits; SUBJECTS],
    pub(crate) results: [Outcome; SUBJECTS],
    pub(crate) log: [u8; SUBJECTS],
    pub(crate) ledger: [Entry; TASKS],
    /// Whole part files of executions.
    pub(crate) parts: [[bool; EXECUTIONS]; TASKS],
    pub(crate) part: Part,
    pub(crate) note: Note,
    pub(crate) last: Last,
    pub(crate) workers: [Worker; 2],
    pub(crate) gatherer: Gatherer,
    /// Faults that may still happen.
    pub(crate) left: Faults,
    /// A property that a step broke.
    pub(crate) broken: Option<Broken>,
    /// A round beyond the bound would have begun here, or an execution more.
    pub(crate) cut: bool,
}

impl State {
    /// A fresh bag: its gatherer has started.
    pub(crate) fn first(config: &Config) -> Self {
        let lines = [0; ROUNDS];
        let entry = Entry { round: 0, outcome: Outcome::NOTHING, lines, tainted: false };
        let mut gatherer = Gatherer::new(Gathers::Loop);
        BLOCKS.for_each(|block| gatherer.publish[block] = true);
        Self {
            waits: [Waits::Absent; SUBJECTS],
            results: [Outcome::NOTHING; SUBJECTS],
            log: [NONE; SUBJECTS],
            ledger: [entry; TASKS],
            parts: [[false; EXECUTIONS]; TASKS],
            part: Part::NONE,
            note: Note::NONE,
            last: Last::Nothing,
            workers: [Worker::IDLE; 2],
            gatherer,
            left: config.faults,
            broken: None,
            cut: false,
        }
    }

    /// Whether a gatherer lives.
    pub(crate) fn serves(&self) -> bool {
        !matches!(self.gatherer.at, Gathers::Off | Gathers::Finished)
    }

    /// Whether the file has an outcome in its round.
    pub(crate) fn is_over(&self) -> bool {
        self.ledger[FILE].outcome.says != Says::Nothing
    }

    /// Whether the file is to be made of its blocks.
    pub(crate) fn is_joined(&self) -> bool {
        self.ledger[FILE].round == 0 && !self.is_over()
    }

    /// `BagPlan::is_task_open`.
    pub(crate) fn is_open(&self, key: Key) -> bool {
        let entry = &self.ledger[key.task()];
        let open = entry.round == key.round && entry.outcome.says == Says::Nothing;
        open && (!key.is_block() || self.is_joined())
    }

    pub(crate) fn key(&self, task: usize) -> Key {
        Key::of(task, self.ledger[task].round)
    }

    /// The part file of a block that is done, if it is there.
    pub(crate) fn part_of(&mut self, block: usize) -> Option<&mut bool> {
        let by = self.ledger[block].outcome.by as usize;
        self.parts[block].get_mut(by).filter(|there| **there)
    }

    /// Number of results in the stream.
    pub(crate) fn committed(&self) -> usize {
        self.log.iter().take_while(|subject| **subject != NONE).count()
    }

    /// A name for a new execution, or nothing goes on from here.
    pub(crate) fn execution(&mut self) -> u8 {
        let all = 0..u8::try_from(EXECUTIONS).unwrap_or(NONE);
        let free = all.into_iter().find(|e| !self.in_use(*e));
        self.cut |= free.is_none();
        free.unwrap_or(0)
    }

    fn in_use(&self, e: u8) -> bool {
        self.results.iter().any(|result| result.by == e)
            || self.gatherer.taken.by == e
            || self.ledger.iter().any(|entry| entry.outcome.by == e)
            || self.parts.iter().any(|parts| parts[e as usize])
            || self.workers.iter().any(|worker| worker.execution == e)
    }

    /// Equal states have equal forms: which of two workers is which does not matter, nor how executions are numbered.
    pub(crate) fn canonical(mut self) -> Self {
        self.workers.sort_unstable_by_key(|worker| Worker { execution: 0, ..*worker });
        let mut named = [NONE; EXECUTIONS];
        let mut count = 0;
        let mut name = |e: &mut u8| {
            let Some(known) = named.get_mut(*e as usize) else { return };
            if *known == NONE {
                *known = count;
                count += 1;
            }
            *e = *known;
        };
        self.results.iter_mut().for_each(|result| name(&mut result.by));
        self.ledger.iter_mut().for_each(|entry| name(&mut entry.outcome.by));
        name(&mut self.gatherer.taken.by);
        self.workers.iter_mut().for_each(|worker| name(&mut worker.execution));
        for mut e in 0..u8::try_from(EXECUTIONS).unwrap_or(NONE) {
            name(&mut e); // what only part files name
        }
        for parts in &mut self.parts {
            let before = *parts;
            for (part, e) in before.into_iter().zip(named) {
                parts[e as usize] = part;
            }
        }
        self
    }
}
