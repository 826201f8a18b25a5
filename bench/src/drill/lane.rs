//! One bag after another, each gathered through whatever happens, then checked from outside.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value;

use super::bag::Bag;
use super::check::{Checked, check, left_over};
use super::nats::{At, Nats};
use super::plan::Shape;
use super::proxy::Proxy;
use super::verdict::BagReport;
use crate::machine;
use crate::program::Bagpress;

const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Without a new line of the ledger for this long a bag is stuck. Longer than any lease, any delay of
/// a task given back, and any fault.
const STUCK_AFTER: Duration = Duration::from_mins(3);
/// How many times a gatherer that ended by itself is started again.
const RESTARTS_MAX: u32 = 60;
/// How many times a command that met a broker in trouble is tried again.
const TRIES_MAX: u32 = 40;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What faults may do to the bag that is under way.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) bag: Bag,
    /// The gatherer that runs.
    producer: Option<u32>,
    /// When a gatherer that was killed is started again.
    again_at: Option<Instant>,
    /// Whether outputs and ledger may be damaged: not while they are looked at.
    pub(super) open: bool,
    /// Tasks whose outputs were damaged.
    pub(super) damaged: BTreeSet<u32>,
    /// Damages of the ledger.
    pub(super) ledger_flips: u32,
}

impl Live {
    /// Signals the gatherer; false if none runs.
    pub(super) fn signal(&self, signal: Signal) -> bool {
        self.producer.is_some_and(|pid| machine::send(pid, signal))
    }

    /// Kills the gatherer; another goes on after a while.
    pub(super) fn kill(&mut self, again: Duration) -> bool {
        let killed = self.signal(Signal::KILL);
        if killed {
            self.again_at = Some(Instant::now() + again);
        }
        killed
    }
}

/// A place for one bag at a time.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) proxy: Proxy,
    pub(super) live: Mutex<Option<Live>>,
    bagpress: Bagpress,
    server: At,
    inputs: PathBuf,
    runs: PathBuf,
    logs: PathBuf,
    kept: PathBuf,
}

/// How a gatherer came to its end.
enum Gathered {
    /// It says that the bag is complete; with its summary.
    Complete(Value),
    /// It says that tasks failed, or nothing happens any more.
    Incomplete(String),
}

impl Lane {
    pub(super) fn new(bagpress: Bagpress, server: At, folder: &Path, runs: &Path) -> Result<Self> {
        let kept = folder.join("kept");
        Ok(Self {
            proxy: Proxy::start(server.port)?,
            live: Mutex::default(),
            bagpress,
            server,
            inputs: folder.join("inputs"),
            runs: runs.to_owned(),
            logs: folder.join("logs"),
            kept,
        })
    }

