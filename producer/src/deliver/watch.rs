//! Watches the workers of a bag, and gives back at once what a dead one held.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bagpress_broker::ids::{BagId, Pool, TaskId};
use bagpress_broker::result::{Cause, TaskResult, wall_clock_us};
use bagpress_broker::{AttemptRecord, Broker, HoldingsReport, ReportedDelivery, limits, machine};
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use crate::deliver::table::Table;
use crate::deliver::workers::Workers;
use crate::run_folder::ledger::Key;

/// How long the workers of a broker have to answer when a gatherer joins.
const JOIN_WAIT: Duration = Duration::from_millis(20);

/// Watches the workers of one bag until it is dropped. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    broker: Broker,
    bag: BagId,
    pool: Pool,
    /// Of a bag whose leases are ours to give.
    table: Option<Arc<Table>>,
    workers: Mutex<Workers>,
}

impl Watch {
    /// Begins to watch. Local workers' ends come through `ended`, by process id; others' are found out.
    ///
    /// # Errors
    ///
    /// [`bagpress_broker::Error::Lost`].
    pub(crate) async fn start(
        broker: &Broker,
        bag: &BagId,
        pool: &Pool,
        table: Option<Arc<Table>>,
        mut ended: mpsc::Receiver<u32>,
    ) -> Result<(Self, JoinHandle<()>), bagpress_broker::Error> {
        let mut events = broker.held_events(bag).await?;
        let (broker, bag, pool) = (broker.clone(), bag.clone(), pool.clone());
        let watch = Self {
            shared: Arc::new(Shared { broker, bag, pool, table, workers: Mutex::default() }),
        };
        watch.ask_all().await;
        let watching = watch.clone();
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(limits::PROBE_AGAIN);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut children = true;
            loop {
                tokio::select! {
                    held = events.held() => match held {
                        Some(held) => watching.note(held),
                        None => return,
                    },
                    pid = ended.recv(), if children => match pid {
                        Some(pid) => watching.ended(pid).await,
                        None => children = false,
                    },
                    _ = ticks.tick() => watching.probe().await,
                }
            }
        });
        Ok((watch, task))
    }

    /// Asks each worker what it holds: a gatherer that joins late has missed its events.
    async fn ask_all(&self) {
        // What is not heard now comes with the next event.
        let Ok(workers) = self.shared.broker.workers(JOIN_WAIT).await else { return };
        for (_, mut stats) in workers {
            if let Some(held) = stats.held.remove(self.shared.bag.as_str()) {
                self.note(held);
            }
        }
    }

    fn workers(&self) -> MutexGuard<'_, Workers> {
        self.shared.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many workers hold tasks of the bag, and how many tasks.
    #[must_use]
    pub(crate) fn busy(&self) -> (usize, usize) {
        self.workers().busy()
    }

    /// What workers have read of the inputs of tasks that they hold, by task and round.
    pub(crate) fn read(&self) -> HashMap<Key, u64> {
        self.workers().read()
    }

    /// Whether some worker holds a task, in whatever round.
    #[must_use]
    pub(crate) fn is_held(&self, index: u32) -> bool {
        self.workers().is_held(index)
    }

    /// Workers that were lost.
    #[must_use]
    pub(crate) fn lost(&self) -> u64 {
        self.workers().lost()
    }

    /// Notes what a worker holds.
    pub(crate) fn note(&self, held: HoldingsReport) {
        self.workers().note(held, Instant::now());
    }

    /// Notes that a task has its outcome: nothing of it needs to be given back.
    pub(crate) fn decided(&self, result: &TaskResult) {
        self.workers().decided(&result.worker, (result.index, result.round));
    }

    /// A local worker ended; the process table is quicker than any probe.
    async fn ended(&self, pid: u32) {
        let dead = self.workers().of_process(&machine::host(), pid);
        for worker in dead {
            self.bury(&worker).await;
        }
    }

    async fn probe(&self) {
        let broker = &self.shared.broker;
        // After our own reconnect a worker may just not be back yet.
        let settled = broker.up_for().is_some_and(|up| up >= limits::PROBE_AFTER_RECONNECT);
        if !settled && broker.connects() > 1 {
            return;
        }
        let due = self.workers().due(limits::PROBES_PER_SECOND / 20, Instant::now());
        let probes = due.iter().map(|id| broker.probe(id, limits::PROBE_EVERY));
        let answers = join_all(probes).await;
        for (id, presence) in due.iter().zip(answers) {
            let dead = self.workers().probed(id, presence);
            if dead {
                self.bury(id).await;
            }
        }
    }

    /// Records the loss, then gives back what the worker held, in its name.
    async fn bury(&self, worker: &str) {
        let Some(dead) = self.workers().remove(worker) else { return };
        let leases = self.shared.table.as_ref().map(|table| table.worker_lost(worker));
        let tasks = dead.held.len();
        if leases.unwrap_or(tasks) == 0 {
            return;
        }
        self.workers().count_lost();
        let (host, pid) = (&dead.host, dead.pid);
        warn!(worker, host, pid, tasks, "worker lost, its tasks are given back");
        if leases.is_some() {
            return;
        }
        let who = (worker, dead.host.as_str(), "the worker died");
        join_all(dead.held.into_values().map(|delivery| self.give_back(who, delivery))).await;
        info!(worker, "tasks of a lost worker given back");
        let watch = self.clone();
        tokio::spawn(async move { watch.give_back_unheld().await });
    }

    /// Gives back what was handed out and no worker reports holding.
    ///
    /// A killed worker shall cost its bag no lease of 10 s (`tests/it/death.rs`; the fault drill kills workers all the
    /// time). Short tasks arrive many at a time: these are not announced, and are over before the next report, so of a
    /// worker that dies with them nothing is known. Nor does anybody report what the server sent to a dead worker before
    /// it saw the connection end. See ADR 0035.
    ///
    /// Looks twice, so that a live worker has the time to report. The task of one that has not by then is executed twice,
    /// which costs work and nothing else.
    pub(crate) async fn give_back_unheld(&self) {
        let first = self.unheld().await;
        if first.is_empty() {
            return;
        }
        tokio::time::sleep(limits::UNHELD_FOR).await;
        for (id, reply) in self.unheld().await {
            if !first.iter().any(|(before, _)| *before == id) {
                continue;
            }
            let Ok(last) = self.shared.broker.last_attempt(&id).await else { continue };
            match Unheld::of(last.as_ref(), wall_clock_us()) {
                Unheld::Delayed => {}
                Unheld::Told => {
                    let once = self.workers().may_give_back_again((id.index, id.round));
                    if once {
                        self.nak(&id, &reply).await;
                    }
                }
                Unheld::Untold => {
                    warn!(task = %id, "handed out and held by no worker, given back");
                    let (index, round) = (id.index, id.round);
                    let who = ("unknown", "", "it was handed out, and no worker holds it");
                    let (delivered, read_bytes) = (2, 0);
                    let delivery = ReportedDelivery { index, round, delivered, reply, read_bytes };
                    self.give_back(who, delivery).await;
                }
            }
        }
    }

    async fn unheld(&self) -> Vec<(TaskId, String)> {
        let Shared { broker, bag, pool, .. } = &*self.shared;
        let unanswered_tasks = match broker.unanswered_tasks(pool, bag, limits::UNHELD_MAX).await {
            Ok(unanswered_tasks) => unanswered_tasks,
            Err(error) => {
                debug!(%error, "handed out tasks not listed");
                return Vec::new();
            }
        };
        let workers = self.workers();
        let unheld = unanswered_tasks
            .into_iter()
            .filter(|t| !workers.is_round_held((t.id.index, t.id.round)));
        unheld.map(|task| (task.id, task.reply)).collect()
    }

    /// Gives a delivery back for worker, host and reason.
    async fn give_back(&self, (worker, host, why): (&str, &str, &str), delivery: ReportedDelivery) {
        let Shared { broker, bag, .. } = &*self.shared;
        let ReportedDelivery { index, round, delivered, reply, .. } = delivery;
        let id = TaskId { bag: bag.clone(), index, round };
        let before = self.workers().note_given_back((index, round), delivered);
        if before {
            return self.nak(&id, &reply).await;
        }
        let planned =
            if delivered > 1 { broker.planned_give_backs(&id).await.unwrap_or(0) } else { 0 };
        let mut record = AttemptRecord::new(&id, delivered, planned, Cause::WorkerLost, worker);
        (record.host, record.message) = (host.to_owned(), why.to_owned());
        if let Err(error) = broker.record_attempt(bag, &record).await {
            debug!(%error, task = %id, "loss not recorded");
        }
        self.nak(&id, &reply).await;
    }

    async fn nak(&self, id: &TaskId, reply: &str) {
        if let Err(error) = self.shared.broker.nak_for(reply).await {
            debug!(%error, task = %id, "left to its lease");
        }
    }
}

