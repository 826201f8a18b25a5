//! The lease of a bag's one gatherer: the bag's line in KV `bags`, which it renews.
//!
//! No clock decides. Who finds a lease watches whether it is renewed: if so, its holder lives and is
//! named; if not for [`limits::GATHERER_LEASE`], the bag is taken over. A holder that comes back late
//! learns it at its next write, which names a revision that is no longer there.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};

use anyhow::{Context, Result};
use bagpress_broker::ids::{BagId, random_base32};
use bagpress_broker::result::wall_clock_us;
use bagpress_broker::{
    BagLine, BagState, Broker, Error, Found, Gatherer, limits, machine, subjects,
};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info, warn};

use crate::error::Cancelled;
use crate::error::Usage;
use crate::run_folder::lock::GatherLock;

/// Held by the one gatherer of a bag. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    broker: Broker,
    /// Whether there is a line to write: a broker without streams has none.
    written: bool,
    me: Gatherer,
    /// The revision that we wrote last.
    revision: Mutex<u64>,
    standing: watch::Sender<Standing>,
    /// Renewals that were lost since one was stored.
    lost: AtomicU32,
    /// The highest round that any gatherer had begun when we took it.
    rounds: u32,
    /// A line that cannot be read, and that is not ours: its revision, and since when it is there.
    overwritten: std::sync::Mutex<Option<(u64, Instant)>>,
}

/// Whether we still gather the bag.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Held,
    Cancelled,
    /// Another took it over: we were silent for too long.
    Taken(Option<Gatherer>),
}

impl Lease {
    /// Takes the lease and writes `line`; waits for the end of one that is not renewed.
    ///
    /// # Errors
    ///
    /// [`Usage`] naming the holder, if it lives; [`Cancelled`] unless `resume`; the broker's errors.
    pub(crate) async fn take(
        broker: &Broker,
        lock: &GatherLock,
        line: BagLine,
        resume: bool,
    ) -> Result<Self> {
        let me = me(lock);
        let mut found = broker.find_bag(&line.bag).await.context("look who gathers the bag")?;
        let mut rounds = 0;
        loop {
            if found.unreadable.is_some() {
                found = unreadable(broker, &line.bag, found).await?;
                continue;
            }
            if let Some(there) = &found.line {
                rounds = there.rounds.max(rounds);
                if there.state == BagState::Cancelled && !resume {
                    return Err(Cancelled::of(there).into());
                }
                if let Some(holder) = there.gatherer.clone().filter(|g| g.lock != me.lock) {
                    found = expired(broker, found, &holder).await?;
                    continue;
                }
            }
            let rounds = line.rounds.max(rounds);
            let line = BagLine { gatherer: Some(me.clone()), rounds, ..line.clone() };
            if let Some(revision) = broker.write_bag(&line, found.revision).await? {
                return Ok(Self::held(broker, me, Some(revision), rounds));
            }
            found = broker.find_bag(&line.bag).await.context("look who gathers the bag")?;
        }
    }

    /// A lease where there is nowhere to write one: the run folder's lock alone keeps others out.
    pub(crate) fn of_the_lock_alone(broker: &Broker, lock: &GatherLock) -> Self {
        Self::held(broker, me(lock), None, 0)
    }

