//! Progress of bags, their workers, and why a bag waits.

pub(crate) mod bag_line;
pub mod task;
mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use bagpress_broker::ids::BagId;
use bagpress_broker::result::{Cause, Failed, Outcome, wall_clock_us};
use bagpress_broker::{BagLine, BagState, Broker, Gatherer, ServiceStats, limits};
use bagpress_codec::Codec;
use serde::Serialize;

use crate::claim::line::line;
use crate::deliver::unserved;
use crate::run_folder::attempts::{self, History};
use crate::run_folder::folder::RunFolder;
use crate::run_folder::ledger::scan;
use crate::run_folder::ledger::tally::Tally;
use crate::run_folder::specification::Specification;
use crate::status::bag_line::known;

/// All bags and all workers of a broker.
#[derive(Debug, Serialize)]
pub struct Overview {
    /// The bags, oldest line first.
    pub bags: Vec<BagLine>,
    /// The workers.
    pub workers: Vec<Worker>,
}

/// One worker.
#[derive(Debug, Clone, Serialize)]
pub struct Worker {
    /// Its id.
    pub id: String,
    /// What it says of itself, without what it holds.
    #[serde(flatten)]
    pub stats: ServiceStats,
    /// Tasks that it holds: of the bag that was asked for, or of all.
    pub holds: usize,
}

/// One bag.
#[derive(Debug, Serialize)]
pub struct Bag {
    /// Its id.
    pub bag: BagId,
    /// `submitting`, `running`, `finished`, `cancelled`, or `stopped`: nobody gathers it now.
    pub state: String,
    /// Its run folder, if that was named.
    pub folder: Option<String>,
    /// Codec and level.
    pub codec: String,
    /// How its outputs come back.
    pub results: String,
    /// Its workers' pool.
    pub pool: String,
    /// How many tasks it has.
    pub tasks: u64,
    /// How many were done.
    pub done: u64,
    /// How many failed.
    pub failed: u64,
    /// How many wait in the queue; none if the broker was not asked.
    pub waiting: Option<u64>,
    /// How many are with workers; none if the broker was not asked.
    pub running: Option<u64>,
    /// How many took more than one attempt.
    pub retried: u64,
    /// Executions that came too late.
    pub duplicates: u64,
    /// Workers that died, as far as the gatherer knows.
    pub workers_lost: u64,
    /// Deliveries that were given back, by cause.
    pub given_back: BTreeMap<Cause, u64>,
    /// Failed tasks, by cause.
    pub failed_by_cause: BTreeMap<Cause, u64>,
    /// Input bytes of the tasks done.
    pub input_bytes: u64,
    /// Output bytes of the tasks done.
    pub output_bytes: u64,
    /// Input bytes a second.
    pub bytes_per_s: u64,
    /// How long it will take, in s.
    pub eta_s: Option<u64>,
    /// The process that gathers it.
    pub gatherer: Option<Gatherer>,
    /// The workers that hold tasks of it.
    pub workers: Vec<Worker>,
    /// Why it does not move, if it does not.
    pub why: Option<String>,
}

/// All bags and workers.
///
/// # Errors
///
/// If the broker does not answer.
pub async fn overview(broker: &Broker) -> Result<Overview> {
    let (bags, workers) =
        tokio::join!(broker.bags(), broker.workers(limits::WORKERS_ANSWER_WITHIN));
    let workers = workers?.into_iter().map(|(id, stats)| worker(id, stats, None));
    Ok(Overview { bags: bags?, workers: workers.collect() })
}

fn worker(id: String, mut stats: ServiceStats, bag: Option<&BagId>) -> Worker {
    let held = std::mem::take(&mut stats.held);
    let of = |name: &String| bag.is_none_or(|bag| bag.as_str() == name);
    let held = held.iter().filter(|(name, _)| of(name));
    let holds = held.map(|(_, held)| held.deliveries.len()).sum();
    Worker { id, stats, holds }
}

/// A bag by its line on the broker.
///
/// # Errors
///
/// [`Usage`](crate::error::Usage) if there is none; if the broker does not answer.
pub async fn of_id(broker: &Broker, bag: &BagId) -> Result<Bag> {
    let line = known(broker.find_bag(bag).await?, bag)?;
    let mut view = of_line(&line);
    live(broker, &mut view, &line).await?;
    Ok(view)
}

fn of_line(line: &BagLine) -> Bag {
    Bag {
        bag: line.bag.clone(),
        state: line.state.to_string(),
        folder: None,
        codec: line.codec.clone(),
        results: line.results.to_string(),
        pool: line.pool.to_string(),
        tasks: line.tasks.into(),
        done: line.done.into(),
        failed: line.failed.into(),
        waiting: None,
        running: None,
        retried: line.retried,
        duplicates: 0,
        workers_lost: line.workers_lost,
        given_back: BTreeMap::new(),
        failed_by_cause: BTreeMap::new(),
        input_bytes: line.input_bytes,
        output_bytes: line.output_bytes,
        bytes_per_s: line.bytes_per_s,
        eta_s: line.eta_s,
        gatherer: line.gatherer.clone(),
        workers: Vec::new(),
        why: None,
    }
}

