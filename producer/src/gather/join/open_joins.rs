//! The files of a bag whose outputs are made of other outputs: each step makes what can be made now. Blocks.

use std::collections::{HashMap, HashSet};
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
use tracing::{info, warn};

use crate::gather::again::{self, Again};
use crate::gather::join::earlier;
use crate::gather::todo::{Look, Todo};
use crate::run_folder::of_producer::{failure, of_producer};
use crate::run_folder::plan::BagPlan;

/// Files that are open to be joined; another one then begins again where its note says.
const OPEN_MAX: usize = 8;
/// Files that are looked at, and outcomes that are accepted, together: to make each durable by itself takes longer than to make it.
pub(crate) const AT_ONCE: usize = 64;

/// What came of looking at several files.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    /// Outcomes of files.
    pub(crate) outcomes: Vec<Followed>,
    /// What is to be run again.
    pub(crate) lost: Vec<u32>,
    /// What the disk said.
    pub(crate) trouble: Option<io::Error>,
}

/// What came of one step.
enum Step {
    Outcomes(Vec<Followed>),
    Lost(Vec<u32>),
}

/// The files of a bag that are being joined. Blocks.
#[derive(Debug)]
pub(crate) struct OpenJoins {
    plan: BagPlan,
    pub(crate) parts: Arc<Parts>,
    /// Whether nobody waits for what comes of it any more.
    stopped: Arc<AtomicBool>,
    joins: HashMap<u32, Joining>,
    /// Files that were found to have another content than they seemed to, until they are begun again.
    given_up: HashSet<u32>,
}

impl OpenJoins {
    /// None is open yet. Once `stopped`, what takes long ends early.
    pub(crate) fn new(plan: BagPlan, parts: Arc<Parts>, stopped: Arc<AtomicBool>) -> Self {
        let (joins, given_up) = (HashMap::new(), HashSet::new());
        Self { plan, parts, stopped, joins, given_up }
    }

    /// Looks at one file after another. What is left when there are enough outcomes, or the disk has trouble, is to be looked at
    /// again.
    pub(crate) fn steps(&mut self, files: Vec<(u32, Look)>, again: &Todo) -> Steps {
        let mut steps = Steps::default();
        for (file, look) in files {
            if steps.trouble.is_some() || steps.outcomes.len() >= AT_ONCE {
                again.add(file, look);
                continue;
            }
            if let Err(error) = self.twins_of(file, &mut steps) {
                again.add(file, Look::All);
                steps.trouble = Some(error);
                continue;
            }
            match self.step(file, look) {
                Ok(Some(Step::Outcomes(outcomes))) => steps.outcomes.extend(outcomes),
                Ok(Some(Step::Lost(lost))) => steps.lost.extend(lost),
                Ok(None) => {}
                Err(error) => {
                    again.add(file, Look::All);
                    steps.trouble = Some(error);
                }
            }
        }
        steps
    }

    /// Gives `file` the output of an earlier run, if it has that one's content; and those that wait for it its output, if it has one.
    fn twins_of(&mut self, file: u32, steps: &mut Steps) -> io::Result<()> {
        let stopped = || self.stopped.load(Relaxed);
        let (plan, parts, given_up) = (&self.plan, &self.parts, &self.given_up);
        let own = earlier::next(plan, parts, file, given_up)?;
        let others = again::next(plan, parts, file, given_up, stopped)?;
        for Again { outcomes, run } in [own, others] {
            self.given_up.extend(&run);
            steps.outcomes.extend(outcomes.into_iter().map(followed));
            steps.lost.extend(run);
        }
        Ok(())
    }

    /// Joins what can be joined of a file now.
    ///
    /// # Errors
    ///
    /// What passes, or ends the run.
    fn step(&mut self, file: u32, look: Look) -> io::Result<Option<Step>> {
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

    fn try_step(&mut self, file: u32, look: Look) -> io::Result<Option<Step>> {
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
            let (codec, stopped) = (self.plan.codec(file)?, || self.stopped.load(Relaxed));
            match Joining::open(&self.parts, file, &codec, stopped)? {
                Join::Open(joining) => drop(self.joins.insert(file, *joining)),
                Join::Whole(whole) => return Ok(Some(self.done(file, whole, blocks))),
                Join::Stopped => return Ok(None),
            }
        }
        self.join(file, blocks)
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.joins.values().all(|joining| joining.unsettled_bytes() == 0)
    }

    pub(crate) fn settle_all(&mut self) -> io::Result<()> {
        self.joins.values_mut().try_for_each(|joining| joining.settle(&self.parts))
    }

    fn join(&mut self, file: u32, blocks: Range<u32>) -> io::Result<Option<Step>> {
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
                return Ok(Some(Step::Lost(lost)));
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
    fn done(&self, file: u32, whole: Whole, blocks: Range<u32>) -> Step {
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
        let (output_bytes, output_digest, place, choice) = (bytes, digest, Place::Staged, None);
        let done = Done {
            input_bytes,
            input_digest,
            output_bytes,
            output_digest,
            place,
            verified,
            choice,
            fidelity: None,           // a file that is cut comes back bit for bit
            entry_points: Vec::new(), // its blocks say where they are
        };
        let result = of_producer(&self.plan.specification.bag, (file, 0), Outcome::Done(done));
        Step::Outcomes(vec![followed(TaskResult { execution, attempt, times, ..result })])
    }

    /// A file fails as its first block that failed.
    fn fails(&self, file: u32, block: u32) -> Step {
        let outcome = self.plan.ledger.outcome(block, 0).map(|result| result.outcome);
        let failed = match outcome {
            Some(Outcome::Failed(failed)) => failed,
            _ => Failed::new(Cause::TransferError, "a block failed, and its line cannot be read"),
        };
        self.failure(file, failed)
    }

    fn failure(&self, file: u32, failed: Failed) -> Step {
        let result = failure(&self.plan.specification.bag, (file, 0), 1, failed);
        Step::Outcomes(vec![followed(result)])
    }
}

/// An outcome of our own, as one that was read.
pub(crate) fn followed(result: TaskResult) -> Followed {
    Followed { result: Ok(Arc::new(result)), bytes: 0 }
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