    /// A lease that was written as `revision` of the bag's line, if at all.
    fn held(broker: &Broker, me: Gatherer, revision: Option<u64>, rounds: u32) -> Self {
        let shared = Shared {
            broker: broker.clone(),
            written: revision.is_some(),
            me,
            revision: revision.unwrap_or_default().into(),
            standing: watch::Sender::new(Standing::Held),
            lost: 0.into(),
            rounds,
            overwritten: std::sync::Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The highest round that any gatherer had begun of any task when we took it.
    pub(crate) fn rounds(&self) -> u32 {
        self.shared.rounds
    }

    /// Whether it is in the bag's line: the broker has our streams.
    pub(crate) fn is_written(&self) -> bool {
        self.shared.written
    }

    /// Renews the lease beside whatever the caller does; one renewal at a time.
    pub(crate) fn renew(&self, line: BagLine) {
        let lease = self.clone();
        tokio::spawn(async move {
            let Ok(mut revision) = lease.shared.revision.try_lock() else { return };
            let line = BagLine { gatherer: Some(lease.shared.me.clone()), ..line };
            match lease.write(line, &mut revision).await {
                Ok(()) => lease.shared.lost.store(0, Relaxed),
                Err(error) => {
                    lease.shared.lost.fetch_add(1, Relaxed);
                    debug!(%error, "lease not renewed now");
                }
            }
        });
    }

    /// Renews the lease now. Says whether it is known that nobody has taken the bag from us.
    pub(crate) async fn confirm(&self, line: BagLine) -> bool {
        let line = BagLine { gatherer: Some(self.shared.me.clone()), ..line };
        let mut revision = self.shared.revision.lock().await;
        match self.write(line, &mut revision).await {
            // Where there are no lines, none says that another has it.
            Ok(()) | Err(Error::Missing { .. }) => self.is_held(),
            Err(error) => {
                debug!(%error, "nobody says whether the bag is still ours");
                false
            }
        }
    }

    /// Whether the bag is ours, as far as we have heard.
    pub(crate) fn is_held(&self) -> bool {
        *self.shared.standing.borrow() == Standing::Held
    }

    /// Renewals that were lost since one was stored.
    #[must_use]
    pub(crate) fn lost(&self) -> u32 {
        self.shared.lost.load(Relaxed)
    }

    /// Writes a last line, which nobody holds.
    pub(crate) async fn release(&self, line: BagLine) -> Result<(), Error> {
        let mut revision = self.shared.revision.lock().await;
        self.write(BagLine { gatherer: None, ..line }, &mut revision).await
    }

    async fn write(&self, line: BagLine, revision: &mut u64) -> Result<(), Error> {
        let Shared { broker, written, me, standing, rounds, .. } = &*self.shared;
        let line = BagLine { rounds: line.rounds.max(*rounds), ..line };
        if !written {
            return Ok(());
        }
        for _ in 0..limits::COMMIT_TRIES {
            if let Some(written) = broker.write_bag(&line, *revision).await? {
                *revision = written;
                return Ok(());
            }
            let found = broker.find_bag(&line.bag).await?;
            if found.removed {
                standing.send_replace(Standing::Cancelled);
                return Ok(());
            }
            if let Some(why) = &found.unreadable {
                match self.overwritten(found.revision, Instant::now()) {
                    Overwritten::Watch => {
                        let text = format!("it was overwritten with what cannot be read: {why}");
                        return Err(Error::lost("write the bag's line")(&text));
                    }
                    Overwritten::Theirs => {
                        standing.send_replace(Standing::Taken(None));
                        return Ok(());
                    }
                    Overwritten::Junk => warn!(why, "the bag's line was junk, it is written anew"),
                }
            }
            match found.line {
                Some(there) if there.gatherer.as_ref().is_some_and(|g| g.id != me.id) => {
                    standing.send_replace(Standing::Taken(there.gatherer));
                    return Ok(());
                }
                Some(there) if there.state == BagState::Cancelled => {
                    *revision = found.revision;
                    standing.send_replace(Standing::Cancelled);
                    if line.state == BagState::Cancelled {
                        continue;
                    }
                    return Ok(());
                }
                // The broker forgot it, or our last write arrived and its answer did not.
                None | Some(_) => *revision = found.revision,
            }
        }
        Err(Error::lost("write the bag's line")(&"it changes all the time"))
    }

    /// What a line is that is not ours and cannot be read: that of a later version is renewed as ours is.
    fn overwritten(&self, revision: u64, now: Instant) -> Overwritten {
        let mut seen = self.shared.overwritten.lock().unwrap_or_else(PoisonError::into_inner);
        match *seen {
            Some((before, _)) if before != revision => Overwritten::Theirs,
            Some((_, since)) if now - since >= limits::OVERWRITTEN_FOR => {
                *seen = None;
                Overwritten::Junk
            }
            Some(_) => Overwritten::Watch,
            None => {
                *seen = Some((revision, now));
                Overwritten::Watch
            }
        }
    }

    /// Notes that the bag was cancelled; its line says so.
    fn cancelled(&self) {
        self.shared.standing.send_if_modified(|standing| {
            let held = *standing == Standing::Held;
            if held {
                *standing = Standing::Cancelled;
            }
            held
        });
    }

    /// Looks at the line at once when the event comes, for as long as the gathering lasts.
    pub(crate) async fn listen(&self, line: &BagLine) -> Result<tokio::task::JoinHandle<()>> {
        let broker = &self.shared.broker;
        let mut events = broker.cancellations(Some(&line.bag)).await?;
        let (lease, broker) = (self.clone(), broker.clone());
        Ok(tokio::spawn(async move {
            while let Some(bag) = events.next().await {
                match broker.find_bag(&bag).await {
                    Ok(found) if found.is_called_off() => lease.cancelled(),
                    Ok(_) => debug!("an event of a cancellation, and no line that says so"),
                    Err(error) => debug!(%error, "the next renewal finds out"),
                }
            }
        }))
    }

    /// Waits until the bag is no longer ours, and says why. Cancel-safe.
    pub(crate) async fn ended(&self) -> Lost {
        let mut standing = self.shared.standing.subscribe();
        let ended = standing.wait_for(|standing| *standing != Standing::Held).await;
        match ended.map(|standing| standing.clone()) {
            Ok(Standing::Cancelled) => Lost::Cancelled,
            Ok(Standing::Taken(by)) => Lost::Taken(by),
            Ok(Standing::Held) | Err(_) => std::future::pending().await,
        }
    }
}

/// What is to be done about a line that cannot be read where ours should be.
#[derive(Debug, PartialEq, Eq)]
enum Overwritten {
    /// Nothing yet.
    Watch,
    /// It is renewed: somebody else gathers the bag.
    Theirs,
    /// Nobody renews it: it is written over.
    Junk,
}

fn me(lock: &GatherLock) -> Gatherer {
    Gatherer {
        id: random_base32::<10>(),
        host: machine::host(),
        pid: std::process::id(),
        since_us: wall_clock_us(),
        lock: lock.identity().to_owned(),
        processes: machine::processes(),
    }
}

/// Why the bag is no longer ours.
#[derive(Debug)]
pub(crate) enum Lost {
    Cancelled,
    Taken(Option<Gatherer>),
}

impl Lost {
    /// As an error; `line` is the bag as we know it.
    pub(crate) fn error(self, line: &BagLine) -> anyhow::Error {
        match self {
            Self::Cancelled => Cancelled::of(line).into(),
            Self::Taken(by) => {
                let by = by.map_or_else(|| "somebody else".to_owned(), |by| by.to_string());
                Usage::error(
                    format!("the bag was taken over by {by}, as this process was silent too long"),
                    "let it gather the bag; look with `bagpress status`",
                )
            }
        }
    }
}

/// Whether somebody gathers a bag: watches for as long as a lease lasts.
///
/// # Errors
///
/// If the broker does not answer.
pub(crate) async fn is_held(broker: &Broker, bag: &BagId) -> Result<bool> {
    match expect_unheld(broker, bag, None).await {
        Ok(()) => Ok(false),
        Err(error) if error.is::<Usage>() => Ok(true),
        Err(error) => Err(error),
    }
}

/// Fails if somebody gathers a bag; `lock` tells that whoever held it before is dead.
///
/// # Errors
///
/// [`Usage`] naming the holder, or the broker's errors.
pub(crate) async fn expect_unheld(
    broker: &Broker,
    bag: &BagId,
    lock: Option<&GatherLock>,
) -> Result<()> {
    let mut found = broker.find_bag(bag).await.context("look who gathers the bag")?;
    let ours = lock.map(GatherLock::identity);
    loop {
        if found.unreadable.is_some() {
            found = unreadable(broker, bag, found).await?;
            continue;
        }
        let holder = found.line.as_ref().and_then(|line| line.gatherer.clone());
        let other = holder.filter(|holder| Some(holder.lock.as_str()) != ours);
        let Some(holder) = other else { return Ok(()) };
        // Somebody else may have written it meanwhile: who, and whether they live, is another question.
        found = expired(broker, found, &holder).await?;
    }
}

/// Watches a line that cannot be read: whoever wrote it may gather the bag, and nobody else can tell.
///
/// # Errors
///
/// [`Usage`] in any case but one: that meanwhile there is a line that can be read, or none, which is returned.
async fn unreadable(broker: &Broker, bag: &BagId, before: Found) -> Result<Found> {
    let (revision, why) = (before.revision, before.unreadable.unwrap_or_default());
    info!(%bag, why, "the bag's line cannot be read: waiting whether somebody renews it");
    let deadline = Instant::now() + limits::GATHERER_LEASE;
    while Instant::now() < deadline {
        sleep(limits::RETRY_WAIT).await;
        let found = timeout_at(deadline + limits::GATHERER_LEASE, broker.find_bag(bag)).await;
        let found = found.context("look who gathers the bag")??;
        if found.unreadable.is_none() {
            return Ok(found);
        }
        if found.revision != revision {
            return Err(Usage::error(
                format!(
                    "bag {bag} is being gathered by somebody whose line this version cannot read: {why}"
                ),
                "wait for it, or use the version of bagpress that gathers it",
            ));
        }
    }
    Err(Usage::error(
        format!("the line of bag {bag} cannot be read, and nobody renews it: {why}"),
        format!(
            "use the version of bagpress that wrote it; if nobody gathers the bag, remove the line with `nats kv del {} {bag}`",
            subjects::BAGS
        ),
    ))
}

/// Waits until the lease of `holder` is over, and returns what is there then.
///
/// # Errors
///
/// [`Usage`] if it is renewed: the holder lives.
async fn expired(broker: &Broker, before: Found, holder: &Gatherer) -> Result<Found> {
    let bag = before.line.as_ref().map(|line| line.bag.clone()).context("a line without a bag")?;
    if holder.is_dead() {
        info!(%bag, %holder, "its process has ended, the bag is taken over");
        let line = before.line.clone().map(|line| BagLine { gatherer: None, ..line });
        return Ok(Found { line, ..before });
    }
    info!(%bag, %holder, "somebody gathers the bag, or did: waiting whether the lease is renewed");
    let deadline = Instant::now() + limits::GATHERER_LEASE;
    let mut last = before;
    while Instant::now() < deadline {
        sleep(limits::RETRY_WAIT).await;
        // A broker that does not answer must not make a lease look expired.
        let found = timeout_at(deadline + limits::GATHERER_LEASE, broker.find_bag(&bag)).await;
        let found = found.context("look who gathers the bag")??;
        let gatherer = found.line.as_ref().and_then(|line| line.gatherer.clone());
        match gatherer {
            Some(now) if now.id == holder.id => {
                if found.revision != last.revision {
                    let since = jiff::Timestamp::from_microsecond(holder.since_us.cast_signed())
                        .map_or_else(|_| "an unknown time".to_owned(), |at| format!("{at:.0}"));
                    return Err(Usage::error(
                        format!("bag {bag} is being gathered by {holder}, since {since}"),
                        "wait for it, or stop it; `bagpress status` shows how far it is",
                    ));
                }
                last = found;
            }
            _ => return Ok(found),
        }
    }
    info!(%bag, %holder, "its lease is over, the bag is taken over");
    let line = last.line.clone().map(|line| BagLine { gatherer: None, ..line });
    Ok(Found { line, ..last })
}
