//! The flags that say which broker is used: one that is named, or a local one.

use std::convert::Infallible;
use std::path::PathBuf;

use bagpress_broker::server::Durability;
use bagpress_broker::{Patience, Secret, limits};
use clap::{Args, ValueEnum};

/// Which broker, and how to get in.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Broker")]
pub(crate) struct BrokerAt {
    /// NATS server, such as nats://127.0.0.1:4222, or several separated by commas [default: a local server that is
    /// started and supervised]
    // It may have a password: help would show what is exported, and this type's `Debug` what is typed.
    #[arg(long, env = "BAGPRESS_SERVER", hide_env_values = true, value_name = "URL", value_parser = secret)]
    pub(crate) server: Option<Secret>,

    /// Context of the `nats` command line: server, credentials and certificates
    #[arg(long, env = "BAGPRESS_CONTEXT", value_name = "NAME")]
    pub(crate) context: Option<String>,

    #[command(flatten)]
    pub(crate) access: AccessArgs,

    /// Where the server's name came from: the flag or the variable.
    #[arg(skip = "--server")]
    pub(crate) from: &'static str,

    /// What was typed of all this, without a password in an address, for a command that is to be typed next; a blank before
    /// each flag.
    #[arg(skip)]
    pub(crate) typed: String,
}

/// How to get in: one kind of credentials, and certificates. With a context they replace its own.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AccessArgs {
    /// Credentials file: a JWT and its seed. Only its owner may be able to read it, as all files of secrets
    #[arg(long, env = "BAGPRESS_CREDS", value_name = "FILE")]
    pub(crate) creds: Option<PathBuf>,

    /// File with the seed of an nkey
    #[arg(long, env = "BAGPRESS_NKEY", value_name = "FILE")]
    pub(crate) nkey: Option<PathBuf>,

    /// User of the server's configuration; needs --password-file
    #[arg(long, env = "BAGPRESS_USER", value_name = "NAME")]
    pub(crate) user: Option<String>,

    /// File with the password of --user
    #[arg(long, env = "BAGPRESS_PASSWORD_FILE", value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,

    /// File with a token
    #[arg(long, env = "BAGPRESS_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Certificate authorities that may have signed the server's certificate, in PEM [default: the system's]
    #[arg(long, env = "BAGPRESS_TLS_CA", value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,

    /// Client certificate, in PEM, for a server that requires one
    #[arg(long, env = "BAGPRESS_TLS_CERT", value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// Key of --tls-cert, in PEM
    #[arg(long, env = "BAGPRESS_TLS_KEY", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
}

impl AccessArgs {
    /// The ids of all of them: they do nothing where no server is named.
    pub(crate) const FLAGS: &[&str] =
        &["creds", "nkey", "user", "password_file", "token_file", "tls_ca", "tls_cert", "tls_key"];
}

/// Help of `--server` where no server is ever started.
pub(crate) const SERVER_HELP: &str = "NATS server, such as nats://127.0.0.1:4222";
/// Where a run folder may name one.
pub(crate) const SERVER_OF_RUN_HELP: &str =
    "NATS server, such as nats://127.0.0.1:4222 [default: the run's own, while it runs]";

/// Which broker, and how long to wait for one that is starting.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Broker")]
pub(crate) struct ReachArgs {
    #[command(flatten)]
    pub(crate) broker: BrokerAt,

    /// Wait this long for a server, and its streams, to start; 0s tries once
    #[arg(long, value_name = "DURATION", default_value_t = limits::CONNECT_TIMEOUT.into())]
    pub(crate) connect_timeout: humantime::Duration,
}

impl ReachArgs {
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

    #[command(flatten)]
    pub(crate) own: OwnServerArgs,
}

/// A server of our own.
#[derive(Debug, Clone, Args)]
pub(crate) struct OwnServerArgs {
    /// The nats-server program to supervise [default: from PATH, then next to this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) nats_server: Option<PathBuf>,

    /// When data that the server has acknowledged is on disk
    #[arg(long, value_name = "WHEN", default_value = "default")]
    pub(crate) durability: DurabilityArg,
}

/// When what the server acknowledged is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurabilityArg {
    /// Within ten seconds
    Default,
    /// Before the acknowledgement; about a tenth of the dispatch rate
    Always,
}

impl From<DurabilityArg> for Durability {
    fn from(arg: DurabilityArg) -> Self {
        match arg {
            DurabilityArg::Default => Self::Default,
            DurabilityArg::Always => Self::Always,
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as a parser of values is")]
fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text.to_owned()))
}

/// A number of slots or workers.
pub(super) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=limits::SLOTS_MAX).contains(&number) => Ok(number),
        _ => Err(format!("use a number from 1 to {}", limits::SLOTS_MAX)),
    }
}
