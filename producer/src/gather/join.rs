//! Joins the blocks of large files, meanwhile: each output becomes whole as its blocks are counted, and then is accepted as
//! that of any other task.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bagpress_broker::result::{
    Cause, Done, Failed, Outcome, Place, TaskResult, Times, wall_clock_us,
};
use bagpress_broker::{Followed, limits};
use bagpress_objstore::staging::{BlockOutput, Join, Joining, Parts, Whole, forget_join};
use bagpress_objstore::{Trouble, output_failed};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::gather::todo::{Look, Todo};
use crate::run_folder::of_producer::{failure, of_producer};
use crate::run_folder::plan::BagPlan;

/// Files that are open to be joined; another one then begins again where its note says.
const OPEN_MAX: usize = 8;

/// What came of joining.
#[derive(Debug)]
pub(crate) enum Joined {
    /// The outcome of a file.
    Outcome(Box<TaskResult>),
    /// Blocks that are done by the ledger, and whose bytes are gone: run again.
    Lost(Vec<u32>),
    /// Why it goes on later; none: it goes on.
    Waits(Option<String>),
    /// Why nothing can be joined any more.
    Ends(String),
}

/// Joins the files of one bag.
#[derive(Debug)]
pub(crate) struct Joins {
    todo: Arc<Todo>,
    joined: mpsc::Receiver<Joined>,
    stopped: Arc<AtomicBool>,
    joining: Option<JoinHandle<()>>,
}

impl Drop for Joins {
    fn drop(&mut self) {
        // A thread that joins ends with its block, and one that reads again what is joined within it: the process waits for it.
        self.stopped.store(true, Relaxed);
        if let Some(joining) = &self.joining {
            joining.abort();
        }
    }
}

impl Joins {
    /// Begins with what is there already. Without files that are cut, nothing ever comes of it.
    pub(crate) fn start(plan: &BagPlan, parts: Option<&Arc<Parts>>) -> Self {
        let todo = Arc::new(Todo::default());
        let (sender, receiver) = mpsc::channel(1);
        let (stopped, mut joining) = (Arc::new(AtomicBool::new(false)), None);
        if let (Some(cuts), Some(parts)) = (&plan.cuts, parts) {
            let open = cuts.files().filter(|file| plan.is_task_open((*file, 0)));
            open.for_each(|file| todo.add(file, Look::All));
            let open = OpenJoins {
                plan: plan.clone(),
                parts: parts.clone(),
                stopped: stopped.clone(),
                joins: HashMap::new(),
            };
            joining = Some(tokio::spawn(run(open, todo.clone(), sender)));
        }
        Self { todo, joined: receiver, stopped, joining }
    }

    /// Looks at a file whose block was counted, or which has its outcome.
    pub(crate) fn counted(&self, plan: &BagPlan, result: &TaskResult) {
        let cut = plan.cuts.as_ref().filter(|_| self.joining.is_some());
        let Some(cuts) = cut else { return };
        let is_failed = matches!(result.outcome, Outcome::Failed(_));
        match cuts.section(result.index) {
            Some((file, _)) => self.todo.add(file, if is_failed { Look::All } else { Look::Next }),
            None if cuts.blocks(result.index).is_some() => self.todo.add(result.index, Look::Next),
            None => {}
        }
    }

    /// What came of it next. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Joined {
        match self.joined.recv().await {
            Some(joined) => joined,
            None => std::future::pending().await,
        }
    }
}

async fn run(mut open: OpenJoins, todo: Arc<Todo>, sender: mpsc::Sender<Joined>) {
    let mut waits = false;
    loop {
        // When nothing comes, what was joined is settled: others may need the space of its blocks.
        let next = timeout(limits::JOIN_SETTLES_AFTER, todo.next()).await.ok();
        if next.is_none() && open.is_settled() {
            continue;
        }
        let step = spawn_blocking(move || {
            let step = match next {
                Some((file, look)) => open.step(file, look),
                None => open.settle_all().map(|()| None),
            };
            (open, step)
        });
        let came = match step.await {
            Ok((back, step)) => {
                open = back;
                step
            }
            Err(panicked) => {
                sender.send(Joined::Ends(format!("join blocks: {panicked}"))).await.ok(); // it ended before
                return;
            }
        };
        let joined = match came {
            Ok(joined) if std::mem::take(&mut waits) => {
                if sender.send(Joined::Waits(None)).await.is_err() {
                    return;
                }
                joined
            }
            Ok(joined) => joined,
            Err(error) => {
                waits = true;
                if let Some((file, _)) = next {
                    todo.add(file, Look::All);
                }
                let why = format!("join the blocks of a file: {error}");
                Some(match open.parts.trouble(&error) {
                    Trouble::Run => Joined::Ends(open.parts.gone().unwrap_or(why)),
                    Trouble::Own | Trouble::Passes => Joined::Waits(Some(why)),
                })
            }
        };
        if let Some(joined) = joined
            && sender.send(joined).await.is_err()
        {
            return;
        }
        if waits {
            tokio::time::sleep(limits::FULL_DELAY_MAX).await;
        }
    }
}

