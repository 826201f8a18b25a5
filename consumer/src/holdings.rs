//! What a worker holds: it renews the leases, and says what would have to be given back if it died.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bagpress_broker::ids::{BagId, Execution};
use bagpress_broker::{Broker, Held, HeldDelivery, Holder, limits};
use tracing::debug;

use crate::handed::Handed;

/// Deliveries that are announced at once when they come together.
const ANNOUNCED_MAX: usize = 8;

/// Every delivery that is not answered yet.
#[derive(Debug)]
pub(crate) struct Holdings {
    broker: Broker,
    holder: Holder,
    held: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    changed: bool,
    entries: HashMap<u64, Entry>,
    /// Bags of which something was said to be held, and not yet that nothing is.
    said: HashSet<BagId>,
}

#[derive(Debug)]
struct Entry {
    handed: Handed,
    since: Instant,
    renewed: Instant,
}

/// Keeps one delivery's lease alive; drop it when the delivery is answered.
#[derive(Debug)]
pub(crate) struct Hold {
    holdings: Arc<Holdings>,
    key: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut table = self.holdings.lock();
        table.entries.remove(&self.key);
        table.changed = true;
    }
}

impl Holdings {
    pub(crate) fn new(broker: &Broker, holder: Holder) -> Arc<Self> {
        Arc::new(Self { broker: broker.clone(), holder, held: Mutex::default() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn holder(&self) -> &Holder {
        &self.holder
    }

    /// How many deliveries are held.
    pub(crate) fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Begins to hold a delivery.
    pub(crate) fn hold(self: &Arc<Self>, handed: &Handed) -> Hold {
        let now = Instant::now();
        let mut table = self.lock();
        table.next += 1;
        let key = table.next;
        let entry = Entry { handed: handed.clone(), since: now, renewed: now };
        table.entries.insert(key, entry);
        if handed.is_leased() && !table.said.contains(&handed.id().bag) {
            table.said.insert(handed.id().bag.clone());
        }
        table.changed = true;
        Hold { holdings: self.clone(), key }
    }

    /// Notes that the lease of an execution is over.
    pub(crate) fn withdraw(&self, execution: &Execution) {
        for entry in self.lock().entries.values() {
            if let Handed::Offered(offer) = &entry.handed
                && offer.execution() == execution
            {
                offer.withdraw();
            }
        }
    }

    /// Says at once what was just received, so that a worker that dies now loses no lease time either.
    ///
    /// Only of few: tasks that come in numbers are short, there the regular event must do, as it costs
    /// a tenth of the dispatch rate to say each.
    pub(crate) async fn announce(&self, deliveries: &[Handed]) {
        if deliveries.len() > ANNOUNCED_MAX {
            return;
        }
        let mut bags: HashMap<&BagId, Vec<HeldDelivery>> = HashMap::new();
        for handed in deliveries.iter().filter(|handed| !handed.is_leased()) {
            bags.entry(&handed.id().bag).or_default().push(handed.held());
        }
        self.lock().said.extend(bags.keys().map(|bag| (*bag).clone()));
        for (bag, deliveries) in bags {
            self.say(bag, &deliveries, false).await;
        }
    }

    /// The bags of which something is held.
    pub(crate) fn bags(&self) -> Vec<BagId> {
        let table = self.lock();
        let bags: HashSet<_> = table.entries.values().map(|e| &e.handed.id().bag).collect();
        bags.into_iter().cloned().collect()
    }

    /// Everything that is held, by bag.
    pub(crate) fn by_bag(&self) -> HashMap<String, Held> {
        let mut bags: HashMap<String, Held> = HashMap::new();
        for entry in self.lock().entries.values() {
            let bag = entry.handed.id().bag.to_string();
            let held = bags.entry(bag).or_insert_with(|| self.event(Vec::new(), true));
            if held.deliveries.len() < limits::HELD_PER_EVENT {
                held.deliveries.push(entry.handed.held());
            }
        }
        bags
    }

    fn event(&self, deliveries: Vec<HeldDelivery>, all: bool) -> Held {
        let Holder { worker, host, pid } = self.holder.clone();
        Held { v: limits::WIRE_VERSION, worker, host, pid, all, deliveries }
    }

    async fn say(&self, bag: &BagId, deliveries: &[HeldDelivery], all: bool) {
        // That nothing is held is one event too.
        let nothing = deliveries.is_empty().then_some(deliveries);
        let parts = deliveries.chunks(limits::HELD_PER_EVENT).chain(nothing);
        for (number, part) in parts.enumerate() {
            let event = self.event(part.to_vec(), all && number == 0);
            if let Err(error) = self.broker.say_held(bag, &event).await {
                debug!(%error, "held not said");
            }
        }
    }

    /// Renews leases and says what is held, for as long as the worker lives.
    pub(crate) async fn keep(&self) {
        let mut ticks = tokio::time::interval(limits::HELD_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.renew().await;
            self.say_changes().await;
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
                entry.handed.clone()
            })
            .collect()
        };
        for handed in due {
            if let Err(error) = handed.renew().await {
                debug!(%error, task = %handed.id(), "lease not renewed");
            }
        }
    }

    /// Says what is held now where that has changed; a worker that leaves says so a last time, or it
    /// would be taken for dead with the deliveries that it gave back.
    pub(crate) async fn say_changes(&self) {
        let mut bags: HashMap<BagId, Vec<HeldDelivery>> = HashMap::new();
        {
            let mut guard = self.lock();
            let table = &mut *guard;
            if !std::mem::take(&mut table.changed) {
                return;
            }
            // What is too young now is said by the next one.
            table.changed = !table.entries.is_empty();
            let held: HashSet<_> = table.entries.values().map(|e| &e.handed.id().bag).collect();
            let over = table.said.iter().filter(|bag| !held.contains(bag));
            let old =
                table.entries.values().filter(|e| e.since.elapsed() >= limits::HELD_EVERY / 2);
            let due = over.chain(old.map(|entry| &entry.handed.id().bag));
            bags.extend(due.map(|bag| (bag.clone(), Vec::new())));
            // An event that says it is everything must not leave out what was announced just now.
            for entry in table.entries.values() {
                if let Some(deliveries) = bags.get_mut(&entry.handed.id().bag) {
                    deliveries.push(entry.handed.held());
                }
            }
            table.said.extend(bags.keys().cloned());
            table.said.retain(|bag| held.contains(bag));
        }
        for (bag, deliveries) in bags {
            self.say(&bag, &deliveries, true).await;
        }
    }
}
