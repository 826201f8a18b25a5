//! Which workers hold what, and what is done when one dies: its deliveries are given back at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bagpress_broker::ids::{BagId, Pool, TaskId};
use bagpress_broker::result::{Cause, TaskResult, wall_clock_us};
use bagpress_broker::{AttemptRecord, Broker, Held, HeldDelivery, Presence, limits, machine};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::deliver::offers::Table;

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
    workers: Mutex<HashMap<String, Watched>>,
    /// The last delivery of each task that was given back for a dead worker.
    given_back: Mutex<HashMap<(u32, u32), u32>>,
    lost: std::sync::atomic::AtomicU64,
}

#[derive(Debug)]
struct Watched {
    host: String,
    pid: u32,
    held: HashMap<(u32, u32), HeldDelivery>,
    suspect: Option<Instant>,
    probed: Instant,
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
    ) -> Result<(Self, tokio::task::JoinHandle<()>), bagpress_broker::Error> {
        let mut events = broker.held_events(bag).await?;
        let shared = Arc::new(Shared {
            broker: broker.clone(),
            bag: bag.clone(),
            pool: pool.clone(),
            table,
            workers: Mutex::default(),
            given_back: Mutex::default(),
            lost: 0.into(),
        });
        let watch = Self { shared };
        // Who joins late asks each worker what it holds.
        if let Ok(workers) = broker.workers(Duration::from_millis(20)).await {
            for held in workers.into_iter().filter_map(|(_, mut s)| s.held.remove(bag.as_str())) {
                watch.note(held);
            }
        }
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

    fn workers(&self) -> std::sync::MutexGuard<'_, HashMap<String, Watched>> {
        self.shared.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn given_back(&self) -> std::sync::MutexGuard<'_, HashMap<(u32, u32), u32>> {
        self.shared.given_back.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many workers hold tasks of the bag, and how many tasks.
    #[must_use]
    pub(crate) fn busy(&self) -> (usize, usize) {
        let workers = self.workers();
        let busy = workers.values().filter(|worker| !worker.held.is_empty());
        busy.fold((0, 0), |(count, tasks), worker| (count + 1, tasks + worker.held.len()))
    }

    /// Whether some worker holds a task, in whatever round.
    #[must_use]
    pub(crate) fn is_held(&self, index: u32) -> bool {
        self.workers().values().any(|worker| worker.held.keys().any(|(held, _)| *held == index))
    }

    /// Workers that were lost.
    #[must_use]
    pub(crate) fn lost(&self) -> u64 {
        self.shared.lost.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Notes what a worker holds.
    pub(crate) fn note(&self, held: Held) {
        let mut workers = self.workers();
        if !workers.contains_key(&held.worker) && workers.len() >= limits::WORKERS_MAX {
            return;
        }
        let watched = workers.entry(held.worker).or_insert_with(|| Watched {
            host: held.host,
            pid: held.pid,
            held: HashMap::new(),
            suspect: None,
            probed: Instant::now(),
        });
        if held.all {
            watched.held.clear();
        }
        watched.held.extend(held.deliveries.into_iter().map(|d| ((d.index, d.round), d)));
    }

    /// Notes that a task has its outcome: nothing of it needs to be given back.
    pub(crate) fn decided(&self, result: &TaskResult) {
        self.given_back().remove(&(result.index, result.round));
        if let Some(worker) = self.workers().get_mut(&result.worker) {
            worker.held.remove(&(result.index, result.round));
        }
    }

    /// A local worker ended; the process table is quicker than any probe.
    async fn ended(&self, pid: u32) {
        let host = machine::host();
        let dead: Vec<_> = {
            let workers = self.workers();
            let dead = workers.iter().filter(|(_, w)| w.pid == pid && w.host == host);
            dead.map(|(id, _)| id.clone()).collect()
        };
        for worker in dead {
            self.bury(&worker).await;
        }
    }

    async fn probe(&self) {
        // After our own reconnect a worker may just not be back yet.
        let settled =
            self.shared.broker.up_for().is_some_and(|up| up >= limits::PROBE_AFTER_RECONNECT);
        if !settled && self.shared.broker.connects() > 1 {
            return;
        }
        let now = Instant::now();
        let due: Vec<_> = {
            let mut workers = self.workers();
            workers.retain(|_, w| !w.held.is_empty() || now - w.probed < limits::RECONCILE_AFTER);
            let many = limits::PROBES_PER_SECOND / 20;
            let due = workers.iter_mut().filter(|(_, w)| {
                let every =
                    if w.suspect.is_some() { limits::PROBE_AGAIN } else { limits::PROBE_EVERY };
                !w.held.is_empty() && now - w.probed >= every
            });
            due.take(many)
                .map(|(id, worker)| {
                    worker.probed = now;
                    id.clone()
                })
                .collect()
        };
        let probes = due.iter().map(|id| self.shared.broker.probe(id, limits::PROBE_EVERY));
        let answers = futures::future::join_all(probes).await;
        for (id, presence) in due.iter().zip(answers) {
            let dead = {
                let mut workers = self.workers();
                let Some(worker) = workers.get_mut(id) else { continue };
                match (presence, worker.suspect) {
                    (Presence::Gone, Some(_)) => true,
                    (Presence::Gone, None) => {
                        worker.suspect = Some(now);
                        false
                    }
                    (Presence::Here, _) => {
                        worker.suspect = None;
                        false
                    }
                    (Presence::Unknown, _) => false,
                }
            };
            if dead {
                self.bury(id).await;
            }
        }
    }

    /// Records the loss, then gives back what the worker held, in its name.
    async fn bury(&self, worker: &str) {
        let Some(watched) = self.workers().remove(worker) else { return };
        let leases = self.shared.table.as_ref().map(|table| table.worker_lost(worker));
        if leases.unwrap_or(watched.held.len()) == 0 {
            return;
        }
        self.shared.lost.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        warn!(
            worker,
            host = watched.host,
            pid = watched.pid,
            tasks = watched.held.len(),
            "worker lost, its tasks are given back"
        );
        if leases.is_some() {
            return;
        }
        let who = (worker, watched.host.as_str(), "the worker died");
        let giving = watched.held.into_values().map(|delivery| self.give_back(who, delivery));
        futures::future::join_all(giving).await;
        info!(worker, "tasks of a lost worker given back");
        let watch = self.clone();
        tokio::spawn(async move { watch.give_back_unheld().await });
    }

    /// Gives back what was handed out and nobody holds: a worker that died between a delivery's arrival
    /// and its word of it, or to whom the server sent one more before it saw the connection end.
    ///
    /// Looks twice, so that a live worker has the time to speak. Who has not by then executes it beside
    /// another, which costs work and nothing else.
    pub(crate) async fn give_back_unheld(&self) {
        let first = self.unheld().await;
        if first.is_empty() {
            return;
        }
        tokio::time::sleep(limits::UNHELD_FOR).await;
        let again = self.unheld().await;
        for (id, reply) in again {
            if !first.iter().any(|(before, _)| *before == id) {
                continue;
            }
            let Ok(last) = self.shared.broker.last_attempt(&id).await else { continue };
            if last.as_ref().is_some_and(may_be_delayed) {
                continue;
            }
            if last.is_some_and(|record| record.cause == Cause::WorkerLost) {
                // That loss is told, and nobody had it since as far as anybody can say.
                self.nak(&id, &reply).await;
                continue;
            }
            warn!(task = %id, "handed out and held by nobody, given back");
            let (index, round) = (id.index, id.round);
            let who = ("unknown", "", "it was handed out, and no worker holds it");
            self.give_back(who, HeldDelivery { index, round, delivered: 2, reply }).await;
        }
    }

    async fn unheld(&self) -> Vec<(TaskId, String)> {
        let (broker, bag) = (&self.shared.broker, &self.shared.bag);
        let handed_out = broker.handed_out(&self.shared.pool, bag, limits::UNHELD_MAX).await;
        let handed_out = match handed_out {
            Ok(handed_out) => handed_out,
            Err(error) => {
                debug!(%error, "tasks under way not listed");
                return Vec::new();
            }
        };
        let workers = self.workers();
        let held =
            |id: &TaskId| workers.values().any(|w| w.held.contains_key(&(id.index, id.round)));
        let unheld = handed_out.into_iter().filter(|task| !held(&task.id));
        unheld.map(|task| (task.id, task.reply)).collect()
    }

    /// Gives a delivery back for worker, host and reason.
    async fn give_back(&self, (worker, host, why): (&str, &str, &str), delivery: HeldDelivery) {
        let bag = &self.shared.bag;
        let id = TaskId { bag: bag.clone(), index: delivery.index, round: delivery.round };
        let broker = &self.shared.broker;
        let before = self.given_back().insert((id.index, id.round), delivery.delivered);
        if before == Some(delivery.delivered) {
            // A late word of a worker that is buried already.
            return self.nak(&id, &delivery.reply).await;
        }
        let planned = if delivery.delivered > 1 {
            broker.planned_give_backs(&id).await.unwrap_or(0)
        } else {
            0
        };
        let mut record =
            AttemptRecord::new(&id, delivery.delivered, planned, Cause::WorkerLost, worker);
        (record.host, record.message) = (host.to_owned(), why.to_owned());
        if let Err(error) = broker.record_attempt(bag, &record).await {
            debug!(%error, task = %id, "loss not recorded");
        }
        self.nak(&id, &delivery.reply).await;
    }

    async fn nak(&self, id: &TaskId, reply: &str) {
        if let Err(error) = self.shared.broker.nak_for(reply).await {
            debug!(%error, task = %id, "left to its lease");
        }
    }
}

/// Whether somebody gave a task back with a delay that may not be over.
fn may_be_delayed(last: &AttemptRecord) -> bool {
    let longest = u64::try_from(limits::GIVE_BACK_DELAY_MAX.as_micros()).unwrap_or(u64::MAX);
    last.cause != Cause::WorkerLost && last.at_us + longest > wall_clock_us()
}
