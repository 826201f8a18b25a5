//! The command line as data: one flag, one line; every flag parses into its real type.

#![expect(clippy::doc_markdown, reason = "these are help texts, which are plain")]

use std::path::PathBuf;

use bagpress_broker::descriptor::{DeliveryPath, ResultPath};
use bagpress_broker::ids::{Pool, RunName};
use bagpress_broker::limits;
use bagpress_codec::{Codec, DataKind};
use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::bag_cli::{CancelArgs, RmArgs, StatusArgs};
use crate::broker_cli::{BrokerArgs, BrokerAt, LocalArgs, PatienceArgs, SERVER_HELP, WorkerArgs};
use crate::select_cli::SelectArgs;

/// Bag-of-tasks compression on many machines through NATS
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 all tasks done, 1 some failed, 2 usage, 3 broker, 4 stalled, \
                        130 SIGINT, 143 SIGTERM"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Publish a bag, gather its results, sum up
    Run(RunArgs),
    /// Publish a bag and print its run folder; somebody gathers it later
    Submit(SubmitArgs),
    /// Follow a bag and collect its results; goes on where an earlier one stopped
    Gather(GatherArgs),
    /// How far bags are, who works, and why one does not move; a task's attempts
    Status(StatusArgs),
    /// Stop a bag: its waiting tasks go, running ones stop, what was done stays
    Cancel(CancelArgs),
    /// Remove a bag and everything that it made; or sweep what no bag owns
    Rm(RmArgs),
    /// Hash and decompress every output of a run
    Verify(VerifyArgs),
    /// Be a worker: pull tasks, compress, verify, answer; SIGTERM drains
    Worker(WorkerArgs),
    /// Run a nats-server with the right configuration, or make the streams on one that runs
    Broker(BrokerArgs),
}

impl Verb {
    /// Which broker it is told to use.
    pub(crate) fn broker(&mut self) -> Option<&mut BrokerAt> {
        Some(match self {
            Self::Run(args) => &mut args.broker,
            Self::Submit(args) => &mut args.broker,
            Self::Gather(args) => &mut args.broker,
            Self::Status(args) => &mut args.broker,
            Self::Cancel(args) => &mut args.broker,
            Self::Rm(args) => &mut args.broker,
            Self::Verify(args) => &mut args.broker,
            Self::Worker(args) => &mut args.broker,
            Self::Broker(args) if args.init => &mut args.broker,
            Self::Broker(_) => return None,
        })
    }

    /// Threads of the runtime; none for a worker.
    pub(crate) fn threads(&self) -> Option<usize> {
        match self {
            Self::Worker(_) => None,
            _ => Some(2),
        }
    }
}

/// The bag.
#[derive(Debug, Clone, Args)]
pub(crate) struct BagArgs {
    /// Files and folders to compress; a folder keeps its last component below --out
    #[arg(value_name = "INPUT")]
    pub(crate) inputs: Vec<PathBuf>,

    /// Folder that receives the outputs, such as `DIR/doc/readme.txt.gz`
    #[arg(long, short = 'o', value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,

    /// Codec and level: zlib:0 to zlib:9, gzip:0 to gzip:9, store, noop [default: gzip:6 for files, zlib:6 for generated bags]
    #[arg(long, short = 'c', value_name = "CODEC")]
    pub(crate) codec: Option<Codec>,

    /// How outputs come back: staged (files) or objects (references)
    #[arg(long, value_name = "PATH", default_value = "staged")]
    pub(crate) results: ResultPath,

    /// How tasks reach workers: jetstream (they wait at the broker) or queue-group (who gathers keeps
    /// them and offers them to idle slots; needs no JetStream with staged results)
    #[arg(long, value_name = "HOW", default_value = "jetstream")]
    pub(crate) delivery: DeliveryPath,

    /// Name of the run and of its folder, of a-z, 0-9 and - [default: date, time and 4 letters]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<RunName>,

    /// Folder of all runs
    #[arg(long, env = "BAGPRESS_RUNS", value_name = "DIR", default_value = "runs")]
    pub(crate) runs: PathBuf,

    /// Pool of workers that takes the tasks
    #[arg(long, env = "BAGPRESS_POOL", value_name = "POOL", default_value = "default")]
    pub(crate) pool: Pool,

    /// Attempts of a task before it is reported failed
    #[arg(long, value_name = "N", default_value_t = limits::ATTEMPTS_DEFAULT)]
    pub(crate) attempts: u32,

    /// Who checks that every output gives its input again
    #[arg(long, value_name = "WHO", default_value = "worker")]
    pub(crate) verify: VerifyArg,

    /// Whether files may be handed over by path where worker and gatherer see the same folder
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub(crate) transfer: TransferArg,

    /// Fetch objects into results/ as they come (objects)
    #[arg(long)]
    pub(crate) get: bool,

    /// Keep inputs in their bucket when their task is done (objects)
    #[arg(long)]
    pub(crate) keep_inputs: bool,

    /// Write stats_N.json files [default: for generated bags up to 10,000 tasks]
    #[arg(long, value_name = "WHEN")]
    pub(crate) stats: Option<StatsArg>,

