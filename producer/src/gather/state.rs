//! What a bag that is gathered does next: decided from what happened and when, without a clock and without I/O.
//!
//! ```text
//!     Following ── ListWaiting, Listed ──► Reconciling ── CaughtUp, PublishMissing ──► Publishing
//!        ▲                                                                                 │
//!        └────────────────────────────────── Published ────────────────────────────────────┘
//! ```
//!
//! To *reconcile* is to find out what the broker forgot: list the tasks that wait, read the results from the first one on,
//! and publish what has neither. `model/src/gatherer.rs` explores this order with crashes between its steps and says that
//! it is right; the tests below say that it is the order taken here.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bagpress_broker::limits;
use bagpress_broker::result::Failed;

use crate::gather::vanished::Vanished;
use crate::run_folder::ledger::{Bits, Key};

/// Between two looks at something that stands still.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What becomes of objects that outputs travel as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Objects {
    /// There are none.
    None,
    /// They are fetched into files, or expire.
    Pass,
    /// They are the outputs: one that the broker forgot is to be made again.
    Stay,
}

/// What of a bag decides how it is followed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traits {
    /// Whether the broker keeps tasks and results; otherwise the gatherer does, and offers its tasks.
    pub(crate) committed: bool,
    /// What becomes of objects that outputs travel as.
    pub(crate) objects: Objects,
    /// Whether publishing may wait for inputs that come from elsewhere, for as long as it likes.
    pub(crate) awaits_inputs: bool,
    /// How long nothing may happen.
    pub(crate) stall_timeout: Duration,
}

/// What is seen ten times a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sight {
    /// How many times the connection was made.
    pub(crate) connects: u64,
    /// Tasks that workers report to execute.
    pub(crate) running: usize,
    /// Whether it is known that nobody took the bag from us.
    pub(crate) ours: bool,
    /// Whether a publisher found no input bucket.
    pub(crate) misses_inputs: bool,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// The gathering begins, of a new bag or of one that goes on.
    Begin { fresh: bool },
    /// A tenth of a second is over.
    Tick(Sight),
    /// Outcomes were counted.
    Counted,
    /// The tasks that wait in the queue were listed.
    Listed(Bits),
    /// They could not be listed now; `missing`: the broker lacks a stream.
    NotListed { missing: bool },
    /// Everything that was committed when the tasks were listed was read, and the bag is ours.
    CaughtUp,
    /// Nobody can say now whether the objects of done tasks are there.
    ObjectsUnknown,
    /// What is missing is being published; to find out what that is may have taken long.
    PublishesMissing,
    /// Both buckets were there, or were made, with this connection.
    BucketsSeen { connects: u64 },
    /// Publishing ended; `gave_way`: with tasks that are not published.
    Published { gave_way: bool },
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// List the tasks that wait in the queue.
    ListWaiting,
    /// Read all results again, from the first one on.
    ReadAgain,
    /// Run done tasks again whose objects the broker forgot.
    LookForObjects,
    /// Publish, or offer, every task that is not decided.
    PublishAll,
    /// Publish what is not decided and does not wait; look for forgotten objects before.
    PublishMissing(Bits),
    /// Begin the next rounds of these tasks, unless others were begun, and publish them.
    BeginRounds(Vec<Key>),
    /// End the publishing that waits for room.
    GiveWay,
    /// Make the buckets again if they are not there.
    RemakeBuckets,
    /// Give back deliveries that no worker reports.
    GiveBackUnheld,
    /// Renew the lease on the bag.
    Renew,
    /// End with an error: nothing has happened for too long.
    GiveUp,
}

#[derive(Debug)]
enum Phase {
    /// Outcomes are counted as they come.
    Following,
    /// Tasks are being published meanwhile.
    Publishing,
    /// All results are being read again; the tasks that waited before.
    Reconciling(Bits),
}

/// Where a gathering stands. It owns every timer of it.
#[derive(Debug)]
pub(crate) struct State {
    traits: Traits,
    phase: Phase,
    vanished: Vanished,
    /// The connection with which the broker was last looked at for what it forgot; none: look again, after a while.
    seen_with: Option<u64>,
    /// Publishing gave way, and left tasks that nobody has published.
    unpublished: bool,
    /// When that was, or tasks were published after it.
    looked: Instant,
    /// The broker lacked a stream then.
    missing: bool,
    /// With which connection the buckets were there.
    buckets_seen: u64,
    buckets_tried: Instant,
    last_outcome: Instant,
    /// Whether one was counted at all.
    has_counted: bool,
    last_unheld: Instant,
    /// When it was last known that the bag is ours.
    last_ours: Instant,
    last_renewal: Option<Instant>,
}

