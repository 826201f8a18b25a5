//! The command line as data: one flag, one line; every flag parses into its real type.

#![expect(clippy::doc_markdown, reason = "these are help texts, which are plain")]

pub(crate) mod arrays;
pub(crate) mod bag;
pub(crate) mod broker;
pub(crate) mod common;
pub(crate) mod existing;
pub(crate) mod object;
pub(crate) mod restore;
pub(crate) mod results;
pub(crate) mod select;
pub(crate) mod serve;
mod short;

pub(crate) use self::short::each_verb;

use clap::{Args, Command, CommandFactory, Parser, Subcommand};

use self::bag::BagArgs;
use self::broker::{BrokerAt, LocalArgs, ReachArgs, SERVER_HELP};
use self::common::FollowArgs;
use self::existing::{CancelArgs, GatherArgs, RmArgs, StatusArgs, VerifyArgs};
use self::object::ObjectArgs;
use self::restore::RestoreArgs;
use self::results::ResultsArgs;
use self::serve::{BrokerArgs, WorkerArgs};

/// Compress bags of tasks on many machines through NATS
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 all tasks done, 1 some failed, 2 usage, 3 broker, 4 stalled, past its deadline or over --max-fails, \
                        124 not there in time (object get, object wait), 130 SIGINT, 143 SIGTERM"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Compress files, or a generated bag, and collect the outputs
    Run(RunArgs),
    /// Publish a bag and print its run folder; `gather` collects the outputs later
    Submit(SubmitArgs),
    /// Collect the outputs of a bag; continues where the last gatherer stopped
    Gather(GatherArgs),
    /// Bring back what was compressed: files of a run, or files that end in .gz, .zz, .zst, .zfp
    Restore(RestoreArgs),
    /// Show the progress of bags, the workers, why a bag waits, and the attempts of a task
    Status(StatusArgs),
    /// Print the outcomes of a run as lines of JSON, also while it is gathered
    Results(ResultsArgs),
    /// Stop a bag: waiting tasks are dropped, running ones stop, finished outputs stay
    Cancel(CancelArgs),
    /// Remove a bag and everything that it made, or sweep what no bag owns
    Rm(RmArgs),
    /// Hash and decompress every output of a run
    Verify(VerifyArgs),
    /// Put, look at, wait for, fetch, pin and free objects by their references
    Object(ObjectArgs),
    /// Run a worker: pull tasks, compress, verify, report; SIGTERM drains it
    Worker(WorkerArgs),
    /// Run a nats-server configured for bags, or create the streams on an existing one
    Broker(BrokerArgs),
}

impl Cli {
    /// What clap parses by: as it is derived, and `-h` of each verb shows the options that most people need.
    pub(crate) fn grammar() -> Command {
        short::shorten(Self::command())
    }
}

impl Verb {
    /// Which broker it is told to use.
    pub(crate) fn broker(&mut self) -> Option<&mut BrokerAt> {
        Some(match self {
            Self::Run(args) => &mut args.reach.broker,
            Self::Submit(args) => &mut args.reach.broker,
            Self::Restore(args) => &mut args.reach.broker,
            Self::Gather(args) => &mut args.reach.broker,
            Self::Status(args) => &mut args.common.reach.broker,
            Self::Cancel(args) => &mut args.common.reach.broker,
            Self::Rm(args) => &mut args.common.reach.broker,
            Self::Verify(args) => &mut args.common.reach.broker,
            Self::Object(args) => args.verb.broker(),
            Self::Worker(args) => &mut args.broker,
            Self::Broker(args) if args.init => &mut args.broker,
            Self::Broker(_) | Self::Results(_) => return None,
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

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress run /usr/share/doc --codec gzip:6 --out compressed\n  \
    bagpress run --tasks 24 --bytes 2MiB --codec zlib:6 --workers 4 --name t1\n  \
    bagpress run photos notes --results objects --server nats://127.0.0.1:4222\n  \
    bagpress run src --out packed --exclude '*.o' --exclude /target/ --dry-run\n  \
    bagpress run logs --out packed --update --skip-compressed\n  \
    find logs -name '*.log' -print0 | bagpress run --files-from - -0 --out packed\n  \
    bagpress run --tasks 24 --bytes 2MiB --delivery queue-group --workers 4\n  \
    bagpress run obj://objects/photo.png --codec zstd:9 --results objects --server nats://127.0.0.1:4222\n\n\
    A bag continues when tasks fail: the other tasks are done, failed.txt in the run folder lists each failed task \
    with its cause and path, and the exit code is 1. --max-fails N ends the bag sooner.")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) bag: BagArgs,
    #[command(flatten)]
    pub(crate) follow: FollowArgs,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
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
    pub(crate) reach: ReachArgs,
}
