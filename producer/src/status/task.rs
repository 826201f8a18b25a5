//! The history of single tasks: every known attempt, from the broker, the run folder, or both.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use anyhow::Result;
use bagpress_broker::ids::BagId;
use bagpress_broker::result::{Cause, Outcome, TaskResult};
use bagpress_broker::{AttemptRecord, Broker, limits};
use serde::Serialize;

use crate::error::Usage;
use crate::run_folder::attempts;
use crate::run_folder::folder::RunFolder;
use crate::run_folder::ledger::scan;
use crate::run_folder::specification::Specification;
use crate::status::bag_line::unknown;
use crate::status::cut::cut_of;

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
    /// The task whose output it got, as both inputs have the same content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub twin_of: Option<u32>,
    /// How far its blocks are, if it is a file that is cut, and its run folder was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Blocks>,
}

/// The blocks of a file that is cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blocks {
    /// How many it has.
    pub blocks: u32,
    /// How many are done.
    pub done: u32,
    /// How many failed: then the file does.
    pub failed: u32,
    /// Those that workers hold, counted from 0 in the file; none if the broker was not asked, or the file has its outcome.
    pub running: Option<Vec<u32>>,
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

/// The failed tasks of a run, in the order in which they failed.
///
/// # Errors
///
/// If the ledger cannot be read.
pub fn failed_in_folder(folder: &RunFolder) -> Result<Vec<Task>> {
    let specification = Specification::read(folder)?;
    let mut failed = Vec::new();
    scan::outcomes(folder, specification.tasks, |result| {
        if result.done().is_none() {
            failed.push(result.clone());
        }
    })?;
    let mut history: BTreeMap<u32, Vec<Attempt>> = BTreeMap::new();
    attempts::read(folder, |record| {
        history.entry(record.index).or_default().push(record.into());
    })?;
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
    let mut seen = TaskHistory::default();
    if let Some(folder) = folder {
        seen.look_into(folder, index)?;
    }
    let mut state = None;
    if let Some(broker) = broker {
        // A run folder has every outcome that counts.
        seen.ask(broker, bag, index, folder.is_none()).await?;
        if seen.outcome.is_none() {
            state = Some(seen.where_is(broker, bag, index).await?);
        }
    }
    let TaskHistory { tasks, attempts, outcome, blocks } = seen;
    if let Some(tasks) = tasks.filter(|tasks| index >= *tasks) {
        return Err(Usage::error(
            format!("bag {bag} has no task {index}"),
            format!("its tasks are 0 to {}", tasks.saturating_sub(1)),
        ));
    }
    let mut task = task(bag.clone(), index, attempts, outcome);
    task.state = state.unwrap_or(task.state);
    task.blocks = blocks.map(|(_, blocks)| blocks);
    Ok(task)
}

/// What is known of one task so far.
#[derive(Default)]
struct TaskHistory {
    /// How many tasks its bag has.
    tasks: Option<u32>,
    attempts: Vec<Attempt>,
    outcome: Option<TaskResult>,
    /// Which are its blocks, and how far they are.
    blocks: Option<(Range<u32>, Blocks)>,
}

impl TaskHistory {
    fn look_into(&mut self, folder: &RunFolder, index: u32) -> Result<()> {
        let specification = Specification::read(folder)?;
        let (tasks, cut) = (specification.tasks, cut_of(folder, &specification)?);
        self.tasks = Some(tasks);
        attempts::read(folder, |record| {
            if record.index == index {
                self.attempts.push(record.into());
            }
        })?;
        let counted = scan::with_blocks(folder, tasks, cut.clone(), |result| {
            if result.index == index {
                self.outcome = Some(result.clone());
            }
        })?;
        // What is run again is run whole.
        let blocks = cut.and_then(|cut| cut.blocks(index));
        if let Some(range) = blocks.filter(|_| counted.rounds().of(index) == 0) {
            let count = |is: &dyn Fn(u32) -> bool| range.clone().filter(|block| is(*block)).count();
            let count = |is: &dyn Fn(u32) -> bool| u32::try_from(count(is)).unwrap_or(u32::MAX);
            let blocks = Blocks {
                blocks: range.end - range.start,
                done: count(&|block| counted.is_done(block)),
                failed: count(&|block| counted.is_failed(block)),
                running: None,
            };
            self.blocks = Some((range, blocks));
        }
        Ok(())
    }

    /// Where a task without an outcome is, and those of its blocks that workers hold.
    async fn where_is(&mut self, broker: &Broker, bag: &BagId, index: u32) -> Result<&'static str> {
        let workers = broker.workers(limits::WORKERS_ANSWER_WITHIN).await?;
        let held = workers.iter().filter_map(|(_, stats)| stats.held.get(bag.as_str()));
        let held = held.flat_map(|held| held.deliveries.iter().map(|delivery| delivery.index));
        let mut is_running = false;
        let mut running = BTreeSet::new();
        for held in held {
            is_running |= held == index;
            let of = self.blocks.as_ref().filter(|(range, _)| range.contains(&held));
            running.extend(of.map(|(range, _)| held - range.start));
        }
        is_running |= !running.is_empty();
        if let Some((_, blocks)) = &mut self.blocks {
            blocks.running = Some(running.into_iter().collect());
        }
        Ok(if is_running { "running" } else { "waiting" })
    }

    async fn ask(&mut self, broker: &Broker, bag: &BagId, index: u32, results: bool) -> Result<()> {
        if self.tasks.is_none() {
            let line = broker.find_bag(bag).await?.line.ok_or_else(|| unknown(bag))?;
            self.tasks = Some(line.tasks);
        }
        let add = |record| {
            let attempt = Attempt::from(record);
            if !self.attempts.contains(&attempt) {
                self.attempts.push(attempt);
            }
        };
        broker.attempts(bag, Some(index), add).await?;
        if results {
            let take = |result: TaskResult| {
                if self.outcome.as_ref().is_none_or(|before| before.round <= result.round) {
                    self.outcome = Some(result);
                }
            };
            broker.results(bag, Some(index), take).await?;
            if self.outcome.is_none() {
                self.outcome = broker.result_in_pack(bag, index).await?;
            }
        }
        Ok(())
    }
}

fn task(bag: BagId, index: u32, mut attempts: Vec<Attempt>, result: Option<TaskResult>) -> Task {
    attempts.sort_by_key(|attempt| (attempt.round, attempt.at_us));
    let state = match &result {
        None => "undecided",
        Some(result) if result.done().is_some() => "done",
        Some(_) => "failed",
    };
    let twin_of = result.as_ref().and_then(|result| result.twin_of);
    let outcome = result.map(|result| {
        attempts.push(Attempt::from(&result));
        result.outcome
    });
    Task { bag, index, state, attempts, outcome, twin_of, blocks: None }
}

impl From<AttemptRecord> for Attempt {
    fn from(record: AttemptRecord) -> Self {
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
