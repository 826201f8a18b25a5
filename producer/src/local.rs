//! A cluster on this machine, for one run: a server and workers of our own, which die with us.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use bagpress_broker::ids::Pool;
use bagpress_broker::quote::name;
use bagpress_broker::server::{self, Access, Durability, Guard, Happened, Program, Server};
use bagpress_broker::{Address, Broker, Role, Sizes, limits};
use bagpress_objstore::staging::Allowed;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tracing::warn;

use crate::run_folder::folder::RunFolder;

/// What a local cluster is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// The nats-server to supervise.
    pub program: Program,
    /// How many workers, of one slot each.
    pub workers: usize,
    /// When what the server acknowledged is on disk.
    pub durability: Durability,
    /// Which pool the workers are.
    pub pool: Pool,
    /// What they may read and write in place: nothing but their bag's own.
    pub allowed: Allowed,
}

/// What of a cluster is needed after its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// The bag goes on later: workers return their tasks, and the server closes its store.
    All,
    /// The bag is finished, and the store has its outputs: the server closes it; workers are killed, as nothing that they hold
    /// is needed.
    Store,
    /// The bag is finished and all of it is in files: the server is killed too, and its store is to be removed.
    Nothing,
}

/// The cluster. Start and supervise it on the main thread: its processes end when that thread ends.
#[derive(Debug)]
pub struct Cluster {
    server: Server,
    guard: Guard,
    pool: Pool,
    allowed: Allowed,
    folder: RunFolder,
    workers: Vec<Worker>,
    ended: mpsc::Sender<u32>,
}

#[derive(Debug)]
struct Worker {
    child: Option<Child>,
    starts: u32,
}

impl Cluster {
    /// Starts a server on the run's `.broker/` and the workers, and makes the streams. The process
    /// ids of workers that end come out of the channel.
    ///
    /// # Errors
    ///
    /// If there is no fitting nats-server, if its store is in use, or if it does not become ready.
    pub async fn start(
        folder: &RunFolder,
        options: &Options,
    ) -> Result<(Self, mpsc::Receiver<u32>)> {
        let guard = Guard::of_this_program().context("find this program")?;
        let server = Server::start(server::Options {
            program: options.program.clone(),
            store: folder.make_store()?,
            listen: "127.0.0.1:-1".to_owned(),
            durability: options.durability,
            access: Access::NewToken,
            memory: Some(limits::LOCAL_SERVER_MEMORY),
            guard: guard.clone(),
        })
        .await?;
        let (ended, receiver) = mpsc::channel(64);
        let mut cluster = Self {
            server,
            guard,
            pool: options.pool.clone(),
            allowed: options.allowed.clone(),
            folder: folder.clone(),
            workers: Vec::new(),
            ended,
        };
        for number in 0..options.workers {
            let child = cluster.spawn(number)?;
            cluster.workers.push(Worker { child: Some(child), starts: 1 });
        }
        // While the workers start: they look for the streams until these are there.
        cluster.make_streams(options).await?;
        Ok((cluster, receiver))
    }

    async fn make_streams(&self, options: &Options) -> Result<()> {
        let store = self.server.store();
        let broker = Broker::connect(&self.address(), Role::Admin).await?;
        let sizes = Sizes { max_file: Some(server::max_file(store)), replicas: 1 };
        Box::pin(broker.ensure(&options.pool, sizes)).await?;
        if options.workers > 0 {
            // A command that only reads the run fills no disk.
            broker.check_room(server::max_file(store), store).await?;
        }
        Ok(())
    }

    /// Where the server is.
    #[must_use]
    pub fn address(&self) -> Address {
        self.server.address()
    }

