//! Follows a bag to its end, on the named broker or on a cluster of its own, until a signal ends it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::{Address, Error as BrokerError, Patience, Role};
use bagpress_producer::gather::{Gathered, Options};
use bagpress_producer::local::{self, Cluster, Needed};
use bagpress_producer::open_plan;
use bagpress_producer::{
    GatherLock, RemovedInputs, RunFolder, Specification, message, refuse_unknown_codec, remove,
    remove_sources, wait_for_streams,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::conclude::conclude;
use crate::broker_at::{At, flags_again};
use crate::cli::broker::{LocalArgs, ReachArgs};
use crate::cli::common::FollowArgs;
use crate::terminal::{Signals, notes};

/// What takes longer than this says so.
const SAY_AFTER: Duration = Duration::from_secs(3);

/// A bag that is to be followed, and how.
pub(super) struct Following<'a> {
    pub(super) folder: RunFolder,
    pub(super) lock: GatherLock,
    pub(super) specification: Specification,
    pub(super) at: At,
    pub(super) begin: Begin,
    pub(super) follow: &'a FollowArgs,
    pub(super) reach: &'a ReachArgs,
    pub(super) local: &'a LocalArgs,
}

/// With which tasks it begins.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Begin {
    pub(super) retry_failed: bool,
    pub(super) repair: bool,
    pub(super) resume: bool,
    pub(super) fresh: bool,
    /// The folder for outputs, if it was made for a fresh bag.
    pub(super) new_out: Option<PathBuf>,
    /// Said behind the line that names the broker, which is always the first.
    pub(super) notes: Vec<String>,
}

/// Gathers a bag, prints its summary, and returns the exit code.
///
/// # Errors
///
/// What ended the gathering before the bag was complete: [`Signalled`](crate::exit::Signalled) among others.
pub(super) async fn follow(bag: Following<'_>, signals: &mut Signals) -> Result<ExitCode> {
    let Following { folder, lock, specification, at, begin, follow, reach, local } = bag;
    let in_use = match BrokerInUse::find(at, &folder, &specification, local).await {
        Err(error) if begin.fresh && is_no_server(&error) => {
            take_back(&folder, lock, begin.new_out.as_deref()).await?;
            return Err(error);
        }
        in_use => in_use?,
    };
    let BrokerInUse { address, mut cluster, ended } = in_use;
    let lock = Arc::new(lock);
    notes(&begin.notes);
    let stop = CancellationToken::new();
    let patience = reach.begin();
    let is_local = cluster.is_some();
    let options = Options {
        stall_timeout: follow.stall_timeout.into(),
        deadline: follow.deadline.map(Into::into),
        max_fails: follow.max_fails,
        retry_failed: begin.retry_failed,
        repair: begin.repair,
        resume: begin.resume,
        fresh: begin.fresh,
        progress: !follow.quiet,
        ended,
        stop: stop.clone(),
    };
    let gathering = tokio::spawn({
        let (folder, lock) = (folder.clone(), lock.clone());
        async move {
            let of = (&folder, &*lock);
            let broker = (&address, is_local, &patience);
            Box::pin(connect_and_gather(broker, of, specification, options)).await
        }
    });
    let gathered = supervise(gathering, cluster.as_mut(), signals, &stop).await;
    if let Some(cluster) = cluster {
        cluster.stop(needed(&gathered)).await;
    }
    let again = flags_again(&reach.broker, &folder);
    let gathered = match gathered {
        Ok(gathered) => clear_sources(gathered, &folder, signals).await,
        Err(error) => Err(error),
    };
    let concluded = conclude(&folder, gathered, follow, &again).await;
    drop(lock); // only now the folder is whole
    concluded
}

/// Removes the inputs of a bag that has ended, if that was asked for, until a signal ends it.
async fn clear_sources(
    gathered: Gathered,
    folder: &RunFolder,
    signals: &mut Signals,
) -> Result<(Gathered, Option<RemovedInputs>)> {
    let stopped = Arc::new(AtomicBool::new(false));
    let mut removing = tokio::task::spawn_blocking({
        let (plan, folder, stopped) = (gathered.plan.clone(), folder.clone(), stopped.clone());
        move || remove_sources(&plan, &folder, &stopped)
    });
    if let Ok(removed) = tokio::time::timeout(SAY_AFTER, &mut removing).await {
        return Ok((gathered, removed.context("remove the inputs")??));
    }
    message("note: removing the inputs of tasks that are done");
    let removed = tokio::select! {
        removed = &mut removing => removed,
        signalled = signals.received() => {
            stopped.store(true, Ordering::Relaxed);
            tokio::time::timeout(bagpress_broker::limits::STOP_WITHIN, removing).await.ok();
            return Err(signalled.into());
        }
    };
    Ok((gathered, removed.context("remove the inputs")??))
}

