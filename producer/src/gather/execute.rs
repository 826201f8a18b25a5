//! Does what [`State`] says is to be done; whatever comes of it is an event again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result};
use bagpress_broker::{BagState, Followed, limits, quote, subjects};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{debug, info, warn};

use crate::claim::buckets::output_bucket;
use crate::deliver::wake::Waking;
use crate::error::Cancelled;
use crate::gather::accept::{Accepted, Acceptor};
use crate::gather::outcomes::Outcomes;
use crate::gather::reconcile::{Sound, forgotten_objects, remove_object, waiting_tasks};
use crate::gather::report::Reporter;
use crate::gather::rerun::{Anew, Rerun};
use crate::gather::room::Room;
use crate::gather::sources::Sources;
use crate::gather::state::{Action, Event, State};
use crate::publish::InputOf;
use crate::run_folder::ledger::{Bits, Key};
use crate::run_folder::of_producer::failure;

/// What a gathering acts by.
#[derive(Debug)]
pub(crate) struct Executor {
    sources: Sources,
    reporter: Reporter,
    acceptor: Acceptor,
    publishing: Option<JoinHandle<Result<()>>>,
}

impl Executor {
    pub(crate) fn new(sources: Sources, reporter: Reporter, acceptor: Acceptor) -> Self {
        Self { sources, reporter, acceptor, publishing: None }
    }

    pub(crate) fn reporter(&mut self) -> &mut Reporter {
        &mut self.reporter
    }

    pub(crate) fn acceptor(&self) -> &Acceptor {
        &self.acceptor
    }

    /// Does one thing.
    ///
    /// # Errors
    ///
    /// [`Stalled`](crate::Stalled), or what cannot be cured by waiting.
    pub(crate) async fn execute(
        &mut self,
        action: Action,
        state: &State,
        outcomes: &mut Outcomes,
    ) -> Result<Option<Event>> {
        match action {
            Action::ListWaiting => return self.list_waiting(state).await.map(Some),
            Action::LookForObjects => return Ok(self.look_for_objects(state).await?.1),
            Action::PublishMissing(waiting) => return self.publish_missing(waiting, state).await,
            Action::BeginRounds(due) => return self.begin_rounds(due, state).await,
            Action::RemakeBuckets => return Ok(self.remake_buckets(state).await),
            Action::PublishAll => {
                // The next round of these begins by itself.
                let later = state.begin_later();
                self.publish(true, move |index| !later.contains(&index));
            }
            Action::GiveWay => self.sources.publisher.give_way(),
            Action::GiveBackUnheld => {
                let watch = self.sources.watch.clone();
                tokio::spawn(async move { watch.give_back_unheld().await });
            }
            Action::Renew => self.reporter.renew(state),
            Action::GiveUp => return Err(self.reporter.stalled(state).await),
            Action::ReadAgain => outcomes.restart().await,
        }
        Ok(None)
    }

    /// Resolves when publishing has ended, if it goes on. Cancel-safe.
    pub(crate) async fn published(&mut self) -> Result<Event> {
        let Some(publishing) = &mut self.publishing else { return std::future::pending().await };
        let published = publishing.await;
        self.publishing = None;
        published.context("publish the tasks")??;
        Ok(Event::Published { gave_way: self.sources.publisher.gave_way() })
    }

    /// Publishes, meanwhile, what is not decided and `wanted`.
    fn publish(&mut self, message_id: bool, wanted: impl Fn(u32) -> bool + Send + Sync + 'static) {
        let publisher = self.sources.publisher.clone();
        self.publishing =
            Some(tokio::spawn(async move { publisher.publish(message_id, wanted).await }));
    }

    async fn list_waiting(&mut self, state: &State) -> Result<Event> {
        let listing = waiting_tasks(self.sources.broker.clone(), self.sources.plan.clone());
        match self.reporter.while_renewing(state, listing).await? {
            Ok(waiting) => {
                self.reporter.obstacles().missing = None;
                Ok(Event::Listed(waiting))
            }
            Err(error) => {
                debug!(%error, "not reconciled now");
                let missing = matches!(error, bagpress_broker::Error::Missing { .. });
                if missing {
                    let hint = error.hint().unwrap_or_default();
                    let why = format!("{error}; {hint}, the bag then continues by itself");
                    self.reporter.obstacles().missing = Some(why);
                }
                Ok(Event::NotListed { missing })
            }
        }
    }

    /// Makes the buckets again, if a broker forgot them.
    async fn remake_buckets(&mut self, state: &State) -> Option<Event> {
        // What was removed with the bag must not be there again.
        if self.acceptor.bucket().is_none() || !self.reporter.confirm(state).await {
            return None;
        }
        let Sources { broker, plan, publisher, .. } = &self.sources;
        let connects = broker.connects();
        let mut made = output_bucket(broker, plan).await.map(drop);
        if made.is_ok() {
            made = publisher.remake_inputs().await;
        }
        match made {
            Ok(()) => Some(Event::BucketsSeen { connects }),
            Err(error) => {
                self.reporter.progress().say(&format!("waiting: {error:#}"));
                None
            }
        }
    }

