//! How far bags are, who works on them, and why one does not move.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use bagpress_broker::ids::BagId;
use bagpress_broker::result::{Cause, Failed, Outcome, TaskResult, wall_clock_us};
use bagpress_broker::{BagLine, BagState, Broker, Gatherer, ServiceStats, limits};
use bagpress_codec::Codec;
use serde::Serialize;

use crate::folder::RunFolder;
use crate::glance;
use crate::history::{self, History};
use crate::spec::Specification;
use crate::{Usage, why};

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
    /// Who gathers it.
    pub gatherer: Option<Gatherer>,
    /// Who works on it.
    pub workers: Vec<Worker>,
    /// Why it does not move, if it does not.
    pub why: Option<String>,
}

/// One task, with its history.
#[derive(Debug, Serialize)]
pub struct Task {
    /// Its bag.
    pub bag: BagId,
    /// Its place there.
    pub index: u32,
    /// `done`, `failed`, `running` or `waiting`; `undecided` if the broker was not asked.
    pub state: &'static str,
    /// Every attempt that is known of, oldest first; the one that counted is the last.
    pub attempts: Vec<Attempt>,
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
}

/// One attempt at a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// The round.
    pub round: u32,
    /// Which delivery of the round it was, from 1; planned give-backs count here.
    pub delivery: u32,
    /// The worker.
    pub worker: String,
    /// Its host.
    pub host: String,
    /// The execution, where one had begun.
    pub execution: Option<String>,
    /// Why it did not succeed; none if it did.
    pub cause: Option<Cause>,
    /// Whether it was given back for a reason that spends no attempt.
    pub planned: bool,
    /// Why, for people.
    pub message: String,
    /// When, µs since 1970 by the worker's clock.
    pub at_us: u64,
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
/// [`Usage`] if there is none; if the broker does not answer.
pub async fn of_id(broker: &Broker, bag: &BagId) -> Result<Bag> {
    let line = broker.find_bag(bag).await?.line.ok_or_else(|| unknown(bag))?;
    let mut view = of_line(&line);
    live(broker, &mut view, &line).await?;
    Ok(view)
}

pub(crate) fn unknown(bag: &BagId) -> anyhow::Error {
    Usage::error(
        format!("the broker knows no bag {bag}"),
        "list the bags with `bagpress status --server URL`",
    )
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
            return Some("it was cancelled; `bagpress gather --resume` goes on".to_owned());
        }
        BagState::Submitting | BagState::Running => {}
    }
    if line.gatherer.is_none() {
        return Some("nobody gathers it; `bagpress gather` with its run folder goes on".to_owned());
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
    let idle = why::idle(workers, &line.pool, codec.name(), &line.library);
    // Between two tasks a bag is not standing still.
    (!idle.contains("none has a task of this bag")).then_some(idle)
}

/// A bag by its run folder; `broker` is where it runs, if it does.
///
/// # Errors
///
/// If the folder cannot be read, or the broker does not answer.
pub async fn of_folder(folder: &RunFolder, broker: Option<&Broker>) -> Result<Bag> {
    let specification = Specification::read(folder)?;
    let (from, tasks) = (folder.clone(), specification.tasks);
    let looking = tokio::task::spawn_blocking(move || {
        let mut failed_by_cause = BTreeMap::new();
        let tally = glance::outcomes(&from.manifest(), tasks, |result| {
            if let Outcome::Failed(Failed { cause, .. }) = &result.outcome {
                *failed_by_cause.entry(*cause).or_insert(0) += 1;
            }
        })?;
        let mut history = History::default();
        history::read(&from, |record| history.count(&record))?;
        Ok::<_, std::io::Error>((tally, history, failed_by_cause))
    });
    let looked = looking.await.context("read the run folder")?;
    let (tally, history, failed_by_cause) = looked.context("read the run folder")?;
    let holder = folder.gatherer();
    let state = match (tally.decided() >= u64::from(tasks), holder) {
        (true, _) => "finished",
        (false, Some(_)) => "running",
        (false, None) => "stopped",
    };
    let mut view = Bag {
        bag: specification.bag.clone(),
        state: state.to_owned(),
        folder: Some(folder.path().display().to_string()),
        codec: specification.codec.to_string(),
        results: specification.results.to_string(),
        pool: specification.pool.to_string(),
        tasks: tasks.into(),
        done: tally.done,
        failed: tally.failed,
        waiting: None,
        running: None,
        retried: tally.retried,
        duplicates: history.duplicates,
        workers_lost: 0,
        given_back: history.given_back,
        failed_by_cause,
        input_bytes: tally.input_bytes,
        output_bytes: tally.output_bytes,
        bytes_per_s: 0,
        eta_s: None,
        gatherer: None,
        workers: Vec::new(),
        why: None,
    };
    let line = match broker {
        Some(broker) => broker.find_bag(&specification.bag).await?.line,
        None => None,
    };
    match (broker, line) {
        (Some(broker), Some(line)) => {
            view.state = line.state.to_string();
            view.workers_lost = line.workers_lost;
            (view.bytes_per_s, view.eta_s) = (line.bytes_per_s, line.eta_s);
            view.gatherer.clone_from(&line.gatherer);
            live(broker, &mut view, &line).await?;
        }
        _ if state == "stopped" => {
            view.why = Some(format!("`bagpress gather {}` goes on", folder.path().display()));
        }
        _ => {}
    }
    Ok(view)
}

