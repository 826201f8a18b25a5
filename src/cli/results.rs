//! The flags of `results`.

use std::path::PathBuf;

use clap::Args;

use super::common::TrustArgs;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress results runs/t1/staged\n  \
    bagpress results runs/t1/staged --follow\n\n\
    Each line is the outcome of one task, as JSON; docs/jsonl.md has its form. The exit code is 1 if any task failed.")]
pub(crate) struct ResultsArgs {
    /// Run folder, such as runs/NAME/staged
    #[arg(value_name = "BAG")]
    pub(crate) folder: PathBuf,

    /// Print outcomes as they come, until every task has one
    #[arg(long, short = 'f')]
    pub(crate) follow: bool,

    #[command(flatten)]
    pub(crate) trust: TrustArgs,
}
