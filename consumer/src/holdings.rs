//! What a worker holds: renews the leases, and reports what would have to be given back if it died.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bagpress_broker::ids::{BagId, Execution};
use bagpress_broker::{Broker, Holder, HoldingsReport, ReportedDelivery, limits};
use tracing::debug;

use crate::assignment::Assignment;
use crate::slots::Handle;

/// Deliveries that are reported at once when they come together.
const AT_ONCE_MAX: usize = 8;

/// Every assignment that is not answered yet.
#[derive(Debug)]
pub(crate) struct Holdings {
    broker: Broker,
    holder: Holder,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    entries: HashMap<u64, Entry>,
    reports: Reports,
}

#[derive(Debug)]
struct Entry {
    assignment: Assignment,
    handle: Arc<Handle>,
    since: Instant,
    renewed: Instant,
}

impl Entry {
    fn reported(&self) -> ReportedDelivery {
        self.assignment.reported(self.handle.read())
    }
}

/// Keeps one assignment's lease alive; drop it when the assignment is answered.
#[derive(Debug)]
pub(crate) struct Holding {
    holdings: Arc<Holdings>,
    key: u64,
    handle: Arc<Handle>,
}

impl Holding {
    /// That of its execution, for whoever executes it: what that has read is reported.
    pub(crate) fn handle(&self) -> Arc<Handle> {
        self.handle.clone()
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let mut table = self.holdings.lock();
        table.entries.remove(&self.key);
        table.reports.changed = true;
    }
}

