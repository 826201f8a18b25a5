//! A bag that stands still: why, what is missing, and when to give up.

use std::time::{Duration, Instant};

use anyhow::Result;
use bagpress_broker::{BagLine, BagState, limits, subjects};
use bagpress_objstore::object_ref::{self, Bucket, Lookup};
use bagpress_objstore::staging::Receiver;
use tracing::{debug, warn};

use crate::claim::buckets::output_bucket;
use crate::claim::line::line_of;
use crate::deliver::unserved;
use crate::error::Unwritable;
use crate::gather::Gathering;
use crate::gather::progress::Seen;
use crate::gather::rerun::Sound;
use crate::run_folder::ledger::Bits;
use crate::run_folder::ledger::tally::Tally;
use crate::run_folder::plan::BagPlan;

/// Between two looks for tasks that nobody holds, while the bag stands still.
const UNHELD_EVERY: Duration = Duration::from_secs(1);
/// Of no connection: what the broker forgot is to be looked for again.
pub(crate) const LOOK_AGAIN: u64 = u64::MAX;
/// So many lines in a row must be lost before a broker is said to store nothing.
const UNSTORED_MIN: u32 = 2;

impl Gathering {
    /// Looks which tasks wait; the results are read from there on, and what has neither is missing.
    pub(crate) async fn begin_reconcile(&mut self) -> Result<()> {
        let mut waiting = Bits::new(self.plan.specification.tasks);
        let (broker, plan) = (self.broker.clone(), self.plan.clone());
        let seen = broker.waiting(&plan.specification.bag, |id| {
            if plan.ledger.round(id.index) == id.round {
                waiting.set(id.index, true);
            }
        });
        match self.beside(seen).await? {
            Ok(()) => {
                self.missing = None;
                self.outcomes.restart().await;
                self.reconciling = Some(waiting);
            }
            Err(error) => {
                debug!(%error, "not reconciled now");
                self.look_again();
                if matches!(error, bagpress_broker::Error::Missing { .. }) {
                    let hint = error.hint().unwrap_or_default();
                    self.missing = Some(format!("{error}; {hint}, the bag goes on by itself"));
                }
                return Ok(());
            }
        }
        self.remake_buckets().await;
        Ok(())
    }

    /// Makes the buckets again, if a broker forgot them.
    pub(crate) async fn remake_buckets(&mut self) {
        // What was removed with the bag must not be there again.
        if self.acceptor.bucket.is_none() || !self.lease.confirm(self.line(BagState::Running)).await
        {
            return;
        }
        let connects = self.broker.connects();
        let mut made = output_bucket(&self.broker, &self.plan).await.map(drop);
        if made.is_ok() {
            made = self.publisher.remake_inputs().await;
        }
        match made {
            Ok(()) => self.buckets_seen = connects,
            Err(error) => self.progress.say(&format!("waiting: {error:#}")),
        }
    }

    /// Whether every task is decided, and what became of them is still there, as far as anybody can know.
    pub(crate) fn complete(&self) -> bool {
        let decided = self.plan.ledger.tally(Tally::decided);
        // An object that was forgotten with the last connection is not there, though its task is done.
        let looked = self.output_bucket().is_none() || self.reconnects == self.broker.connects();
        decided >= u64::from(self.plan.specification.tasks) && self.reconciling.is_none() && looked
    }

    /// Where the outputs stay, if they become no files here.
    fn output_bucket(&self) -> Option<&Bucket> {
        self.acceptor.bucket.as_ref().filter(|_| self.parts.is_none())
    }

    /// A done task whose object the broker forgot, and which is no file here, is run again.
    ///
    /// Whoever calls this publishes afterwards what is not decided. Returns those tasks. Is called again if nobody
    /// knows now.
    pub(crate) async fn look_for_objects(&mut self) -> Result<Vec<u32>> {
        let Some(bucket) = self.output_bucket().cloned() else { return Ok(Vec::new()) };
        let (gone, known) = self.beside(forgotten_objects(self.plan.clone(), bucket)).await?;
        if !known {
            self.look_again();
        }
        if !gone.is_empty() {
            warn!(tasks = gone.len(), "the broker lost objects of tasks that are done, run again");
            self.run_again(&gone).await?;
        }
        Ok(gone)
    }

    /// Has what the broker forgot looked for again, after a while.
    fn look_again(&mut self) {
        self.reconnects = LOOK_AGAIN;
        self.last_progress = Instant::now();
    }

    /// Publishes what neither waits nor has a result, without an id that the server may remember.
    ///
    /// A round may have begun here and come no further: then the broken object of an earlier one may
    /// still take the room of the new.
    pub(crate) async fn submit_missing(&mut self, mut waiting: Bits) {
        for index in self.plan.ledger.begun() {
            if !self.plan.ledger.is_decided(index) && !waiting.get(index) {
                self.remove_object(index, Sound::Stays).await;
            }
        }
        for index in self.vanished.waiting() {
            // Its round has a committed result, whose bytes are gone; the next one begins by itself.
            waiting.set(index, true);
        }
        self.last_progress = Instant::now();
        let ledger = &self.plan.ledger;
        // Their shares are nobody's, and what is published before them may need the room.
        self.publisher.free_stored(|i| !waiting.get(i) && !ledger.is_decided(i)).await;
        self.publish_missing(move |index| !waiting.get(index));
    }

