//! `bagpress run`, `submit` and `gather`.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bagpress_broker::descriptor::{DeliveryPath, ResultPath, Transfer, Verify};
use bagpress_broker::quote::name;
use bagpress_broker::server::remove_store;
use bagpress_broker::{Address, Patience, Role};
use bagpress_codec::Codec;
use bagpress_producer::gather::{Gathered, Options, open_plan};
use bagpress_producer::local::{self, Cluster};
use bagpress_producer::{
    Cancelled, GatherLock, RunFolder, Specification, Summary, Usage, message, wait_for_streams,
    write_failed,
};
use bagpress_producer::{Generated, Preparation, Prepared, Request, prepare};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::broker_at::{At, Named, address};
use crate::broker_cli::{LocalArgs, PatienceArgs};
use crate::cli::{
    BagArgs, FollowArgs, GatherArgs, RunArgs, StatsArg, SubmitArgs, TransferArg, VerifyArg,
};
use crate::exit::SOME_FAILED;
use crate::logging;
use crate::preview_cmd;
use crate::terminal::{Signals, print, print_json};

/// Log of whoever gathers or submits.
const PRODUCER_LOG: &str = "producer.log";

pub(crate) async fn run(args: RunArgs) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let dry_run = args.bag.select.dry_run;
    let request = request(args.bag)?;
    if dry_run {
        return blocking(move || preview_cmd::show(&request, args.follow.json)).await;
    }
    // Before anything is written.
    let at = At::of(&args.broker, &args.local)?;
    let Some(prepared) = prepared(request).await? else { return Ok(ExitCode::SUCCESS) };
    logging::start_in(prepared.folder.log(PRODUCER_LOG)?)?;
    let Prepared { folder, lock, specification, fresh, notes } = *prepared;
    let how = How { retry_failed: false, repair: false, resume: false, fresh, notes };
    let by = By { local: &args.local, follow: &args.follow, patience: &args.patience };
    follow((folder, lock), specification, at, by, how, &mut signals).await
}

pub(crate) async fn submit(args: SubmitArgs) -> Result<ExitCode> {
    let dry_run = args.bag.select.dry_run;
    let at = address(&args.broker)?;
    let request = request(args.bag)?;
    if dry_run {
        return blocking(move || preview_cmd::show(&request, false)).await;
    }
    let at = at.context_missing()?;
    let Some(prepared) = prepared(request).await? else { return Ok(ExitCode::SUCCESS) };
    logging::start_in(prepared.folder.log(PRODUCER_LOG)?)?;
    message(&format!("broker: {} (from {})", at.0.url(), at.1));
    let Prepared { folder, lock, specification, notes, .. } = *prepared;
    say(&notes);
    folder.note_server(Some(at.0.url()))?;
    let patience = args.patience.begin();
    let broker = patience.connect(&at.0, Role::Producer).await?;
    let (results, delivery) = (specification.results, specification.delivery);
    let submitting = async {
        wait_for_streams(&broker, &specification, &patience).await?;
        bagpress_producer::submit::submit(&broker, &folder, &lock, specification).await
    };
    broker.unless_denied(Box::pin(submitting)).await?;
    if delivery == DeliveryPath::QueueGroup {
        message("note: nothing is offered to workers until somebody gathers this bag");
    } else if results == ResultPath::Staged {
        message("note: a staged bag waits until somebody gathers it");
    }
    message(&format!("next: bagpress gather {}", name(folder.path())));
    print(&format!("{}\n", folder.path().display()))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn gather(args: GatherArgs) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let at = At::of(&args.broker, &args.local)?;
    let folder = RunFolder::existing(&args.folder, args.trust.trust())?;
    let specification = Specification::read(&folder)?;
    folder.make_inside()?;
    let lock = folder.lock()?;
    logging::start_in(folder.log(PRODUCER_LOG)?)?;
    let how = How {
        retry_failed: args.retry_failed,
        repair: args.repair,
        resume: args.resume,
        fresh: false,
        notes: Vec::new(),
    };
    let by = By { local: &args.local, follow: &args.follow, patience: &args.patience };
    follow((folder, lock), specification, at, by, how, &mut signals).await
}

/// Prepares a bag; none if there is nothing to do, which is said.
async fn prepared(request: Request) -> Result<Option<Box<Prepared>>> {
    match blocking(move || prepare(&request)).await? {
        Preparation::Bag(prepared) => Ok(Some(prepared)),
        Preparation::NothingToDo(notes) => {
            say(&notes);
            message("nothing to do");
            Ok(None)
        }
    }
}

fn say(notes: &[String]) {
    for note in notes {
        message(&format!("note: {note}"));
    }
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
struct How {
    retry_failed: bool,
    repair: bool,
    resume: bool,
    fresh: bool,
    /// Said behind the line that names the broker, which is always the first.
    notes: Vec<String>,
}

/// The flags that `run` and `gather` share.
#[derive(Clone, Copy)]
struct By<'a> {
    local: &'a LocalArgs,
    follow: &'a FollowArgs,
    patience: &'a PatienceArgs,
}

