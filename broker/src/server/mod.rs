//! The supervised server: nats-server as our child, on a store of its own.

mod config;
mod find;
pub mod guard;
mod lock;
pub(crate) mod log;
pub(crate) mod ready;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tracing::debug;

pub use config::{Config, Durability, max_file};
pub use find::{Program, find_program};
pub use guard::Guard;
pub use lock::remove_store;
pub use ready::{leftovers, running};

use self::log::Log;
use crate::{Error, limits};

/// How a server is supervised.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program.
    pub program: Program,
    /// Folder of its store, its log and its configuration: a run's `.broker/`.
    pub store: PathBuf,
    /// Where it listens: `127.0.0.1:-1` is a free port.
    pub listen: String,
    /// When what it acknowledged is on disk.
    pub durability: Durability,
    /// How it is started, so that it dies with us.
    pub guard: Guard,
}

/// A nats-server that is our child. Dropping it kills it; [`stop`](Self::stop) is kinder.
#[derive(Debug)]
pub struct Server {
    child: Child,
    url: String,
    pid: u32,
    store: PathBuf,
    log: Log,
    _lock: fs::File,
}

impl Server {
    /// Starts a server; it is ready, with JetStream, when this returns.
    ///
    /// The server dies when the *thread* that called this ends: call it on one that lives as long as
    /// the server should.
    ///
    /// # Errors
    ///
    /// [`Error::StoreInUse`], [`Error::NotReady`] with the end of its log, [`Error::Io`].
    pub async fn start(options: Options) -> Result<Self, Error> {
        let since = Instant::now();
        let Options { program, store, listen, durability, guard } = options;
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { what, path, source }
        };
        let store = std::path::absolute(&store).map_err(io("find", &store))?;
        let lock = lock::lock(&store).await?;
        for old in ready::ports_files(&store) {
            fs::remove_file(&old).map_err(io("remove the old ports file", &old))?;
        }
        let version = program.version.clone();
        let config =
            Config { store: store.clone(), listen, durability, version, extra: String::new() };
        let config = config.write()?;
        let log = store.join("server.log");
        let (log, output) = Log::open(log.clone()).map_err(io("open the log", &log))?;
        let more_output = output.try_clone().map_err(io("open the log", log.path()))?;
        // The server never reads its input, but it keeps it open. So nobody else gets the store before
        // the server is really gone, even if we are killed.
        let input = lock.try_clone().map_err(io("lock", &store))?;
        let mut command = Command::from(guard.command(&program.path));
        command.arg("--config").arg(&config).stdin(input).stdout(output).stderr(more_output);
        command.kill_on_drop(true);
        let mut child = command.spawn().map_err(io("start", &guard.executable))?;
        let pid = child.id().unwrap_or_default();
        let url = match ready::ready(&mut child, &store, &log).await {
            Ok(url) => url,
            Err(error) => {
                // It has ended, or it must.
                drop(child.kill().await);
                return Err(error);
            }
        };
        debug!(pid, url, ready_after = ?since.elapsed(), "nats-server started");
        Ok(Self { child, url, pid, store, log, _lock: lock })
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Folder of its store.
    #[must_use]
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Its log; earlier servers of the store wrote into it too.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        self.log.path()
    }

    /// Waits until it ends, which it should not, and says how. Cancel-safe.
    pub async fn ended(&mut self) -> Error {
        let why = match self.child.wait().await {
            Ok(status) => format!("it ended: {status}"),
            Err(error) => format!("it cannot be waited for: {error}"),
        };
        Error::Lost { what: "nats-server", cause: format!("{why}{}", self.log.tail()) }
    }

    /// Stops it, and waits until it is gone: killed, if it takes longer than
    /// [`limits::STOP_WITHIN`]. The store and the log stay.
    pub async fn stop(mut self) {
        // None if it was waited for already: its process id may be somebody else's by now.
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            // It may have ended by itself.
            kill_process(pid, Signal::TERM).ok();
        }
        if tokio::time::timeout(limits::STOP_WITHIN, self.child.wait()).await.is_err() {
            drop(self.child.kill().await);
        }
        // A server that ends in order removes its ports file itself.
        let mut leftovers = ready::ports_files(&self.store);
        leftovers.push(self.store.join(config::FILE));
        for leftover in leftovers {
            drop(fs::remove_file(leftover));
        }
    }
}
