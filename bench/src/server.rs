//! A broker in a process of its own, with a token of its own, which can be killed and started again.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::machine;
use crate::program::{Bagpress, end};
use crate::retry::Retry;

const READY: Retry = Retry { every: Duration::from_millis(10), within: Duration::from_mins(1) };

/// A broker on the loopback, always on the same store and port. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    /// The program, with the token.
    bagpress: Bagpress,
    store: PathBuf,
    log: PathBuf,
    port: u16,
    /// The broker; its child is the server.
    broker: Option<Child>,
}

impl Server {
    /// Starts one on a free port and waits until it is ready.
    ///
    /// # Errors
    ///
    /// If it is not ready within a minute, with its log.
    pub(crate) fn start(bagpress: Bagpress, store: PathBuf, log: PathBuf) -> Result<Self> {
        let bagpress = bagpress.with_token(store.join("token"));
        let mut server = Self { bagpress, store, log, port: 0, broker: None };
        server.start_on("-1")?;
        server.port = READY.run(|| server.ready_on())?;
        Ok(server)
    }

    /// The program, with the token of this server.
    pub(crate) fn bagpress(&self) -> &Bagpress {
        &self.bagpress
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The file with its token.
    pub(crate) fn token(&self) -> PathBuf {
        self.store.join("token")
    }

    fn start_on(&mut self, port: &str) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("open {}", self.log.display()))?;
        let mut command = self.bagpress.guarded("broker");
        command.arg("--store").arg(&self.store).args(["--listen", &format!("127.0.0.1:{port}")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.broker = Some(command.spawn().context("start the broker")?);
        Ok(())
    }

    /// `broker: nats://127.0.0.1:PORT (store …)` says that it is ready.
    fn ready_on(&self) -> Result<u16> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let port = text.lines().find_map(|line| {
            let url = line.strip_prefix("broker: ")?.split(' ').next()?;
            url.rsplit(':').next()?.parse().ok()
        });
        port.with_context(|| format!("the broker is not ready: {text}"))
    }

    pub(crate) fn is_running(&self) -> bool {
        self.broker.is_some()
    }

    /// How it ended, if it did so by itself.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some(broker) = &mut self.broker else { return Ok(None) };
        let ended = broker.try_wait()?;
        if ended.is_some() {
            self.broker = None;
        }
        Ok(ended)
    }

    /// Signals the server itself; false if there is none.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        let Some(broker) = &self.broker else { return false };
        let is_server =
            |pid: &u32| machine::called(*pid).is_some_and(|(_, verb)| verb != "__guard");
        let server = machine::children(broker.id()).into_iter().find(is_server);
        server.is_some_and(|server| machine::send(server, signal))
    }

    /// Kills server and broker.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let Some(mut broker) = self.broker.take() else { return Ok(()) };
        for server in machine::children(broker.id()) {
            machine::send(server, Signal::KILL);
        }
        machine::send(broker.id(), Signal::KILL);
        broker.wait().context("wait for the broker")?;
        Ok(())
    }

    /// Starts it again, if it is not running.
    pub(crate) fn restart(&mut self) -> Result<()> {
        if self.broker.is_none() { self.start_on(&self.port.to_string()) } else { Ok(()) }
    }

    /// Ends it by SIGTERM; says so if it does not obey.
    pub(crate) fn stop(&mut self) -> Result<Option<String>> {
        self.broker.take().map_or(Ok(None), |broker| end(broker, "the broker"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            bagpress_producer::message(&format!("note: {error:#}"));
        }
    }
}
