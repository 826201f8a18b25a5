//! A broker and workers in processes of their own, each behind a proxy of its own.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::nats::At;
use super::plan::Delivery;
use super::proxy::Proxy;
use crate::machine;
use crate::program::Bagpress;

const READY_WITHIN: Duration = Duration::from_mins(1);
/// SIGTERM is obeyed so long before it is called a leftover.
const END_WITHIN: Duration = Duration::from_secs(30);

/// The store of the broker, in the folder of a drill.
const STORE: &str = "store";

/// The file with the token of a drill's broker.
pub(super) fn token_in(folder: &Path) -> PathBuf {
    folder.join(STORE).join("token")
}

/// Everything that runs for all bags.
#[derive(Debug)]
pub(super) struct Cluster {
    bagpress: Bagpress,
    folder: PathBuf,
    pub(super) port: u16,
    broker: Option<Child>,
    pub(super) workers: Vec<Worker>,
    deliveries: Vec<Delivery>,
    /// Processes that ended and that nobody had killed.
    pub(super) surprises: Vec<String>,
}

/// A worker, started again when it has ended.
#[derive(Debug)]
pub(super) struct Worker {
    child: Option<Child>,
    pub(super) proxy: Proxy,
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
        deliveries: &[Delivery],
    ) -> Result<Self> {
        fs::create_dir_all(folder.join("logs"))?;
        let mut cluster = Self {
            bagpress,
            folder: folder.to_owned(),
            port: 0,
            broker: None,
            workers: Vec::new(),
            deliveries: deliveries.to_vec(),
            surprises: Vec::new(),
        };
        cluster.start_broker("127.0.0.1:-1")?;
        cluster.port = cluster.wait_for_port()?;
        for _ in 0..workers {
            let proxy = Proxy::start(cluster.port)?;
            let (child, expected, again_at) = (None, false, Some(Instant::now()));
            cluster.workers.push(Worker { child, proxy, expected, again_at, starts: 0 });
        }
        cluster.tend()?;
        Ok(cluster)
    }

    /// Where it is looked at from outside.
    pub(super) fn at(&self) -> At {
        At { port: self.port, token: token_in(&self.folder) }
    }

    fn log(&self, name: &str) -> Result<File> {
        let path = self.folder.join("logs").join(name);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.with_context(|| format!("open {}", path.display()))
    }

    fn start_broker(&mut self, listen: &str) -> Result<()> {
        let mut command = self.bagpress.guarded("broker");
        command.arg("--store").arg(self.folder.join(STORE)).args(["--listen", listen]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(self.log("broker.log")?);
        self.broker = Some(command.spawn().context("start the broker")?);
        Ok(())
    }

    /// `broker: nats://127.0.0.1:PORT (store …)` says that it is ready.
    fn wait_for_port(&mut self) -> Result<u16> {
        let since = Instant::now();
        let log = self.folder.join("logs/broker.log");
        loop {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let port = text.lines().find_map(|line| {
                let url = line.strip_prefix("broker: ")?.split(' ').next()?;
                url.rsplit(':').next()?.parse().ok()
            });
            if let Some(port) = port {
                return Ok(port);
            }
            ensure!(since.elapsed() < READY_WITHIN, "the broker is not ready: {text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The process of the server itself.
    pub(super) fn server(&self) -> Option<u32> {
        let broker = self.broker.as_ref()?.id();
        let is_server =
            |pid: &u32| machine::called(*pid).is_some_and(|(_, verb)| verb != "__guard");
        machine::children(broker).into_iter().find(is_server)
    }

    /// Kills server and broker. [`restart_server`](Self::restart_server) starts them again.
    pub(super) fn kill_server(&mut self) -> Result<()> {
        let Some(mut broker) = self.broker.take() else { return Ok(()) };
        for server in machine::children(broker.id()) {
            machine::send(server, Signal::KILL);
        }
        machine::send(broker.id(), Signal::KILL);
        broker.wait().context("wait for the broker").map(drop)
    }

    pub(super) fn restart_server(&mut self) -> Result<()> {
        if self.broker.is_none() {
            self.start_broker(&format!("127.0.0.1:{}", self.port))?;
        }
        Ok(())
    }

    pub(super) fn broker_runs(&self) -> bool {
        self.broker.is_some()
    }

    pub(super) fn signal_worker(&mut self, number: usize, signal: Signal) -> bool {
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
        if let Some(broker) = &mut self.broker
            && let Some(status) = broker.try_wait()?
        {
            self.surprises.push(format!("the broker ended ({status})"));
            self.broker = None;
            self.restart_server()?;
        }
        for number in 0..self.workers.len() {
            let worker = &mut self.workers[number];
            if let Some(child) = &mut worker.child
                && let Some(status) = child.try_wait()?
            {
                worker.child = None;
                if !worker.expected {
                    self.surprises.push(format!("worker {number} ended ({status})"));
                    worker.again_at = Some(Instant::now() + Duration::from_millis(200));
                }
            }
            let due = worker.again_at.is_some_and(|at| at <= Instant::now());
            if worker.child.is_none() && due {
                self.start_worker(number)?;
            }
        }
        Ok(())
    }

    fn start_worker(&mut self, number: usize) -> Result<()> {
        let mut command = self.bagpress.guarded("worker");
        let worker = &self.workers[number];
        let name = format!("worker-{number}.{}.log", worker.starts);
        command.args(["--slots", "1", "--server", &worker.proxy.url(), "--allow"]);
        command.arg(&self.folder).arg("--log").arg(self.folder.join("logs").join(name));
        self.say_delivery(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(self.log("workers.log")?);
        let child = command.spawn().context("start a worker")?;
        let worker = &mut self.workers[number];
        (worker.child, worker.expected, worker.again_at) = (Some(child), false, None);
        worker.starts += 1;
        Ok(())
    }

    fn say_delivery(&self, command: &mut Command) {
        let way = match self.deliveries.as_slice() {
            [one] => one.name(),
            _ => "both",
        };
        command.args(["--delivery", way]);
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
            left.extend(ends(worker, "a worker")?);
        }
        if let Some(broker) = self.broker.take() {
            machine::send(broker.id(), Signal::TERM);
            left.extend(ends(broker, "the broker")?);
        }
        Ok(left)
    }
}

/// Waits for a process that was asked to end; kills it, and says so, if it does not.
fn ends(mut child: Child, what: &str) -> Result<Option<String>> {
    let since = Instant::now();
    while since.elapsed() < END_WITHIN {
        if child.try_wait()?.is_some() {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill()?;
    child.wait()?;
    Ok(Some(format!("{what}, process {}, did not end within {END_WITHIN:?}", child.id())))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            if let Some(mut child) = worker.child.take() {
                child.kill().ok();
                child.wait().ok();
            }
        }
        // It takes its server along, however it ends.
        if let Err(error) = self.kill_server() {
            bagpress_producer::message(&format!("note: {error:#}"));
        }
    }
}
