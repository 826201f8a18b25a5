//! Steps, and how they are told.

use std::fmt;

use crate::broken::Broken;
use crate::config::Config;

use crate::property;
use crate::state::State;

/// Whose step it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// A worker, by its execution.
    Worker(u8),
    /// The gatherer of a folder.
    Gatherer(u8),
    Broker,
    Fault,
    /// Whoever else has files where outputs get their names.
    Somebody,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) who: Who,
    pub(crate) what: &'static str,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.who {
            Who::Worker(execution) => write!(f, "execution {execution}: {}", self.what),
            Who::Gatherer(folder) => write!(f, "gatherer of folder {folder}: {}", self.what),
            Who::Broker => write!(f, "broker: {}", self.what),
            Who::Fault => write!(f, "FAULT: {}", self.what),
            Who::Somebody => write!(f, "SOMEBODY: {}", self.what),
        }
    }
}

/// The steps that lead on from one state.
pub(crate) struct Steps<'a> {
    pub(crate) config: &'a Config,
    pub(crate) from: State,
    pub(crate) out: Vec<(Step, State)>,
}

impl<'a> Steps<'a> {
    pub(crate) fn new(config: &'a Config, from: State) -> Self {
        Self { config, from, out: Vec::with_capacity(16) }
    }

    /// Adds a step; what it breaks is noted in the state that it leads to.
    pub(crate) fn add(&mut self, who: Who, what: &'static str, change: impl FnOnce(&mut State)) {
        let mut to = self.from;
        change(&mut to);
        if who != Who::Somebody {
            to.broken = to.broken.or_else(|| property::touched(&self.from, &to));
        }
        to.broken = to.broken.or_else(|| property::broken(self.config, &to));
        self.out.push((Step { who, what }, to.canonical()));
    }
}

/// What is wrong, and the shortest way there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The property, in words.
    pub what: String,
    /// The steps, in words, from a fresh bag on.
    pub trace: Vec<String>,
}

impl Violation {
    pub(crate) fn new(broken: Broken, trace: &[Step]) -> Self {
        let trace = trace.iter().map(ToString::to_string).collect();
        Self { what: broken.to_string(), trace }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, after {} steps:", self.what, self.trace.len())?;
        for (number, step) in self.trace.iter().enumerate() {
            writeln!(f, "{:>4}  {step}", number + 1)?;
        }
        Ok(())
    }
}