    pub(super) fn live(&self) -> MutexGuard<'_, Option<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T: Default>(&self, change: impl FnOnce(&mut Live) -> T) -> T {
        self.live().as_mut().map(change).unwrap_or_default()
    }

    /// Runs one bag to its end and checks it.
    pub(super) fn run(&self, shape: Shape) -> Result<BagReport> {
        let bag = Bag::prepare(shape, &self.inputs, &self.runs)?;
        let mut report = BagReport::of(&bag.shape);
        *self.live() = Some(Live {
            bag: bag.clone(),
            producer: None,
            again_at: None,
            open: true,
            damaged: BTreeSet::new(),
            ledger_flips: 0,
        });
        let since = Instant::now();
        let gathered = self.gather(&bag, &[], &mut report)?;
        self.with(|live| live.open = false);
        let judged = self.judge(&bag, gathered, &mut report);
        self.live().take();
        report.took_ms = machine::ms(since.elapsed());
        judged?;
        if report.is_good() {
            report.left_over = self.forget(&bag)?;
        }
        if !report.is_good() {
            let kept = self.kept.join(bag.shape.name());
            fs::create_dir_all(&kept)?;
            if bag.run.exists() {
                bag.keep(&kept)?;
            }
            report.kept = Some(kept);
        }
        bag.remove()?;
        Ok(report)
    }

    /// Compares what the product says with what is there; repairs what was damaged.
    fn judge(&self, bag: &Bag, gathered: Gathered, report: &mut BagReport) -> Result<()> {
        if let Gathered::Incomplete(why) = &gathered {
            report.say(format!("not complete: {why}"));
        }
        let first = self.check(bag)?;
        let (damaged, flips) = self.with(|live| (live.damaged.clone(), live.ledger_flips));
        report.doubled += first.doubled;
        let mut bad = first.bad();
        let explained = |index: &u32| flips > 0 || damaged.contains(index);
        bad.retain(|index, _| !explained(index));
        // Whatever nobody had damaged was lost by the product.
        report.count(&first, |index| bad.contains_key(index));
        let complete = matches!(gathered, Gathered::Complete(_));
        let noticed = self.verify(bag, first.is_good())?;
        let mut summary = gathered;
        if !first.is_good() {
            report.damaged += first.bad().len() as u64;
            if noticed == Some(0) {
                report.unnoticed += 1;
                report.say(format!("verify does not see {:?}", first.bad()));
            }
            summary = self.gather(bag, &["--repair", "--retry-failed"], report)?;
            let second = self.check(bag)?;
            report.doubled = report.doubled.max(second.doubled);
            // What was counted as lost may be there now: it was lost all the same.
            report.count(&second, |index| !bad.contains_key(index));
            if second.is_good() {
                report.healed += first.bad().len() as u64;
            }
            if let (true, Some(code)) = (second.is_good(), self.verify(bag, true)?)
                && code != 0
            {
                report.say(format!("verify says {code} of a bag that is good"));
                report.false_alarms += 1;
            }
        } else if noticed != Some(0) {
            report.say(format!("verify says {noticed:?} of a bag that is good"));
            report.false_alarms += 1;
        }
        if let Gathered::Complete(summary) = &summary {
            report.duplicates += summary["duplicates"].as_u64().unwrap_or(0);
        } else if complete {
            report.say("not complete after --repair".to_owned());
            report.stuck += 1;
        }
        report.left_over = left_over(bag, damaged.len() + flips as usize);
        Ok(())
    }

    /// Checks, again while the server is away.
    fn check(&self, bag: &Bag) -> Result<Checked> {
        let mut tries = 0;
        loop {
            match check(bag, &self.server) {
                Ok(checked) => return Ok(checked),
                Err(error) if tries >= TRIES_MAX => return Err(error),
                Err(_) => {
                    tries += 1;
                    thread::sleep(TRY_AGAIN_AFTER);
                }
            }
        }
    }

    /// The exit code of `verify`; asked again while it blames the broker, or what is good.
    fn verify(&self, bag: &Bag, good: bool) -> Result<Option<i32>> {
        let mut code = None;
        for _ in 0..TRIES_MAX {
            let mut command = self.bagpress.guarded("verify");
            command.arg(&bag.run).args(["--server", &self.proxy.url()]);
            let status = self.spawn(command, &bag.shape.name())?.wait()?;
            code = status.code();
            let settled = if good { code == Some(0) } else { code.is_some_and(|code| code < 2) };
            if settled {
                break;
            }
            thread::sleep(TRY_AGAIN_AFTER);
        }
        Ok(code)
    }

    fn spawn(&self, mut command: Command, name: &str) -> Result<Child> {
        let log = self.logs.join(format!("{name}.log"));
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().context("start the program")
    }

    /// The command that begins a bag, or goes on with it.
    fn command(&self, bag: &Bag, more: &[&str]) -> Command {
        let mut command = if bag.run.join("bag.json").is_file() {
            let mut command = self.bagpress.guarded("gather");
            command.arg(&bag.run).args(more);
            command
        } else {
            bag.command(&self.bagpress)
        };
        command.args(["--server", &self.proxy.url(), "--quiet", "--stall-timeout", "1h"]);
        command
    }

    /// Runs the bag's command, again whenever it was killed or gave up, until it says that the bag is
    /// complete.
    fn gather(&self, bag: &Bag, more: &[&str], report: &mut BagReport) -> Result<Gathered> {
        let mut progress = Progress::of(bag);
        loop {
            let ended = self.gather_once(bag, more, &mut progress)?;
            report.longest_stall_ms = report.longest_stall_ms.max(machine::ms(progress.longest));
            let Some(status) = ended else {
                report.stuck += 1;
                let why = format!("no progress for {STUCK_AFTER:?}");
                return Ok(Gathered::Incomplete(why));
            };
            if let Some(at) = self.with(|live| live.again_at.take()) {
                thread::sleep(at.saturating_duration_since(Instant::now()));
                continue;
            }
            match status.code() {
                Some(0) => return Ok(Gathered::Complete(summary(bag))),
                Some(1) => return Ok(Gathered::Incomplete("tasks failed".to_owned())),
                _ if report.gave_up >= RESTARTS_MAX => {
                    return Ok(Gathered::Incomplete(format!("{status}, again and again")));
                }
                _ => {
                    report.gave_up += 1;
                    thread::sleep(TRY_AGAIN_AFTER);
                }
            }
        }
    }

    /// One gatherer; nothing if it was stuck.
    fn gather_once(
        &self,
        bag: &Bag,
        more: &[&str],
        progress: &mut Progress,
    ) -> Result<Option<ExitStatus>> {
        let mut child = self.spawn(self.command(bag, more), &bag.shape.name())?;
        self.with(|live| live.producer = Some(child.id()));
        loop {
            {
                // The number is given back to the system by the wait: nobody may signal it after.
                let mut live = self.live();
                let status = child.try_wait()?;
                if status.is_some()
                    && let Some(live) = live.as_mut()
                {
                    live.producer = None;
                }
                if let Some(status) = status {
                    progress.look();
                    return Ok(Some(status));
                }
            }
            if progress.look() > STUCK_AFTER {
                self.with(|live| live.producer = None);
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Removes the bag by `rm`; returns what is still there of it.
    fn forget(&self, bag: &Bag) -> Result<Vec<String>> {
        let text = fs::read(bag.run.join("bag.json")).context("read bag.json")?;
        let specification: Value = serde_json::from_slice(&text).context("read bag.json")?;
        let id = specification["bag"].as_str().context("a bag without an id")?.to_owned();
        let (ran, meant) = (&specification["delivery"], bag.shape.delivery.name());
        anyhow::ensure!(ran == meant, "{id} ran by {ran}, and was to run by {meant}");
        let mut tries = 0;
        while bag.run.exists() {
            anyhow::ensure!(tries < TRIES_MAX, "`rm {}` fails all the time", bag.run.display());
            tries += 1;
            let mut command = self.bagpress.guarded("rm");
            command.arg(&bag.run).args(["--outputs", "--server", &self.proxy.url()]);
            if !self.spawn(command, &bag.shape.name())?.wait()?.success() {
                thread::sleep(TRY_AGAIN_AFTER);
            }
        }
        let mut left = self.streams_of(&id)?;
        left.extend(bag.outputs_left()?);
        Ok(left)
    }

    /// Streams whose names speak of a bag.
    fn streams_of(&self, id: &str) -> Result<Vec<String>> {
        let mut tries = 0;
        loop {
            match Nats::connect(&self.server).and_then(|mut nats| nats.streams()) {
                Ok(streams) => {
                    let of_bag = streams.into_iter().filter(|name| name.contains(id));
                    return Ok(of_bag.map(|name| format!("stream {name}")).collect());
                }
                Err(error) if tries >= TRIES_MAX => return Err(error),
                Err(_) => tries += 1,
            }
            thread::sleep(TRY_AGAIN_AFTER);
        }
    }
}

fn summary(bag: &Bag) -> Value {
    let text = fs::read(bag.run.join("summary.json")).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// How long the ledger has not grown.
struct Progress {
    ledger: PathBuf,
    bytes: u64,
    since: Instant,
    longest: Duration,
}

impl Progress {
    fn of(bag: &Bag) -> Self {
        let ledger = bag.run.join("manifest.jsonl");
        Self { ledger, bytes: 0, since: Instant::now(), longest: Duration::ZERO }
    }

    /// For how long nothing was counted.
    fn look(&mut self) -> Duration {
        let bytes = fs::metadata(&self.ledger).map_or(0, |metadata| metadata.len());
        let still = self.since.elapsed();
        self.longest = self.longest.max(still);
        if bytes != self.bytes {
            (self.bytes, self.since) = (bytes, Instant::now());
        }
        still
    }
}