    /// A done task whose object the broker forgot, and which is no file here, is run again. Returns those tasks; whoever
    /// calls this publishes afterwards what is not decided.
    async fn look_for_objects(&mut self, state: &State) -> Result<(Vec<u32>, Option<Event>)> {
        let Some(bucket) = self.acceptor.output_bucket().cloned() else {
            return Ok((Vec::new(), None));
        };
        let looking = forgotten_objects(self.sources.plan.clone(), bucket);
        let (gone, known) = self.reporter.while_renewing(state, looking).await?;
        if !gone.is_empty() {
            warn!(tasks = gone.len(), "the broker lost objects of tasks that are done, run again");
            self.begin_again(&gone, &Anew::default(), state).await?;
        }
        Ok((gone, (!known).then_some(Event::ObjectsUnknown)))
    }

    /// Publishes what neither waits nor has a result, without an id that the server may remember.
    ///
    /// A round may have begun here and come no further: then the broken object of an earlier one may
    /// still take the space of the new.
    async fn publish_missing(&mut self, mut waiting: Bits, state: &State) -> Result<Option<Event>> {
        let (gone, event) = self.look_for_objects(state).await?;
        for index in gone {
            waiting.set(index, false); // what may wait is of a round before
        }
        let ledger = self.sources.plan.ledger.clone();
        for index in ledger.begun() {
            if !ledger.is_decided(index) && !waiting.get(index) {
                self.remove_object(&subjects::output_name(index), Sound::Stays).await;
            }
        }
        for index in state.begin_later() {
            // Its round has a committed result, whose bytes are gone; the next one begins by itself.
            waiting.set(index, true);
        }
        // Their shares are nobody's, and what is published before them may need the space.
        let plan = self.sources.plan.clone();
        let unwanted = |of| match of {
            InputOf::Task(index) => !waiting.get(index) && !ledger.is_decided(index),
            InputOf::Pack(first) => !waiting.get(first) && plan.is_open((first, 0)),
        };
        self.sources.publisher.free_stored(unwanted).await;
        self.publish(false, move |index| !waiting.get(index));
        Ok(event.or(Some(Event::PublishesMissing)))
    }

    /// Begins the rounds of tasks whose bytes vanished, unless others were begun meanwhile.
    async fn begin_rounds(&mut self, due: Vec<Key>, state: &State) -> Result<Option<Event>> {
        let plan = &self.sources.plan;
        let open = due.into_iter().filter(|key| plan.may_run_again(*key));
        let again: Vec<u32> = open.map(|(index, _)| index).collect();
        if again.is_empty() {
            return Ok(Some(Event::Published { gave_way: false }));
        }
        self.begin_again(&again, &Anew::default(), state).await?;
        self.publish(false, move |index| again.binary_search(&index).is_ok());
        Ok(None)
    }

    /// Begins new rounds for what the user wants to run again, before anything of the old ones is touched. Whether there
    /// is something that takes its file as it is now: it may need larger buckets.
    pub(crate) async fn rerun(&mut self, rerun: Rerun, state: &State) -> Result<bool> {
        let (again, anew) =
            rerun.choose(&self.sources, &self.acceptor, &mut self.reporter, state).await?;
        if again.is_empty() {
            return Ok(false);
        }
        if !self.reporter.confirm(state).await && !self.sources.lease.is_held() {
            let line = self.reporter.line(BagState::Cancelled, state);
            return Err(self.sources.lease.ended().await.error(&line));
        }
        info!(tasks = again.len(), changed = anew.inputs.len(), "running again");
        self.begin_again(&again, &anew, state).await?;
        Ok(!anew.inputs.is_empty())
    }

    /// Begins a round of each of these tasks, of which some take their file as it is now, and makes room for it. Whoever
    /// calls this publishes, meanwhile: an input may have to wait until others are freed.
    async fn begin_again(&mut self, indices: &[u32], anew: &Anew, state: &State) -> Result<()> {
        let begun = loop {
            let ledger = self.sources.plan.ledger.clone();
            let (indices, Anew { inputs, taken }) = (indices.to_vec(), anew.clone());
            let writing = spawn_blocking(move || ledger.begin(&indices, &inputs, &taken));
            match self.reporter.while_renewing(state, writing).await? {
                Ok(Ok(begun)) => break begun,
                // Full is not failed.
                Ok(Err(error)) => self.wait_for_disk(error.into(), state).await?,
                Err(stopped) => return Err(stopped).context("begin rounds"),
            }
        };
        // The next gatherer elsewhere believes no result of a round that the line does not know.
        self.reporter.renew(state);
        let mut renewed = Instant::now();
        let plan = self.sources.plan.clone();
        let of_packs = begun.iter().map(|(index, _)| *index).filter(|at| plan.may_be_packed(*at));
        let mut packs: Vec<_> = of_packs.map(|index| plan.first_of(index)).collect();
        packs.dedup();
        if !packs.is_empty() {
            // They need space beside the tar that has the others of their packs.
            self.remake_buckets(state).await;
        }
        let tars = packs.into_iter().filter(|first| plan.is_nobodys(*first));
        let own = begun.iter().flat_map(|(index, _)| plan.over_with(*index));
        let own = own.map(subjects::output_name);
        for name in own.chain(tars.map(subjects::tar_name)) {
            self.remove_object(&name, Sound::Goes).await;
            if renewed.elapsed() >= limits::GATHERER_RENEWAL {
                renewed = Instant::now();
                self.reporter.renew(state);
            }
        }
        Ok(())
    }

