//! Which tasks run again when a gathering begins: what the user asks for, and what is not there any more.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};
use bagpress_broker::quote;
use bagpress_broker::result::TaskResult;
use tokio::task::spawn_blocking;
use tracing::{debug, info};

use crate::check::repair::Broken;
use crate::check::{rebuild, repair};
use crate::error::message;
use crate::gather::accept::Acceptor;
use crate::gather::report::Reporter;
use crate::gather::sources::Sources;
use crate::gather::state::State;
use crate::run_folder::ledger::Key;
use crate::run_folder::ledger::line::InputNow;

/// What is to run again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rerun {
    /// The failed tasks, with their files as they are now.
    pub(crate) failed: bool,
    /// What does not read back, after every output was read.
    pub(crate) broken: bool,
    /// Done tasks whose output is not there.
    pub(crate) vanished: bool,
}

/// How what runs again differs from what ran.
#[derive(Debug, Clone, Default)]
pub(crate) struct Anew {
    /// Files that are taken as they are now.
    pub(crate) inputs: HashMap<u32, InputNow>,
    /// Rounds that have a result: somebody took them to make a lost object again.
    pub(crate) taken: HashSet<Key>,
}

impl Rerun {
    /// Chooses the tasks, and which of them take their file as it is now.
    ///
    /// # Errors
    ///
    /// If ledger, inputs or outputs cannot be read; [`Stalled`](crate::Stalled).
    pub(crate) async fn choose(
        self,
        sources: &Sources,
        acceptor: &Acceptor,
        reporter: &mut Reporter,
        state: &State,
    ) -> Result<(Vec<u32>, Anew)> {
        let (mut again, mut anew) = (Vec::new(), Anew::default());
        if self.failed {
            let tasks = 0..sources.plan.specification.tasks;
            again.extend(tasks.filter(|index| sources.plan.ledger.is_failed(*index)));
            let (plan, failed) = (sources.plan.clone(), again.clone());
            let looking = spawn_blocking(move || repair::changed_inputs(&plan, &failed));
            let looked = reporter.while_renewing(state, looking).await?;
            anew.inputs = looked.context("look at the inputs")??;
        }
        if self.broken {
            reporter.obstacles().reading_back = true;
            again.extend(broken(sources, acceptor, reporter, state).await?);
            reporter.obstacles().reading_back = false;
        } else if self.vanished {
            again.extend(vanished(sources, reporter, state).await?);
        }
        anew.taken = reporter.while_renewing(state, taken(sources, &again)).await?;
        Ok((again, anew))
    }
}

/// Tasks whose results are read one by one; of more, all results of the bag are.
const ONE_BY_ONE: usize = 16;

/// The rounds of these tasks of which the broker has results. Where it does not say, their results come when they are begun.
async fn taken(sources: &Sources, tasks: &[u32]) -> HashSet<Key> {
    let Sources { broker, plan, .. } = sources;
    if !plan.specification.has_objects() {
        return HashSet::new();
    }
    let (bag, mut taken) = (&plan.specification.bag, HashSet::new());
    let wanted: HashSet<u32> = tasks.iter().copied().collect();
    let each = if wanted.len() > ONE_BY_ONE {
        vec![None]
    } else {
        wanted.iter().copied().map(Some).collect()
    };
    for index in each {
        let see = |result: TaskResult| {
            if wanted.contains(&result.index) {
                taken.insert(result.key());
            }
        };
        if let Err(error) = broker.results(bag, index, see).await {
            debug!(%error, "results of earlier rounds not read");
        }
    }
    taken
}

/// Tasks of a bag that goes on which are done by the ledger, and whose output is not there: the folder may have gone with
/// the last gatherer, or be another one now.
async fn vanished(sources: &Sources, reporter: &mut Reporter, state: &State) -> Result<Vec<u32>> {
    let Some(parts) = sources.parts.clone() else { return Ok(Vec::new()) };
    let plan = sources.plan.clone();
    let looking = spawn_blocking(move || repair::vanished_outputs(&plan, parts.root()));
    let looked = reporter.while_renewing(state, looking).await?;
    let gone = looked.context("look for the outputs")??;
    if !gone.is_empty() {
        reporter
            .progress()
            .tell(&format!("{} finished outputs no longer exist, and are made again", gone.len()));
    }
    Ok(gone)
}

/// Tasks that are done by the ledger, and whose output does not read back. Lines that were lost are written
/// again first, as far as outputs prove them.
async fn broken(
    sources: &Sources,
    acceptor: &Acceptor,
    reporter: &mut Reporter,
    state: &State,
) -> Result<Vec<u32>> {
    let Some(parts) = sources.parts.clone() else {
        let Some(bucket) = acceptor.bucket().cloned() else { return Ok(Vec::new()) };
        let reading = repair::broken_objects(sources.plan.clone(), bucket);
        return reporter.while_renewing(state, reading).await?;
    };
    let (plan, folder) = (sources.plan.clone(), parts.clone());
    let rebuilding = spawn_blocking(move || rebuild::from_outputs(&plan, folder.root()));
    let rebuilt = reporter.while_renewing(state, rebuilding).await?;
    let tasks = rebuilt.context("rebuild the ledger")??;
    if tasks > 0 {
        info!(tasks, "ledger lines rebuilt from outputs that decompress to their inputs");
        message(&format!("note: {tasks} ledger lines rebuilt from their outputs"));
    }
    let plan = sources.plan.clone();
    let hashing = spawn_blocking(move || repair::broken_files(&plan, parts.root()));
    let hashed = reporter.while_renewing(state, hashing).await?;
    let Broken { tasks, replaced } = hashed.context("hash the outputs")??;
    if replaced > 0 {
        let run = sources.plan.ledger.path().parent().map(quote::name).unwrap_or_default();
        message(&format!(
            "note: {replaced} outputs are replaced, and are not made again: another file has the name, and is left alone; \
             `bagpress verify {run}` names them"
        ));
    }
    Ok(tasks)
}
