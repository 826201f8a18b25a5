//! What is said of a bag while it is gathered: on the terminal, and in its line on the broker.
//!
//! The line is the lease on the bag too, so whatever takes long is waited for here, where it is renewed.

mod reached;

use std::time::{Duration, Instant};

use anyhow::Result;
use bagpress_broker::{BagLine, BagState, limits, subjects};
use bagpress_codec::Digest;

use crate::claim::line::line_of;
use crate::error::Stalled;
use crate::gather::pace::{Amount, Pace};
use crate::gather::progress::{Figures, Progress};
use crate::gather::reasons::{self, LocalFacts, RemoteFacts};
use crate::gather::sources::Sources;
use crate::gather::state::State;
use crate::run_folder::ledger::tally::Tally;

use self::reached::{Reached, read_of_open};

/// So many lines in a row must be lost before a broker is said to store nothing.
const UNSTORED_MIN: u32 = 2;

/// Between two sums of what workers report.
const SUMMED_EVERY: Duration = Duration::from_millis(500);

/// Reasons that only the gathering itself can know.
#[derive(Debug, Default)]
pub(crate) struct Obstacles {
    /// What outcomes that came cannot be counted for, though it passes.
    pub(crate) uncounted: Option<String>,
    /// What the broker has no more, as an error says it.
    pub(crate) missing: Option<String>,
    /// The output bucket has no space.
    pub(crate) bucket: Option<String>,
    /// Every output is being read back.
    pub(crate) reading_back: bool,
}

/// What is done of a bag.
fn done(tally: &Tally) -> Amount {
    Amount { tasks: tally.decided(), failed: tally.failed, bytes: tally.done_bytes() }
}

/// Says how far a bag is, and why it waits.
#[derive(Debug)]
pub(crate) struct Reporter {
    sources: Sources,
    progress: Progress,
    pace: Pace,
    all: Amount,
    reached: Reached,
    summed: Instant,
    fresh: bool,
    obstacles: Obstacles,
    /// Why the bag does not move, as it was said last.
    waits: Option<String>,
    /// Digest of what the bag's bucket keeps of its files.
    tree: Option<Digest>,
}

impl Reporter {
    /// `fresh`: a new bag, which is submitted meanwhile; `shown`: with progress.
    pub(crate) fn new(sources: Sources, fresh: bool, shown: bool, now: Instant) -> Self {
        let specification = &sources.plan.specification;
        let (tasks, bytes) = (u64::from(specification.tasks), specification.input_bytes);
        let all = Amount { tasks, failed: 0, bytes };
        let before = sources.plan.ledger.tally(done);
        Self {
            pace: Pace::new(now, all, before),
            all,
            reached: Reached::new(&before, now),
            summed: now,
            progress: Progress::start(all, shown),
            sources,
            fresh,
            obstacles: Obstacles::default(),
            waits: None,
            tree: None,
        }
    }

    /// Notes what the bag's bucket keeps of its files, for the line.
    pub(crate) fn note_tree(&mut self, tree: Digest) {
        self.tree = Some(tree);
    }

    pub(crate) fn began(&self) -> Instant {
        self.pace.began()
    }

    pub(crate) fn progress(&mut self) -> &mut Progress {
        &mut self.progress
    }

    pub(crate) fn obstacles(&mut self) -> &mut Obstacles {
        &mut self.obstacles
    }

    /// The bag's line as it is now.
    pub(crate) fn line(&self, bag_is: BagState, state: &State) -> BagLine {
        let (plan, now) = (&self.sources.plan, Instant::now());
        let done = self.reached.shown(&self.all, plan.ledger.tally(done));
        let eta = self.pace.eta(&done, now);
        let bag_is = match bag_is {
            BagState::Running if self.fresh && state.is_publishing() => BagState::Submitting,
            bag_is => bag_is,
        };
        BagLine {
            state: bag_is,
            workers_lost: self.sources.watch.lost(),
            eta_s: eta
                .filter(|eta| !eta.is_zero() && bag_is != BagState::Cancelled)
                .map(|eta| eta.as_secs()),
            waits: self.waits.clone(),
            tree: self.tree,
            progress_bytes: done.bytes,
            ..line_of(plan, self.pace.bytes_per_s(done.bytes, now))
        }
    }

    /// Renews the lease with the line as it is now; does not wait.
    pub(crate) fn renew(&self, state: &State) {
        self.sources.lease.renew(self.line(BagState::Running, state));
    }

    /// Whether it is certain that nobody has taken the bag from us: asks the broker.
    pub(crate) async fn confirm(&self, state: &State) -> bool {
        self.sources.lease.confirm(self.line(BagState::Running, state)).await
    }

    /// Shows how far the bag is, and says why it waits. Returns the tasks that workers report.
    pub(crate) async fn show(&mut self, state: &State) -> usize {
        let (workers, running) = self.sources.watch.busy();
        let now = Instant::now();
        let done = self.done(now);
        let eta = self.pace.eta(&done, now);
        let bytes_per_s = self.pace.bytes_per_s(done.bytes, now);
        self.progress.update(&Figures { done, bytes_per_s, workers, eta });
        let quiet = state.quiet(now);
        if quiet < limits::QUIET_NOTICE {
            self.waits = reasons::early(self.sources.publisher.absent(), running);
            if let Some(why) = &self.waits {
                self.progress.say(why);
            }
        } else {
            self.explain(quiet, (workers, running)).await;
        }
        running
    }

