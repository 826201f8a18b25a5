//! Progress of bags, their workers, and why a bag waits.

pub(crate) mod bag_line;
mod cut;
pub mod results;
pub mod task;
mod text;
pub mod which;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use bagpress_broker::ids::{BagId, TaskId};
use bagpress_broker::result::{Cause, Failed, Outcome, wall_clock_us};
use bagpress_broker::{BagLine, BagState, Broker, Gatherer, ServiceStats, limits, quote};
use bagpress_codec::Codec;
use serde::Serialize;

use crate::claim::line::line;
use crate::deliver::unserved::{Asked, unserved};
use crate::run_folder::attempts::{self, History};
use crate::run_folder::folder::RunFolder;
use crate::run_folder::ledger::scan;
use crate::run_folder::ledger::tally::Tally;
use crate::run_folder::plan::{extents_of, inputs_of};
use crate::run_folder::specification::{RESTORE, Specification};
use crate::status::bag_line::known;
use crate::status::cut::cut_of;

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
    /// How many have no outcome here and do not wait either, while nobody gathers the bag: they were not submitted yet, or
    /// their outcome waits for a gatherer. None if that is not known.
    pub not_queued: Option<u64>,
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
    /// Input bytes of the blocks done of files that are not done yet.
    pub block_bytes: u64,
    /// Input bytes of all tasks, as they were when the bag was made; 0 if that is not known.
    pub total_bytes: u64,
    /// Input bytes that were read so far: of tasks and blocks that are done, and, while the bag is gathered, of those that workers
    /// report.
    pub progress_bytes: u64,
    /// Input bytes a second.
    pub bytes_per_s: u64,
    /// How long it will take, in s.
    pub eta_s: Option<u64>,
    /// The process that gathers it, unless it is known to have ended.
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
    let ended = line.gatherer.as_ref().is_some_and(Gatherer::is_dead);
    live(broker, &mut view, &line, &Next { ended, ..Next::default() }, None).await?;
    Ok(view)
}

/// The command that continues a bag.
#[derive(Debug, Default)]
struct Next {
    /// Its run folder, as it is typed, if it is known.
    folder: Option<String>,
    /// The flags that lead to its broker, each behind a space.
    flags: String,
    /// Whether the gatherer that the bag's line names is known to have ended.
    ended: bool,
}

impl Next {
    fn of(folder: &RunFolder, flags: &str) -> Self {
        Self { folder: Some(quote::name(folder.path())), flags: flags.to_owned(), ended: false }
    }

    /// What continues the bag, with `more` flags, each behind a space.
    fn continues(&self, more: &str) -> String {
        match &self.folder {
            Some(folder) => format!("`bagpress gather {folder}{more}{}` continues it", self.flags),
            None => format!("`bagpress gather{more}` with its run folder continues it"),
        }
    }
}

/// How many files are delivered by a message of this index and round.
type Files = dyn Fn(u32, u32) -> u64 + Send + Sync;

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
        not_queued: None,
        retried: line.retried,
        duplicates: 0,
        workers_lost: line.workers_lost,
        given_back: BTreeMap::new(),
        failed_by_cause: BTreeMap::new(),
        input_bytes: line.input_bytes,
        output_bytes: line.output_bytes,
        block_bytes: line.block_bytes,
        total_bytes: line.total_bytes,
        progress_bytes: progress(line),
        bytes_per_s: line.bytes_per_s,
        eta_s: line.eta_s,
        gatherer: living(line).cloned(),
        workers: Vec::new(),
        why: None,
    }
}

/// What of a bag's inputs was read. What workers have read is worth nothing once nobody gathers the bag.
fn progress(line: &BagLine) -> u64 {
    let done = line.input_bytes.saturating_add(line.block_bytes);
    if living(line).is_some() { done.max(line.progress_bytes) } else { done }
}

/// The gatherer that a line names, unless its process has ended on this machine.
fn living(line: &BagLine) -> Option<&Gatherer> {
    line.gatherer.as_ref().filter(|gatherer| !gatherer.is_dead())
}

/// Adds what only the broker and the workers know; with `files`, also what is nowhere.
async fn live(
    broker: &Broker,
    view: &mut Bag,
    line: &BagLine,
    next: &Next,
    files: Option<&Files>,
) -> Result<()> {
    let bag = view.bag.clone();
    let workers = broker.workers(limits::WORKERS_ANSWER_WITHIN).await?;
    let (mut queued, mut queued_files, mut history) = (0_u64, 0_u64, History::default());
    let see = |id: TaskId| {
        queued += 1;
        queued_files += files.map_or(0, |files| files(id.index, id.round));
    };
    broker.waiting(&bag, see).await?;
    broker.attempts(&bag, None, |record| history.count(&record)).await?;
    let busy = workers.iter().cloned().map(|(id, stats)| worker(id, stats, Some(&bag)));
    view.workers = busy.filter(|worker| worker.holds > 0).collect();
    let held: usize = view.workers.iter().map(|worker| worker.holds).sum();
    let running = (held as u64).min(queued);
    view.running = Some(running);
    view.waiting = Some(queued - running);
    let decided = view.done + view.failed;
    view.not_queued = files.map(|_| view.tasks.saturating_sub(decided + queued_files));
    view.duplicates = view.duplicates.max(history.duplicates);
    view.given_back = history.given_back;
    view.why = why(line, running, &workers, next);
    Ok(())
}