    /// Nothing is being published any more; what gave way is found to be missing, as after a reconnect.
    pub(crate) fn publishing_ended(&mut self) {
        self.publishing = None;
        if self.publisher.gave_way() {
            self.reconnects = LOOK_AGAIN;
        }
    }

    /// Publishes, beside the gathering, what is not decided and `missing`.
    pub(crate) fn publish_missing(
        &mut self,
        missing: impl Fn(u32) -> bool + Send + Sync + 'static,
    ) {
        let (publisher, ledger) = (self.publisher.clone(), self.plan.ledger.clone());
        self.publishing = Some(tokio::spawn(async move {
            publisher.publish(false, |index| missing(index) && !ledger.is_decided(index)).await
        }));
    }

    /// What is shown, and what is said.
    ///
    /// Returns the workers that are busy, and what they execute.
    pub(crate) async fn show(&mut self) -> (usize, usize) {
        let (workers, running) = self.watch.busy();
        self.progress.update(&Seen {
            decided: self.plan.ledger.tally(Tally::decided),
            failed: self.plan.ledger.tally(|tally| tally.failed),
            bytes: self.plan.ledger.tally(|tally| tally.input_bytes),
            workers,
        });
        let quiet = self.last_outcome.elapsed();
        if quiet < limits::QUIET_NOTICE {
            self.waits = None;
        } else {
            self.explain(quiet, workers, running).await;
        }
        (workers, running)
    }

    /// Ten times a second: what is shown, what is said, and whether it goes on at all.
    pub(crate) async fn check(&mut self) -> Result<()> {
        if let Some(why) = self.receiver.as_ref().and_then(Receiver::gone) {
            return Err(Unwritable(why).into());
        }
        let ours = self.is_ours().await;
        let (workers, running) = self.show().await;
        if ours {
            self.begin_due().await?;
            let unseen = self.broker.connects() != self.buckets_seen
                && self.last_remake.elapsed() >= limits::RETRY_WAIT;
            if unseen || self.publisher.misses_inputs() {
                self.last_remake = Instant::now();
                self.remake_buckets().await;
            }
        }
        let quiet = self.last_outcome.elapsed();
        // A worker that died with nothing said and nothing held is missed by nobody but its task.
        let committed = self.outcomes.is_committed();
        if committed
            && running == 0
            && quiet >= UNHELD_EVERY
            && self.last_unheld.elapsed() >= UNHELD_EVERY
        {
            self.last_unheld = Instant::now();
            let watch = self.watch.clone();
            tokio::spawn(async move { watch.give_back_unheld().await });
        }
        if let Some(bucket) = &self.acceptor.bucket {
            self.room.look(bucket, &self.watch).await;
        }
        if committed {
            let full = || self.receiver.as_ref().is_some_and(|r| r.waiting().is_some());
            // While the bag moves nobody need know, and to ask may take as long as the disk does.
            let still = quiet >= UNHELD_EVERY && self.hangs().is_none();
            let room = still && self.room.full().is_none() && !full();
            self.waking.look(quiet, room);
        }
        let reconnected = self.broker.connects() != self.reconnects
            && (self.reconnects != LOOK_AGAIN || self.last_progress.elapsed() >= UNHELD_EVERY);
        let still = quiet >= limits::RECONCILE_AFTER
            && self.last_progress.elapsed() >= limits::RECONCILE_AFTER
            && running == 0;
        let still = still || self.missing.is_some() && self.last_progress.elapsed() >= UNHELD_EVERY;
        if ours && !committed && reconnected && self.publishing.is_none() {
            self.reconnects = self.broker.connects();
            self.last_progress = Instant::now();
            // Where we keep the tasks ourselves, a broker can forget nothing but objects.
            if self.acceptor.bucket.is_some() {
                self.remake_buckets().await;
                self.look_for_objects().await?;
                self.publish_all();
            }
        }
        if ours && committed && (reconnected || still) && self.reconciling.is_none() {
            if self.publishing.is_some() {
                self.publisher.give_way();
            } else {
                self.reconnects = self.broker.connects();
                self.last_progress = Instant::now();
                self.begin_reconcile().await?;
            }
        }
        self.expect_patience(workers, running).await
    }

    /// Whether something may be made anew. Who was stopped for as long as a lease lasts may have lost the bag, and
    /// asks first: what was removed with it would be there again.
    async fn is_ours(&mut self) -> bool {
        let silent = self.last_check.elapsed() >= limits::GATHERER_LEASE;
        let ours = self.lease.is_held()
            && (!silent || self.lease.confirm(self.line(BagState::Running)).await);
        if ours {
            self.last_check = Instant::now();
        }
        ours
    }