    #[command(flatten)]
    pub(crate) select: SelectArgs,

    #[command(flatten)]
    pub(crate) generated: GeneratedArgs,
}

/// A generated bag.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Generated bag, instead of inputs")]
pub(crate) struct GeneratedArgs {
    /// Tasks of a generated bag
    #[arg(long, value_name = "N")]
    pub(crate) tasks: Option<u32>,

    /// Uncompressed bytes of each task, such as 2MiB [default: 2MiB; 0 for noop]
    #[arg(long, value_name = "SIZE")]
    pub(crate) bytes: Option<ByteSize>,

    /// Kind of generated bytes: random, text or zeros
    #[arg(long, value_name = "KIND", default_value = "random")]
    pub(crate) data: DataKind,

    /// Seed of the generated bytes
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
}

/// Who checks outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VerifyArg {
    /// The worker, while it compresses
    Worker,
    /// Nobody; every result says so
    None,
}

/// How files may be handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TransferArg {
    /// By path where possible
    Auto,
    /// Always through NATS
    Wire,
}

/// When `stats_N.json` files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatsArg {
    /// For every task
    Always,
    /// For none
    Never,
}

/// How a bag is followed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Following")]
pub(crate) struct FollowArgs {
    /// Give up, with exit 4, when nothing happened for this long, such as 10m
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    pub(crate) stall_timeout: humantime::Duration,

    /// Give up, with exit 4, after this long, such as 2h
    #[arg(long, value_name = "DURATION")]
    pub(crate) deadline: Option<humantime::Duration>,

    /// Give up, with exit 4, when more tasks than this failed; without it a bag goes on whatever fails
    #[arg(long, value_name = "N")]
    pub(crate) max_fails: Option<u64>,

    /// Print the summary as JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// No progress
    #[arg(long, short = 'q')]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress run /usr/share/doc --codec gzip:6 --out compressed\n  \
    bagpress run --tasks 24 --bytes 2MiB --codec zlib:6 --workers 4 --name t1\n  \
    bagpress run photos notes --results objects --server nats://127.0.0.1:4222\n  \
    bagpress run src --out packed --exclude '*.o' --exclude /target/ --dry-run\n  \
    bagpress run logs --out packed --update --skip-compressed\n  \
    find logs -name '*.log' -print0 | bagpress run --files-from - -0 --out packed\n  \
    bagpress run --tasks 24 --bytes 2MiB --delivery queue-group --workers 4\n\n\
    A bag goes on when tasks fail: the rest is done, what failed is listed at the end with cause and path and in\n\
    failed.txt of its run folder, and the exit code is 1. --max-fails N ends it sooner.")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) bag: BagArgs,
    #[command(flatten)]
    pub(crate) follow: FollowArgs,
    #[command(flatten)]
    pub(crate) broker: BrokerAt,
    #[command(flatten)]
    pub(crate) patience: PatienceArgs,
    #[command(flatten)]
    pub(crate) local: LocalArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress submit --tasks 24 --bytes 2MiB --results objects --server nats://127.0.0.1:4222\n  \
    bagpress gather runs/NAME/objects --server nats://127.0.0.1:4222")]
#[command(mut_arg("server", |arg| arg.help(SERVER_HELP)))]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    pub(crate) bag: BagArgs,
    #[command(flatten)]
    pub(crate) broker: BrokerAt,
    #[command(flatten)]
    pub(crate) patience: PatienceArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress gather runs/t1/staged\n  \
    bagpress gather runs/t1/staged --repair\n  \
    bagpress gather runs/t1/objects --retry-failed --server nats://127.0.0.1:4222")]
pub(crate) struct GatherArgs {
    /// Run folder, such as runs/NAME/staged
    #[arg(value_name = "BAG")]
    pub(crate) folder: PathBuf,

    /// Run the failed tasks again
    #[arg(long)]
    pub(crate) retry_failed: bool,

    /// Hash every output, and run again what is missing or bad
    #[arg(long)]
    pub(crate) repair: bool,

    /// Go on with a bag that was cancelled
    #[arg(long)]
    pub(crate) resume: bool,

    #[command(flatten)]
    pub(crate) follow: FollowArgs,
    #[command(flatten)]
    pub(crate) broker: BrokerAt,
    #[command(flatten)]
    pub(crate) patience: PatienceArgs,
    #[command(flatten)]
    pub(crate) local: LocalArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bagpress verify runs/t1/staged\n  bagpress verify runs/t1/objects --json"
)]
#[command(mut_arg("server", |arg| {
    arg.help("NATS server that has the objects; without one, the run's own store is used")
}))]
pub(crate) struct VerifyArgs {
    /// Run folder, such as runs/NAME/staged
    #[arg(value_name = "BAG")]
    pub(crate) folder: PathBuf,

    /// Print what was found as JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) broker: BrokerAt,
    #[command(flatten)]
    pub(crate) patience: PatienceArgs,

    /// The nats-server program to supervise, for objects in the run's own store
    #[arg(long, value_name = "PATH")]
    pub(crate) nats_server: Option<PathBuf>,
}