fn why(
    line: &BagLine,
    running: u64,
    workers: &[(String, ServiceStats)],
    next: &Next,
) -> Option<String> {
    match line.state {
        BagState::Finished => return None,
        BagState::Cancelled => {
            return Some(format!("it was cancelled; {}", next.continues(" --resume")));
        }
        BagState::Submitting | BagState::Running => {}
    }
    match &line.gatherer {
        None => return Some(format!("it has no gatherer; {}", next.continues(""))),
        Some(ended) if next.ended => {
            let next = next.continues("");
            return Some(format!("it has no gatherer: {ended} has ended; {next}"));
        }
        Some(_) => {}
    }
    let silent = Duration::from_micros(wall_clock_us().saturating_sub(line.updated_us));
    if silent > limits::GATHERER_LEASE * 2 {
        let by = line.gatherer.as_ref().map(ToString::to_string).unwrap_or_default();
        let seconds = silent.as_secs();
        let next = next.continues("");
        return Some(format!(
            "{by} gathered it, and has been silent for {seconds} s; if it is dead, {next}"
        ));
    }
    if line.waits.is_some() || running > 0 {
        return line.waits.clone().filter(|_| running == 0);
    }
    // A bag that restores has the library of `store`, which every worker has.
    let codec = if line.codec == RESTORE { "store" } else { &line.codec };
    let codec: Codec = codec.parse().ok()?;
    // A bag whose tasks a worker can take is between two of them. By what they are delivered its gatherer knows.
    let (pool, codec, library) = (&line.pool, codec.name(), &line.library);
    unserved(workers, &Asked { pool, codec, library, revisions: &[] })
}

/// What a run folder says of its tasks: counts, attempts, and failed tasks by cause.
///
/// Blocks: reads the ledger and the attempts, and the list of inputs if some are cut.
fn look(
    folder: &RunFolder,
    specification: &Specification,
) -> Result<(Tally, History, BTreeMap<Cause, u64>)> {
    let mut failed_by_cause = BTreeMap::new();
    let cut = cut_of(folder, specification)?;
    let counted = scan::with_blocks(folder, specification.tasks, cut, |result| {
        if let Outcome::Failed(Failed { cause, .. }) = &result.outcome {
            *failed_by_cause.entry(*cause).or_insert(0) += 1;
        }
    })?;
    let mut history = History::default();
    attempts::read(folder, |record| history.count(&record))?;
    Ok((counted.into_tally(), history, failed_by_cause))
}

/// Counts files by the list of the run folder. Blocks: reads that list.
fn files(folder: &RunFolder, specification: &Specification) -> Result<Box<Files>> {
    let inputs =
        if specification.pack.is_some() { inputs_of(folder, specification)? } else { None };
    Ok(match extents_of(folder, specification, inputs.as_deref())? {
        // What is run again is run alone.
        Some(extents) => Box::new(move |index, round| match round {
            0 => extents.files(index).into(),
            _ => 1,
        }),
        None => Box::new(|_, _| 1),
    })
}

/// A bag by its run folder; `broker` is where it runs, if it does, and `flags` lead to it, each behind a space.
///
/// # Errors
///
/// If the folder cannot be read, or the broker does not answer.
pub async fn of_folder(folder: &RunFolder, broker: Option<&Broker>, flags: &str) -> Result<Bag> {
    let mut next = Next::of(folder, flags);
    let specification = Specification::read(folder)?;
    let (from, of) = (folder.clone(), specification.clone());
    let tasks = specification.tasks;
    let looking = tokio::task::spawn_blocking(move || look(&from, &of));
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
            // An id may be another process's by now, and the folder's lock is nobody's then.
            let has_ended = |by: &Gatherer| by.is_dead() || folder.has_ended(&by.lock);
            next.ended = line.gatherer.as_ref().is_some_and(has_ended);
            view.gatherer = line.gatherer.clone().filter(|_| !next.ended);
            if view.gatherer.is_some() {
                view.progress_bytes = view.progress_bytes.max(line.progress_bytes);
            }
            let goes_on = matches!(line.state, BagState::Submitting | BagState::Running);
            let files = if goes_on && view.gatherer.is_none() {
                let of = folder.clone();
                let reading = tokio::task::spawn_blocking(move || files(&of, &specification));
                Some(reading.await.context("read the list of inputs")??)
            } else {
                None
            };
            live(broker, &mut view, &line, &next, files.as_deref()).await?;
        }
        _ if state == "stopped" => view.why = Some(next.continues("")),
        _ => {}
    }
    Ok(view)
}
