//! The flags of the verbs about an existing bag: `gather`, `status`, `cancel`, `rm` and `verify`.

use std::path::PathBuf;

use clap::Args;

use super::broker::{LocalArgs, ReachArgs, SERVER_OF_RUN_HELP};
use super::common::{CommonArgs, FollowArgs, TrustArgs};

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

    /// Hash every output, and run again the tasks whose output is missing or bad
    #[arg(long)]
    pub(crate) repair: bool,

    /// Continue a cancelled bag
    #[arg(long)]
    pub(crate) resume: bool,

    #[command(flatten)]
    pub(crate) trust: TrustArgs,
    #[command(flatten)]
    pub(crate) follow: FollowArgs,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
    #[command(flatten)]
    pub(crate) local: LocalArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress status --server nats://127.0.0.1:4222\n  \
    bagpress status runs/t1/staged --watch\n  \
    bagpress status runs/t1/staged --failed --json\n  \
    bagpress status runs/t1/staged 7\n  \
    bagpress status runs/t1/staged docs/guide.txt")]
#[command(mut_arg("server", |arg| arg.help(SERVER_OF_RUN_HELP)))]
pub(crate) struct StatusArgs {
    /// Run folder, such as runs/NAME/staged, or the id of a bag; without it: all bags and workers
    #[arg(value_name = "BAG")]
    pub(crate) bag: Option<String>,

    /// Show one task, by its file or its index: its attempts, each with worker, cause and time
    #[arg(value_name = "FILE|INDEX", conflicts_with_all = ["failed", "watch"])]
    pub(crate) task: Option<String>,

    /// Refresh every second until the bag is over; with --json, a line each time
    #[arg(long, short = 'w')]
    pub(crate) watch: bool,

    /// Show the failed tasks, each with its attempts
    #[arg(long, requires = "bag", conflicts_with = "watch")]
    pub(crate) failed: bool,

    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress cancel runs/t1/staged\n  \
    bagpress cancel t1-abcdefgh --server nats://127.0.0.1:4222\n\n\
    Finished outputs stay; `bagpress gather runs/t1/staged --resume` continues the bag.")]
#[command(mut_arg("server", |arg| arg.help(SERVER_OF_RUN_HELP)))]
pub(crate) struct CancelArgs {
    /// Run folder, such as runs/NAME/staged, or the id of a bag
    #[arg(value_name = "BAG")]
    pub(crate) bag: String,

    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress rm runs/t1/staged\n  \
    bagpress rm runs/t1/staged --outputs --dry-run\n  \
    bagpress rm t1-abcdefgh --server nats://127.0.0.1:4222\n  \
    bagpress rm --orphans --dry-run --server nats://127.0.0.1:4222")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[command(mut_arg("server", |arg| arg.help(SERVER_OF_RUN_HELP)))]
pub(crate) struct RmArgs {
    /// Run folder, such as runs/NAME/staged; or the id of a bag, to remove only what the broker has of it
    #[arg(value_name = "BAG", required_unless_present = "orphans", conflicts_with = "orphans")]
    pub(crate) bag: Option<String>,

    /// Cancel the bag first if a gatherer is running; remove it even if its objects are pinned, or other bags read them
    #[arg(long)]
    pub(crate) force: bool,

    /// Remove the outputs from the --out folder too, except those that have changed since
    #[arg(long)]
    pub(crate) outputs: bool,

    /// Remove only the run folder, and leave what a server has of the bag
    #[arg(long)]
    pub(crate) folder_only: bool,

    /// Sweep what no bag owns: chunks, part files, stores of dead servers, remains of bags
    #[arg(long)]
    pub(crate) orphans: bool,

    /// Print what would be removed; remove and cancel nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Sweep remains of unknown bags only if they have not been written to for this long
    #[arg(long, value_name = "DURATION", default_value = "1h", requires = "orphans")]
    pub(crate) older_than: humantime::Duration,

    /// Folder of all runs, for --orphans
    #[arg(long, env = "BAGPRESS_RUNS", value_name = "DIR", default_value = "runs")]
    pub(crate) runs: PathBuf,

    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bagpress verify runs/t1/staged\n  bagpress verify runs/t1/objects --json"
)]
#[command(mut_arg("server", |arg| {
    arg.help("NATS server that has the objects [default: the run's own store]")
}))]
pub(crate) struct VerifyArgs {
    /// Run folder, such as runs/NAME/staged
    #[arg(value_name = "BAG")]
    pub(crate) folder: PathBuf,

    /// Also compare with the inputs, generated or read again: detects outputs that a hostile worker made of other bytes
    #[arg(long)]
    pub(crate) inputs: bool,

    #[command(flatten)]
    pub(crate) common: CommonArgs,

    /// The nats-server program to supervise, for objects in the run's own store
    #[arg(long, value_name = "PATH")]
    pub(crate) nats_server: Option<PathBuf>,
}