/// Follows a bag, on the named broker or on a cluster of its own.
async fn follow(
    (folder, lock): (RunFolder, GatherLock),
    specification: Specification,
    at: At,
    By { local, follow: args, patience }: By<'_>,
    how: How,
    signals: &mut Signals,
) -> Result<ExitCode> {
    let lock = Arc::new(lock);
    let mut cluster = None;
    let (_, mut ended) = mpsc::channel(1);
    let address = match at {
        At::Named(address, from) => {
            message(&format!("broker: {} (from {from})", address.url()));
            folder.note_server(Some(address.url()))?;
            address
        }
        At::Own(program) => {
            message("broker: local");
            folder.note_server(None)?;
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let workers = local.workers.unwrap_or(cores);
            let (durability, pool) = (local.durability.into(), specification.pool.clone());
            let allowed = specification.allowed(&folder);
            let options = local::Options { program, workers, durability, pool, allowed };
            let (started, deaths) = Box::pin(Cluster::start(&folder, &options)).await?;
            ended = deaths;
            let address = started.address();
            cluster = Some(started);
            address
        }
    };
    say(&how.notes);
    let stop = CancellationToken::new();
    let patience = patience.begin();
    let options = Options {
        stall_timeout: args.stall_timeout.into(),
        deadline: args.deadline.map(Into::into),
        max_fails: args.max_fails,
        retry_failed: how.retry_failed,
        repair: how.repair,
        resume: how.resume,
        fresh: how.fresh,
        progress: !args.quiet,
        ended,
        stop: stop.clone(),
    };
    let gathering = tokio::spawn({
        let (folder, lock) = (folder.clone(), lock.clone());
        async move {
            let of = (&folder, &*lock);
            Box::pin(connect_and_gather(&address, &patience, of, specification, options)).await
        }
    });
    let gathered = supervise(gathering, cluster.as_mut(), signals, &stop).await;
    if let Some(cluster) = cluster {
        cluster.stop(gathered.is_ok()).await;
    }
    let concluded = conclude(&folder, gathered, args).await;
    drop(lock); // only now the folder is whole
    concluded
}

async fn connect_and_gather(
    address: &Address,
    patience: &Patience,
    (folder, lock): (&RunFolder, &GatherLock),
    specification: Specification,
    options: Options,
) -> Result<Gathered> {
    let connecting = async {
        let broker = patience.connect(address, Role::Producer).await?;
        broker.unless_denied(wait_for_streams(&broker, &specification, patience)).await?;
        Ok::<_, anyhow::Error>(broker)
    };
    let broker = tokio::select! {
        broker = connecting => broker?,
        // Nothing is begun yet that were to be put in order.
        () = options.stop.cancelled() => bail!("stopped before the bag was begun"),
    };
    let plan = open_plan(folder, specification)?;
    bagpress_producer::gather::gather(&broker, folder, lock, plan, options).await
}

/// Waits for the end of the bag, of the cluster, or of our patience.
async fn supervise(
    mut gathering: tokio::task::JoinHandle<Result<Gathered>>,
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
    // It puts its lines in order; what hangs on a broker that is gone is not waited for.
    let within = bagpress_broker::limits::STOP_WITHIN / 5;
    if tokio::time::timeout(within, &mut gathering).await.is_err() {
        gathering.abort();
    }
    Err(why)
}

async fn conclude(
    folder: &RunFolder,
    gathered: Result<Gathered>,
    args: &FollowArgs,
) -> Result<ExitCode> {
    let gathered = match gathered {
        Ok(gathered) => gathered,
        Err(error) => {
            let resume = if error.is::<Cancelled>() { " --resume" } else { "" };
            let folder = name(folder.path());
            message(&format!("note: `bagpress gather {folder}{resume}` goes on"));
            return Err(error);
        }
    };
    let summary = Summary::of(&gathered, folder);
    write_failed(folder, &gathered.plan)?;
    summary.write(folder)?;
    if gathered.plan.specification.results == ResultPath::Staged {
        remove_store(&folder.store()?).await?;
    }
    let (failed, tasks) = (summary.failed, summary.tasks);
    if args.json {
        print_json(&summary.all_failures(&gathered))?;
    } else {
        print(&summary.text())?;
    }
    if failed > 0 {
        message(&format!("error: {failed} of {tasks} tasks failed"));
        message(&format!("hint: bagpress gather {} --retry-failed", name(folder.path())));
        return Ok(ExitCode::from(SOME_FAILED));
    }
    Ok(ExitCode::SUCCESS)
}

fn request(bag: BagArgs) -> Result<Request> {
    let stores_nothing = bag.codec.as_ref().is_some_and(Codec::stores_nothing);
    let generated = bag.generated.tasks.map(|tasks| Generated {
        tasks,
        bytes: bag.generated.bytes.map_or(if stores_nothing { 0 } else { 2 << 20 }, |b| b.as_u64()),
        data: bag.generated.data,
        seed: bag.generated.seed,
    });
    if generated.is_none() && bag.generated.bytes.is_some() {
        return Err(Usage::error("--bytes is for generated bags", "say how many with --tasks N"));
    }
    Ok(Request {
        inputs: bag.inputs,
        selection: bag.select.into(),
        generated,
        codec: bag.codec,
        delivery: bag.delivery,
        results: bag.results,
        out: bag.out,
        get: bag.get,
        keep_inputs: bag.keep_inputs,
        name: bag.name,
        runs: bag.runs,
        trust: bag.trust.trust(),
        pool: bag.pool,
        attempts: bag.attempts,
        verify: match bag.verify {
            VerifyArg::Worker => Verify::Worker,
            VerifyArg::None => Verify::None,
        },
        transfer: match bag.transfer {
            TransferArg::Auto => Transfer::Auto,
            TransferArg::Wire => Transfer::Wire,
        },
        stats: bag.stats.map(|stats| stats == StatsArg::Always),
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("prepare the bag")?
}
