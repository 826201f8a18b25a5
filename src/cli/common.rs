//! Groups of flags that several verbs share.

use bagpress_producer::Trust;
use clap::Args;

use super::broker::ReachArgs;

/// Whose run folders are believed.
#[derive(Debug, Clone, Args)]
pub(crate) struct TrustArgs {
    /// Believe a run folder that another user owns or can write to: it decides what is written and removed
    #[arg(long)]
    pub(crate) trust_folder: bool,
}

impl TrustArgs {
    pub(crate) fn trust(&self) -> Trust {
        if self.trust_folder { Trust::Anybodys } else { Trust::Ours }
    }
}

/// What every verb about an existing bag takes, but `gather`.
#[derive(Debug, Args)]
pub(crate) struct CommonArgs {
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) trust: TrustArgs,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

/// How a bag is followed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Following the bag")]
pub(crate) struct FollowArgs {
    /// Give up with exit code 4 if for this long no task ends and none runs, such as 10m
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    pub(crate) stall_timeout: humantime::Duration,

    /// Give up with exit code 4 after this long, such as 2h
    #[arg(long, value_name = "DURATION")]
    pub(crate) deadline: Option<humantime::Duration>,

    /// Give up, with exit 4, after more than this many failed tasks [default: no limit]
    #[arg(long, value_name = "N")]
    pub(crate) max_fails: Option<u64>,

    /// Print the summary as JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Show no progress
    #[arg(long, short = 'q')]
    pub(crate) quiet: bool,
}