impl State {
    pub(crate) fn new(traits: Traits, connects: u64, now: Instant) -> Self {
        Self {
            traits,
            phase: Phase::Following,
            vanished: Vanished::default(),
            seen_with: Some(connects),
            unpublished: false,
            looked: now,
            missing: false,
            buckets_seen: connects,
            buckets_tried: now,
            last_outcome: now,
            has_counted: false,
            last_unheld: now,
            last_ours: now,
            last_renewal: None,
        }
    }

    /// Takes in what happened at `now`, and says what to do, in this order.
    pub(crate) fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Begin { fresh } => self.begin(fresh, now),
            Event::Tick(sight) => self.tick(sight, now),
            Event::Counted => {
                (self.last_outcome, self.has_counted) = (now, true);
                Vec::new()
            }
            Event::Listed(waiting) => {
                self.missing = false;
                self.phase = Phase::Reconciling(waiting);
                vec![Action::ReadAgain, Action::RemakeBuckets]
            }
            Event::NotListed { missing } => {
                self.missing |= missing;
                self.look_again(now)
            }
            Event::CaughtUp => self.caught_up(),
            Event::PublishesMissing => {
                self.looked = now;
                Vec::new()
            }
            Event::ObjectsUnknown => self.look_again(now),
            Event::BucketsSeen { connects } => {
                self.buckets_seen = connects;
                Vec::new()
            }
            Event::Published { gave_way } => {
                self.phase = Phase::Following;
                if gave_way {
                    (self.seen_with, self.unpublished) = (None, true);
                }
                Vec::new()
            }
        }
    }

    /// Outputs may have been read back for an hour before: the patience of the user begins now.
    fn begin(&mut self, fresh: bool, now: Instant) -> Vec<Action> {
        (self.last_outcome, self.looked) = (now, now);
        if self.traits.committed && !fresh {
            return vec![Action::ListWaiting];
        }
        let mut actions = Vec::new();
        if !fresh {
            actions.push(Action::LookForObjects);
        }
        actions.append(&mut self.publish_all());
        actions
    }

    fn has_bucket(&self) -> bool {
        self.traits.objects != Objects::None
    }

    fn publish_all(&mut self) -> Vec<Action> {
        self.phase = Phase::Publishing;
        vec![Action::PublishAll]
    }

    fn look_again(&mut self, now: Instant) -> Vec<Action> {
        (self.seen_with, self.looked) = (None, now);
        Vec::new()
    }

    fn caught_up(&mut self) -> Vec<Action> {
        match std::mem::replace(&mut self.phase, Phase::Publishing) {
            Phase::Reconciling(waiting) => vec![Action::PublishMissing(waiting)],
            before => {
                self.phase = before;
                Vec::new()
            }
        }
    }

    fn tick(&mut self, sight: Sight, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if sight.ours {
            self.last_ours = now;
            actions.extend(self.begin_due(now));
            let unseen = self.has_bucket() && sight.connects != self.buckets_seen;
            if unseen && now - self.buckets_tried >= limits::RETRY_WAIT || sight.misses_inputs {
                self.buckets_tried = now;
                actions.push(Action::RemakeBuckets);
            }
        }
        // A worker that died before it could report a delivery is missed by nothing but its task.
        let still = self.quiet(now) >= LOOK_EVERY && sight.running == 0;
        if self.traits.committed && still && now - self.last_unheld >= LOOK_EVERY {
            self.last_unheld = now;
            actions.push(Action::GiveBackUnheld);
        }
        if sight.ours {
            actions.append(&mut self.look_for_what_is_forgotten(sight, now));
        }
        if self.is_stalled(sight.running, now) {
            actions.push(Action::GiveUp);
        }
        if self.last_renewal.is_none_or(|at| now - at >= limits::GATHERER_RENEWAL) {
            self.last_renewal = Some(now);
            actions.push(Action::Renew);
        }
        actions
    }

    /// Rounds whose delay is over begin while nothing else is published, which might publish their tasks before there is
    /// room for them. What waits for inputs from elsewhere gives way to them.
    fn begin_due(&mut self, now: Instant) -> Option<Action> {
        let Phase::Following = self.phase else {
            let gives_way = self.traits.awaits_inputs && self.is_publishing();
            return (gives_way && self.vanished.is_due(now)).then_some(Action::GiveWay);
        };
        let due = self.vanished.due(now);
        if due.is_empty() {
            return None;
        }
        self.phase = Phase::Publishing;
        Some(Action::BeginRounds(due))
    }

    fn look_for_what_is_forgotten(&mut self, sight: Sight, now: Instant) -> Vec<Action> {
        let looked = now - self.looked;
        let reconnected = match self.seen_with {
            Some(connects) => connects != sight.connects,
            None => looked >= LOOK_EVERY,
        };
        let still = self.missing && looked >= LOOK_EVERY
            || sight.running == 0 && looked.min(self.quiet(now)) >= limits::RECONCILE_AFTER;
        match (self.traits.committed, &self.phase) {
            (true, Phase::Publishing) if reconnected || still => vec![Action::GiveWay],
            // A round that was begun waits for an input itself, before the tasks that gave way to it.
            (false, Phase::Publishing) if self.unpublished && reconnected => vec![Action::GiveWay],
            (true, Phase::Following) if reconnected || still => {
                (self.seen_with, self.looked) = (Some(sight.connects), now);
                vec![Action::ListWaiting]
            }
            // A gatherer that keeps the tasks itself loses nothing with a broker but objects.
            (false, Phase::Following) if reconnected => {
                (self.seen_with, self.looked) = (Some(sight.connects), now);
                let unpublished = std::mem::take(&mut self.unpublished);
                match self.has_bucket() {
                    true => {
                        self.phase = Phase::Publishing;
                        vec![Action::RemakeBuckets, Action::LookForObjects, Action::PublishAll]
                    }
                    false if unpublished => self.publish_all(),
                    false => Vec::new(),
                }
            }
            _ => Vec::new(),
        }
    }

    /// Notes that the bytes of an outcome are not there: the task's next round begins later, or it has failed.
    pub(crate) fn lost(&mut self, (index, round): Key, now: Instant) -> Option<Failed> {
        self.vanished.note(index, round, now)
    }

    /// Notes that a task has its outcome.
    pub(crate) fn decided(&mut self, index: u32) {
        self.vanished.decided(index);
    }

    /// The tasks whose next round begins by itself, later.
    pub(crate) fn begin_later(&self) -> HashSet<u32> {
        self.vanished.waiting().collect()
    }

    /// How long no outcome was counted.
    pub(crate) fn quiet(&self, now: Instant) -> Duration {
        now - self.last_outcome
    }

    /// When the last outcome was counted; none if this gathering counted none.
    pub(crate) fn last_outcome(&self) -> Option<Instant> {
        self.has_counted.then_some(self.last_outcome)
    }

    pub(crate) fn stall_timeout(&self) -> Duration {
        self.traits.stall_timeout
    }

    /// Whether nothing has happened for longer than the user wants to wait.
    pub(crate) fn is_stalled(&self, running: usize, now: Instant) -> bool {
        running == 0 && self.quiet(now) >= self.traits.stall_timeout
    }

    /// Whether the bag may have been lost to another gatherer: this process was stopped for as long as a lease lasts. What
    /// was removed with the bag must not be made again before the broker was asked.
    pub(crate) fn must_ask_whose_it_is(&self, now: Instant) -> bool {
        now - self.last_ours >= limits::GATHERER_LEASE
    }

    pub(crate) fn is_publishing(&self) -> bool {
        matches!(self.phase, Phase::Publishing)
    }

    pub(crate) fn is_reconciling(&self) -> bool {
        matches!(self.phase, Phase::Reconciling(_))
    }

    /// Whether nothing is known to be lost, given that every task is decided: an object that was forgotten with the last
    /// connection is not there, though its task is done.
    pub(crate) fn is_settled(&self, connects: u64) -> bool {
        !self.is_reconciling()
            && (self.traits.objects != Objects::Stay || self.seen_with == Some(connects))
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
