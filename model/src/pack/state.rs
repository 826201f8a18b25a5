//! One state: two files, the messages that deliver them, two workers and a gatherer.

use std::ops::Range;

use crate::broken::Broken;
use crate::config::{Config, Faults, Path};
use crate::values::{Bytes, NONE, Task, Waits};

pub(crate) const FILES: usize = 2;
/// Rounds that are told apart.
pub(crate) const ROUNDS: usize = 3;
/// Executions that leave traces at the same time.
const EXECUTIONS: usize = 8;

/// What a delivery and a result are named by: a file and its round. The first file in round 0 names the pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) file: u8,
    pub(crate) round: u8,
}

impl Key {
    pub(crate) const PACK: Self = Self { file: 0, round: 0 };
    /// The pack, and each file alone.
    pub(crate) const ALL: usize = 1 + FILES;

    /// A file by itself, in a round above 0.
    pub(crate) fn alone(file: usize, round: u8) -> Self {
        Self { file: u8::try_from(file).unwrap_or(NONE), round }
    }

    pub(crate) fn is_pack(self) -> bool {
        self.round == 0
    }

    /// `BagPlan::files`.
    pub(crate) fn files(self) -> Range<usize> {
        let file = self.file as usize;
        if self.is_pack() { 0..FILES } else { file..file + 1 }
    }

    /// Its place among what a gatherer publishes.
    pub(crate) fn place(self) -> usize {
        if self.is_pack() { 0 } else { 1 + self.file as usize }
    }

    /// Its place among subjects.
    pub(crate) fn subject(self) -> usize {
        self.round as usize * FILES + self.file as usize
    }

    pub(crate) fn of_subject(subject: usize) -> Self {
        let round = u8::try_from(subject / FILES).unwrap_or(NONE);
        Self { round, ..Self::alone(subject % FILES, 0) }
    }
}

const SUBJECTS: usize = ROUNDS * FILES;

/// What is said of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) enum Says {
    #[default]
    Nothing,
    Done,
    /// For a reason that is the file's own.
    Failed,
    /// Its attempts are spent.
    Spent,
}

/// What an execution says of each file, one that is delivered alone in its own place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Outcomes {
    pub(crate) says: [Says; FILES],
    /// None: nobody says anything.
    pub(crate) by: u8,
}

impl Outcomes {
    pub(crate) const NONE: Self = Self { says: [Says::Nothing; FILES], by: NONE };

    pub(crate) fn is(self) -> bool {
        self.by != NONE
    }
}

/// What has an output's final name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Last {
    Nothing,
    Whole,
    /// Ours, and destroyed.
    Junk,
}

/// One file in the run folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct File {
    /// The highest begun round, and its outcome, in the ledger.
    pub(crate) round: u8,
    pub(crate) says: Says,
    pub(crate) by: u8,
    /// Lines that count, by round.
    pub(crate) lines: [u8; ROUNDS],
    pub(crate) last: Last,
    /// Part files, by execution.
    pub(crate) parts: [Bytes; EXECUTIONS],
    /// A fault destroyed bytes that were counted.
    pub(crate) tainted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum At {
    Idle,
    Look,
    Open,
    Execute,
    /// Half of an output is in its part file.
    Half,
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
    /// Attempts spent, this one included, when it was delivered.
    pub(crate) spent: u8,
    pub(crate) again: bool,
    /// Files that it need not execute, or has executed.
    pub(crate) over: [bool; FILES],
    pub(crate) says: [Says; FILES],
    /// Has a valid lease (queue group).
    pub(crate) leased: bool,
}

impl Worker {
    pub(crate) const IDLE: Self = Self {
        at: At::Idle,
        key: Key::PACK,
        execution: NONE,
        spent: 0,
        again: false,
        over: [false; FILES],
        says: [Says::Nothing; FILES],
        leased: false,
    };

    pub(crate) fn outcomes(&self) -> Outcomes {
        Outcomes { says: self.says, by: self.execution }
    }

