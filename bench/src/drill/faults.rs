//! Makes each fault happen, and ends those that have an end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::process::Signal;

use super::cluster::Cluster;
use super::flip::{flip_in_file, remove};
use super::nats::Nats;
use super::plan::{Fault, Step};
use super::proxy::Proxy;
use super::report::Tally;
use super::victim::{OutputAt, Victim};

const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a fault waits for something that it can hit.
const TARGET_WITHIN: Duration = Duration::from_mins(1);

/// Makes the faults happen, one after another.
pub(super) struct Injector<'a> {
    cluster: &'a mut Cluster,
    victims: &'a [Victim],
    /// The disk of the run folders, if it is ours to fill.
    disk: Option<PathBuf>,
    ends: Vec<(Instant, End)>,
}

/// The end of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Worker(usize),
    Producer(usize),
    ServerStarts,
    ServerGoesOn,
    Disk,
    Delay(usize),
}

/// What became of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hit {
    Yes,
    /// Nothing to hit now.
    NotYet,
    /// Not possible on this machine.
    Never,
}

impl<'a> Injector<'a> {
    pub(super) fn new(
        cluster: &'a mut Cluster,
        victims: &'a [Victim],
        disk: Option<PathBuf>,
    ) -> Self {
        Self { cluster, victims, disk, ends: Vec::new() }
    }

    /// Makes one fault happen, after its gap. Others end meanwhile, so this is no loop of `Retry`.
    pub(super) fn step(&mut self, step: &Step, tally: &mut Tally) -> Result<()> {
        self.wait(Duration::from_millis(u64::from(step.gap_ms)))?;
        let since = Instant::now();
        let kind = step.fault.kind();
        let injected = loop {
            match self.inject(&step.fault) {
                // The server may be away, a file may be renamed this moment.
                Ok(Hit::NotYet) | Err(_) if since.elapsed() < TARGET_WITHIN => {}
                injected => break injected,
            }
            self.wait(LOOK_EVERY)?;
        };
        match injected.with_context(|| format!("fault {step:?}"))? {
            Hit::Yes => tally.hit(kind),
            Hit::NotYet => tally.missed(kind),
            Hit::Never => tally.left_out(kind),
        }
        Ok(())
    }

    /// Lets time pass: faults end, what died is started again.
    pub(super) fn wait(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        loop {
            self.cluster.tend()?;
            let now = Instant::now();
            let (due, later) = self.ends.iter().partition(|(at, _)| *at <= now);
            self.ends = later;
            let due: Vec<(Instant, End)> = due;
            for (_, end) in due {
                self.end(end)?;
            }
            if now >= until {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY.min(until - now));
        }
    }

    /// Ends every fault at once.
    pub(super) fn end_all(&mut self) -> Result<()> {
        for (_, end) in std::mem::take(&mut self.ends) {
            self.end(end)?;
        }
        self.cluster.tend()
    }

    /// Lets a fault that has `hit` something end after a while.
    fn until(&mut self, hit: bool, ms: u32, end: End) -> Hit {
        if !hit {
            return Hit::NotYet;
        }
        // A second fault of the same kind goes on until its own end.
        self.ends.retain(|(_, other)| *other != end);
        self.ends.push((Instant::now() + Duration::from_millis(u64::from(ms)), end));
        Hit::Yes
    }

    fn end(&mut self, end: End) -> Result<()> {
        match end {
            // What has ended meanwhile does not go on.
            End::Worker(number) => _ = self.cluster.signal_worker(number, Signal::CONT),
            End::Producer(lane) => _ = self.victims[lane].signal(Signal::CONT),
            End::ServerStarts => self.cluster.restart_server()?,
            End::ServerGoesOn => _ = self.cluster.signal_server(Signal::CONT),
            End::Disk => {
                if let Some(disk) = &self.disk {
                    // Nothing is full where no filler was made.
                    fs::remove_file(disk.join("filler")).ok();
                }
            }
            End::Delay(client) => self.proxy(client).delay(0),
        }
        Ok(())
    }

    /// Of a worker, or behind those of a lane.
    fn proxy(&self, client: usize) -> &Proxy {
        match client.checked_sub(self.cluster.workers()) {
            None => self.cluster.proxy(client),
            Some(lane) => self.victims[lane].proxy(),
        }
    }

