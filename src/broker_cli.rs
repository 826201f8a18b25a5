//! The flags that say which broker; and those of `worker` and `broker`.

#![expect(clippy::doc_markdown, reason = "these are help texts, which are plain")]

use std::convert::Infallible;
use std::path::PathBuf;

use bagpress_broker::ids::Pool;
use bagpress_broker::roles::Account;
use bagpress_broker::{Patience, Secret, limits};
use bytesize::ByteSize;
use clap::{Args, ValueEnum};

/// Which broker, and how to get in.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Broker")]
pub(crate) struct BrokerAt {
    /// NATS server, such as nats://127.0.0.1:4222, or several by commas; without one, a local server
    /// is supervised
    // It may have a password: help would show what is exported, and this type's `Debug` what is typed.
    #[arg(long, env = "BAGPRESS_SERVER", hide_env_values = true, value_name = "URL", value_parser = secret)]
    pub(crate) server: Option<Secret>,

    /// Context of the `nats` command line to take server, credentials and certificates from
    #[arg(long, env = "BAGPRESS_CONTEXT", value_name = "NAME")]
    pub(crate) context: Option<String>,

    #[command(flatten)]
    pub(crate) access: AccessArgs,

    /// Where the server's name came from: the flag or the variable.
    #[arg(skip = "--server")]
    pub(crate) from: &'static str,
}

/// How to get in: one kind of credentials, and certificates. Beside a context they go before its own.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AccessArgs {
    /// Credentials file: a JWT and its seed. Nobody else may read it, nor any of the other files of secrets
    #[arg(long, env = "BAGPRESS_CREDS", value_name = "FILE")]
    pub(crate) creds: Option<PathBuf>,

    /// File with the seed of an nkey
    #[arg(long, env = "BAGPRESS_NKEY", value_name = "FILE")]
    pub(crate) nkey: Option<PathBuf>,

    /// User of the server's configuration; the password comes from --password-file
    #[arg(long, env = "BAGPRESS_USER", value_name = "NAME")]
    pub(crate) user: Option<String>,

    /// File with the password of --user
    #[arg(long, env = "BAGPRESS_PASSWORD_FILE", value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,

    /// File with a token
    #[arg(long, env = "BAGPRESS_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Certificates of the authorities that the server's may be of, in PEM [default: the system's]
    #[arg(long, env = "BAGPRESS_TLS_CA", value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,

    /// Our certificate, in PEM, for a server that asks for one
    #[arg(long, env = "BAGPRESS_TLS_CERT", value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The key of --tls-cert, in PEM
    #[arg(long, env = "BAGPRESS_TLS_KEY", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
}

/// Help of `--server` where no server is ever started.
pub(crate) const SERVER_HELP: &str = "NATS server, such as nats://127.0.0.1:4222";
/// Where the streams are made.
const SERVER_OF_INIT_HELP: &str = "The server that runs, for --init, such as nats://127.0.0.1:4222";
/// Where a run folder is asked.
pub(crate) const SERVER_OF_RUN_HELP: &str =
    "NATS server, such as nats://127.0.0.1:4222; without one, the run's own, while it runs";

/// How long a server that is just starting is waited for.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Broker")]
pub(crate) struct PatienceArgs {
    /// Wait this long for a server, and for the streams on it, that are just starting; 0s tries once
    #[arg(long, value_name = "DURATION", default_value_t = limits::CONNECT_TIMEOUT.into())]
    pub(crate) connect_timeout: humantime::Duration,
}

impl PatienceArgs {
    /// From now on.
    pub(crate) fn begin(&self) -> Patience {
        Patience::new(self.connect_timeout.into(), bagpress_producer::message)
    }
}

/// The cluster on this machine.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Local cluster, when no server is named")]
pub(crate) struct LocalArgs {
    /// Local workers, of one slot each [default: the number of cores]
    #[arg(long, short = 'j', env = "BAGPRESS_WORKERS", value_name = "N", value_parser = positive)]
    pub(crate) workers: Option<usize>,

    /// The nats-server program to supervise [default: PATH, then beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) nats_server: Option<PathBuf>,

    /// When the server's acknowledgements are on disk
    #[arg(long, value_name = "WHEN", default_value = "default")]
    pub(crate) durability: DurabilityArg,
}

/// When what the server acknowledged is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurabilityArg {
    /// Within ten seconds
    Default,
    /// Before it is acknowledged; about a tenth of the dispatch rate
    Always,
}

/// Which deliveries a worker serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ServesArg {
    /// It pulls from the stream
    Jetstream,
    /// Its idle slots are members of the queue group
    QueueGroup,
    /// Both; the queue group alone while there are no streams
    Both,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress worker --server nats://127.0.0.1:4222\n  \
    bagpress worker --slots 8 --pool nightly --idle-exit 5m --context bag\n  \
    bagpress worker --delivery queue-group --server nats://127.0.0.1:4222")]
