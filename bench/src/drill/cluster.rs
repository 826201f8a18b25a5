//! A broker and workers in processes of their own, each worker behind a proxy of its own.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bagpress_broker::descriptor::DeliveryPath;
use rustix::process::Signal;

use super::nats::At;
use super::proxy::Proxy;
use crate::machine;
use crate::program::{Bagpress, end};
use crate::server::Server;

/// A worker that ended by itself is started again after this.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Everything that runs for all bags.
#[derive(Debug)]
pub(super) struct Cluster {
    server: Server,
    workers: Vec<Worker>,
    /// Processes that ended and that nobody had killed.
    surprises: Vec<String>,
}

/// A worker, started again when it has ended.
#[derive(Debug)]
struct Worker {
    number: usize,
    /// The drill's folder, where it may read and write.
    folder: PathBuf,
    /// Which deliveries it serves, as the command line says it.
    way: &'static str,
    proxy: Proxy,
    child: Option<Child>,
    /// Whether its end is ours.
    expected: bool,
    again_at: Option<Instant>,
    starts: u32,
}

impl Cluster {
    /// Starts a broker and so many workers of one slot; logs go to `folder/logs`.
    pub(super) fn start(
        bagpress: Bagpress,
        folder: &Path,
        workers: usize,
        deliveries: &[DeliveryPath],
    ) -> Result<Self> {
        let logs = folder.join("logs");
        fs::create_dir_all(&logs)?;
        let server = Server::start(bagpress, folder.join("store"), logs.join("broker.log"))?;
        let way = match deliveries {
            [one] => one.as_str(),
            _ => "both",
        };
        let workers = (0..workers).map(|number| {
            let (proxy, folder) = (Proxy::start(server.port())?, folder.to_owned());
            let (child, expected, again_at) = (None, false, Some(Instant::now()));
            Ok(Worker { number, folder, way, proxy, child, expected, again_at, starts: 0 })
        });
        let workers = workers.collect::<Result<_>>()?;
        let mut cluster = Self { server, workers, surprises: Vec::new() };
        cluster.tend()?;
        Ok(cluster)
    }

    /// The program, with the token of the broker.
    pub(super) fn bagpress(&self) -> &Bagpress {
        self.server.bagpress()
    }

    /// Where it is looked at from outside.
    pub(super) fn at(&self) -> At {
        At { port: self.server.port(), token: self.server.token() }
    }

    /// How many workers there are to be.
    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// The way of a worker to the server.
    pub(super) fn proxy(&self, worker: usize) -> &Proxy {
        &self.workers[worker].proxy
    }

    /// Signals the server itself; false if none runs.
    pub(super) fn signal_server(&self, signal: Signal) -> bool {
        self.server.signal(signal)
    }

    /// Kills server and broker, until [`restart_server`](Self::restart_server); false if none runs.
    pub(super) fn kill_server(&mut self) -> Result<bool> {
        let is_running = self.server.is_running();
        self.server.kill()?;
        Ok(is_running)
    }

    pub(super) fn restart_server(&mut self) -> Result<()> {
        self.server.restart()
    }

    /// Signals a worker; false if it is not running.
    pub(super) fn signal_worker(&self, number: usize, signal: Signal) -> bool {
        let child = self.workers[number].child.as_ref();
        child.is_some_and(|child| machine::send(child.id(), signal))
    }

    /// Ends a worker, which starts again after a while.
    pub(super) fn end_worker(&mut self, number: usize, signal: Signal, again: Duration) -> bool {
        let sent = self.signal_worker(number, signal);
        // One that is not there waits for its start: that must not be put off.
        if sent {
            let worker = &mut self.workers[number];
            worker.expected = true;
            worker.again_at = Some(Instant::now() + again);
        }
        sent
    }

    /// Starts again what has ended: to be called often.
    pub(super) fn tend(&mut self) -> Result<()> {
        if let Some(status) = self.server.ended()? {
            self.surprises.push(format!("the broker ended ({status})"));
            self.server.restart()?;
        }
        for worker in &mut self.workers {
            self.surprises.extend(worker.tend(self.server.bagpress())?);
        }
        Ok(())
    }

    /// Ends everything by SIGTERM; returns what did not obey.
    pub(super) fn stop(&mut self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        let workers: Vec<_> = self.workers.iter_mut().filter_map(|w| w.child.take()).collect();
        for worker in &workers {
            machine::send(worker.id(), Signal::CONT);
            machine::send(worker.id(), Signal::TERM);
        }
        for worker in workers {
            left.extend(end(worker, "a worker")?);
        }
        left.extend(self.server.stop()?);
        Ok(left)
    }

    /// What has ended by itself until now.
    pub(super) fn take_surprises(&mut self) -> Vec<String> {
        std::mem::take(&mut self.surprises)
    }
}

impl Worker {
    /// Starts it if it has ended and its time has come; says so if its end is a surprise.
    fn tend(&mut self, bagpress: &Bagpress) -> Result<Option<String>> {
        let mut surprise = None;
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            self.child = None;
            if !self.expected {
                surprise = Some(format!("worker {} ended ({status})", self.number));
                self.again_at = Some(Instant::now() + AGAIN_AFTER);
            }
        }
        if self.child.is_none() && self.again_at.is_some_and(|at| at <= Instant::now()) {
            self.start(bagpress)?;
        }
        Ok(surprise)
    }

    fn start(&mut self, bagpress: &Bagpress) -> Result<()> {
        let logs = self.folder.join("logs");
        let log = logs.join(format!("worker-{}.{}.log", self.number, self.starts));
        let stderr = OpenOptions::new().create(true).append(true).open(logs.join("workers.log"));
        let mut command = bagpress.guarded("worker");
        command.args(["--slots", "1", "--server", &self.proxy.url(), "--delivery", self.way]);
        command.arg("--allow").arg(&self.folder).arg("--log").arg(log);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr.context("open a log")?);
        let child = command.spawn().context("start a worker")?;
        (self.child, self.expected, self.again_at) = (Some(child), false, None);
        self.starts += 1;
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already.
            child.kill().ok();
            child.wait().ok();
        }
    }
}
