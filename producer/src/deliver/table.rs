//! `Offers` and `Journal` under one lock, shared by the dispatcher, the watch and the loop that counts.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bagpress_broker::result::{Cause, TaskResult};
use bagpress_broker::{AttemptRecord, GivenBack};
use tokio::sync::Notify;

use crate::deliver::journal::Journal;
use crate::deliver::offers::{LostLease, Next, Offers};
use crate::run_folder::attempts::Past;
use crate::run_folder::ledger::Key;

/// What happens to an offer is in the journal before anybody can take the next one from here.
#[derive(Debug)]
pub(crate) struct Table {
    offers: Mutex<Offers>,
    journal: Journal,
    /// Somebody changed what may be offered.
    changed: Notify,
}

impl Table {
    /// `past` is what earlier gatherers knew.
    pub(crate) fn new(attempts: u32, past: HashMap<Key, Past>, journal: Journal) -> Self {
        let offers = Mutex::new(Offers::new(attempts, past));
        Self { offers, journal, changed: Notify::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Offers> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to offer next, if there is anything, and the run folder has what became of it before.
    pub(crate) fn next(&self, now: Instant) -> Option<Next> {
        let mut offers = self.lock();
        if self.journal.is_settled() { offers.next(now) } else { None }
    }

    /// Whether the run folder has every record, as far as its disk takes them.
    pub(crate) fn is_settled(&self) -> bool {
        self.journal.is_settled()
    }

    /// Waits until that is so. Cancel-safe.
    pub(crate) async fn settled(&self) {
        self.journal.settled().await;
    }

    /// Waits until somebody else changed what may be offered. Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// A worker gave its lease back.
    pub(crate) fn given_back(&self, back: &GivenBack, now: Instant) {
        let (cause, message) = (back.failed.cause, &back.failed.message);
        let mut offers = self.lock();
        if let Some(planned) = offers.given_back(&back.lease, cause, now) {
            self.journal.lease(&back.lease, planned, cause, message);
        }
    }

    /// Takes back all that a dead worker had; how much it was.
    pub(crate) fn worker_lost(&self, worker: &str) -> usize {
        let mut offers = self.lock();
        let lost = offers.worker_lost(worker, Instant::now());
        self.note_lost(&lost, "the worker died");
        drop(offers);
        self.changed.notify_one();
        lost.len()
    }

    /// Takes back the leases that were not renewed since `least`; how many.
    pub(crate) fn expire(&self, least: Instant, now: Instant) -> usize {
        let mut offers = self.lock();
        let lost = offers.expire(least, now);
        self.note_lost(&lost, "its lease ran out");
        lost.len()
    }

    fn note_lost(&self, lost: &[LostLease], why: &str) {
        for LostLease { lease, planned, .. } in lost.iter().filter(|lost| lost.spent) {
            self.journal.lease(lease, *planned, Cause::WorkerLost, why);
        }
    }

    /// Ends the round of a task whose worker found no input.
    pub(crate) fn input_lost(&self, result: &TaskResult) {
        let mut offers = self.lock();
        let planned = offers.end_round((result.index, result.round), &result.execution);
        self.journal.input_lost(result, planned.unwrap_or_default());
    }

    /// The bytes of an outcome are not where they were said to be: its task is offered again.
    pub(crate) fn bytes_lost(&self, result: &TaskResult) {
        let (key, now) = ((result.index, result.round), Instant::now());
        let mut offers = self.lock();
        if let Some(planned) = offers.bytes_lost(key, &result.execution, now) {
            self.journal.bytes_lost(result, planned);
        }
        drop(offers);
        self.changed.notify_one();
    }

    /// An outcome came after `winner`'s.
    pub(crate) fn duplicate(&self, result: &TaskResult, winner: &TaskResult) {
        self.journal.duplicate(result, winner);
        self.lock().decided((result.index, result.round));
    }

    /// An outcome was counted.
    pub(crate) fn counted(&self, result: &TaskResult) {
        let key = (result.index, result.round);
        match result.done() {
            Some(_) => self.lock().done(key, Instant::now()),
            None => self.lock().decided(key),
        }
    }

    /// The records that are not in the run folder.
    pub(crate) fn unwritten(&self) -> Vec<AttemptRecord> {
        self.journal.unwritten()
    }
}
