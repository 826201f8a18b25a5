//! Opens outputs, upload receiver and source of outcomes; removes the part files at the end.

use std::sync::Arc;

use anyhow::{Context, Result};
use bagpress_broker::descriptor::{DeliveryPath, ResultPath};
use bagpress_broker::retry::Retry;
use bagpress_broker::{Broker, Results, quote};
use bagpress_objstore::is_too_many;
use bagpress_objstore::staging::{Parts, Receiver, Syncer};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::claim::lease::BagLease;
use crate::deliver::dispatch::{Dispatch, HandIn};
use crate::deliver::journal::Journal;
use crate::deliver::table::Table;
use crate::deliver::watch::Watch;
use crate::gather::outcomes::Outcomes;
use crate::run_folder::attempts;
use crate::run_folder::folder::{FOLDERS, RunFolder};
use crate::run_folder::inputs::folders;
use crate::run_folder::plan::BagPlan;

/// Where outputs become files, and who receives them.
#[derive(Debug)]
pub(crate) struct Outputs {
    /// None if outputs become no files here.
    pub(crate) parts: Option<(Arc<Parts>, Syncer)>,
    /// None if nobody asks for files or sends some.
    pub(crate) receiver: Option<Arc<Receiver>>,
}

impl Outputs {
    /// Makes the output folder, with the folders that have no file, and listens for uploads.
    ///
    /// # Errors
    ///
    /// What the system or the broker said.
    pub(crate) async fn open(broker: &Broker, folder: &RunFolder, plan: &BagPlan) -> Result<Self> {
        let specification = &plan.specification;
        let parts = open_parts(folder, plan).await?;
        let serves = specification.results == ResultPath::Staged
            && (parts.is_some() || plan.inputs.is_some());
        let mut receiver = None;
        if serves {
            let folder = if let Some(parts) = &parts {
                parts.clone()
            } else {
                let (place, bag) = (folder.results(), specification.bag.clone());
                Arc::new(spawn_blocking(move || Parts::open(&place, &bag)).await??)
            };
            let plan = Arc::new(plan.clone());
            let started = Receiver::start(broker, &specification.bag, folder, plan).await?;
            receiver = Some(Arc::new(started));
        }
        let parts = match parts {
            Some(parts) => {
                let syncer = match &receiver {
                    Some(receiver) => receiver.syncer().clone(),
                    None => Syncer::start(parts.clone()).context("start the sync thread")?,
                };
                Some((parts, syncer))
            }
            None => None,
        };
        Ok(Self { parts, receiver })
    }
}

/// The place of the outputs, with the folders that have no file, if outputs become files.
async fn open_parts(folder: &RunFolder, plan: &BagPlan) -> Result<Option<Arc<Parts>>> {
    if !plan.specification.has_files() {
        return Ok(None);
    }
    let root = plan.specification.output_root(folder);
    let (place, bag) = (root.clone(), plan.specification.bag.clone());
    let opened = spawn_blocking(move || Parts::open(&place, &bag)).await?;
    let opened = opened.with_context(|| format!("make {}", quote::name(&root)))?;
    folders::make_or_say(folder.open(FOLDERS)?, &root).await?;
    Ok(Some(Arc::new(opened)))
}

/// Where outcomes come from, and who watches the workers.
#[derive(Debug)]
pub(crate) struct OutcomeSource {
    pub(crate) outcomes: Outcomes,
    /// Where tasks are handed in that the gatherer offers itself.
    pub(crate) hand_in: Option<HandIn>,
    pub(crate) watch: Watch,
    pub(crate) watching: JoinHandle<()>,
}

impl OutcomeSource {
    /// Reads committed results, or opens the desk at which workers hand them over.
    ///
    /// # Errors
    ///
    /// [`crate::Usage`] if the run's history is not believed; what the broker said.
    pub(crate) async fn open(
        broker: &Broker,
        folder: &RunFolder,
        plan: &BagPlan,
        lease: &BagLease,
        ended: mpsc::Receiver<u32>,
    ) -> Result<Self> {
        let specification = &plan.specification;
        let (bag, pool) = (&specification.bag, &specification.pool);
        if specification.delivery == DeliveryPath::Jetstream {
            let (watch, watching) = Watch::start(broker, bag, pool, None, ended).await?;
            let outcomes = Outcomes::Committed(Results::of(broker, bag));
            return Ok(Self { outcomes, hand_in: None, watch, watching });
        }
        let (file, past) = attempts::past(folder, |key| plan.is_open(key))?;
        let told = lease.is_written().then(|| broker.clone());
        let journal = Journal::new(bag, told, file);
        let table = Arc::new(Table::new(specification.attempts, past, journal));
        let watched = Some(table.clone());
        let (watch, watching) = Watch::start(broker, bag, pool, watched, ended).await?;
        let (dispatch, receiver) = Dispatch::start(broker, plan, table, watch.clone()).await?;
        let hand_in = Some(dispatch.hand_in());
        let outcomes = Outcomes::Handed { dispatch, receiver, later: Vec::new() };
        Ok(Self { outcomes, hand_in, watch, watching })
    }
}

/// Removes the part files of a bag that is complete.
///
/// # Errors
///
/// What the system said.
pub(crate) async fn close(parts: Arc<Parts>) -> Result<()> {
    if let Some((count, first)) = parts.without_metadata() {
        crate::error::message(&format!(
            "note: {count} outputs do not have the mode and time of their source: {first}"
        ));
    }
    // Files that were open for workers are being closed just now.
    let remove = || {
        let parts = parts.clone();
        async move {
            let removing = spawn_blocking(move || parts.remove());
            removing.await.unwrap_or_else(|stopped| Err(stopped.into()))
        }
    };
    let removed = Retry::unbounded().run(remove, is_too_many).await;
    removed.context("remove the part files")
}
