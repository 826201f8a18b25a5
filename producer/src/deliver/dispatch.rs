//! The queue group's loop: offers tasks, answers lease messages, hands outcomes to `gather`.

use std::sync::Arc;
use std::time::Instant;

use bagpress_broker::result::{Cause, Failed, TaskResult};
use bagpress_broker::{
    Broker, Desk, Heard, HoldingsReport, Lease, ReportedDelivery, Verdict, limits,
};
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tracing::{debug, info, warn};

use crate::deliver::handed::{Handed, too_often};
use crate::deliver::offers::Next;
use crate::deliver::table::Table;
use crate::deliver::watch::Watch;
use crate::run_folder::attempts::Past;
use crate::run_folder::ledger::Key;
use crate::run_folder::of_producer::failure;
use crate::run_folder::plan::BagPlan;

/// Tasks that wait to be taken into the table.
const HANDED_IN: usize = 64;
/// What is heard in a row before the offers are looked at.
const HEARD: usize = 64;

/// A task that can be offered.
#[derive(Debug)]
pub(crate) struct Offerable {
    pub(crate) key: Key,
    pub(crate) descriptor: Bytes,
}

/// Where tasks are handed in, and failures that need no worker. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct HandIn {
    tasks: mpsc::Sender<Offerable>,
    outcomes: mpsc::Sender<Handed>,
}

impl HandIn {
    /// Hands in a task, to be offered; waits for its turn.
    pub(crate) async fn offer(&self, task: Offerable) {
        // Fails only when nobody gathers any more.
        self.tasks.send(task).await.ok();
    }

    /// Hands in the failure of a task that no worker can do anything for; waits while many outcomes are not counted.
    pub(crate) async fn fail(&self, result: TaskResult) {
        let handed = Handed { result: Arc::new(result), reply: None, share: None };
        // Fails only when nobody gathers any more.
        self.outcomes.send(handed).await.ok();
    }
}

/// Dispatches until it is dropped.
#[derive(Debug)]
pub(crate) struct Dispatch {
    table: Arc<Table>,
    hand_in: HandIn,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Dispatch {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Dispatch {
    /// Opens the desk of a bag. Outcomes come out of the channel.
    ///
    /// # Errors
    ///
    /// [`bagpress_broker::Error::Lost`].
    pub(crate) async fn start(
        broker: &Broker,
        plan: &BagPlan,
        table: Arc<Table>,
        watch: Watch,
    ) -> Result<(Self, mpsc::Receiver<Handed>), bagpress_broker::Error> {
        let specification = &plan.specification;
        let desk = Desk::open(broker, &specification.bag, &specification.pool).await?;
        let (tasks, handed_in) = mpsc::channel(HANDED_IN);
        let (outcomes, receiver) = mpsc::channel(limits::OUTCOMES_MAX);
        let now = Instant::now();
        let serving = Serving {
            broker: broker.clone(),
            plan: plan.clone(),
            table: table.clone(),
            watch,
            outcomes: outcomes.clone(),
            files: Arc::new(Semaphore::new(limits::OUTCOME_FILES_MAX)),
            believed_since: now,
            looked: now,
        };
        let serving = tokio::spawn(serving.serve(desk, handed_in));
        Ok((Self { table, hand_in: HandIn { tasks, outcomes }, serving }, receiver))
    }

    /// Where tasks are handed in.
    pub(crate) fn hand_in(&self) -> HandIn {
        self.hand_in.clone()
    }

    /// The tasks that were handed in.
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }
}

struct Serving {
    broker: Broker,
    plan: BagPlan,
    table: Arc<Table>,
    watch: Watch,
    outcomes: mpsc::Sender<Handed>,
    /// Files of packs whose outcomes are not counted.
    files: Arc<Semaphore>,
    /// Since when we have been here and connected: a lease that was not renewed since is not our fault.
    believed_since: Instant,
    looked: Instant,
}

impl Serving {
    async fn serve(mut self, mut desk: Desk, mut handed_in: mpsc::Receiver<Offerable>) {
        loop {
            self.offer(&desk).await;
            let now = Instant::now();
            let (up, settled) = (self.broker.up_for().is_some(), self.table.is_settled());
            let (wants, mut look_at) = {
                let mut offers = self.table.lock();
                (offers.wants(now), offers.look_at(now))
            };
            if !up || !settled {
                // What is due cannot be offered now.
                look_at = look_at.max(now + limits::OFFER_AGAIN_MAX);
            }
            tokio::select! {
                biased;
                heard = desk.next() => {
                    let Some(heard) = heard else { return };
                    self.hear(heard).await;
                    for _ in 0..HEARD {
                        let Some(heard) = desk.ready() else { break };
                        self.hear(heard).await;
                    }
                }
                Some(task) = handed_in.recv(), if wants > 0 && up => {
                    self.take_in(task);
                    for _ in 1..wants {
                        let Ok(task) = handed_in.try_recv() else { break };
                        self.take_in(task);
                    }
                }
                () = self.table.changed() => {}
                () = self.table.settled(), if !settled => {}
                () = tokio::time::sleep_until(look_at.into()) => self.look(),
            }
        }
    }

    fn take_in(&self, task: Offerable) {
        if self.plan.is_open(task.key) {
            self.table.lock().add(task.key, task.descriptor, Instant::now());
        }
    }

