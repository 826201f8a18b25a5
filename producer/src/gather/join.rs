//! Joins the blocks of large files, meanwhile: each output becomes whole as its blocks are counted, and then is accepted as
//! that of any other task.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bagpress_broker::result::{
    Cause, Done, Failed, Outcome, Place, TaskResult, Times, wall_clock_us,
};
use bagpress_broker::{Followed, limits};
use bagpress_objstore::staging::{BlockOutput, Joining, Parts, Whole, forget_join};
use bagpress_objstore::{Trouble, output_failed};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::run_folder::of_producer::{PRODUCER, failure};
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
}

/// Joins the files of one bag.
#[derive(Debug)]
pub(crate) struct Joins {
    todo: Arc<Todo>,
    joined: mpsc::Receiver<Joined>,
    joining: Option<JoinHandle<()>>,
}

/// Files whose blocks are to be looked at.
#[derive(Debug, Default)]
struct Todo {
    files: Mutex<BTreeSet<u32>>,
    more: Notify,
}

impl Todo {
    fn add(&self, file: u32) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).insert(file);
        self.more.notify_one();
    }

    async fn next(&self) -> u32 {
        loop {
            let next = self.files.lock().unwrap_or_else(PoisonError::into_inner).pop_first();
            match next {
                Some(file) => return file,
                None => self.more.notified().await,
            }
        }
    }
}

impl Drop for Joins {
    fn drop(&mut self) {
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
        let mut joining = None;
        if let (Some(cuts), Some(parts)) = (&plan.cuts, parts) {
            cuts.files().for_each(|file| todo.add(file));
            let open = OpenJoins {
                plan: plan.clone(),
                parts: parts.clone(),
                joins: HashMap::new(),
                given: HashSet::new(),
            };
            joining = Some(tokio::spawn(run(open, todo.clone(), sender)));
        }
        Self { todo, joined: receiver, joining }
    }

