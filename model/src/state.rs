//! One state of the whole system: a task, its broker, two folders, two workers, a gatherer.

use crate::broken::Broken;
use crate::config::{Config, Faults};
use crate::process::{Gatherer, Gathers, Worker};
use crate::values::{Bytes, EXECUTIONS, FOLDERS, NONE, Named, Outcome, ROUNDS, Task};

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

/// Everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) tasks: [Task; ROUNDS],
    /// Results by round, and the order in which they were committed.
    pub(crate) results: [Outcome; ROUNDS],
    pub(crate) log: [u8; ROUNDS],
    pub(crate) chunks: [Bytes; EXECUTIONS],
    pub(crate) metadata: Named,
    /// Executions whose objects have a second name, because the output's has other bytes.
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
    pub(crate) broken: Option<Broken>,
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