/// Whether the program is none that can ever serve: known only when it was started.
fn is_no_server(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<BrokerError>();
    matches!(error, Some(BrokerError::TooOld { .. } | BrokerError::NoServerProgram { .. }))
}

/// Removes a run folder in which nothing was begun, and the folder for outputs that was made for it.
async fn take_back(folder: &RunFolder, lock: GatherLock, new_out: Option<&Path>) -> Result<()> {
    remove::folder(folder, Some(lock), remove::How::default()).await?;
    if let Some(out) = new_out {
        // One that has something in it is somebody's.
        std::fs::remove_dir(out).ok();
    }
    Ok(())
}

/// What of the bag's cluster is needed when it has been gathered.
fn needed(gathered: &Result<Gathered>) -> Needed {
    match gathered {
        Ok(gathered) if gathered.plan.specification.results == ResultPath::Staged => {
            Needed::Nothing
        }
        Ok(_) => Needed::Store,
        Err(_) => Needed::All,
    }
}

/// Where the bag runs.
struct BrokerInUse {
    address: Address,
    /// Its own, if no broker was named.
    cluster: Option<Cluster>,
    /// Process ids of its workers that have ended.
    ended: mpsc::Receiver<u32>,
}

impl BrokerInUse {
    /// Takes the broker that was named, or starts a cluster; says which, and notes it in the run folder.
    async fn find(
        at: At,
        folder: &RunFolder,
        specification: &Specification,
        local: &LocalArgs,
    ) -> Result<Self> {
        let program = match at {
            At::Named(address, from) => {
                message(&format!("broker: {} (from {from})", address.url()));
                folder.note_server(Some(address.url()))?;
                return Ok(Self { address, cluster: None, ended: mpsc::channel(1).1 });
            }
            At::Own(program) => program,
        };
        message("broker: local");
        folder.note_server(None)?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let options = local::Options {
            program,
            workers: local.workers.unwrap_or(cores),
            durability: local.own.durability.into(),
            pool: specification.pool.clone(),
            allowed: specification.allowed(folder),
        };
        let (cluster, ended) = Box::pin(Cluster::start(folder, &options)).await?;
        Ok(Self { address: cluster.address(), cluster: Some(cluster), ended })
    }
}

async fn connect_and_gather(
    (address, is_local, patience): (&Address, bool, &Patience),
    (folder, lock): (&RunFolder, &GatherLock),
    specification: Specification,
    options: Options,
) -> Result<Gathered> {
    let connecting = async {
        let broker = patience.connect(address, Role::Producer).await?;
        let waiting = async {
            wait_for_streams(&broker, &specification, patience).await?;
            // Workers of our own are of our version.
            if is_local { Ok(()) } else { refuse_unknown_codec(&broker, &specification).await }
        };
        broker.unless_denied(Box::pin(waiting)).await?;
        Ok::<_, anyhow::Error>(broker)
    };
    let broker = tokio::select! {
        broker = connecting => broker?,
        // Nothing has begun yet that would have to be put in order.
        () = options.stop.cancelled() => bail!("stopped before the bag began"),
    };
    let plan = open_plan(folder, specification)?;
    bagpress_producer::gather::gather(&broker, folder, lock, plan, options).await
}

/// Waits until the bag is complete, the cluster fails, or a signal arrives; the last two stop the gathering.
async fn supervise(
    mut gathering: JoinHandle<Result<Gathered>>,
    cluster: Option<&mut Cluster>,
    signals: &mut Signals,
    stop: &CancellationToken,
) -> Result<Gathered> {
    let cluster_ends = async {
        match cluster {
            Some(cluster) => cluster.supervise().await,
            None => std::future::pending().await,
        }
    };
    let why: anyhow::Error = tokio::select! {
        gathered = &mut gathering => return gathered.context("gather")?,
        error = cluster_ends => error,
        signalled = signals.received() => signalled.into(),
    };
    stop.cancel();
    // The gatherer flushes its ledger. A call that hangs on a broker that is gone is not waited for.
    let within = bagpress_broker::limits::STOP_WITHIN / 5;
    if tokio::time::timeout(within, &mut gathering).await.is_err() {
        gathering.abort();
    }
    Err(why)
}