    /// Looks at a file again, whose blocks were counted, or which has its outcome.
    pub(crate) fn look(&self, file: u32) {
        if self.joining.is_some() {
            self.todo.add(file);
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
        let under_way = open.parts.begin();
        let step = spawn_blocking(move || {
            let _under_way = under_way;
            let step = match next {
                Some(file) => open.step(file),
                None => open.settle_all().map(|()| None),
            };
            (open, step)
        });
        let Ok((back, step)) = step.await else { return };
        open = back;
        let joined = match step {
            Ok(joined) => {
                if std::mem::take(&mut waits) && sender.send(Joined::Waits(None)).await.is_err() {
                    return;
                }
                joined
            }
            Err(error) => {
                waits = true;
                if let Some(file) = next {
                    todo.add(file);
                }
                Some(Joined::Waits(Some(format!("join the blocks of a file: {error}"))))
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
    joins: HashMap<u32, Joining>,
    /// Files of which the outcome was given, and is not counted yet: their part files are no longer to be touched.
    given: HashSet<u32>,
}

impl OpenJoins {
    /// Joins what can be joined of a file now.
    ///
    /// # Errors
    ///
    /// What passes.
    fn step(&mut self, file: u32) -> io::Result<Option<Joined>> {
        let joined = self.look_at(file)?;
        if matches!(joined, Some(Joined::Outcome(_))) {
            self.given.insert(file);
        }
        Ok(joined)
    }

    fn look_at(&mut self, file: u32) -> io::Result<Option<Joined>> {
        let Some(blocks) = self.plan.cuts.as_ref().and_then(|cuts| cuts.blocks(file)) else {
            return Ok(None);
        };
        if !self.plan.is_task_open((file, 0)) {
            self.joins.remove(&file);
            self.given.remove(&file);
            forget_join(&self.parts, file)?;
            let rounds = blocks.map(|block| (block, self.plan.ledger.round(block)));
            self.parts.sweep(&rounds.collect::<Vec<_>>());
            return Ok(None);
        }
        // A block that was counted while its file was joined has it looked at once more.
        if self.given.contains(&file) {
            return Ok(None);
        }
        if let Some(failed) = blocks.clone().find(|block| self.plan.ledger.is_failed(*block)) {
            return Ok(self.fails(file, failed));
        }
        loop {
            if !self.joins.contains_key(&file) {
                if self.joins.len() >= OPEN_MAX {
                    self.settle_all()?;
                    self.joins.clear();
                }
                let joining = Joining::open(&self.parts, file, &self.plan.specification.codec)?;
                self.joins.insert(file, joining);
            }
            let error = match self.join(file, blocks.start, blocks.end) {
                Err(error) => error,
                joined => return joined,
            };
            // What it had is settled, and then the disk has the space of its blocks.
            let mut room = false;
            if let Some(mut joining) = self.joins.remove(&file) {
                room = joining.unsettled_bytes() > 0;
                joining.settle(&self.parts)?;
            }
            let failed = match self.parts.trouble(&error) {
                _ if error.kind() == io::ErrorKind::InvalidData => {
                    let text = format!("its blocks could not be joined: {error}");
                    Failed::new(Cause::VerifyFailed, text)
                }
                Trouble::Own => output_failed("join its blocks", &error),
                Trouble::Passes if room => continue,
                Trouble::Passes | Trouble::Run => return Err(error),
            };
            return Ok(Some(self.failure(file, failed)));
        }
    }

    fn is_settled(&self) -> bool {
        self.joins.values().all(|joining| joining.unsettled_bytes() == 0)
    }

    fn settle_all(&mut self) -> io::Result<()> {
        self.joins.values_mut().try_for_each(|joining| joining.settle(&self.parts))
    }

    /// The blocks of a file are those from `first` to `end`.
    fn join(&mut self, file: u32, first: u32, end: u32) -> io::Result<Option<Joined>> {
        let Some(joining) = self.joins.get_mut(&file) else { return Ok(None) };
        loop {
            let next =
                u32::try_from(joining.blocks()).ok().and_then(|done| first.checked_add(done));
            let Some(next) = next.filter(|next| *next < end) else { break };
            if !self.plan.ledger.is_done(next) {
                // Whoever makes it may wait for the space of those that are joined.
                if self.parts.full(0).is_some() {
                    joining.settle(&self.parts)?;
                }
                return Ok(None);
            }
            let added = match output_of(&self.plan, next) {
                Some(block) => joining.add(&self.parts, &block)?,
                None => false,
            };
            if !added {
                let lost = self.lost(next, end)?;
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
        info!(file, blocks = end - first, bytes = whole.bytes, "blocks are joined");
        Ok(Some(Joined::Outcome(Box::new(self.outcome(file, whole, first..end)))))
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
    fn outcome(&self, file: u32, whole: Whole, blocks: std::ops::Range<u32>) -> TaskResult {
        let mut times = Times { made_us: wall_clock_us(), ..Times::default() };
        let (mut attempt, mut verified) = (1, true);
        for result in blocks.filter_map(|block| self.plan.ledger.outcome(block, 0)) {
            times.add(&result.times);
            attempt = result.attempt.max(attempt);
            verified &= result.done().is_some_and(|done| done.verified);
        }
        let Whole { execution, input_bytes, input_digest, bytes, digest } = whole;
        let done = Done {
            input_bytes,
            input_digest,
            output_bytes: bytes,
            output_digest: digest,
            place: Place::Staged,
            verified,
        };
        let bag = &self.plan.specification.bag;
        let failed = Failed::new(Cause::Cancelled, "");
        let outcome = Outcome::Done(done);
        let of_producer = failure(bag, (file, 0), attempt, failed);
        TaskResult { execution, outcome, times, worker: PRODUCER.to_owned(), ..of_producer }
    }

    /// A file fails as its first block that failed.
    fn fails(&self, file: u32, block: u32) -> Option<Joined> {
        let Outcome::Failed(failed) = self.plan.ledger.outcome(block, 0)?.outcome else {
            return None;
        };
        Some(self.failure(file, failed))
    }

    fn failure(&self, file: u32, failed: Failed) -> Joined {
        Joined::Outcome(Box::new(failure(&self.plan.specification.bag, (file, 0), 1, failed)))
    }
}

/// The failure of a block as that of its file: the block has an outcome, which is of no use.
pub(crate) fn of_its_file(plan: &BagPlan, block: Followed) -> Followed {
    let of_file = block.result.map(|result| match plan.section(result.index) {
        Some((index, _)) => Arc::new(TaskResult { index, round: 0, ..(*result).clone() }),
        None => result,
    });
    Followed { result: of_file, ..block }
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
    })
}