#[command(mut_arg("server", |arg| arg.help(SERVER_HELP)))]
pub(crate) struct WorkerArgs {
    /// Tasks at a time [default: the number of cores]
    #[arg(long, env = "BAGPRESS_SLOTS", value_name = "N", value_parser = positive)]
    pub(crate) slots: Option<usize>,

    /// Pool whose tasks it takes
    #[arg(long, env = "BAGPRESS_POOL", value_name = "POOL", default_value = "default")]
    pub(crate) pool: Pool,

    /// By which way it is handed tasks
    #[arg(long, value_name = "HOW", default_value = "both")]
    pub(crate) delivery: ServesArg,

    /// Folder below which inputs may be read and outputs written in place; may be given more than once
    #[arg(long, value_name = "DIR")]
    pub(crate) allow: Vec<PathBuf>,

    /// File or folder that may be read in place, and not written to; may be given more than once
    #[arg(long, value_name = "PATH")]
    pub(crate) allow_read: Vec<PathBuf>,

    /// Folder below which outputs may be written in place; may be given more than once
    #[arg(long, value_name = "DIR")]
    pub(crate) allow_write: Vec<PathBuf>,

    /// End after this long without a task, such as 5m
    #[arg(long, value_name = "DURATION")]
    pub(crate) idle_exit: Option<humantime::Duration>,

    /// Longest execution of a task, such as 1h [default: 10min, and a second more for each 128 KiB of input that it has
    /// compressed]
    #[arg(long, value_name = "DURATION")]
    pub(crate) time_limit: Option<humantime::Duration>,

    /// Take tasks that want another version of the codec's library too: outputs may differ in bytes
    #[arg(long)]
    pub(crate) any_codec_version: bool,

    /// File for the log, a JSON line an event [default: warnings to stderr]
    #[arg(long, env = "BAGPRESS_LOG_FILE", value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) broker: BrokerAt,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress broker --store data --listen 127.0.0.1:4222\n  \
    bagpress broker --store runs/t1/objects/.broker\n  \
    bagpress broker --listen 0.0.0.0:4222 --keep-token bagpress.token\n  \
    bagpress broker --init --server nats://127.0.0.1:4222\n  \
    bagpress broker --init --server tls://n1:4222 --creds admin.creds --tls-ca ca.pem\n  \
    bagpress broker --auth auth")]
#[command(mut_arg("server", |arg| arg.help(SERVER_OF_INIT_HELP)))]
pub(crate) struct BrokerArgs {
    /// Only make the streams on a server that runs
    #[arg(long)]
    pub(crate) init: bool,

    /// Only write a key for each role into this folder, and for a server's configuration what each may do; keys that
    /// are there are kept
    #[arg(long, value_name = "DIR", conflicts_with = "init")]
    pub(crate) auth: Option<PathBuf>,

    /// Account of those who have the keys: the bags of other accounts are out of their reach
    #[arg(long, value_name = "NAME", default_value = "BAGPRESS", requires = "auth")]
    pub(crate) account: Account,

    /// Copies of each stream: 1, or 3 in a cluster
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) replicas: usize,

    /// Bytes that the server may store, such as 8GiB; the streams get parts of it [default: 9 GiB for the streams]
    #[arg(long, value_name = "SIZE", requires = "init")]
    pub(crate) max_file: Option<ByteSize>,

    /// Pool to make the durable of
    #[arg(long, value_name = "POOL", default_value = "default")]
    pub(crate) pool: Pool,

    /// Folder of the server's store, also a run's `.broker`
    #[arg(long, value_name = "DIR", default_value = "bagpress-broker")]
    pub(crate) store: PathBuf,

    /// Address and port; port -1 is a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4222")]
    pub(crate) listen: String,

    /// File with the token that the server asks for, made if it is not there [default: another token at
    /// each start, in DIR/token of --store]
    #[arg(long, value_name = "FILE")]
    pub(crate) keep_token: Option<PathBuf>,

    /// Ask for no token: everybody who reaches the port can read and write everything. Beyond the loopback
    /// only with --no-auth=public
    #[arg(long, value_name = "WHO", num_args = 0..=1, require_equals = true,
        default_missing_value = "loopback")]
    pub(crate) no_auth: Option<NoAuth>,

    /// The nats-server program to supervise [default: PATH, then beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) nats_server: Option<PathBuf>,

    /// When the server's acknowledgements are on disk
    #[arg(long, value_name = "WHEN", default_value = "default")]
    pub(crate) durability: DurabilityArg,

    #[command(flatten)]
    pub(crate) broker: BrokerAt,
}

#[expect(clippy::unnecessary_wraps, reason = "as a parser of values is")]
fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text.to_owned()))
}

/// Who may use a server that asks for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NoAuth {
    /// Every user of this machine
    Loopback,
    /// Everybody who reaches the address
    Public,
}

/// A number of slots or workers.
fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=limits::SLOTS_MAX).contains(&number) => Ok(number),
        _ => Err(format!("use a number from 1 to {}", limits::SLOTS_MAX)),
    }
}
