//! The supervised server: nats-server as our child, on a store of its own.

pub(crate) mod config;
mod find;
pub mod guard;
mod lock;
pub(crate) mod log;
pub(crate) mod ready;
pub(crate) mod store;
mod token;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tracing::debug;

pub use config::{Config, Durability, max_file};
pub use find::{Program, find_program};
pub use guard::Guard;
pub use lock::remove_store;
pub use ready::{leftovers, running};
pub use token::Access;

use self::log::Log;
use self::store::Store;
use crate::{Address, Error, Secret, limits, version_at_least};

/// Between two looks at the disk of a server.
const DISK_EVERY: Duration = Duration::from_millis(500);
/// Free bytes below which a server has met, or is about to meet, a full disk.
const DISK_FULL: u64 = 1 << 20;
/// What it writes then, if its log has room.
const NO_SPACE: &str = "no space left on device";

/// The variable that says how much memory a Go program shall take: its soft limit (package `runtime`).
const MEMORY: &str = "GOMEMLIMIT";

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
    /// Which clients may use it.
    pub access: Access,
    /// How many bytes its garbage collector keeps it to, if it can; none leaves that to the server. `GOMEMLIMIT` in the
    /// environment overrides it.
    pub memory: Option<u64>,
    /// How it is started, so that it dies with us.
    pub guard: Guard,
}

/// A nats-server that is our child. Dropping it kills it; [`stop`](Self::stop) is kinder.
#[derive(Debug)]
pub struct Server {
    options: Options,
    token: Option<Secret>,
    /// It met a full disk and stores nothing until it is restarted.
    full: bool,
    child: Child,
    url: String,
    pid: u32,
    log: Log,
    lock: fs::File,
}

/// What happens to a server that is watched.
#[derive(Debug)]
pub enum Happened {
    /// It ended, which it should not.
    Ended(Error),
    /// Its disk is full: it stores nothing from now on, and says nothing to who publishes.
    DiskFull,
    /// There is room again: [`Server::restart`] it, which alone makes it store again.
    RoomAgain,
}

struct Spawned {
    child: Child,
    url: String,
    log: Log,
}

impl Server {
    /// Starts a server; it is ready, with JetStream, when this returns.
    ///
    /// The server dies when the *thread* that called this ends: call it on one that lives as long as
    /// the server should.
    ///
    /// # Errors
    ///
    /// [`Error::TooOld`], and [`Error::NoServerProgram`] for what is no nats-server, of a program that was not asked for its
    /// version; [`Error::StoreInUse`], [`Error::NotOurs`] for a store that is another user's or that others can write
    /// to, [`Error::NotReady`] with the end of its log, [`Error::Io`].
    pub async fn start(options: Options) -> Result<Self, Error> {
        let path = std::path::absolute(&options.store).map_err(io("find", &options.store))?;
        let made = lock::lock(&path, |path| Store::make(path).map(Some)).await?;
        let (store, lock) = made.ok_or_else(|| io("find", &path)(ErrorKind::NotFound.into()))?;
        let options = Options { store: store.path().to_owned(), ..options };
        let token = options.access.token()?;
        let spawned = spawn(&options, &store, token.as_ref(), &lock).await;
        let Spawned { child, url, log } = spawned.inspect_err(|_| tidy(&options.store))?;
        let pid = child.id().unwrap_or_default();
        Ok(Self { options, token, full: false, child, url, pid, log, lock })
    }