    /// Makes the offers that can be made.
    async fn offer(&self, desk: &Desk) {
        // Nothing is answered meanwhile, and all of it would be delivered afterwards.
        if self.broker.up_for().is_none() {
            return;
        }
        loop {
            match self.table.next(Instant::now()) {
                Some(Next::Offer { number, attempt, descriptor }) => {
                    if let Err(error) = desk.offer(number, attempt, descriptor).await {
                        debug!(%error, "not offered");
                        return;
                    }
                }
                Some(Next::Exhausted { key, past }) => {
                    let (attempt, failed) = exhausted(&past);
                    self.fail(key, attempt, failed).await;
                }
                None => return,
            }
        }
    }

    /// Looks for what did not come.
    fn look(&mut self) {
        let now = Instant::now();
        let up = self.broker.up_for();
        // A gatherer that was stopped or not connected cannot tell whether a worker was silent.
        if up.is_none() || now - self.looked > limits::LEASE_RENEWAL {
            self.believed_since = now;
        }
        self.looked = now;
        let since = up.and_then(|up| now.checked_sub(up)).unwrap_or(now);
        let believed = now - since.max(self.believed_since) >= limits::LEASE;
        self.table.lock().vanish(now);
        if believed && let Some(least) = now.checked_sub(limits::LEASE) {
            let tasks = self.table.expire(least, now);
            if tasks > 0 {
                warn!(tasks, "leases ran out, their tasks are offered again");
            }
        }
    }

    async fn hear(&mut self, heard: Heard) {
        let now = Instant::now();
        match heard {
            Heard::Leased(number, lease, reply) => {
                let known = self.plan.is_open((lease.index, lease.round));
                let held = self.table.lock().taken(number, lease.clone(), now);
                if known && held {
                    self.watch.note(held_event(lease));
                } else {
                    if !known {
                        self.table.lock().decided((lease.index, lease.round));
                    }
                    debug!(index = lease.index, worker = lease.worker, "late lease withdrawn");
                    reply.answer(&Verdict::Withdrawn).await;
                }
            }
            Heard::Passed(number) => self.table.lock().passed(number, now),
            // Another worker may know what this one does not.
            Heard::Refused(number, failed) if failed.cause.is_planned() => {
                self.table.lock().nobody(number, now);
            }
            Heard::Refused(number, failed) => {
                let refused = self.table.lock().refused(number);
                if let Some(key) = refused {
                    self.fail(key, 1, failed).await;
                }
            }
            Heard::Nobody(number) => self.table.lock().nobody(number, now),
            Heard::Renewal(lease, reply) => {
                let held = self.plan.is_open((lease.index, lease.round))
                    && self.table.lock().hold(lease.clone(), now);
                if held {
                    self.watch.note(held_event(lease));
                }
                reply.answer(if held { &Verdict::Held } else { &Verdict::Withdrawn }).await;
            }
            Heard::GivenBack(back, reply) => {
                let (cause, message) = (back.failed.cause, &back.failed.message);
                info!(index = back.lease.index, %cause, message, "given back");
                self.table.given_back(&back, now);
                reply.answer(&Verdict::Withdrawn).await;
            }
            Heard::Outcome(result, reply) => {
                self.table.lock().idle();
                let handed = Handed { result: Arc::from(result), reply: Some(reply), share: None };
                self.hand_on(handed).await;
            }
        }
    }

    async fn fail(&self, (index, round): Key, attempt: u32, failed: Failed) {
        let bag = &self.plan.specification.bag;
        let result = failure(bag, (index, round), attempt, failed);
        self.hand_on(Handed { result: Arc::new(result), reply: None, share: None }).await;
    }

    /// Never waits: leases must be renewed while no outcome can be counted.
    async fn hand_on(&self, mut handed: Handed) {
        let files = u32::try_from(handed.result.members.len()).unwrap_or(u32::MAX);
        if files > 0 {
            let Ok(share) = self.files.clone().try_acquire_many_owned(files) else {
                let reason = format!("{} outcomes are not counted yet", limits::OUTCOME_FILES_MAX);
                return handed.answer(&Verdict::Wait { reason }).await;
            };
            handed.share = Some(Arc::new(share));
        }
        if let Err(mpsc::error::TrySendError::Full(handed)) = self.outcomes.try_send(handed) {
            if handed.reply.is_none() {
                // Ours, and rare: nobody would send it again.
                let outcomes = self.outcomes.clone();
                tokio::spawn(async move { outcomes.send(handed).await });
                return;
            }
            let reason = format!("{} outcomes are not counted yet", limits::OUTCOMES_MAX);
            handed.answer(&Verdict::Wait { reason }).await;
        }
    }
}

/// What a task that is not offered any more fails with, and at which attempt.
fn exhausted(past: &Past) -> (u32, Failed) {
    let Past { spent, bytes_lost, .. } = past;
    if *bytes_lost >= limits::BYTES_LOST_MAX {
        return (spent + 1, too_often(*bytes_lost));
    }
    let text = format!("{spent} workers were lost with it");
    (*spent, Failed::new(Cause::CrashLimit, text))
}

fn held_event(lease: Lease) -> HoldingsReport {
    let (index, round, delivered) = (lease.index, lease.round, lease.attempt);
    let reply = lease.execution.to_string();
    let deliveries = vec![ReportedDelivery { index, round, delivered, reply, read_bytes: 0 }];
    let Lease { v, worker, host, pid, .. } = lease;
    HoldingsReport { v, worker, host, pid, all: false, deliveries }
}
