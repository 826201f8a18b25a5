//! Makes each fault happen, and ends those that have an end.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::process::Signal;

use super::check::{LedgerLines, object_of};
use super::cluster::Cluster;
use super::lane::{Lane, Live};
use super::nats::Nats;
use super::plan::{Fault, Step};
use super::verdict::Tally;

const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a fault waits for something that it can hit.
const TARGET_WITHIN: Duration = Duration::from_mins(1);

/// Who makes the faults happen, one after another.
pub(super) struct Injector<'a> {
    pub(super) cluster: &'a mut Cluster,
    pub(super) lanes: &'a [Lane],
    /// The disk of the run folders, if it is ours to fill.
    pub(super) disk: Option<PathBuf>,
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
    pub(super) fn new(cluster: &'a mut Cluster, lanes: &'a [Lane], disk: Option<PathBuf>) -> Self {
        Self { cluster, lanes, disk, ends: Vec::new() }
    }

    /// Makes one fault happen, after its gap.
    pub(super) fn step(&mut self, step: &Step, tally: &mut Tally) -> Result<()> {
        self.wait(Duration::from_millis(u64::from(step.gap_ms)))?;
        let since = Instant::now();
        loop {
            match self.inject(&step.fault) {
                Ok(Hit::Yes) => return tally.hit(step.fault.kind()),
                Ok(Hit::Never) => return tally.left_out(step.fault.kind()),
                // The server may be away, a file may be renamed this moment.
                Ok(Hit::NotYet) | Err(_) if since.elapsed() < TARGET_WITHIN => {}
                Ok(Hit::NotYet) => return tally.missed(step.fault.kind()),
                Err(error) => return Err(error.context(format!("fault {step:?}"))),
            }
            self.wait(LOOK_EVERY)?;
        }
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

    fn later(&mut self, ms: u32, end: End) -> Hit {
        // A second fault of the same kind goes on until its own end.
        self.ends.retain(|(_, other)| *other != end);
        self.ends.push((Instant::now() + Duration::from_millis(u64::from(ms)), end));
        Hit::Yes
    }

    fn end(&mut self, end: End) -> Result<()> {
        match end {
            End::Worker(number) => drop(self.cluster.signal_worker(number, Signal::CONT)),
            End::Producer(lane) => {
                if let Some(live) = self.lanes[lane].live().as_ref() {
                    live.signal(Signal::CONT);
                }
            }
            End::ServerStarts => self.cluster.restart_server()?,
            End::ServerGoesOn => {
                if let Some(server) = self.cluster.server() {
                    crate::machine::send(server, Signal::CONT);
                }
            }
            End::Disk => {
                if let Some(disk) = &self.disk {
                    fs::remove_file(disk.join("filler")).ok();
                }
            }
            End::Delay(client) => self.proxy(client).delay(0),
        }
        Ok(())
    }

    fn proxy(&self, client: usize) -> &super::proxy::Proxy {
        let workers = self.cluster.workers.len();
        match client.checked_sub(workers) {
            None => &self.cluster.workers[client].proxy,
            Some(lane) => &self.lanes[lane].proxy,
        }
    }

    fn inject(&mut self, fault: &Fault) -> Result<Hit> {
        let workers = self.cluster.workers.len();
        let worker_of = |worker: u32| worker as usize % workers;
        let client_of = |client: u32| client as usize % (workers + self.lanes.len());
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
                if !self.cluster.signal_worker(worker, Signal::STOP) {
                    return Ok(Hit::NotYet);
                }
                self.later(ms, End::Worker(worker))
            }
            Fault::ProducerKill { lane, again_ms } => {
                let killed = |_: usize, live: &mut Live| Ok(live.kill(ms(again_ms)));
                hit(self.first(lane, killed)?.is_some())
            }
            Fault::ProducerStop { lane, ms } => {
                let stopped = self.first(lane, |_, live| Ok(live.signal(Signal::STOP)))?;
                let Some(lane) = stopped else { return Ok(Hit::NotYet) };
                self.later(ms, End::Producer(lane))
            }
            Fault::ServerKill { down_ms } => {
                if !self.cluster.broker_runs() {
                    return Ok(Hit::NotYet);
                }
                self.cluster.kill_server()?;
                self.later(down_ms, End::ServerStarts)
            }
            Fault::ServerStop { ms } => {
                let server = self.cluster.server();
                if !server.is_some_and(|server| crate::machine::send(server, Signal::STOP)) {
                    return Ok(Hit::NotYet);
                }
                self.later(ms, End::ServerGoesOn)
            }
            Fault::DiskFull { left_bytes, ms } => {
                let Some(disk) = &self.disk else { return Ok(Hit::Never) };
                fill(disk, u64::from(left_bytes))?;
                self.later(ms, End::Disk)
            }
            Fault::OutputFlip { lane, nth, bit } => hit(self.damage(
                lane,
                nth,
                |path| flip_in_file(path, bit),
                |nats, bucket, object| nats.flip(bucket, object, bit),
            )?),
            Fault::OutputLoss { lane, nth } => hit(self.damage(lane, nth, remove, Nats::lose)?),
            Fault::LedgerFlip { lane, bit } => {
                let flipped = self.first(lane, |_, live| {
                    let flipped =
                        live.open && flip_in_file(&live.bag.run.join("manifest.jsonl"), bit)?;
                    live.ledger_flips += u32::from(flipped);
                    Ok(flipped)
                })?;
                hit(flipped.is_some())
            }
            Fault::ConnectionDrop { client } => {
                self.proxy(client_of(client)).cut();
                Hit::Yes
            }
            Fault::ConnectionDelay { client, delay_ms, ms } => {
                let client = client_of(client);
                self.proxy(client).delay(delay_ms);
                self.later(ms, End::Delay(client))
            }
        })
    }

    /// The first lane, from the one that is meant on, that something can be done to.
    fn first(
        &self,
        lane: u32,
        mut hit: impl FnMut(usize, &mut Live) -> Result<bool>,
    ) -> Result<Option<usize>> {
        let lanes = self.lanes.len();
        for number in (0..lanes).map(|n| (lane as usize + n) % lanes) {
            let mut live = self.lanes[number].live();
            if let Some(live) = live.as_mut()
                && hit(number, live)?
            {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Damages a finished output, in its file or in its object.
    fn damage(
        &self,
        lane: u32,
        nth: u32,
        file: impl Fn(&Path) -> Result<bool>,
        object: impl Fn(&mut Nats, &str, &str) -> Result<bool>,
    ) -> Result<bool> {
        let server = self.cluster.at();
        let damaged = self.first(lane, |_, live| {
            if !live.open {
                return Ok(false);
            }
            let lines = LedgerLines::read(&live.bag.run.join("manifest.jsonl")).unwrap_or_default();
            let done = lines.done();
            let Some(&index) = done.get(nth as usize % done.len().max(1)) else { return Ok(false) };
            // It counts as damaged even if the damage fails half way.
            let new = live.damaged.insert(index);
            let damaged = if live.bag.shape.has_files() {
                file(&live.bag.files(index)?.0)
            } else {
                let place = lines.outcome(index).and_then(object_of);
                let (bucket, name) = place.context("a result without its object")?;
                Nats::connect(&server).and_then(|mut nats| object(&mut nats, bucket, name))
            };
            if new && matches!(damaged, Ok(false)) {
                live.damaged.remove(&index);
            }
            damaged
        })?;
        Ok(damaged.is_some())
    }
}

fn hit(hit: bool) -> Hit {
    if hit { Hit::Yes } else { Hit::NotYet }
}

/// Flips one bit, counted modulo what is there; false if there is nothing.
pub(super) fn flip_bit(bytes: &mut [u8], bit: u32) -> bool {
    let bits = bytes.len() * 8;
    let Some(bit) = (bit as usize).checked_rem(bits) else { return false };
    bytes[bit / 8] ^= 1 << (bit % 8);
    true
}

/// Flips one bit of a file in place; false if it is empty or not there.
fn flip_in_file(path: &Path, bit: u32) -> Result<bool> {
    let mut file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    let bits = file.metadata()?.len() * 8;
    let Some(bit) = u64::from(bit).checked_rem(bits) else { return Ok(false) };
    let mut byte = [0];
    file.seek(SeekFrom::Start(bit / 8))?;
    file.read_exact(&mut byte)?;
    byte[0] ^= 1 << (bit % 8);
    file.seek(SeekFrom::Start(bit / 8))?;
    file.write_all(&byte)?;
    Ok(true)
}

fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("remove {}", path.display())),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip_changes_exactly_one_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for bit in [0, 7, 8, 1_000_003] {
            fs::write(&path, b"abc").unwrap();
            assert!(flip_in_file(&path, bit).unwrap());
            let mut expected = b"abc".to_vec();
            assert!(flip_bit(&mut expected, bit));
            let found = fs::read(&path).unwrap();
            let bits = found.iter().zip(b"abc").map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
            assert_eq!((&found, bits), (&expected, 1));
        }
        fs::write(&path, b"").unwrap();
        assert!(!flip_in_file(&path, 1).unwrap() && !flip_bit(&mut [], 1));
        assert!(!flip_in_file(&folder.path().join("none"), 1).unwrap());
    }
}
