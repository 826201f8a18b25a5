//! How many deliveries should wait for a slot, by how long tasks take.
//!
//! A delivery that waits at a worker cannot be executed by an idle one, so a worker holds next to
//! nothing: one delivery a free slot, and one more for a slot that will be free before an answer could
//! come. How long that takes is learned from slots that had to wait. Only tasks that are shorter than that are held in numbers, worth
//! [`limits::PULL_AHEAD_WORK`] at most, and for a slot only whose task has not turned out to be longer.

use std::time::{Duration, Instant};

use bagpress_broker::limits;

/// A task that has run for so long is none of those that are held in numbers.
const LONG: Duration = limits::PULL_AHEAD_LOW.saturating_mul(2);

/// A slot that waited for longer than this had no job at hand.
const WAITED: Duration = Duration::from_micros(500);
/// The lead grows up to this: a delivery waits for no longer, which an idle worker could have executed.
const LEAD_MAX: Duration = Duration::from_millis(25);
const _: () = assert!(LEAD_MAX.as_millis() <= limits::PULL_AHEAD_WORK.as_millis());

/// What the slots are doing, and how long a task takes.
#[derive(Debug)]
pub(crate) struct Pace {
    running: Vec<Option<Instant>>,
    /// When each slot ended its last job.
    ended: Vec<Option<Instant>>,
    estimate: Option<Duration>,
    /// How long before the end of a task the next one is asked for.
    lead: Duration,
}

impl Pace {
    pub(crate) fn new(slots: usize) -> Self {
        let (running, ended) = (vec![None; slots], vec![None; slots]);
        Self { running, ended, estimate: None, lead: limits::PULL_AHEAD_LOW }
    }

    pub(crate) fn started(&mut self, slot: usize, now: Instant) {
        self.running[slot] = Some(now);
        if let Some(ended) = self.ended[slot].take() {
            self.waited(now - ended);
        }
    }

    /// Notes how long a slot waited for a job. Where it takes an answer long to come, the next one is asked for earlier: on a
    /// machine whose cores are all busy each step of a task's way waits for one.
    fn waited(&mut self, wait: Duration) {
        // A longer one was for want of tasks.
        if wait > LEAD_MAX {
            return;
        }
        self.lead = if wait > WAITED {
            (self.lead + wait).min(LEAD_MAX)
        } else {
            (self.lead * 15 / 16).max(limits::PULL_AHEAD_LOW)
        };
    }

    /// Notes the end of an execution. The estimate follows quickly: one long task among short ones must
    /// not find a slot with work for minutes.
    pub(crate) fn ended(&mut self, slot: usize, now: Instant) {
        let Some(since) = self.running[slot].take() else { return };
        self.ended[slot] = Some(now);
        self.took(now - since);
    }

    /// Notes how long a task took that no slot executed.
    pub(crate) fn took(&mut self, took: Duration) {
        self.estimate = Some(self.estimate.map_or(took, |before| {
            if took > before { (took * 3 + before) / 4 } else { (took + before * 3) / 4 }
        }));
    }

    pub(crate) fn running(&self) -> usize {
        self.running.iter().flatten().count()
    }

    /// How many deliveries should be at hand, waiting for a slot.
    pub(crate) fn wanted(&self, now: Instant) -> usize {
        let idle = self.running.len() - self.running();
        let Some(estimate) = self.estimate else { return idle };
        if estimate >= limits::PULL_AHEAD_LOW {
            let soon = |since: &&Instant| (now - **since) + self.lead >= estimate;
            return idle + self.running.iter().flatten().filter(soon).count();
        }
        let depth = limits::PULL_AHEAD_WORK.as_nanos() / estimate.as_nanos().max(1);
        let depth = usize::try_from(depth).unwrap_or(usize::MAX);
        let long = |since: &&Instant| now.saturating_duration_since(**since) >= LONG;
        let long = self.running.iter().flatten().filter(long).count();
        (self.running.len() - long) * depth.clamp(1, limits::PULL_AHEAD_MAX)
    }

    /// When [`wanted`](Self::wanted) may next grow by the mere passing of time.
    pub(crate) fn next_change(&self, now: Instant) -> Option<Instant> {
        let estimate = self.estimate.filter(|e| *e >= limits::PULL_AHEAD_LOW)?;
        let at = |since: &Instant| *since + estimate.saturating_sub(self.lead);
        self.running.iter().flatten().map(at).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn pace(slots: usize, task: Duration) -> (Pace, Instant) {
        let mut pace = Pace::new(slots);
        let begin = Instant::now();
        pace.started(0, begin);
        pace.ended(0, begin + task);
        (pace, begin + task)
    }

    #[test]
    fn a_new_worker_asks_for_one_delivery_a_slot() {
        assert_eq!(Pace::new(4).wanted(Instant::now()), 4);
    }

    #[test]
    fn a_busy_slot_asks_only_when_it_is_nearly_done() {
        let (mut pace, now) = pace(1, 80 * MS);
        pace.started(0, now);
        assert_eq!(pace.wanted(now), 0);
        assert_eq!(pace.wanted(now + 70 * MS), 0);
        assert_eq!(pace.wanted(now + 77 * MS), 1);
        assert_eq!(pace.next_change(now), Some(now + 76 * MS));
    }

    #[test]
    fn a_slot_that_had_to_wait_has_the_next_task_asked_for_earlier() {
        let (mut pace, mut now) = pace(1, 80 * MS);
        for (wait, lead) in [(6, 10), (0, 9), (30, 9), (25, 25)] {
            now += wait * MS;
            pace.started(0, now);
            assert_eq!(pace.wanted(now + (79 - lead) * MS), 0, "{wait}");
            assert_eq!(pace.wanted(now + (81 - lead) * MS), 1, "{wait}");
            now += 80 * MS;
            pace.ended(0, now);
        }
        for _ in 0..100 {
            pace.started(0, now);
            now += 80 * MS;
            pace.ended(0, now);
        }
        pace.started(0, now);
        assert_eq!(pace.next_change(now), Some(now + 76 * MS));
    }

    #[test]
    fn short_tasks_are_held_in_numbers_worth_fifty_milliseconds() {
        assert_eq!(pace(1, 2 * MS).0.wanted(Instant::now()), 25);
        assert_eq!(pace(1, MS / 100).0.wanted(Instant::now()), limits::PULL_AHEAD_MAX);
    }

    #[test]
    fn nothing_is_held_for_a_slot_whose_task_turns_out_to_be_long() {
        let (mut pace, now) = pace(2, 2 * MS);
        pace.started(0, now);
        assert_eq!(pace.wanted(now + 7 * MS), 50);
        assert_eq!(pace.wanted(now + 8 * MS), 25);
        pace.started(1, now + 8 * MS);
        assert_eq!(pace.wanted(now + 16 * MS), 0);
    }

    #[test]
    fn one_long_task_ends_holding_in_numbers() {
        let (mut pace, now) = pace(1, MS / 10);
        pace.started(0, now);
        pace.ended(0, now + 400 * MS);
        pace.started(0, now + 400 * MS);
        assert_eq!(pace.wanted(now + 401 * MS), 0);
    }
}