    async fn remove_object(&self, name: &str, sound: Sound) {
        if let Some(bucket) = self.acceptor.bucket() {
            remove_object(bucket, name, sound).await;
        }
    }

    /// Accepts outcomes, however long that takes.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    pub(crate) async fn accept(&mut self, batch: Vec<Followed>, state: &State) -> Result<Accepted> {
        loop {
            let accepting = self.acceptor.clone().accept(batch.clone());
            match self.reporter.while_renewing(state, accepting).await? {
                Ok(accepted) => {
                    self.reporter.obstacles().uncounted = None;
                    for aside in &accepted.aside {
                        self.reporter.progress().tell(&format!(
                            "an output of this bag had been altered, and is now {}",
                            quote::name(aside)
                        ));
                    }
                    return Ok(accepted);
                }
                Err(error) => self.wait_for_disk(error, state).await?,
            }
        }
    }

    /// Has the next rounds of tasks begin later whose outcome is nothing to count. Returns the failures of those that had
    /// too many.
    ///
    /// Their inputs are freed, as of tasks that are done, and put again for the next round: what waits must not
    /// take the space of what is to be published before it.
    pub(crate) async fn begin_later(&self, state: &mut State, lost: Vec<u32>) -> Vec<Followed> {
        self.sources.publisher.free_inputs(lost.iter().copied()).await;
        let (bag, now) = (&self.sources.plan.specification.bag, Instant::now());
        let failures = lost.into_iter().filter_map(|index| {
            let key = (index, self.sources.plan.ledger.round(index));
            let failed = state.lost(key, now)?;
            Some(Followed { result: Ok(Arc::new(failure(bag, key, 1, failed))), bytes: 0 })
        });
        failures.collect()
    }

    /// Tasks that wait out a delay are woken, unless something is known to be full.
    pub(crate) async fn wake_delayed(&mut self, waking: &mut Waking, bucket: &Room, state: &State) {
        let quiet = state.quiet(Instant::now());
        // While the bag moves nobody need know, and to ask may take as long as the disk does.
        let mut room = quiet >= Duration::from_secs(1)
            && self.reporter.hangs().is_none()
            && bucket.full().is_none();
        if room && let Some(receiver) = &self.sources.receiver {
            room = receiver.waiting().await.is_none();
        }
        waking.look(quiet, room);
    }

    /// Removes what may wait of the blocks of files that failed.
    pub(crate) async fn purge_blocks(&self, committed: bool) {
        let Sources { broker, plan, .. } = &self.sources;
        if committed
            && plan.cuts.is_some()
            && let Err(error) = broker.purge_tasks(&plan.specification.bag).await
        {
            warn!(%error, "blocks of files that failed may wait; workers drop them");
        }
    }

    /// Full is not failed: says so, and comes back when it is time to try again.
    async fn wait_for_disk(&mut self, error: Error, state: &State) -> Result<()> {
        if let Some(ends) = self.acceptor.ends_the_run(&error) {
            return Err(ends.into());
        }
        self.reporter.wait_until_countable(state, format!("{error:#}")).await
    }

    /// Lets go of a bag that has not come to its end.
    pub(crate) async fn give_up(&mut self, error: &Error, committed: bool, state: &State) {
        if let Some(publishing) = self.publishing.take() {
            publishing.abort();
            // It is gone when this returns, with an error that says that it was aborted.
            publishing.await.ok();
        }
        if tokio::time::timeout(limits::DISK_WAIT, self.acceptor.finish()).await.is_err() {
            warn!("the last stats files may be missing");
        }
        let mut bag_is = BagState::Running;
        if error.is::<Cancelled>() {
            bag_is = BagState::Cancelled;
            // What was published between the cancellation and our hearing of it.
            let Sources { broker, plan, .. } = &self.sources;
            if committed && let Err(error) = broker.purge_tasks(&plan.specification.bag).await {
                warn!(%error, "tasks of a cancelled bag may wait; workers drop them");
            }
        }
        if let Err(error) = self.sources.lease.release(self.reporter.line(bag_is, state)).await {
            warn!(%error, "the bag's line not written, its lease runs out");
        }
    }
}