    fn spawn(&self, number: usize) -> Result<Child> {
        let log = self.folder.log(&log_of(number))?;
        let mut command = Command::from(self.guard.command(&self.guard.executable));
        command.args(["worker", "--slots", "1", "--server", self.server.url()]);
        command.args(["--pool", self.pool.as_str()]);
        // Opened by us: behind a path there may be something else by the time that it is followed.
        command.args(["--log", "/proc/self/fd/1"]).stdout(log);
        let Allowed { read, write } = &self.allowed;
        for (flag, paths) in [("--allow-read", read), ("--allow-write", write)] {
            // A path that is gone cannot be allowed; its tasks fail and say so.
            for path in paths.iter().filter(|path| path.exists()) {
                command.arg(flag).arg(path);
            }
        }
        // Variables that were exported for other workers do not apply to these.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("BAGPRESS_") {
                command.env_remove(&name);
            }
        }
        // The token stays in a file that only this user can read: the arguments of a process can be read by everybody.
        if let Some(file) = self.server.token_file() {
            command.env("BAGPRESS_TOKEN_FILE", file);
        }
        command.stdin(Stdio::null()).stderr(Stdio::inherit());
        command.kill_on_drop(true).spawn().context("start a worker")
    }

    /// Waits for workers that end, says so, and starts them again, at most
    /// [`limits::RESPAWNS_MAX`] times each. Returns when the cluster can do no more.
    pub async fn supervise(&mut self) -> anyhow::Error {
        loop {
            let happened = {
                let Self { server, workers, .. } = self;
                let mut ends: FuturesUnordered<_> = workers
                    .iter_mut()
                    .enumerate()
                    .filter_map(|(number, worker)| Some((number, worker.child.as_mut()?)))
                    .map(|(number, child)| async move { (number, child.id(), child.wait().await) })
                    .collect();
                tokio::select! {
                    happened = server.watch() => Err(happened),
                    Some((number, pid, status)) = ends.next() => {
                        let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                        warn!(number, pid, status, "local worker ended");
                        crate::error::message(&format!("note: local worker {number} ended ({status})"));
                        if let Some(pid) = pid {
                            // Nobody listens when the bag is over.
                            self.ended.try_send(pid).ok();
                        }
                        Ok(number)
                    }
                }
            };
            let done = match happened {
                Ok(number) => self.respawn(number),
                Err(happened) => follow_up(&mut self.server, happened).await,
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    fn respawn(&mut self, number: usize) -> Result<()> {
        let starts = self.workers[number].starts;
        if starts > limits::RESPAWNS_MAX {
            self.workers[number].child = None;
            if self.workers.iter().all(|worker| worker.child.is_none()) {
                bail!(
                    "every local worker ended more than {} times; see {}",
                    limits::RESPAWNS_MAX,
                    name(self.folder.logs())
                );
            }
            return Ok(());
        }
        let child = self.spawn(number)?;
        self.workers[number] = Worker { child: Some(child), starts: starts + 1 };
        Ok(())
    }

    /// Stops everything and waits until it is gone.
    pub async fn stop(mut self, needed: Needed) {
        let signal = if needed == Needed::All { Signal::TERM } else { Signal::KILL };
        let mut children: Vec<_> = self.workers.iter_mut().filter_map(|w| w.child.take()).collect();
        for child in &children {
            if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
                // It may have ended by itself.
                kill_process(pid, signal).ok();
            }
        }
        for child in &mut children {
            let within = limits::STOP_WITHIN / 4;
            if tokio::time::timeout(within, child.wait()).await.is_err() {
                // Only one that has ended since cannot be killed.
                child.kill().await.ok();
            }
        }
        match needed {
            Needed::Nothing => self.server.kill().await,
            Needed::Store | Needed::All => self.server.stop().await,
        }
    }
}

fn log_of(worker: usize) -> String {
    format!("worker_{worker}.log")
}

/// Reports what happened to a server of ours, and restarts it when its disk has space again.
///
/// # Errors
///
/// If it is gone, or does not come back.
pub async fn follow_up(server: &mut Server, happened: Happened) -> Result<()> {
    let store = name(server.store());
    match happened {
        Happened::Ended(error) => {
            return Err(anyhow::Error::from(error).context("the local server is gone"));
        }
        Happened::DiskFull => crate::error::message(&format!(
            "note: the broker's disk is full at {store}; free some space there, the server is then restarted"
        )),
        Happened::RoomAgain => {
            server.restart().await.context("restart the server that had met a full disk")?;
            crate::error::message(&format!(
                "note: there is space at {store} again, the server was restarted"
            ));
        }
    }
    Ok(())
}
