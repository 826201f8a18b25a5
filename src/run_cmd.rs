//! `bagpress run`, `submit`, `gather` and `verify`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bagpress_broker::descriptor::{DeliveryPath, ResultPath, Transfer, Verify};
use bagpress_broker::server::{Durability, Program, find_program, remove_store};
use bagpress_broker::{Address, Broker, Role};
use bagpress_codec::Codec;
use bagpress_producer::gather::{Gathered, Options, open_plan};
use bagpress_producer::local::{self, Cluster};
use bagpress_producer::run::{Generated, Preparation, Prepared, Request, prepare};
use bagpress_producer::{Cancelled, GatherLock, RunFolder, Specification, Summary, Usage, message};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cli::{
    BagArgs, BrokerAt, DurabilityArg, FollowArgs, GatherArgs, LocalArgs, RunArgs, StatsArg,
    SubmitArgs, TransferArg, VerifyArg, VerifyArgs,
};
use crate::exit::{SOME_FAILED, Signalled};
use crate::logging;
use crate::preview_cmd;

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
    logging::start(Some(&prepared.folder.logs().join("producer.log")))?;
    let Prepared { folder, lock, specification, fresh, notes } = *prepared;
    let how = How { retry_failed: false, repair: false, resume: false, fresh, notes };
    follow((folder, lock), specification, at, &args.local, &args.follow, how, &mut signals).await
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
    logging::start(Some(&prepared.folder.logs().join("producer.log")))?;
    message(&format!("broker: {} (from {})", at.0.url, at.1));
    let Prepared { folder, lock, specification, notes, .. } = *prepared;
    say(&notes);
    let broker = Broker::connect(&at.0, Role::Producer).await?;
    folder.note_server(Some(&at.0.url))?;
    let (results, delivery) = (specification.results, specification.delivery);
    Box::pin(bagpress_producer::submit::submit(&broker, &folder, &lock, specification)).await?;
    if delivery == DeliveryPath::QueueGroup {
        message("note: nothing is offered to workers until somebody gathers this bag");
    } else if results == ResultPath::Staged {
        message("note: a staged bag waits until somebody gathers it");
    }
    message(&format!("next: bagpress gather {}", folder.path().display()));
    print(&format!("{}\n", folder.path().display()))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn gather(args: GatherArgs) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let at = At::of(&args.broker, &args.local)?;
    let folder = RunFolder::existing(&args.folder)?;
    let specification = Specification::read(&folder)?;
    folder.create()?;
    let lock = folder.lock()?;
    logging::start(Some(&folder.logs().join("producer.log")))?;
    let how = How {
        retry_failed: args.retry_failed,
        repair: args.repair,
        resume: args.resume,
        fresh: false,
        notes: Vec::new(),
    };
    follow((folder, lock), specification, at, &args.local, &args.follow, how, &mut signals).await
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

pub(crate) async fn verify(args: VerifyArgs) -> Result<ExitCode> {
    logging::start(None)?;
    let folder = RunFolder::existing(&args.folder)?;
    let mut at = address(&args.broker)?.map(|(address, _)| address);
    let mut cluster = None;
    let objects = Specification::read(&folder)?.results == ResultPath::Objects;
    if at.is_none() && objects && folder.broker().is_dir() {
        let options = local::Options {
            program: find_program(args.nats_server.as_deref())?,
            workers: 0,
            durability: Durability::Default,
        };
        let (started, _) = Box::pin(Cluster::start(&folder, &options)).await?;
        at = Some(started.address());
        cluster = Some(started);
    }
    let verified = bagpress_producer::verify(&folder, at.as_ref()).await;
    if let Some(cluster) = cluster {
        cluster.stop(true).await;
    }
    let verified = verified?;
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&verified)?))?;
    } else {
        for (name, why) in &verified.bad {
            print(&format!("bad: {name}: {why}\n"))?;
        }
        print(&format!(
            "{} good, {} bad, {} missing, {} failed\n",
            verified.good,
            verified.bad.len(),
            verified.missing,
            verified.failed
        ))?;
    }
    if verified.bad_lines > 0 {
        message(&format!("note: {} lines of the ledger cannot be used", verified.bad_lines));
    }
    if verified.is_good() {
        return Ok(ExitCode::SUCCESS);
    }
    message(&format!("hint: bagpress gather {} --repair", folder.path().display()));
    Ok(ExitCode::from(SOME_FAILED))
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