/// What the last give-back of a task says of it, if it was handed out and no worker holds it.
#[derive(Debug, PartialEq, Eq)]
enum Unheld {
    /// It was given back with a delay that may not be over: it is with nobody, as it shall be.
    Delayed,
    /// Its loss is recorded, and nobody had it since as far as anybody can say.
    Told,
    /// Its loss is not recorded.
    Untold,
}

impl Unheld {
    fn of(last: Option<&AttemptRecord>, now_us: u64) -> Self {
        let longest = u64::try_from(limits::GIVE_BACK_DELAY_MAX.as_micros()).unwrap_or(u64::MAX);
        match last {
            Some(last) if last.cause == Cause::WorkerLost => Self::Told,
            Some(last) if last.at_us.saturating_add(longest) > now_us => Self::Delayed,
            _ => Self::Untold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_nobody_holds_is_lost_unless_it_waits_out_a_delay_or_its_loss_is_told() {
        let id = TaskId { bag: "t-abcdefgh".parse().unwrap(), index: 0, round: 0 };
        let unheld = |cause, after: Duration| {
            let record = AttemptRecord::new(&id, 1, 0, cause, "W");
            let after = u64::try_from(after.as_micros()).unwrap();
            Unheld::of(Some(&record), record.at_us + after)
        };
        let (soon, later) = (Duration::from_secs(59), limits::GIVE_BACK_DELAY_MAX);
        assert_eq!(Unheld::of(None, wall_clock_us()), Unheld::Untold);
        assert_eq!(unheld(Cause::Full, soon), Unheld::Delayed);
        assert_eq!(unheld(Cause::Full, later), Unheld::Untold);
        assert_eq!(unheld(Cause::WorkerLost, Duration::ZERO), Unheld::Told);
    }
}