    /// Stops it, and starts it again on the same store and port, with the same token: whoever was in gets in
    /// again. The lock stays ours throughout.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start); there is no server then.
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.end().await;
        let listen = self.url.trim_start_matches("nats://").to_owned();
        let options = Options { listen, ..self.options.clone() };
        let token = self.token.as_ref();
        // Looked at again, and not held: this process may have few files open.
        let store = Store::make(&options.store)?;
        let Spawned { child, url, log } = spawn(&options, &store, token, &self.lock).await?;
        self.pid = child.id().unwrap_or_default();
        (self.child, self.url, self.log, self.full) = (child, url, log, false);
        Ok(())
    }

    /// Waits until something happens to it. Cancel-safe.
    pub async fn watch(&mut self) -> Happened {
        loop {
            tokio::select! {
                status = self.child.wait() => return Happened::Ended(self.how_it_ended(status)),
                () = tokio::time::sleep(DISK_EVERY) => {}
            }
            let free = free_bytes(self.store());
            if !self.full && (free < DISK_FULL || self.log.tells(NO_SPACE)) {
                self.full = true;
                return Happened::DiskFull;
            }
            if self.full && free >= limits::DISK_FREE_MIN {
                return Happened::RoomAgain;
            }
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens, with what lets us in.
    #[must_use]
    pub fn address(&self) -> Address {
        self.token_file().into_iter().fold(Address::plain(&self.url), ready::of_token)
    }

    /// The file with its token, which only its owner can read; none if everybody is let in.
    #[must_use]
    pub fn token_file(&self) -> Option<PathBuf> {
        self.token.as_ref().map(|_| self.store().join(token::FILE))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Folder of its store.
    #[must_use]
    pub fn store(&self) -> &Path {
        &self.options.store
    }

    /// Its log; earlier servers of the store wrote into it too.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        self.log.path()
    }

    /// Waits until it ends, which it should not, and says how. Cancel-safe.
    pub async fn ended(&mut self) -> Error {
        let status = self.child.wait().await;
        self.how_it_ended(status)
    }

    fn how_it_ended(&self, status: std::io::Result<ExitStatus>) -> Error {
        let why = match status {
            Ok(status) => format!("it ended: {status}"),
            Err(error) => format!("it cannot be waited for: {error}"),
        };
        Error::during("nats-server").lost(format!("{why}{}", self.log.tail()))
    }

    /// Stops it, and waits until it is gone: killed, if it takes longer than
    /// [`limits::STOP_WITHIN`]. The store and the log stay.
    pub async fn stop(mut self) {
        self.end().await;
        tidy(self.store());
    }

    /// Kills it, and waits until it is gone: for who needs nothing more of its store. It takes a server tens of milliseconds to
    /// put that in order. What it has acknowledged is in the store all the same.
    pub async fn kill(mut self) {
        // It may have ended by itself.
        self.child.kill().await.ok();
        tidy(self.store());
    }

    async fn end(&mut self) {
        // None if it was waited for already: its process id may be somebody else's by now.
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            // It may have ended by itself.
            kill_process(pid, Signal::TERM).ok();
        }
        if tokio::time::timeout(limits::STOP_WITHIN, self.child.wait()).await.is_err() {
            // It has ended in the meantime, or the kernel has it: nothing more can be done.
            self.child.kill().await.ok();
        }
    }
}

fn io(what: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { what, path: path.clone(), source }
}

/// Removes what is of the life of a server that has ended.
fn tidy(store: &Path) {
    // A server that ends in order removes its ports file itself.
    let mut leftovers = ready::ports_files(store);
    leftovers.extend([config::FILE, token::FILE].map(|name| store.join(name)));
    for leftover in leftovers {
        // One that stays is taken for nobody's by whoever starts next.
        fs::remove_file(leftover).ok();
    }
}

fn free_bytes(folder: &Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Starts the program. One that does not start is asked for its version, and if it knows fewer settings, started with those.
async fn spawn(
    options: &Options,
    store: &Store,
    token: Option<&Secret>,
    lock: &fs::File,
) -> Result<Spawned, Error> {
    let newest = spawn_with(true, options, store, token, lock).await;
    let Err(Error::NotReady { .. }) = &newest else { return newest };
    let program = options.program.clone();
    let asked = tokio::task::spawn_blocking(move || program.version()).await;
    let version = asked.map_err(|error| io("ask", &options.program.path)(error.into()))??;
    if version_at_least(&version, config::NEWEST_SETTINGS) {
        return newest;
    }
    spawn_with(false, options, store, token, lock).await
}

async fn spawn_with(
    newest_settings: bool,
    options: &Options,
    store: &Store,
    token: Option<&Secret>,
    lock: &fs::File,
) -> Result<Spawned, Error> {
    let since = Instant::now();
    let Options { program, listen, durability, guard, .. } = options;
    // The server writes into whatever has that name.
    for old in ready::ports_files(store.path()) {
        fs::remove_file(&old).map_err(io("remove the old ports file", &old))?;
    }
    let config = Config {
        store: store.path().to_owned(),
        inside: true,
        listen: listen.clone(),
        durability: *durability,
        newest_settings,
        token: token.cloned(),
        extra: String::new(),
    };
    // Before it listens: a client that waits for it finds the token.
    token::leave(store, token)?;
    config.write(store)?;
    let (log, output) = Log::open(store).map_err(io("open the log", &Log::of(store)))?;
    let more_output = output.try_clone().map_err(io("open the log", log.path()))?;
    // The server never reads its input, but it keeps it open. So nobody else gets the store before
    // the server is really gone, even if we are killed.
    let input = lock.try_clone().map_err(io("lock", store.path()))?;
    let mut command = Command::from(guard.command(&program.path));
    // The owner of a folder above the store may put another in its place at any moment: it is entered, not named.
    command.current_dir(store.itself()).args(["--config", config::FILE]);
    command.stdin(input).stdout(output).stderr(more_output);
    if let Some(bytes) = options.memory.filter(|_| std::env::var_os(MEMORY).is_none()) {
        command.env(MEMORY, bytes.to_string());
    }
    command.kill_on_drop(true);
    let mut child = command.spawn().map_err(io("start", &guard.executable))?;
    let ready = ready::ready(&mut child, &store.itself(), token, &log).await;
    match ready.and_then(|ready| program.expect_fitting(&ready.version).map(|()| ready.url)) {
        Ok(url) => {
            debug!(pid = child.id(), url, ready_after = ?since.elapsed(), "nats-server started");
            Ok(Spawned { child, url, log })
        }
        Err(error) => {
            // It has ended, or it must.
            child.kill().await.ok();
            Err(error)
        }
    }
}