/// Follows a bag, on the named broker or on a cluster of its own.
async fn follow(
    (folder, lock): (RunFolder, GatherLock),
    specification: Specification,
    at: At,
    local: &LocalArgs,
    args: &FollowArgs,
    how: How,
    signals: &mut Signals,
) -> Result<ExitCode> {
    let lock = Arc::new(lock);
    let mut cluster = None;
    let (_, mut ended) = mpsc::channel(1);
    let address = match at {
        At::Named(address, from) => {
            message(&format!("broker: {} (from {from})", address.url));
            folder.note_server(Some(&address.url))?;
            address
        }
        At::Own(program) => {
            message("broker: local");
            folder.note_server(None)?;
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let workers = local.workers.unwrap_or(cores);
            let options = local::Options { program, workers, durability: local.durability.into() };
            let (started, deaths) = Box::pin(Cluster::start(&folder, &options)).await?;
            ended = deaths;
            let address = started.address();
            cluster = Some(started);
            address
        }
    };
    say(&how.notes);
    let stop = CancellationToken::new();
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
            Box::pin(connect_and_gather(&address, (&folder, &lock), specification, options)).await
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
    (folder, lock): (&RunFolder, &GatherLock),
    specification: Specification,
    options: Options,
) -> Result<Gathered> {
    let broker = Broker::connect(address, Role::Producer).await?;
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
            let folder = folder.path().display();
            message(&format!("note: `bagpress gather {folder}{resume}` goes on"));
            return Err(error);
        }
    };
    let summary = Summary::of(&gathered, folder);
    summary.write(folder)?;
    if gathered.plan.specification.results == ResultPath::Staged {
        remove_store(&folder.broker()).await?;
    }
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&summary)?))?;
    } else {
        print(&summary.text())?;
    }
    if summary.failed > 0 {
        message(&format!("error: {} of {} tasks failed", summary.failed, summary.tasks));
        message(&format!("hint: bagpress gather {} --retry-failed", folder.path().display()));
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

impl From<DurabilityArg> for Durability {
    fn from(arg: DurabilityArg) -> Self {
        match arg {
            DurabilityArg::Default => Self::Default,
            DurabilityArg::Always => Self::Always,
        }
    }
}

/// Where a bag runs.
enum At {
    /// On the broker that was named, and by what.
    Named(Address, String),
    /// On a server of its own.
    Own(Program),
}

impl At {
    fn of(broker: &BrokerAt, local: &LocalArgs) -> Result<Self> {
        Ok(match address(broker)? {
            Some((address, from)) => Self::Named(address, from),
            None => Self::Own(find_program(local.nats_server.as_deref())?),
        })
    }
}

/// The broker that was named, and by what; none means a local one.
pub(crate) fn address(at: &BrokerAt) -> Result<Option<(Address, String)>> {
    if let Some(name) = &at.context {
        let address = context(name)?;
        return Ok(Some((address, format!("context {name}"))));
    }
    let Some(url) = &at.server else { return Ok(None) };
    let from = if std::env::var("BAGPRESS_SERVER").as_ref() == Ok(url) {
        "BAGPRESS_SERVER"
    } else {
        "--server"
    };
    let credentials = at.creds.clone();
    Ok(Some((Address { credentials, ..Address::plain(url) }, from.to_owned())))
}

pub(crate) trait Named {
    fn context_missing(self) -> Result<(Address, String)>;
}

impl Named for Option<(Address, String)> {
    fn context_missing(self) -> Result<(Address, String)> {
        self.ok_or_else(|| {
            Usage::error(
                "no server was named",
                "give --server URL, --context NAME or BAGPRESS_SERVER",
            )
        })
    }
}

/// Reads a context of the `nats` command line.
fn context(name: &str) -> Result<Address> {
    let home = std::env::var_os("XDG_CONFIG_HOME").map(Into::into);
    let home = home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".config")));
    let Some(home) = home else { bail!("neither XDG_CONFIG_HOME nor HOME is set") };
    let path = home.join("nats/context").join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Usage::error(
            format!("no context {name}: {}: {error}", path.display()),
            "list them with `nats context ls`",
        )
    })?;
    let read: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
    let field = |key: &str| read[key].as_str().filter(|v| !v.is_empty()).map(str::to_owned);
    let seed = match field("nkey") {
        Some(path) => {
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
            Some(text.trim().to_owned())
        }
        None => None,
    };
    Ok(Address {
        url: field("url").unwrap_or_else(|| "nats://127.0.0.1:4222".to_owned()),
        credentials: field("creds").map(Into::into),
        user: field("user").zip(field("password")),
        token: field("token"),
        nkey_seed: seed,
    })
}

/// SIGINT and SIGTERM.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self> {
        let wait = "wait for signals";
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context(wait)?,
            terminate: signal(SignalKind::terminate()).context(wait)?,
        })
    }

    pub(crate) async fn received(&mut self) -> Signalled {
        tokio::select! {
            _ = self.interrupt.recv() => Signalled { name: "SIGINT", code: 130 },
            _ = self.terminate.recv() => Signalled { name: "SIGTERM", code: 143 },
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("prepare the bag")?
}

/// Data goes to stdout; a reader that left is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
