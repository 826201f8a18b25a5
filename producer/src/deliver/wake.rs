//! Wakes tasks that were given back with a delay, once its reason is gone.
//!
//! A worker that finds no gatherer, or no space, returns the task with a delay of up to one minute. Without this, a bag
//! whose gatherer is started again stands still for that minute (ADR 0016, `tests/it/absent.rs`); a shorter delay would
//! have a large bag delivered over and over again while nobody gathers it (ADR 0035).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bagpress_broker::result::Cause;
use bagpress_broker::{Broker, LastGiveBack, limits};
use tracing::{debug, info};

use crate::deliver::watch::Watch;
use crate::run_folder::ledger::Key;
use crate::run_folder::plan::BagPlan;

/// For so long after a gatherer came, or came back, there may be tasks that still wait for it.
const AFTER_BEGIN: Duration = limits::GIVE_BACK_DELAY_MAX.saturating_add(limits::RECONCILE_AFTER);

/// Wakes the delayed tasks of one bag. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Waker {
    broker: Broker,
    plan: BagPlan,
    watch: Watch,
    /// One look at a time.
    looking: Arc<tokio::sync::Mutex<()>>,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// Where to read on.
    from: u64,
    delayed: HashMap<Key, Delayed>,
}

/// A task that waits out a delay.
#[derive(Debug, Clone)]
struct Delayed {
    cause: Cause,
    reply: String,
    /// Since when its delay can be cut short.
    since: Instant,
    until: Instant,
}

impl Delayed {
    fn of(word: LastGiveBack, now: Instant) -> Option<Self> {
        let left = word.left();
        let since = now + limits::WAKE_AFTER.saturating_sub(word.age);
        let reply = word.record.reply.filter(|_| !left.is_zero())?;
        Some(Self { cause: word.record.cause, reply, since, until: now + left })
    }

    /// Whether it is certain that no worker has it, and there is time to gain.
    fn can_be_woken(&self, room: bool, now: Instant) -> bool {
        let pointless = match self.cause {
            Cause::GathererAbsent => true,
            Cause::Full => room,
            _ => false,
        };
        pointless && self.since <= now && self.until >= now + limits::WAKE_LEAST
    }
}

impl Known {
    /// Takes in what was said of a task; whether there was a place for it.
    fn note(&mut self, word: LastGiveBack, now: Instant) -> bool {
        let key = (word.record.index, word.record.round);
        match Delayed::of(word, now) {
            Some(_) if self.is_full() && !self.delayed.contains_key(&key) => return false,
            Some(delayed) => {
                self.delayed.insert(key, delayed);
            }
            None => {
                self.delayed.remove(&key);
            }
        }
        true
    }

    fn is_full(&self) -> bool {
        self.delayed.len() >= limits::DELAYED_MAX
    }

    /// Takes out what is to be woken, and forgets what waits no longer. What is held may be so by a report
    /// that is out of date: it is looked at again.
    fn due(
        &mut self,
        room: bool,
        is_open: impl Fn(Key) -> bool,
        is_held: impl Fn(Key) -> bool,
        now: Instant,
    ) -> Vec<String> {
        let mut due = Vec::new();
        self.delayed.retain(|key, delayed| {
            if delayed.until <= now || !is_open(*key) {
                return false;
            }
            let woken = delayed.can_be_woken(room, now) && !is_held(*key);
            if woken {
                due.push(std::mem::take(&mut delayed.reply));
            }
            !woken
        });
        due
    }
}

