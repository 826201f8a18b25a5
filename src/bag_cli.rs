//! The flags of `status`, `cancel` and `rm`.

use std::path::PathBuf;

use bagpress_producer::Trust;
use clap::Args;

use crate::broker_cli::{BrokerAt, PatienceArgs, SERVER_OF_RUN_HELP};

/// Whose run folders are believed.
#[derive(Debug, Clone, Args)]
pub(crate) struct TrustArgs {
    /// Believe a run folder that another user owns or can write to: it says what is written and removed
    #[arg(long)]
    pub(crate) trust_folder: bool,
}

impl TrustArgs {
    pub(crate) fn trust(&self) -> Trust {
        if self.trust_folder { Trust::Anybodys } else { Trust::Ours }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress status --server nats://127.0.0.1:4222\n  \
    bagpress status runs/t1/staged --watch\n  \
    bagpress status runs/t1/staged --failed --json\n  \
    bagpress status runs/t1/staged 7")]
#[command(mut_arg("server", |arg| arg.help(SERVER_OF_RUN_HELP)))]
pub(crate) struct StatusArgs {
    /// Run folder, such as runs/NAME/staged, or a bag's id; without one: all bags and workers
    #[arg(value_name = "BAG")]
    pub(crate) bag: Option<String>,

    /// One task: its attempts, each with worker, cause and time
    #[arg(value_name = "TASK", conflicts_with_all = ["failed", "watch"])]
    pub(crate) task: Option<u32>,

    /// Look again every second, until the bag is over
    #[arg(long, short = 'w')]
    pub(crate) watch: bool,

    /// The failed tasks, each with its attempts
    #[arg(long, requires = "bag", conflicts_with = "watch")]
    pub(crate) failed: bool,

    /// Print as JSON; with --watch a line each time
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) trust: TrustArgs,
    #[command(flatten)]
    pub(crate) broker: BrokerAt,
    #[command(flatten)]
    pub(crate) patience: PatienceArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress cancel runs/t1/staged\n  \
    bagpress cancel t1-abcdefgh --server nats://127.0.0.1:4222\n\n\
    What was done stays done: `bagpress gather runs/t1/staged --resume` goes on.")]
#[command(mut_arg("server", |arg| arg.help(SERVER_OF_RUN_HELP)))]
pub(crate) struct CancelArgs {
    /// Run folder, such as runs/NAME/staged, or a bag's id
    #[arg(value_name = "BAG")]
    pub(crate) bag: String,

    /// Print what was cancelled as JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) trust: TrustArgs,
    #[command(flatten)]
    pub(crate) broker: BrokerAt,
    #[command(flatten)]
    pub(crate) patience: PatienceArgs,
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
    /// Run folder, such as runs/NAME/staged, or a bag's id: then the broker's part only
    #[arg(value_name = "BAG", required_unless_present = "orphans", conflicts_with = "orphans")]
    pub(crate) bag: Option<String>,

    /// Cancel the bag first, if somebody gathers it
    #[arg(long)]
    pub(crate) force: bool,

    /// Remove the outputs from the bag's --out folder too, those that are as the bag wrote them
    #[arg(long)]
    pub(crate) outputs: bool,

    /// Remove the run folder only, and leave what the bag has on a server
    #[arg(long)]
    pub(crate) folder_only: bool,

    /// Sweep what no bag owns: chunks, part files, stores of dead servers, remains of bags
    #[arg(long)]
    pub(crate) orphans: bool,

    /// Only say what would be removed: nothing is, and nothing cancelled
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Sweep remains of unknown bags only if nothing was written to them for this long
    #[arg(long, value_name = "DURATION", default_value = "1h", requires = "orphans")]
    pub(crate) older_than: humantime::Duration,

    /// Folder of all runs, to sweep
    #[arg(long, env = "BAGPRESS_RUNS", value_name = "DIR", default_value = "runs")]
    pub(crate) runs: PathBuf,

    /// Print what was removed as JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) trust: TrustArgs,
    #[command(flatten)]
    pub(crate) broker: BrokerAt,
    #[command(flatten)]
    pub(crate) patience: PatienceArgs,
}