/// The failed tasks of a run, in the order in which they failed.
///
/// # Errors
///
/// If the ledger cannot be read.
pub fn failed_in_folder(folder: &RunFolder) -> Result<Vec<Task>> {
    let specification = Specification::read(folder)?;
    let mut failed = Vec::new();
    glance::outcomes(&folder.manifest(), specification.tasks, |result| {
        if result.done().is_none() {
            failed.push(result.clone());
        }
    })
    .context("read the ledger")?;
    let mut history: BTreeMap<u32, Vec<Attempt>> = BTreeMap::new();
    history::read(folder, |record| {
        history.entry(record.index).or_default().push(record.into());
    })
    .context("read the attempts")?;
    let task = |result: TaskResult| {
        let attempts = history.remove(&result.index).unwrap_or_default();
        task(specification.bag.clone(), result.index, attempts, Some(result))
    };
    Ok(failed.into_iter().map(task).collect())
}

/// The failed tasks of a bag, by the broker's results.
///
/// # Errors
///
/// If the broker does not answer.
pub async fn failed_of_id(broker: &Broker, bag: &BagId) -> Result<Vec<Task>> {
    let mut last: BTreeMap<u32, TaskResult> = BTreeMap::new();
    broker
        .results(bag, None, |result| {
            let newer = last.get(&result.index).is_none_or(|before| before.round < result.round);
            // Only what failed is kept; what was done later takes it back.
            if newer && result.done().is_none() {
                last.insert(result.index, result);
            } else if newer {
                last.remove(&result.index);
            }
        })
        .await?;
    let mut history: BTreeMap<u32, Vec<Attempt>> = BTreeMap::new();
    broker
        .attempts(bag, None, |record| {
            if last.contains_key(&record.index) {
                history.entry(record.index).or_default().push(record.into());
            }
        })
        .await?;
    let task = |(index, result)| {
        task(bag.clone(), index, history.remove(&index).unwrap_or_default(), Some(result))
    };
    Ok(last.into_iter().map(task).collect())
}

/// One task with its history, from the broker, the run folder, or both.
///
/// # Errors
///
/// [`Usage`] if there is no such task; if neither can be read.
pub async fn of_task(
    folder: Option<&RunFolder>,
    broker: Option<&Broker>,
    bag: &BagId,
    index: u32,
) -> Result<Task> {
    let (mut attempts, mut outcome, mut tasks) = (Vec::new(), None, None);
    if let Some(folder) = folder {
        let specification = Specification::read(folder)?;
        tasks = Some(specification.tasks);
        history::read(folder, |record| {
            if record.index == index {
                attempts.push(Attempt::from(record));
            }
        })
        .context("read the attempts")?;
        glance::outcomes(&folder.manifest(), specification.tasks, |result| {
            if result.index == index {
                outcome = Some(result.clone());
            }
        })
        .context("read the ledger")?;
    }
    let mut state = None;
    if let Some(broker) = broker {
        if tasks.is_none() {
            tasks = broker.find_bag(bag).await?.line.map(|line| line.tasks);
            if tasks.is_none() {
                return Err(unknown(bag));
            }
        }
        broker
            .attempts(bag, Some(index), |record| {
                let attempt = Attempt::from(record);
                if !attempts.contains(&attempt) {
                    attempts.push(attempt);
                }
            })
            .await?;
        if folder.is_none() {
            broker
                .results(bag, Some(index), |result| {
                    if outcome.as_ref().is_none_or(|before| before.round <= result.round) {
                        outcome = Some(result);
                    }
                })
                .await?;
        }
        if outcome.is_none() {
            state = Some(where_is(broker, bag, index).await?);
        }
    }
    if tasks.is_some_and(|tasks| index >= tasks) {
        let most = tasks.unwrap_or_default().saturating_sub(1);
        return Err(Usage::error(
            format!("bag {bag} has no task {index}"),
            format!("its tasks are 0 to {most}"),
        ));
    }
    let mut task = task(bag.clone(), index, attempts, outcome);
    task.state = state.unwrap_or(task.state);
    Ok(task)
}

async fn where_is(broker: &Broker, bag: &BagId, index: u32) -> Result<&'static str> {
    let workers = broker.workers(limits::WORKERS_ANSWER_WITHIN).await?;
    let mut held = workers.iter().filter_map(|(_, stats)| stats.held.get(bag.as_str()));
    let running = held.any(|held| held.deliveries.iter().any(|d| d.index == index));
    Ok(if running { "running" } else { "waiting" })
}

fn task(bag: BagId, index: u32, mut attempts: Vec<Attempt>, result: Option<TaskResult>) -> Task {
    attempts.sort_by_key(|attempt| (attempt.round, attempt.at_us));
    let state = match &result {
        None => "undecided",
        Some(result) if result.done().is_some() => "done",
        Some(_) => "failed",
    };
    let outcome = result.map(|result| {
        attempts.push(Attempt::from(&result));
        result.outcome
    });
    Task { bag, index, state, attempts, outcome }
}

impl From<bagpress_broker::AttemptRecord> for Attempt {
    fn from(record: bagpress_broker::AttemptRecord) -> Self {
        Self {
            round: record.round,
            delivery: record.delivered,
            worker: record.worker,
            host: record.host,
            execution: record.execution.map(|execution| execution.to_string()),
            cause: Some(record.cause),
            planned: record.cause.is_planned(),
            message: record.message,
            at_us: record.at_us,
        }
    }
}

impl From<&TaskResult> for Attempt {
    fn from(result: &TaskResult) -> Self {
        let (cause, message) = match &result.outcome {
            Outcome::Done(_) => (None, String::new()),
            Outcome::Failed(failed) => (Some(failed.cause), failed.message.clone()),
        };
        Self {
            round: result.round,
            delivery: result.attempt,
            worker: result.worker.clone(),
            host: result.host.clone(),
            execution: Some(result.execution.to_string()),
            cause,
            planned: false,
            message,
            at_us: result.times.made_us,
        }
    }
}