/// The files of a bag that are being joined. Blocks.
#[derive(Debug)]
struct OpenJoins {
    plan: BagPlan,
    parts: Arc<Parts>,
    /// Whether nobody waits for what comes of it any more.
    stopped: Arc<AtomicBool>,
    joins: HashMap<u32, Joining>,
}

impl OpenJoins {
    /// Joins what can be joined of a file now.
    ///
    /// # Errors
    ///
    /// What passes, or ends the run.
    fn step(&mut self, file: u32, look: Look) -> io::Result<Option<Joined>> {
        loop {
            let error = match self.try_step(file, look) {
                Ok(joined) => return Ok(joined),
                Err(error) => error,
            };
            // What there is gets settled, and then the disk has the space of its blocks. What cannot be is made again.
            let room = !self.is_settled();
            let settled = self.settle_all();
            self.joins.remove(&file);
            let failed = match self.parts.trouble(&error) {
                _ if error.kind() == io::ErrorKind::ResourceBusy => return Err(error),
                _ if error.kind() == io::ErrorKind::InvalidData => {
                    let text = format!("its blocks could not be joined: {error}");
                    Failed::new(Cause::VerifyFailed, text)
                }
                Trouble::Own => output_failed("join its blocks", &error),
                Trouble::Passes if room && settled.is_ok() => continue,
                Trouble::Passes | Trouble::Run => return Err(error),
            };
            return Ok(Some(self.failure(file, failed)));
        }
    }

    fn try_step(&mut self, file: u32, look: Look) -> io::Result<Option<Joined>> {
        let Some(blocks) = self.plan.cuts.as_ref().and_then(|cuts| cuts.blocks(file)) else {
            return Ok(None);
        };
        if !self.plan.is_task_open((file, 0)) {
            self.joins.remove(&file);
            forget_join(&self.parts, file)?;
            let rounds = blocks.map(|block| (block, self.plan.ledger.round(block)));
            self.parts.sweep(&rounds.collect::<Vec<_>>());
            return Ok(None);
        }
        let mut looked_at = blocks.clone().take_while(|_| look == Look::All);
        if let Some(failed) = looked_at.find(|block| self.plan.ledger.is_failed(*block)) {
            return Ok(Some(self.fails(file, failed)));
        }
        if !self.joins.contains_key(&file) {
            // Many wait for their first block: that is no reason to open them.
            if !self.plan.ledger.is_done(blocks.start) {
                return Ok(None);
            }
            if self.joins.len() >= OPEN_MAX {
                self.settle_all()?;
                self.joins.clear();
            }
            let (codec, stopped) = (&self.plan.specification.codec, || self.stopped.load(Relaxed));
            match Joining::open(&self.parts, file, codec, stopped)? {
                Join::Open(joining) => drop(self.joins.insert(file, *joining)),
                Join::Whole(whole) => return Ok(Some(self.done(file, whole, blocks))),
                Join::Stopped => return Ok(None),
            }
        }
        self.join(file, blocks)
    }

    fn is_settled(&self) -> bool {
        self.joins.values().all(|joining| joining.unsettled_bytes() == 0)
    }

    fn settle_all(&mut self) -> io::Result<()> {
        self.joins.values_mut().try_for_each(|joining| joining.settle(&self.parts))
    }