impl Waker {
    pub(crate) fn new(broker: &Broker, plan: &BagPlan, watch: &Watch) -> Self {
        Self {
            broker: broker.clone(),
            plan: plan.clone(),
            watch: watch.clone(),
            looking: Arc::default(),
            known: Arc::default(),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the workers that somebody gathers the bag.
    pub(crate) async fn announce_gatherer(&self) {
        if let Err(error) = self.broker.announce_gatherer(&self.plan.specification.bag).await {
            debug!(%error, "workers find out by themselves");
        }
    }

    /// Looks for delayed tasks, and wakes those whose delay has no reason any more. `room`: whether
    /// nothing is known to be full. Returns at once if another look has not ended.
    async fn look(&self, room: bool) {
        let Ok(_looking) = self.looking.try_lock() else { return };
        loop {
            let more = match self.read().await {
                Ok(more) => more,
                Err(error) => {
                    debug!(%error, "delayed tasks not looked for");
                    return;
                }
            };
            let woken = self.wake(room).await;
            if !more || woken == 0 {
                return;
            }
        }
    }

    /// Reads what was said since; whether there is more than there is a place for.
    async fn read(&self) -> Result<bool, bagpress_broker::Error> {
        let from = self.known().from;
        let mut left_out = None;
        let bag = &self.plan.specification.bag;
        let reading = self.broker.last_give_backs(bag, from, |sequence, word| {
            if !self.known().note(word, Instant::now()) {
                left_out.get_or_insert(sequence);
            }
        });
        let next = reading.await?;
        self.known().from = left_out.unwrap_or(next);
        Ok(left_out.is_some())
    }

    async fn wake(&self, room: bool) -> usize {
        let is_open = |key| self.plan.is_open(key);
        let is_held = |(index, _): Key| self.watch.is_held(index);
        let due = self.known().due(room, is_open, is_held, Instant::now());
        for reply in &due {
            if let Err(error) = self.broker.nak_for(reply).await {
                debug!(%error, "left to its delay");
            }
        }
        if !due.is_empty() {
            info!(tasks = due.len(), "delayed tasks are handed out again");
        }
        due.len()
    }

    fn is_idle(&self) -> bool {
        self.known().delayed.is_empty()
    }

    /// How many tasks wait out a delay, and why, if any do.
    pub(crate) fn waiting(&self) -> Option<String> {
        let now = Instant::now();
        let known = self.known();
        let waiting = known.delayed.values().filter(|delayed| delayed.until > now);
        let (mut count, mut longest) = (0, None);
        for delayed in waiting {
            count += 1;
            longest = longest.max(Some((delayed.until, delayed.cause)));
        }
        let (until, cause) = longest?;
        let seconds = (until - now).as_secs() + 1;
        Some(format!("{count} tasks wait out a delay of up to {seconds} s, given back for {cause}"))
    }
}

/// When there is a look for delayed tasks.
#[derive(Debug)]
pub(crate) struct Waking {
    pub(crate) waker: Waker,
    last: Option<Instant>,
    /// Since when workers find somebody here.
    here_since: Instant,
    connects: u64,
}

impl Waking {
    pub(crate) fn new(waker: Waker) -> Self {
        let connects = waker.broker.connects();
        Self { waker, last: None, here_since: Instant::now(), connects }
    }

    /// Looks if it is time for it: for a while after the gatherer came, or came back, and later as long as
    /// the bag is `quiet` or something is known to wait. `room`: whether nothing is known to be full.
    pub(crate) fn look(&mut self, quiet: Duration, room: bool) {
        let due = self.last.is_none_or(|at| at.elapsed() >= limits::WAKE_EVERY);
        if !due || self.waker.broker.up_for().is_none() {
            return;
        }
        let (waker, connects) = (self.waker.clone(), self.waker.broker.connects());
        if std::mem::replace(&mut self.connects, connects) != connects {
            self.here_since = Instant::now();
            tokio::spawn(async move { waker.announce_gatherer().await });
            return;
        }
        let here = self.here_since.elapsed();
        let some = here < AFTER_BEGIN || quiet >= limits::WAKE_EVERY || !waker.is_idle();
        // A worker that got a task which was woken before must have had the time to report it.
        if !some || here < limits::UNHELD_FOR {
            return;
        }
        self.last = Some(Instant::now());
        tokio::spawn(async move { waker.look(room).await });
    }
}

#[cfg(test)]
mod tests {
    use bagpress_broker::AttemptRecord;
    use bagpress_broker::ids::TaskId;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn word(index: u32, cause: Cause, planned: u32, age: Duration) -> LastGiveBack {
        let id = TaskId { bag: "t-abcdefgh".parse().unwrap(), index, round: 0 };
        let mut record = AttemptRecord::new(&id, planned, planned - 1, cause, "W");
        record.reply = Some(index.to_string());
        LastGiveBack { record, age }
    }

    #[test]
    fn only_what_certainly_waits_for_nothing_is_woken_and_once() {
        let (mut known, now) = (Known::default(), Instant::now());
        // The seventh delay lasts 12.8 s.
        known.note(word(0, Cause::GathererAbsent, 7, SECOND), now);
        known.note(word(1, Cause::GathererAbsent, 7, SECOND * 12), now);
        known.note(word(2, Cause::GathererAbsent, 7, SECOND * 13), now);
        known.note(word(3, Cause::GathererAbsent, 7, Duration::ZERO), now);
        known.note(word(4, Cause::Full, 6, SECOND), now);
        known.note(word(5, Cause::CodecVersion, 7, SECOND), now);
        known.note(word(6, Cause::GathererAbsent, 7, SECOND), now);
        known.note(word(7, Cause::GathererAbsent, 7, SECOND), now);
        let (is_open, is_held) = (|(index, _): Key| index != 6, |(index, _): Key| index == 7);
        let due = |known: &mut Known, room, now| {
            let mut due = known.due(room, is_open, is_held, now);
            due.sort_unstable();
            due
        };
        assert_eq!(due(&mut known, false, now), ["0"]);
        assert_eq!(due(&mut known, false, now + limits::WAKE_AFTER), ["3"], "its answer has come");
        assert_eq!(due(&mut known, true, now + limits::WAKE_AFTER), ["4"]);
        assert_eq!(due(&mut known, true, now + SECOND), [""; 0]);
        let mut left: Vec<_> = known.delayed.into_keys().collect();
        left.sort_unstable();
        assert_eq!(left, [(5, 0), (7, 0)]);
    }

    #[test]
    fn the_last_word_of_a_task_counts_and_no_more_are_kept_than_there_is_a_place_for() {
        let (mut known, now) = (Known::default(), Instant::now());
        let most = u32::try_from(limits::DELAYED_MAX).unwrap();
        for index in 0..most {
            assert!(known.note(word(index, Cause::GathererAbsent, 9, SECOND), now));
        }
        assert!(!known.note(word(most, Cause::GathererAbsent, 9, SECOND), now));
        let mut lost = word(7, Cause::WorkerLost, 1, SECOND);
        lost.record.reply = None;
        assert!(known.note(lost, now), "it was handed out since");
        assert!(known.note(word(8, Cause::GathererAbsent, 1, Duration::ZERO), now));
        let due = known.due(true, |_| true, |_| false, now + limits::WAKE_AFTER);
        assert_eq!(due.len(), limits::DELAYED_MAX - 2);
    }
}
