//! The supervised server: nats-server as our child, on a store of its own.

mod config;
mod find;
pub mod guard;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

pub use config::{Config, Durability, max_file};
pub use find::{Program, find_program};
pub use guard::Guard;

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

/// A nats-server that is our child.
#[derive(Debug)]
pub struct Server {
    child: Child,
    url: String,
    pid: u32,
    store: PathBuf,
    ports_file: PathBuf,
    _lock: File,
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
        let Options { program, store, listen, durability, guard } = options;
        let store = std::path::absolute(&store).map_err(|source| Error::Io {
            what: "find",
            path: store.clone(),
            source,
        })?;
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { what, path, source }
        };
        fs::create_dir_all(&store).map_err(io("make the store", &store))?;
        let lock = lock(&store)?;
        for old in ports_files(&store) {
            fs::remove_file(&old).map_err(io("remove the old ports file", &old))?;
        }
        let config = Config {
            store: store.clone(),
            listen,
            durability,
            version: program.version.clone(),
            extra: String::new(),
        };
        let path = store.join("server.conf");
        fs::write(&path, config.text()).map_err(io("write", &path))?;
        let log_path = store.join("server.log");
        let log = OpenOptions::new().create(true).append(true).open(&log_path);
        let log = log.map_err(io("open the log", &log_path))?;
        let second = log.try_clone().map_err(io("open the log", &log_path))?;
        let mut command = Command::from(guard.command(&program.path));
        command.arg("--config").arg(&path).stdin(Stdio::null()).stdout(log).stderr(second);
        let mut child = command.kill_on_drop(true).spawn().map_err(io("start", &program.path))?;
        let ready = ready(&mut child, &store, &log_path).await;
        let url = match ready {
            Ok(url) => url,
            Err(error) => {
                drop(child.kill().await);
                return Err(error);
            }
        };
        let pid = child.id().unwrap_or(0);
        let ports_file = store.join(format!("nats-server_{pid}.ports"));
        Ok(Self { child, url, pid, store, ports_file, _lock: lock })
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

    /// Waits until it ends, which it should not, and says how.
    pub async fn ended(&mut self) -> Error {
        let why = match self.child.wait().await {
            Ok(status) => format!("it ended: {status}"),
            Err(error) => format!("it cannot be waited for: {error}"),
        };
        Error::NotReady { why, log_tail: log_tail(&self.store.join("server.log")) }
    }

    /// Stops it, and waits until it is gone. The store stays.
    pub async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            // It may have ended by itself.
            kill_process(pid, Signal::TERM).ok();
        }
        if tokio::time::timeout(limits::STOP_WITHIN, self.child.wait()).await.is_err() {
            drop(self.child.kill().await);
        }
        for leftover in [&self.ports_file, &self.store.join("server.conf")] {
            drop(fs::remove_file(leftover));
        }
    }
}

fn ports_files(store: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(store) else { return Vec::new() };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|e| e == "ports")).collect()
}

/// One server a store. The kernel gives the lock back when we die, however we die.
fn lock(store: &Path) -> Result<File, Error> {
    let path = store.join("lock");
    let io = |source| Error::Io { what: "lock", path: path.clone(), source };
    let options = OpenOptions::new().create(true).truncate(false).read(true).write(true).clone();
    let mut file = options.open(&path).map_err(io)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let holder = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
        return Err(Error::StoreInUse { path: store.to_owned(), holder });
    }
    file.set_len(0).map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(file)
}

async fn ready(child: &mut Child, store: &Path, log: &Path) -> Result<String, Error> {
    let since = Instant::now();
    let not_ready = |why: String| Error::NotReady { why, log_tail: log_tail(log) };
    let mut pause = Duration::from_millis(1);
    loop {
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => return Err(not_ready(format!("it ended at once: {status}"))),
            Err(error) => return Err(not_ready(error.to_string())),
        }
        if let Some(url) = child.id().and_then(|pid| listening(store, pid))
            && jetstream_answers(&url).await
        {
            return Ok(url);
        }
        if since.elapsed() > limits::SERVER_READY_WITHIN {
            return Err(not_ready(format!("not after {:?}", limits::SERVER_READY_WITHIN)));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Where the server of process `pid` listens, once it does; for the tests' server.
#[cfg(feature = "testing")]
pub(crate) fn listening_at(store: &Path, pid: u32) -> Option<String> {
    listening(store, pid)
}

fn listening(store: &Path, pid: u32) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Ports {
        nats: Vec<String>,
    }
    let text = fs::read_to_string(store.join(format!("nats-server_{pid}.ports"))).ok()?;
    let ports: Ports = serde_json::from_str(&text).ok()?;
    ports.nats.into_iter().next()
}

async fn jetstream_answers(url: &str) -> bool {
    let Ok(client) = async_nats::connect(url).await else { return false };
    let context = async_nats::jetstream::new(client);
    context.query_account().await.is_ok()
}

/// The last lines of a log, each on a line of its own, or nothing.
fn log_tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let tail = &lines[lines.len().saturating_sub(8)..];
    tail.iter().flat_map(|line| ["\n  ", line]).collect()
}