    fn join(&mut self, file: u32, blocks: Range<u32>) -> io::Result<Option<Joined>> {
        let Some(joining) = self.joins.get_mut(&file) else { return Ok(None) };
        loop {
            let joined = u32::try_from(joining.blocks()).unwrap_or(u32::MAX);
            let next = blocks.start.saturating_add(joined);
            if next >= blocks.end {
                break;
            }
            if !self.plan.ledger.is_done(next) {
                // Whoever makes it may wait for the space of those that are joined.
                if self.parts.full(0).is_some() {
                    joining.settle(&self.parts)?;
                }
                return Ok(None);
            }
            if self.stopped.load(Relaxed) {
                return Ok(None);
            }
            // One by one: many in a row take long, and are no disk that does not answer.
            let under_way = self.parts.begin();
            let added = match output_of(&self.plan, next) {
                Some(block) => joining.add(&self.parts, &block)?,
                None => false,
            };
            drop(under_way);
            if !added {
                let lost = self.lost(next, blocks.end)?;
                warn!(
                    file,
                    blocks = lost.len(),
                    "the bytes of blocks are gone, they are run again"
                );
                return Ok(Some(Joined::Lost(lost)));
            }
            if joining.unsettled_bytes() >= limits::JOIN_WINDOW {
                joining.settle(&self.parts)?;
            }
        }
        let Some(joining) = self.joins.remove(&file) else { return Ok(None) };
        let whole = joining.finish(&self.parts)?;
        info!(file, blocks = blocks.len(), bytes = whole.bytes, "blocks are joined");
        Ok(Some(self.done(file, whole, blocks)))
    }

    /// `first`, and the blocks behind it whose part files went with its own.
    fn lost(&self, first: u32, end: u32) -> io::Result<Vec<u32>> {
        let mut lost = vec![first];
        for block in (first + 1..end).filter(|block| self.plan.ledger.is_done(*block)) {
            let is_there = match output_of(&self.plan, block) {
                Some(output) => self.parts.is_there(output.key, &output.execution)?,
                None => false,
            };
            if !is_there {
                lost.push(block);
            }
        }
        Ok(lost)
    }

    /// The outcome of a file that is whole: it took as long as its blocks together.
    fn done(&self, file: u32, whole: Whole, blocks: Range<u32>) -> Joined {
        let mut times = Times { made_us: wall_clock_us(), ..Times::default() };
        let (mut attempt, mut verified) = (1, true);
        for block in blocks {
            let result = self.plan.ledger.outcome(block, 0);
            let done = result.as_ref().and_then(TaskResult::done);
            verified &= done.is_some_and(|done| done.verified);
            if let Some(result) = &result {
                times.add(&result.times);
                attempt = result.attempt.max(attempt);
            }
        }
        let Whole { execution, input_bytes, input_digest, bytes, digest } = whole;
        let (output_bytes, output_digest, place) = (bytes, digest, Place::Staged);
        let fidelity = None; // a file that is cut comes back bit for bit
        let done = Done {
            input_bytes,
            input_digest,
            output_bytes,
            output_digest,
            place,
            verified,
            fidelity,
        };
        let result = of_producer(&self.plan.specification.bag, (file, 0), Outcome::Done(done));
        Joined::Outcome(Box::new(TaskResult { execution, attempt, times, ..result }))
    }

    /// A file fails as its first block that failed.
    fn fails(&self, file: u32, block: u32) -> Joined {
        let outcome = self.plan.ledger.outcome(block, 0).map(|result| result.outcome);
        let failed = match outcome {
            Some(Outcome::Failed(failed)) => failed,
            _ => Failed::new(Cause::TransferError, "a block failed, and its line cannot be read"),
        };
        self.failure(file, failed)
    }

    fn failure(&self, file: u32, failed: Failed) -> Joined {
        Joined::Outcome(Box::new(failure(&self.plan.specification.bag, (file, 0), 1, failed)))
    }
}

/// Failures of blocks as those of their files: the blocks have outcomes, which are of no use.
pub(crate) fn of_their_files(plan: &BagPlan, blocks: Vec<Followed>) -> Vec<Followed> {
    let of_file = |result: Arc<TaskResult>| match plan.section(result.index) {
        Some((index, _)) => Arc::new(TaskResult { index, round: 0, ..(*result).clone() }),
        None => result,
    };
    blocks
        .into_iter()
        .map(|block| Followed { result: block.result.map(of_file), ..block })
        .collect()
}

/// The output of a block that is done.
fn output_of(plan: &BagPlan, block: u32) -> Option<BlockOutput> {
    let result = plan.ledger.outcome(block, 0)?;
    let done = result.done()?;
    Some(BlockOutput {
        key: result.key(),
        execution: result.execution.clone(),
        bytes: done.output_bytes,
        digest: done.output_digest,
        input_bytes: done.input_bytes,
        input_digest: done.input_digest,
    })
}