    #[expect(clippy::too_many_lines, reason = "a flat table: an arm a fault")]
    fn inject(&mut self, fault: &Fault) -> Result<Hit> {
        let workers = self.cluster.workers();
        let worker_of = |worker: u32| worker as usize % workers;
        let client_of = |client: u32| client as usize % (workers + self.victims.len());
        let ms = |ms: u32| Duration::from_millis(u64::from(ms));
        Ok(match *fault {
            Fault::WorkerKill { worker, again_ms } => {
                hit(self.cluster.end_worker(worker_of(worker), Signal::KILL, ms(again_ms)))
            }
            Fault::WorkerDrain { worker, again_ms } => {
                hit(self.cluster.end_worker(worker_of(worker), Signal::TERM, ms(again_ms)))
            }
            Fault::WorkerStop { worker, ms } => {
                let worker = worker_of(worker);
                let stopped = self.cluster.signal_worker(worker, Signal::STOP);
                self.until(stopped, ms, End::Worker(worker))
            }
            Fault::ProducerKill { lane, again_ms } => {
                hit(self.first(lane, |victim| Ok(victim.kill(ms(again_ms))))?.is_some())
            }
            Fault::ProducerStop { lane, ms } => {
                let stopped = self.first(lane, |victim| Ok(victim.signal(Signal::STOP)))?;
                stopped.map_or(Hit::NotYet, |lane| self.until(true, ms, End::Producer(lane)))
            }
            Fault::ServerKill { down_ms } => {
                let killed = self.cluster.kill_server()?;
                self.until(killed, down_ms, End::ServerStarts)
            }
            Fault::ServerStop { ms } => {
                let stopped = self.cluster.signal_server(Signal::STOP);
                self.until(stopped, ms, End::ServerGoesOn)
            }
            Fault::DiskFull { left_bytes, ms } => {
                let Some(disk) = &self.disk else { return Ok(Hit::Never) };
                fill(disk, u64::from(left_bytes))?;
                self.until(true, ms, End::Disk)
            }
            Fault::OutputFlip { lane, nth, bit } => {
                self.damage(lane, nth, |nats, place| match place {
                    OutputAt::File(path) => flip_in_file(path, bit),
                    OutputAt::Object { bucket, name } => nats()?.flip(bucket, name, bit),
                })?
            }
            Fault::OutputLoss { lane, nth } => {
                self.damage(lane, nth, |nats, place| match place {
                    OutputAt::File(path) => remove(path),
                    OutputAt::Object { bucket, name } => nats()?.lose(bucket, name),
                })?
            }
            Fault::LedgerFlip { lane, bit } => {
                hit(self.first(lane, |victim| victim.flip_ledger(bit))?.is_some())
            }
            Fault::ConnectionDrop { client } => {
                self.proxy(client_of(client)).cut();
                Hit::Yes
            }
            Fault::ConnectionDelay { client, delay_ms, ms } => {
                let client = client_of(client);
                self.proxy(client).delay(delay_ms);
                self.until(true, ms, End::Delay(client))
            }
        })
    }

    /// The first lane, from the one that is meant on, that something can be done to.
    fn first(
        &self,
        lane: u32,
        mut hit: impl FnMut(&Victim) -> Result<bool>,
    ) -> Result<Option<usize>> {
        let lanes = self.victims.len();
        for number in (0..lanes).map(|n| (lane as usize + n) % lanes) {
            if hit(&self.victims[number])? {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Damages a finished output, in its file or, through a connection to the server, in its object.
    fn damage(
        &self,
        lane: u32,
        nth: u32,
        damage: impl Fn(&dyn Fn() -> Result<Nats>, &OutputAt) -> Result<bool>,
    ) -> Result<Hit> {
        let server = self.cluster.at();
        let nats = || Nats::connect(&server);
        let damaged =
            self.first(lane, |victim| victim.damage(nth, |place| damage(&nats, place)))?;
        Ok(hit(damaged.is_some()))
    }
}

fn hit(hit: bool) -> Hit {
    if hit { Hit::Yes } else { Hit::NotYet }
}

/// Fills a disk up to so many bytes.
fn fill(disk: &Path, left: u64) -> Result<()> {
    let filler = File::options().create(true).append(true).open(disk.join("filler"))?;
    let stat = statvfs(disk)?;
    let more = (stat.f_bavail * stat.f_frsize).saturating_sub(left);
    if more > 0 {
        let from = filler.metadata()?.len();
        // Others write at the same time: what does not fit any more is full, too.
        fallocate(&filler, FallocateFlags::empty(), from, more).ok();
    }
    Ok(())
}
