//! The flags of the verbs that serve bags: `worker` and `broker`.

use std::path::PathBuf;

use bagpress_broker::ids::Pool;
use bagpress_broker::roles::Account;
use bytesize::ByteSize;
use clap::{Args, ValueEnum};

use super::broker::{BrokerAt, OwnServerArgs, SERVER_HELP, positive};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress worker --server nats://127.0.0.1:4222\n  \
    bagpress worker --slots 8 --pool nightly --idle-exit 5m --context bag\n  \
    bagpress worker --delivery queue-group --server nats://127.0.0.1:4222")]
#[command(mut_arg("server", |arg| arg.help(SERVER_HELP)))]
pub(crate) struct WorkerArgs {
    /// Tasks executed at a time [default: the number of cores]
    #[arg(long, env = "BAGPRESS_SLOTS", value_name = "N", value_parser = positive)]
    pub(crate) slots: Option<usize>,

    /// Pool whose tasks the worker takes
    #[arg(long, env = "BAGPRESS_POOL", value_name = "POOL", default_value = "default")]
    pub(crate) pool: Pool,

    /// How the worker receives tasks
    #[arg(long, value_name = "HOW", default_value = "both")]
    pub(crate) delivery: ServesArg,

    /// Folder where inputs may be read and outputs written in place; may be given more than once
    #[arg(long, value_name = "DIR")]
    pub(crate) allow: Vec<PathBuf>,

    /// File or folder that may be read in place, but not written; may be given more than once
    #[arg(long, value_name = "PATH")]
    pub(crate) allow_read: Vec<PathBuf>,

    /// Folder where outputs may be written in place; may be given more than once
    #[arg(long, value_name = "DIR")]
    pub(crate) allow_write: Vec<PathBuf>,

    /// Exit after this long without a task, such as 5m
    #[arg(long, value_name = "DURATION")]
    pub(crate) idle_exit: Option<humantime::Duration>,

    /// Longest execution of a task, such as 1h [default: 10min, plus one second for each 128 KiB of input compressed]
    #[arg(long, value_name = "DURATION")]
    pub(crate) time_limit: Option<humantime::Duration>,

    /// Also take tasks that want another version of the codec's library: outputs may differ in bytes
    #[arg(long)]
    pub(crate) any_codec_version: bool,

    /// Log file, one JSON line per event [default: warnings to stderr]
    #[arg(long, env = "BAGPRESS_LOG_FILE", value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) broker: BrokerAt,
}

/// Which deliveries a worker serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ServesArg {
    /// It pulls from the stream
    Jetstream,
    /// It is a member of the queue group, for as many tasks as it can take
    QueueGroup,
    /// Both; only the queue group while there are no streams
    Both,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress broker --store data --listen 127.0.0.1:4222\n  \
    bagpress broker --store runs/t1/objects/.broker\n  \
    bagpress broker --listen 0.0.0.0:4222 --keep-token bagpress.token\n  \
    bagpress broker --init --server nats://127.0.0.1:4222\n  \
    bagpress broker --init --server tls://n1:4222 --creds admin.creds --tls-ca ca.pem\n  \
    bagpress broker --auth auth")]
#[command(mut_arg("server", |arg| {
    arg.help("The existing server, for --init, such as nats://127.0.0.1:4222")
}))]
pub(crate) struct BrokerArgs {
    /// Only create the streams on an existing server
    #[arg(long)]
    pub(crate) init: bool,

    /// Only write into this folder a key for each role, and the permissions for a server's configuration; existing
    /// keys are kept
    #[arg(long, value_name = "DIR", conflicts_with = "init")]
    pub(crate) auth: Option<PathBuf>,

    /// Account of the keys; bags of other accounts are out of their reach
    #[arg(long, value_name = "NAME", default_value = "BAGPRESS", requires = "auth")]
    pub(crate) account: Account,

    /// Copies of each stream: 1, or 3 in a cluster
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) replicas: usize,

    /// Bytes that the server may store, such as 8GiB, divided among the streams [default: 9 GiB for the streams]
    #[arg(long, value_name = "SIZE", requires = "init")]
    pub(crate) max_file: Option<ByteSize>,

    /// Pool whose durable is created
    #[arg(long, value_name = "POOL", default_value = "default")]
    pub(crate) pool: Pool,

    /// Folder of the server's store; may be the `.broker` of a run
    #[arg(long, value_name = "DIR", default_value = "bagpress-broker")]
    pub(crate) store: PathBuf,

    /// Address and port to listen on; port -1 is any free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4222")]
    pub(crate) listen: String,

    /// File with the token that clients need, created if missing [default: a new token at each start, in DIR/token of
    /// --store]
    #[arg(long, value_name = "FILE")]
    pub(crate) keep_token: Option<PathBuf>,

    /// Require no token: everybody who can reach the port can read and write everything. Not only on loopback:
    /// --no-auth=public
    #[arg(long, value_name = "WHO", num_args = 0..=1, require_equals = true,
        default_missing_value = "loopback")]
    pub(crate) no_auth: Option<NoAuth>,

    #[command(flatten)]
    pub(crate) own: OwnServerArgs,

    #[command(flatten)]
    pub(crate) broker: BrokerAt,
}

/// Which clients may use a server that requires no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NoAuth {
    /// Every user of this machine
    Loopback,
    /// Everybody who reaches the address
    Public,
}
