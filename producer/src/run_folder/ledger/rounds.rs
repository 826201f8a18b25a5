//! Which outcome of a task counts: the first one of the highest round that any line names.

use std::collections::HashMap;

use super::bits::Bits;
use super::line::Key;

/// The round of each task, and whether it has an outcome in it.
#[derive(Debug)]
pub(crate) struct Rounds {
    tasks: u32,
    decided: Bits,
    /// Rounds above 0, of the few tasks that have one.
    above_zero: HashMap<u32, u32>,
    highest: u32,
}

impl Rounds {
    /// Every task is in round 0, and has no outcome.
    pub(crate) fn new(tasks: u32) -> Self {
        Self { tasks, decided: Bits::new(tasks), above_zero: HashMap::new(), highest: 0 }
    }

    /// The same rounds without any outcome, to count the outcomes of a file that was read before.
    pub(crate) fn undecided(&self) -> Self {
        let (tasks, highest) = (self.tasks, self.highest);
        Self { decided: Bits::new(tasks), above_zero: self.above_zero.clone(), tasks, highest }
    }

    /// Notes the round that a line names, whatever else the line says: the line that began the round may be lost. Returns
    /// whether that round is new; the outcome of the one before it then counts no more.
    pub(crate) fn note(&mut self, (index, round): Key) -> bool {
        if index >= self.tasks || round <= self.of(index) {
            return false;
        }
        self.decided.set(index, false);
        self.above_zero.insert(index, round);
        self.highest = round.max(self.highest);
        true
    }

    /// Decides a task. Returns whether the outcome counts: it is of the task's round, and the first one of it.
    pub(crate) fn decide(&mut self, key: Key) -> bool {
        let counts = self.is_open(key);
        if counts {
            self.decided.set(key.0, true);
        }
        counts
    }

    /// Whether an outcome of this task and round would count.
    pub(crate) fn is_open(&self, (index, round): Key) -> bool {
        index < self.tasks && self.of(index) == round && !self.decided.get(index)
    }

    /// The round of a task that counts.
    pub(crate) fn of(&self, index: u32) -> u32 {
        self.above_zero.get(&index).copied().unwrap_or(0)
    }

    /// Whether a task has an outcome in its round.
    pub(crate) fn is_decided(&self, index: u32) -> bool {
        self.decided.get(index)
    }

    /// The highest round of any task.
    pub(crate) fn highest(&self) -> u32 {
        self.highest
    }

    /// The tasks of which a round above 0 was begun, in no order.
    pub(crate) fn begun(&self) -> impl Iterator<Item = u32> {
        self.above_zero.keys().copied()
    }

    /// Whether a round above 0 was begun of a task.
    pub(crate) fn has_begun(&self, index: u32) -> bool {
        self.above_zero.contains_key(&index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_outcome_of_the_highest_round_counts() {
        let mut rounds = Rounds::new(2);
        assert!(rounds.decide((0, 0)));
        assert!(!rounds.decide((0, 0)), "a second one of its round");
        assert!(rounds.note((0, 2)) && rounds.is_open((0, 2)) && !rounds.is_decided(0));
        assert!(!rounds.note((0, 1)) && !rounds.note((0, 2)), "no new round");
        assert!(!rounds.decide((0, 1)), "of a lower round");
        assert!(!rounds.decide((0, 3)), "of a round that no line has named");
        assert!(rounds.decide((0, 2)));
        assert_eq!((rounds.of(0), rounds.of(1), rounds.highest()), (2, 0, 2));
        let mut again = rounds.undecided();
        assert!(!again.decide((0, 0)) && again.decide((0, 2)) && !again.decide((0, 2)));
    }

    #[test]
    fn what_is_no_task_of_the_bag_counts_never() {
        let mut rounds = Rounds::new(2);
        assert!(!rounds.decide((2, 0)) && !rounds.note((2, 1)));
        assert_eq!((rounds.highest(), rounds.begun().count()), (0, 0));
    }
}
