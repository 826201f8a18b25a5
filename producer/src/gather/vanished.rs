//! Outcomes whose bytes are gone, and inputs that the broker lost: run again after a delay, a few times.

use std::collections::HashMap;
use std::time::Instant;

use bagpress_broker::limits;
use bagpress_broker::result::{Cause, Failed};

use crate::deliver::handed::too_often;

/// How often that happened to a task, as far as this gatherer has seen.
#[derive(Debug, Default)]
pub(crate) struct Vanished(HashMap<u32, VanishedTask>);

#[derive(Debug)]
struct VanishedTask {
    /// The last round whose bytes vanished: its result may be read again before the next one begins.
    round: u32,
    times: u32,
    /// When the next round begins; none once it has.
    due: Option<Instant>,
}

impl Vanished {
    /// Notes that the bytes of a task's outcome in `round` are not there. A new round begins when [`due`](Self::due) says
    /// so; what the task fails with if this happened too often.
    pub(crate) fn note(&mut self, index: u32, round: u32, now: Instant) -> Option<Failed> {
        let seen = self.0.entry(index).or_insert(VanishedTask { round, times: 0, due: None });
        if seen.times == 0 || round > seen.round {
            let delay = Cause::BytesLost.give_back_delay(seen.times);
            *seen = VanishedTask { round, times: seen.times + 1, due: Some(now + delay) };
        }
        (seen.times >= limits::BYTES_LOST_MAX).then(|| too_often(seen.times))
    }

    /// Forgets a task that has an outcome.
    pub(crate) fn decided(&mut self, index: u32) {
        self.0.remove(&index);
    }

    /// The tasks whose next round is to begin now, each with the round whose bytes vanished.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(u32, u32)> {
        let mut begin = Vec::new();
        for (index, seen) in &mut self.0 {
            if seen.due.take_if(|due| *due <= now).is_some() {
                begin.push((*index, seen.round));
            }
        }
        begin.sort_unstable();
        begin
    }

    /// Whether the next round of a task is to begin now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.0.values().any(|seen| seen.due.is_some_and(|due| due <= now))
    }

    /// The tasks whose next round is to begin later.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = u32> {
        self.0.iter().filter(|(_, seen)| seen.due.is_some()).map(|(index, _)| *index)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_task_begins_a_round_later_each_time_and_fails_in_the_end() {
        let (mut vanished, began) = (Vanished::default(), Instant::now());
        let mut now = began;
        for round in 0..limits::BYTES_LOST_MAX - 1 {
            assert_eq!(vanished.note(7, round, now), None);
            // The same result, read once more, is the same loss.
            assert_eq!(vanished.note(7, round, now), None);
            assert_eq!(vanished.due(now), []);
            now += Cause::BytesLost.give_back_delay(round);
            assert_eq!(vanished.due(now), [(7, round)]);
            assert_eq!(vanished.due(now), []);
        }
        assert!(now - began >= Duration::from_secs(3));
        let failed = vanished.note(7, limits::BYTES_LOST_MAX - 1, now).unwrap();
        assert_eq!(failed.cause, Cause::BytesLost);
    }

    #[test]
    fn a_task_that_got_its_outcome_is_forgotten() {
        let (mut vanished, now) = (Vanished::default(), Instant::now());
        assert_eq!(vanished.note(1, 0, now), None);
        assert_eq!(vanished.note(2, 0, now), None);
        vanished.decided(1);
        let later = now + limits::GIVE_BACK_DELAY_MAX;
        assert!(vanished.is_due(later) && !vanished.is_due(now));
        assert_eq!(vanished.due(later), [(2, 0)]);
        assert!(!vanished.is_due(later));
    }
}