/// Adds what only the broker and the workers know.
async fn live(broker: &Broker, view: &mut Bag, line: &BagLine) -> Result<()> {
    let bag = view.bag.clone();
    let workers = broker.workers(limits::WORKERS_ANSWER_WITHIN).await?;
    let (mut queued, mut history) = (0_u64, History::default());
    broker.waiting(&bag, |_| queued += 1).await?;
    broker.attempts(&bag, None, |record| history.count(&record)).await?;
    let busy = workers.iter().cloned().map(|(id, stats)| worker(id, stats, Some(&bag)));
    view.workers = busy.filter(|worker| worker.holds > 0).collect();
    let held: usize = view.workers.iter().map(|worker| worker.holds).sum();
    let running = (held as u64).min(queued);
    view.running = Some(running);
    view.waiting = Some(queued - running);
    view.duplicates = view.duplicates.max(history.duplicates);
    view.given_back = history.given_back;
    view.why = why(line, running, &workers);
    Ok(())
}

fn why(line: &BagLine, running: u64, workers: &[(String, ServiceStats)]) -> Option<String> {
    match line.state {
        BagState::Finished => return None,
        BagState::Cancelled => {
            return Some("it was cancelled; `bagpress gather --resume` continues it".to_owned());
        }
        BagState::Submitting | BagState::Running => {}
    }
    if line.gatherer.is_none() {
        return Some(
            "it has no gatherer; `bagpress gather` with its run folder continues it".to_owned(),
        );
    }
    let silent = Duration::from_micros(wall_clock_us().saturating_sub(line.updated_us));
    if silent > limits::GATHERER_LEASE * 2 {
        let by = line.gatherer.as_ref().map(ToString::to_string).unwrap_or_default();
        let seconds = silent.as_secs();
        return Some(format!("{by} gathered it, and has been silent for {seconds} s"));
    }
    if line.waits.is_some() || running > 0 {
        return line.waits.clone().filter(|_| running == 0);
    }
    let codec: Codec = line.codec.parse().ok()?;
    // A bag whose tasks a worker can take is between two of them.
    unserved::unserved(workers, &line.pool, codec.name(), &line.library)
}

/// What a run folder says of its tasks: counts, attempts, and failed tasks by cause.
///
/// Blocks: reads the ledger and the attempts.
fn look(folder: &RunFolder, tasks: u32) -> Result<(Tally, History, BTreeMap<Cause, u64>)> {
    let mut failed_by_cause = BTreeMap::new();
    let tally = scan::outcomes(folder, tasks, |result| {
        if let Outcome::Failed(Failed { cause, .. }) = &result.outcome {
            *failed_by_cause.entry(*cause).or_insert(0) += 1;
        }
    })?;
    let mut history = History::default();
    attempts::read(folder, |record| history.count(&record))?;
    Ok((tally, history, failed_by_cause))
}

/// A bag by its run folder; `broker` is where it runs, if it does.
///
/// # Errors
///
/// If the folder cannot be read, or the broker does not answer.
pub async fn of_folder(folder: &RunFolder, broker: Option<&Broker>) -> Result<Bag> {
    let specification = Specification::read(folder)?;
    let (from, tasks) = (folder.clone(), specification.tasks);
    let looking = tokio::task::spawn_blocking(move || look(&from, tasks));
    let (tally, history, failed_by_cause) = looking.await.context("read the run folder")??;
    let holder = folder.gatherer();
    let state = match (tally.decided() >= u64::from(tasks), holder) {
        (true, _) => "finished",
        (false, Some(_)) => "running",
        (false, None) => "stopped",
    };
    let mut view = Bag {
        state: state.to_owned(),
        folder: Some(folder.path().display().to_string()),
        duplicates: history.duplicates,
        given_back: history.given_back,
        failed_by_cause,
        ..of_line(&line(&specification, &tally, 0))
    };
    let found = match broker {
        Some(broker) => broker.find_bag(&specification.bag).await?.line,
        None => None,
    };
    match (broker, found) {
        (Some(broker), Some(line)) => {
            view.state = line.state.to_string();
            view.workers_lost = line.workers_lost;
            (view.bytes_per_s, view.eta_s) = (line.bytes_per_s, line.eta_s);
            view.gatherer.clone_from(&line.gatherer);
            live(broker, &mut view, &line).await?;
        }
        _ if state == "stopped" => {
            view.why = Some(format!(
                "`bagpress gather {}` continues it",
                bagpress_broker::quote::name(folder.path())
            ));
        }
        _ => {}
    }
    Ok(view)
}
