//! Makes outputs of outputs, meanwhile: joins the blocks of large files as they are counted, and gives twins the output of the
//! task whose input they have, as a file or as an object. What comes of it is accepted as that of any other task.

mod earlier;
mod open_joins;
mod shared;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bagpress_broker::result::{Outcome, TaskResult};
use bagpress_broker::{Followed, limits};
use bagpress_objstore::Trouble;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use self::open_joins::{AT_ONCE, OpenJoins, Steps, followed};
use self::shared::Sharer;
use crate::gather::again::{self, Again};
use crate::gather::sources::Sources;
use crate::gather::todo::{Look, Todo};
use crate::run_folder::plan::BagPlan;

/// What came of joining.
#[derive(Debug)]
pub(crate) enum Joined {
    /// Outcomes of files.
    Outcomes(Vec<Followed>),
    /// Blocks that are done by the ledger, and whose bytes are gone, or files that get no other's output: run again.
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
    pub(crate) fn start(sources: &Sources) -> Self {
        let (plan, parts) = (&sources.plan, sources.parts.as_ref());
        let todo = Arc::new(Todo::default());
        let (sender, receiver) = mpsc::channel(1);
        let (stopped, mut joining) = (Arc::new(AtomicBool::new(false)), None);
        let makes = plan.cuts.is_some() || plan.twins.is_some() || plan.earlier.is_some();
        if let Some(parts) = parts.filter(|_| makes) {
            let cut = plan.cuts.iter().flat_map(|cuts| cuts.files());
            let open = cut.filter(|file| plan.is_task_open((*file, 0)));
            let open = open.chain(again::firsts(plan)).chain(earlier::files(plan));
            open.for_each(|file| todo.add(file, Look::All));
            let open = OpenJoins::new(plan.clone(), parts.clone(), stopped.clone());
            joining = Some(tokio::spawn(run(open, todo.clone(), sender)));
        } else if let Some(sharer) = Sharer::of(&sources.broker, plan) {
            again::firsts(plan).for_each(|first| todo.add(first, Look::All));
            joining = Some(tokio::spawn(share(sharer, todo.clone(), sender)));
        }
        Self { todo, joined: receiver, stopped, joining }
    }

    /// Looks at a file whose block was counted, or which has its outcome.
    pub(crate) fn counted(&self, plan: &BagPlan, result: &TaskResult) {
        if self.joining.is_none() {
            return;
        }
        if let Some(twins) = &plan.twins {
            // A twin that has its output leads to those that are left.
            let first = twins.first_of(result.index).unwrap_or(result.index);
            if twins.of_first(first).next().is_some() {
                self.todo.add(first, Look::Next);
            }
        }
        let Some(cuts) = &plan.cuts else { return };
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
        let next = timeout(limits::JOIN_SETTLES_AFTER, todo.next(AT_ONCE)).await;
        let next = next.unwrap_or_default();
        if next.is_empty() && open.is_settled() {
            continue;
        }
        let again = todo.clone();
        let steps = spawn_blocking(move || {
            let steps = if next.is_empty() {
                Steps { trouble: open.settle_all().err(), ..Steps::default() }
            } else {
                open.steps(next, &again)
            };
            (open, steps)
        });
        let steps = match steps.await {
            Ok((back, steps)) => {
                open = back;
                steps
            }
            Err(panicked) => {
                sender.send(Joined::Ends(format!("join blocks: {panicked}"))).await.ok(); // it ended before
                return;
            }
        };
        let Steps { outcomes, lost, trouble } = steps;
        let went_on = trouble.is_none() && std::mem::take(&mut waits);
        let trouble = trouble.map(|error| {
            waits = true;
            let why = format!("make an output of others: {error}");
            match open.parts.trouble(&error) {
                Trouble::Run => Joined::Ends(open.parts.gone().unwrap_or(why)),
                Trouble::Own | Trouble::Passes => Joined::Waits(Some(why)),
            }
        });
        let went_on = went_on.then_some(Joined::Waits(None));
        if !tell(&sender, went_on, outcomes, lost, trouble).await {
            return;
        }
        if waits {
            tokio::time::sleep(limits::FULL_DELAY_MAX).await;
        }
    }
}

/// Gives tasks the objects of others' outputs, one first after the other.
async fn share(mut sharer: Sharer, todo: Arc<Todo>, sender: mpsc::Sender<Joined>) {
    let mut waits = false;
    loop {
        for (first, look) in todo.next(1).await {
            let (again, trouble) = match sharer.next(first).await {
                Ok(again) => (again, None),
                Err(error) => {
                    todo.add(first, look);
                    let why = format!("give a task the output of another: {error:#}");
                    (Again::default(), Some(Joined::Waits(Some(why))))
                }
            };
            let waited = std::mem::replace(&mut waits, trouble.is_some());
            let outcomes: Vec<_> = again.outcomes.into_iter().map(followed).collect();
            let went_on = (waited && !waits).then_some(Joined::Waits(None));
            if !tell(&sender, went_on, outcomes, again.run, trouble).await {
                return;
            }
        }
        if waits {
            tokio::time::sleep(limits::FULL_DELAY_MAX).await;
        }
    }
}

/// Tells what came of a few files; false if nobody wants to know any more.
async fn tell(
    sender: &mpsc::Sender<Joined>,
    went_on: Option<Joined>,
    outcomes: Vec<Followed>,
    lost: Vec<u32>,
    trouble: Option<Joined>,
) -> bool {
    let outcomes = (!outcomes.is_empty()).then_some(Joined::Outcomes(outcomes));
    let lost = (!lost.is_empty()).then_some(Joined::Lost(lost));
    for joined in [went_on, outcomes, lost, trouble].into_iter().flatten() {
        if sender.send(joined).await.is_err() {
            return false;
        }
    }
    true
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