    /// The file that it executes now.
    pub(crate) fn next(&self) -> Option<usize> {
        self.key.files().find(|f| !self.over[*f])
    }
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
    Count,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Gatherer {
    pub(crate) at: Gathers,
    /// Results read so far.
    pub(crate) read: u8,
    /// What is being accepted, and which outputs have their names.
    pub(crate) taken: Outcomes,
    pub(crate) placed: [bool; FILES],
    /// Where that came from.
    pub(crate) from: Key,
    /// Files whose next round begins later, with the round that is over.
    pub(crate) due: [Option<u8>; FILES],
    /// Reconciling: which files waited, the pack by its first; none outside of one.
    pub(crate) waited: Option<[bool; FILES]>,
    /// To be published.
    pub(crate) publish: [bool; Key::ALL],
    /// Offered to workers, and attempts that were spent (queue group).
    pub(crate) offered: [bool; Key::ALL],
    pub(crate) spent: [u8; Key::ALL],
}

impl Gatherer {
    pub(crate) const fn new(at: Gathers) -> Self {
        Self {
            at,
            read: 0,
            taken: Outcomes::NONE,
            placed: [false; FILES],
            from: Key::PACK,
            due: [None; FILES],
            waited: None,
            publish: [false; Key::ALL],
            offered: [false; Key::ALL],
            spent: [0; Key::ALL],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// Messages and results by subject, and the order in which results were committed.
    pub(crate) tasks: [Task; SUBJECTS],
    pub(crate) results: [Outcomes; SUBJECTS],
    pub(crate) log: [u8; SUBJECTS],
    pub(crate) files: [File; FILES],
    /// Whether the outputs of the pack are a tar, and whose tar has the name, if one has.
    pub(crate) has_tars: bool,
    pub(crate) named: u8,
    pub(crate) workers: [Worker; 2],
    pub(crate) gatherer: Gatherer,
    /// Faults that may still happen.
    pub(crate) left: Faults,
    /// The broker forgot something.
    pub(crate) forgot: bool,
    /// A property that a step broke.
    pub(crate) broken: Option<Broken>,
    /// A round beyond the bound would have begun here, or an execution more.
    pub(crate) cut: bool,
}

impl State {
    /// A fresh bag: its gatherer has started.
    pub(crate) fn first(config: &Config) -> Self {
        let file = File {
            round: 0,
            says: Says::Nothing,
            by: NONE,
            lines: [0; ROUNDS],
            last: Last::Nothing,
            parts: [Bytes::Nothing; EXECUTIONS],
            tainted: false,
        };
        let mut gatherer = Gatherer::new(Gathers::Loop);
        gatherer.publish[Key::PACK.place()] = true;
        Self {
            tasks: [Task::default(); SUBJECTS],
            results: [Outcomes::NONE; SUBJECTS],
            log: [NONE; SUBJECTS],
            files: [file; FILES],
            has_tars: config.path == Path::Objects,
            named: NONE,
            workers: [Worker::IDLE; 2],
            gatherer,
            left: config.faults,
            forgot: false,
            broken: None,
            cut: false,
        }
    }

    /// Whether a gatherer lives.
    pub(crate) fn serves(&self) -> bool {
        !matches!(self.gatherer.at, Gathers::Off | Gathers::Finished)
    }

    /// `Ledger::is_open`: whether an outcome of this file and round would count.
    pub(crate) fn is_open(&self, f: usize, round: u8) -> bool {
        self.files[f].round == round && self.files[f].says == Says::Nothing
    }

    pub(crate) fn is_over(&self) -> bool {
        self.files.iter().all(|file| file.says != Says::Nothing)
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
        let in_file = |file: &File| file.by == e || file.parts[e as usize] != Bytes::Nothing;
        self.results.iter().any(|result| result.by == e)
            || self.gatherer.taken.by == e
            || self.named == e
            || self.files.iter().any(in_file)
            || self.workers.iter().any(|worker| worker.execution == e)
    }

    /// Equal states have equal forms: which of two workers is which does not matter, nor how executions are numbered, nor
    /// what is never read again.
    pub(crate) fn canonical(mut self) -> Self {
        if self.left.forgets == 0 {
            self.forget_of_the_acked(0);
        } else {
            self.forget_of_the_acked(1); // the pack's may come back
        }
        for worker in &mut self.workers {
            worker.again &= worker.at == At::Look;
        }
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
        self.files.iter_mut().for_each(|file| name(&mut file.by));
        name(&mut self.gatherer.taken.by);
        name(&mut self.named);
        self.workers.iter_mut().for_each(|worker| name(&mut worker.execution));
        for mut e in 0..u8::try_from(EXECUTIONS).unwrap_or(NONE) {
            name(&mut e); // what only part files name
        }
        for file in &mut self.files {
            let parts = file.parts;
            for (part, e) in parts.into_iter().zip(named) {
                file.parts[e as usize] = part;
            }
        }
        self
    }

    fn forget_of_the_acked(&mut self, from: usize) {
        for task in &mut self.tasks[from..] {
            if task.waits == Waits::Absent {
                *task = Task::default();
            }
        }
    }
}