    /// What is to be shown as done, with what workers report of tasks without an outcome.
    fn done(&mut self, now: Instant) -> Amount {
        let Sources { plan, watch, .. } = &self.sources;
        let done = plan.ledger.tally(done);
        if now - self.summed >= SUMMED_EVERY {
            self.summed = now;
            let read = read_of_open(&watch.read(), |key| plan.is_open(key));
            self.reached.note(&self.all, &done, read, now);
        }
        self.reached.shown(&self.all, done)
    }

    async fn explain(&mut self, quiet: Duration, busy: (usize, usize)) {
        // A long task is no reason for a word, as long as its input is read and nothing else is in the way.
        let still = if self.is_held_up() {
            quiet
        } else {
            quiet.min(self.reached.still_for(Instant::now()))
        };
        let at_work = busy.1 > 0 && still < limits::RECONCILE_AFTER && self.hangs().is_none();
        if at_work {
            self.waits = None;
        }
        if at_work || !self.progress.may_say() {
            return;
        }
        let why = self.reason(busy).await;
        self.waits = Some(why.clone());
        self.progress.say(&format!("no outcome for {} s: {why}", quiet.as_secs()));
    }

    /// Whether what keeps tasks from their outcomes, or from being published, is known here.
    fn is_held_up(&self) -> bool {
        let Obstacles { uncounted, missing, bucket, .. } = &self.obstacles;
        [uncounted, missing, bucket].iter().any(|why| why.is_some())
            || self.sources.publisher.waiting().is_some()
    }

    /// What the disk of the outputs does not do, if it does not answer.
    pub(crate) fn hangs(&self) -> Option<String> {
        self.sources.parts.as_ref().and_then(|parts| parts.hangs())
    }

    async fn reason(&self, busy: (usize, usize)) -> String {
        let Sources { broker, plan, lease, waker, publisher, receiver, .. } = &self.sources;
        let disk = match (self.hangs(), receiver) {
            (None, Some(receiver)) => receiver.waiting().await,
            (hangs, _) => hangs,
        };
        let obstacles = &self.obstacles;
        let mut known = LocalFacts {
            disk,
            uncounted: obstacles.uncounted.clone(),
            stores_nothing: false,
            publishing: publisher.waiting(),
            bucket: obstacles.bucket.clone(),
            missing: obstacles.missing.clone(),
            connected: broker.up_for().is_some(),
            reading_back: obstacles.reading_back,
            url: broker.url().to_owned(),
        };
        // Publishes time out while the server answers: it met a full disk.
        if known.disk.is_none() && known.uncounted.is_none() {
            known.stores_nothing = lease.lost() >= UNSTORED_MIN
                && broker.up_for().is_some_and(|up| up > limits::REQUEST_TIMEOUT)
                && broker.stream(subjects::TASKS).await.is_ok();
        }
        if let Some(why) = reasons::known(&known) {
            return why;
        }
        let results_full = broker.nearly_full(subjects::RESULTS).await.ok().flatten();
        let (mut workers, mut revisions) = (Ok(Vec::new()), Vec::new());
        if busy.1 == 0 && results_full.is_none() {
            let asked = broker.workers(limits::WORKERS_ANSWER_WITHIN).await;
            workers = asked.map_err(|error| error.to_string());
            revisions = plan.open_revisions();
        }
        let told = RemoteFacts { results_full, busy, workers, revisions, delayed: waker.waiting() };
        reasons::told(&told, &plan.specification)
    }

    /// Waits for what may take as long as a disk or a broker does. Meanwhile the lease is renewed, and why it takes so
    /// long is said.
    ///
    /// # Errors
    ///
    /// [`Stalled`], when it has taken too long.
    pub(crate) async fn while_renewing<T>(
        &mut self,
        state: &State,
        work: impl Future<Output = T>,
    ) -> Result<T> {
        let mut work = std::pin::pin!(work);
        loop {
            let waiting = tokio::time::timeout(limits::GATHERER_RENEWAL, &mut work).await;
            if let Ok(done) = waiting {
                return Ok(done);
            }
            let running = self.show(state).await;
            self.expect_patience(state, running).await?;
            self.renew(state);
        }
    }

    /// Full is not failed: says why outcomes that came are not counted, and returns when it is time to try again.
    ///
    /// # Errors
    ///
    /// [`Stalled`], when it has taken too long.
    pub(crate) async fn wait_until_countable(&mut self, state: &State, why: String) -> Result<()> {
        self.progress.say(&format!("waiting: {why}"));
        self.waits = Some(why.clone());
        self.obstacles.uncounted = Some(why);
        self.renew(state);
        self.expect_patience(state, 0).await?;
        tokio::time::sleep(limits::RETRY_WAIT).await;
        Ok(())
    }

    /// A disk that answers may be read back for as long as that takes.
    async fn expect_patience(&self, state: &State, running: usize) -> Result<()> {
        if self.obstacles.reading_back && self.hangs().is_none() {
            return Ok(());
        }
        if state.is_stalled(running, Instant::now()) {
            Err(self.stalled(state).await)
        } else {
            Ok(())
        }
    }

    /// The error of a bag that stands still for too long.
    pub(crate) async fn stalled(&self, state: &State) -> anyhow::Error {
        let why = self.reason(self.sources.watch.busy()).await;
        Stalled(format!("no outcome for {:?}: {why}", state.stall_timeout())).into()
    }
}