    async fn explain(&mut self, quiet: Duration, workers: usize, running: usize) {
        // Somebody is at work: a long task is no reason for a word.
        if running > 0 && quiet < limits::RECONCILE_AFTER && self.hangs().is_none() {
            return;
        }
        if !self.progress.may_say() {
            return;
        }
        let why = self.reason(workers, running).await;
        self.waits = Some(why.clone());
        self.progress.say(&format!("no outcome for {} s: {why}", quiet.as_secs()));
    }

    fn hangs(&self) -> Option<String> {
        self.parts.as_ref().and_then(|parts| parts.hangs())
    }

    pub(crate) async fn reason(&self, workers: usize, running: usize) -> String {
        let waiting = || self.receiver.as_ref().and_then(Receiver::waiting);
        if let Some(why) = self.hangs().or_else(waiting) {
            return format!("{why}, the bag goes on by itself");
        }
        if let Some(why) = &self.blocked {
            return format!("{why}; the bag goes on by itself");
        }
        if self.stores_nothing().await {
            return format!(
                "the broker at {} answers and stores nothing, as one that met a full disk does; free \
                 some space there and restart it, the bag goes on by itself",
                self.broker.url()
            );
        }
        if let Some(why) = self.publisher.waiting() {
            return why;
        }
        if let Some(why) = self.room.full() {
            return format!("{why}; what nobody names is purged, the bag goes on by itself");
        }
        if let Some(why) = &self.missing {
            return why.clone();
        }
        if self.broker.up_for().is_none() {
            return format!("the broker at {} is out of reach, reconnecting", self.broker.url());
        }
        if self.reading_back {
            return "every output is read back, to run again what is missing or bad".to_owned();
        }
        if let Ok(Some(why)) = self.broker.nearly_full(subjects::RESULTS).await {
            return format!("{why}; make room there, the bag goes on by itself");
        }
        if running > 0 {
            return format!("{running} tasks are with {workers} workers");
        }
        match self.broker.workers(limits::WORKERS_ANSWER_WITHIN).await {
            Ok(found) => {
                let specification = &self.plan.specification;
                let (pool, name) = (&specification.pool, specification.codec.name());
                let unserved = unserved::unserved(&found, pool, name, &specification.library);
                let waiting = unserved.or_else(|| self.waking.waker.waiting());
                waiting.unwrap_or_else(|| unserved::idle(&found, pool))
            }
            Err(error) => error.to_string(),
        }
    }

    /// Whether publishes time out while the server answers: it met a full disk.
    async fn stores_nothing(&self) -> bool {
        self.lease.lost() >= UNSTORED_MIN
            && self.broker.up_for().is_some_and(|up| up > limits::REQUEST_TIMEOUT)
            && self.broker.stream(subjects::TASKS).await.is_ok()
    }

    /// The bag's line as it is now.
    pub(crate) fn line(&self, state: BagState) -> BagLine {
        let (bytes, decided) = self.plan.ledger.tally(|tally| (tally.input_bytes, tally.decided()));
        let state = match state {
            BagState::Running if self.options.fresh && self.publishing.is_some() => {
                BagState::Submitting
            }
            state => state,
        };
        let left = u64::from(self.plan.specification.tasks).saturating_sub(decided);
        let elapsed = self.began.elapsed().as_secs_f64().max(0.001);
        let new = decided.saturating_sub(self.before.1);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            clippy::cast_possible_truncation,
            reason = "estimates for people"
        )]
        let (rate, eta) = (
            (bytes.saturating_sub(self.before.0) as f64 / elapsed) as u64,
            (elapsed * left as f64 / new.max(1) as f64).ceil() as u64,
        );
        BagLine {
            state,
            workers_lost: self.watch.lost(),
            eta_s: (new > 0 && left > 0 && state != BagState::Cancelled).then_some(eta),
            waits: self.waits.clone(),
            ..line_of(&self.plan, rate)
        }
    }
}

/// Tasks that are done and whose objects are not there, and whether they are all that there are.
async fn forgotten_objects(plan: BagPlan, bucket: Bucket) -> (Vec<u32>, bool) {
    let mut there = Bits::new(plan.specification.tasks);
    let mut list = bucket.list();
    loop {
        match list.next().await {
            Ok(Some(info)) => {
                if let Some(index) = subjects::index_of_output(&info.name) {
                    there.set(index, true);
                }
            }
            Ok(None) => break,
            Err(error) => {
                debug!(%error, "objects not listed now");
                return (Vec::new(), !passes(&error));
            }
        }
    }
    let (ledger, mut gone) = (&plan.ledger, Vec::new());
    for index in 0..plan.specification.tasks {
        if !ledger.is_decided(index) || ledger.is_failed(index) || there.get(index) {
            continue;
        }
        // A replica that lags must not cost anything.
        match bucket.info_from_leader(&subjects::output_name(index)).await {
            Ok(Lookup::Missing) => gone.push(index),
            Ok(_) => {}
            Err(error) => {
                debug!(%error, index, "an object not looked at now");
                if passes(&error) {
                    return (gone, false);
                }
            }
        }
    }
    (gone, true)
}

/// Whether to look again is of use.
fn passes(error: &object_ref::Error) -> bool {
    error.is_transient() || matches!(error, object_ref::Error::NoBucket { .. })
}