impl Holdings {
    pub(crate) fn new(broker: &Broker, holder: Holder) -> Arc<Self> {
        Arc::new(Self { broker: broker.clone(), holder, table: Mutex::default() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn holder(&self) -> &Holder {
        &self.holder
    }

    /// How many assignments are held.
    pub(crate) fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Begins to hold an assignment.
    pub(crate) fn hold(self: &Arc<Self>, assignment: &Assignment) -> Holding {
        let now = Instant::now();
        let mut table = self.lock();
        table.next += 1;
        let key = table.next;
        let (assignment, handle) = (assignment.clone(), Arc::<Handle>::default());
        let entry = Entry { assignment, handle: handle.clone(), since: now, renewed: now };
        if entry.assignment.is_offered() {
            // The lease says it.
            table.reports.note(&entry.assignment.id().bag);
        }
        table.entries.insert(key, entry);
        table.reports.changed = true;
        Holding { holdings: self.clone(), key, handle }
    }

    /// Notes that the lease of an execution is over.
    pub(crate) fn withdraw(&self, execution: &Execution) {
        for entry in self.lock().entries.values() {
            entry.assignment.withdraw(execution);
        }
    }

    /// Reports at once what was just pulled, so that a worker that dies now loses no lease time either.
    ///
    /// Only few: tasks that come in numbers are short, and for them the regular report must do, as to
    /// report each costs a tenth of the dispatch rate.
    pub(crate) async fn report_at_once(&self, pulled: &[Assignment]) {
        if pulled.len() > AT_ONCE_MAX {
            return;
        }
        let mut bags: HashMap<&BagId, Vec<ReportedDelivery>> = HashMap::new();
        for assignment in pulled {
            bags.entry(&assignment.id().bag).or_default().push(assignment.reported(0));
        }
        {
            let mut table = self.lock();
            for bag in bags.keys() {
                table.reports.note(bag);
            }
        }
        for (bag, deliveries) in bags {
            self.report(bag, &deliveries, false).await;
        }
    }

    /// The bags of which something is held.
    pub(crate) fn bags(&self) -> Vec<BagId> {
        let table = self.lock();
        let bags: HashSet<_> = table.entries.values().map(|e| &e.assignment.id().bag).collect();
        bags.into_iter().cloned().collect()
    }

    /// Everything that is held, by bag; at most [`limits::HELD_PER_EVENT`] of each.
    pub(crate) fn by_bag(&self) -> HashMap<String, HoldingsReport> {
        let mut bags: HashMap<String, HoldingsReport> = HashMap::new();
        for entry in self.lock().entries.values() {
            let bag = entry.assignment.id().bag.to_string();
            let held = bags.entry(bag).or_insert_with(|| self.event(Vec::new(), true));
            if held.deliveries.len() < limits::HELD_PER_EVENT {
                held.deliveries.push(entry.reported());
            }
        }
        bags
    }

    fn event(&self, deliveries: Vec<ReportedDelivery>, all: bool) -> HoldingsReport {
        let Holder { worker, host, pid } = self.holder.clone();
        HoldingsReport { v: limits::WIRE_VERSION, worker, host, pid, all, deliveries }
    }

    async fn report(&self, bag: &BagId, deliveries: &[ReportedDelivery], all: bool) {
        // That nothing is held is one event too.
        let nothing = deliveries.is_empty().then_some(deliveries);
        let parts = deliveries.chunks(limits::HELD_PER_EVENT).chain(nothing);
        for (number, part) in parts.enumerate() {
            let event = self.event(part.to_vec(), all && number == 0);
            if let Err(error) = self.broker.report_held(bag, &event).await {
                debug!(%error, "what is held was not reported");
            }
        }
    }

    /// Renews leases and reports what is held, as long as the worker lives.
    pub(crate) async fn keep(&self) {
        let mut ticks = tokio::time::interval(limits::HELD_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.renew().await;
            self.report_changes().await;
        }
    }

    async fn renew(&self) {
        let now = Instant::now();
        let due: Vec<_> = {
            let mut table = self.lock();
            let due =
                table.entries.values_mut().filter(|e| now - e.renewed >= limits::LEASE_RENEWAL);
            due.map(|entry| {
                entry.renewed = now;
                entry.assignment.clone()
            })
            .collect()
        };
        for assignment in due {
            if let Err(error) = assignment.renew().await {
                debug!(%error, task = %assignment.id(), "lease not renewed");
            }
        }
    }

    /// Reports what is held now where that has changed; a worker that leaves does so a last time, or it
    /// would be taken for dead with the deliveries that it gave back.
    pub(crate) async fn report_changes(&self) {
        let mut bags: HashMap<BagId, Vec<ReportedDelivery>>;
        {
            let mut guard = self.lock();
            let Table { entries, reports, .. } = &mut *guard;
            let held = entries.values().map(|e| (&e.assignment.id().bag, e.since.elapsed()));
            bags = reports.due(held).into_iter().map(|bag| (bag, Vec::new())).collect();
            // A report that says it is everything must not leave out what is too young to be due.
            for entry in entries.values() {
                if let Some(deliveries) = bags.get_mut(&entry.assignment.id().bag) {
                    deliveries.push(entry.reported());
                }
            }
        }
        for (bag, deliveries) in bags {
            self.report(&bag, &deliveries, true).await;
        }
    }
}

/// Which bags a report is due of.
#[derive(Debug, Default)]
struct Reports {
    /// Whether anything has changed since the last one.
    changed: bool,
    /// Bags of which others know that something is held, and not yet that nothing is.
    known: HashSet<BagId>,
}

impl Reports {
    /// Notes that others know of something that is held of `bag`.
    fn note(&mut self, bag: &BagId) {
        if !self.known.contains(bag) {
            self.known.insert(bag.clone());
        }
    }

    /// The bags of which to report everything now, given the bag and the age of all that is `held`: those
    /// of which something has been held for a while, and those of which nothing is any more.
    fn due<'a>(&mut self, held: impl Iterator<Item = (&'a BagId, Duration)>) -> HashSet<BagId> {
        if !std::mem::take(&mut self.changed) {
            return HashSet::new();
        }
        let mut all = HashSet::new();
        let mut due = HashSet::new();
        for (bag, age) in held {
            all.insert(bag);
            if age >= limits::HELD_EVERY / 2 {
                due.insert(bag);
            }
        }
        // What is too young now is reported by the next one.
        self.changed = !all.is_empty();
        let mut due: HashSet<_> = due.into_iter().cloned().collect();
        due.extend(self.known.iter().filter(|bag| !all.contains(bag)).cloned());
        self.known.extend(due.iter().cloned());
        self.known.retain(|bag| all.contains(bag));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YOUNG: Duration = Duration::ZERO;
    const OLD: Duration = limits::HELD_EVERY;

    fn bags() -> (BagId, BagId) {
        ("first".parse().unwrap(), "second".parse().unwrap())
    }

    fn due(reports: &mut Reports, held: &[(&BagId, Duration)]) -> HashSet<BagId> {
        reports.due(held.iter().copied())
    }

    fn changed() -> Reports {
        Reports { changed: true, ..Reports::default() }
    }

    #[test]
    fn nothing_is_reported_before_anything_was_held() {
        assert!(due(&mut Reports::default(), &[]).is_empty());
        assert!(due(&mut changed(), &[]).is_empty());
    }

    #[test]
    fn a_task_is_reported_when_it_has_been_held_for_a_while() {
        let (bag, other) = bags();
        let mut reports = changed();
        assert!(due(&mut reports, &[(&bag, YOUNG), (&other, YOUNG)]).is_empty());
        assert_eq!(due(&mut reports, &[(&bag, OLD), (&other, YOUNG)]), [bag].into());
    }

    #[test]
    fn that_nothing_is_held_any_more_is_reported_once() {
        let (bag, _) = bags();
        let mut reports = changed();
        assert_eq!(due(&mut reports, &[(&bag, OLD)]), [bag.clone()].into());
        assert_eq!(due(&mut reports, &[]), [bag].into());
        reports.changed = true;
        assert!(due(&mut reports, &[]).is_empty());
    }

    /// Others may know of it by a report at once, or by a lease.
    #[test]
    fn the_end_of_what_was_never_in_a_regular_report_is_reported() {
        let (bag, _) = bags();
        let mut reports = changed();
        reports.note(&bag);
        assert_eq!(due(&mut reports, &[]), [bag].into());
    }

    #[test]
    fn a_task_that_came_and_went_between_two_reports_is_in_none() {
        let (bag, _) = bags();
        let mut reports = changed();
        assert!(due(&mut reports, &[(&bag, YOUNG)]).is_empty());
        reports.changed = true;
        assert!(due(&mut reports, &[]).is_empty());
    }
}
