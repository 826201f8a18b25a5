//! A random disaster, drawn from a seed: bags run on a local cluster while processes die, disks fill,
//! bits flip and connections break. Then every output is compared with its input.

mod bag;
mod check;
mod cluster;
mod faults;
mod isolate;
mod lane;
mod nats;
mod plan;
mod proxy;
mod verdict;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bagpress_producer::message;
use tempfile::TempDir;

pub(crate) use isolate::FLAG as ISOLATED;
pub(crate) use plan::Delivery;

use self::cluster::{Cluster, token_in};
use self::faults::Injector;
use self::lane::Lane;
use self::nats::{At, Nats};
use self::plan::{Bags, Faults};
use self::verdict::{BagReport, Tally, Verdict};
use crate::cli::DrillArgs;
use crate::program::Bagpress;
use crate::show;

/// The run folders' disk: small enough to be filled, large enough for two bags.
const DISK_BYTES: u64 = 512 << 20;
/// Bags at a time.
const LANES: usize = 2;
/// Faults of a drill that was told neither minutes nor faults.
const FAULTS_DEFAULT: u32 = 100;
/// A task that was decided is forgotten by the server so long after everything is quiet.
const QUIET_WITHIN: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(crate) fn drill(args: &DrillArgs) -> Result<()> {
    if args.plan {
        return print_plan(args);
    }
    if !args.isolated {
        isolate::isolate()?;
    }
    let bagpress = Bagpress::find(args.bagpress.as_deref())?;
    let deliveries = deliveries(args);
    let place = Place::make(&args.dir, args.isolated)?;
    let began = Instant::now();
    let bagpress = bagpress.with_token(token_in(place.path()));
    let mut verdict = Drill { args, bagpress, deliveries, place: &place }.run()?;
    verdict.took_s = began.elapsed().as_secs_f64();
    verdict.left_over.extend(left_processes(place.path()));
    verdict.good &= verdict.left_over.is_empty();
    verdict.kept = place.end(verdict.good)?;
    show(args.json, &verdict, &verdict.text())?;
    if !verdict.good {
        bail!("something was lost, or left behind");
    }
    Ok(())
}

fn print_plan(args: &DrillArgs) -> Result<()> {
    let faults = args.faults.unwrap_or(FAULTS_DEFAULT);
    let mut text = String::new();
    for step in Faults::new(args.seed).take(faults as usize) {
        text.push_str(&serde_json::to_string(&step)?);
        text.push('\n');
    }
    let deliveries = deliveries(args);
    for shape in Bags::new(args.seed, &deliveries).take(faults.div_ceil(10) as usize) {
        text.push_str(&serde_json::to_string(&shape)?);
        text.push('\n');
    }
    crate::print(&text)
}

/// The deliveries that were asked for, or all there are.
fn deliveries(args: &DrillArgs) -> Vec<Delivery> {
    args.delivery.clone().unwrap_or_else(|| vec![Delivery::Jetstream, Delivery::QueueGroup])
}

/// Where a drill happens: a temporary folder, with a disk in it that can be filled.
struct Place {
    folder: Option<TempDir>,
    path: PathBuf,
    disk: Option<PathBuf>,
}

impl Place {
    fn make(dir: &Path, isolated: bool) -> Result<Self> {
        let dir = dir.canonicalize().with_context(|| format!("find {}", dir.display()))?;
        let folder = TempDir::with_prefix_in("drill-", dir).context("make a folder")?;
        let path = folder.path().to_owned();
        for name in ["runs", "inputs", "logs"] {
            fs::create_dir(path.join(name))?;
        }
        let mut disk = isolated.then(|| path.join("runs"));
        if let Some(runs) = &disk
            && let Err(error) = isolate::mount(runs, DISK_BYTES)
        {
            message(&format!("note: {error:#}"));
            disk = None;
        }
        if disk.is_none() {
            message("note: nothing can be mounted here: no disk will be full in this drill");
        }
        Ok(Self { folder: Some(folder), path, disk })
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// Removes all, or says where it stays.
    fn end(mut self, good: bool) -> Result<Option<PathBuf>> {
        self.unmount()?;
        match self.folder.take() {
            Some(folder) if good => folder.close().context("remove the folder").map(|()| None),
            Some(folder) => Ok(Some(folder.keep())),
            None => Ok(None),
        }
    }

    fn unmount(&mut self) -> Result<()> {
        self.disk.take().map_or(Ok(()), |disk| isolate::unmount(&disk))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            message(&format!("note: {error:#}"));
        }
    }
}

struct Drill<'a> {
    args: &'a DrillArgs,
    bagpress: Bagpress,
    deliveries: Vec<Delivery>,
    place: &'a Place,
}

impl Drill<'_> {
    fn run(&self) -> Result<Verdict> {
        let (folder, workers) = (self.place.path(), usize::from(self.args.workers));
        let mut cluster = Cluster::start(self.bagpress.clone(), folder, workers, &self.deliveries)?;
        let runs = folder.join("runs");
        let lanes: Vec<_> = (0..LANES)
            .map(|_| Lane::new(self.bagpress.clone(), cluster.at(), folder, &runs))
            .collect::<Result<_>>()?;
        let (tally, bags) = self.disaster(&mut cluster, &lanes)?;
        let mut verdict = Verdict::of(self.args.seed, workers, &tally, bags);
        if verdict.good {
            verdict.left_over.extend(left_at_server(&self.bagpress, &runs, &cluster.at())?);
        }
        verdict.left_over.extend(cluster.stop()?);
        verdict.surprises = std::mem::take(&mut cluster.surprises);
        Ok(verdict)
    }

    /// Runs bags while faults happen, until the last fault; then the bags that have begun.
    fn disaster(&self, cluster: &mut Cluster, lanes: &[Lane]) -> Result<(Tally, Vec<BagReport>)> {
        let bags = Mutex::new(Bags::new(self.args.seed, &self.deliveries));
        let reports = Mutex::new(Vec::new());
        let (over, running) = (AtomicBool::new(false), AtomicUsize::new(lanes.len()));
        let mut tally = Tally::default();
        let follow = |lane: &Lane| -> Result<()> {
            while !over.load(Ordering::SeqCst) {
                let shape = bags.lock().unwrap_or_else(PoisonError::into_inner).next();
                let report = lane.run(shape.context("no bag")?)?;
                self.say(&report);
                reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
            }
            Ok(())
        };
        let (follow, over, running) = (&follow, &over, &running);
        thread::scope(|scope| {
            let followers: Vec<_> = lanes
                .iter()
                .map(|lane| {
                    scope.spawn(move || {
                        let followed = follow(lane);
                        over.store(true, Ordering::SeqCst);
                        running.fetch_sub(1, Ordering::SeqCst);
                        followed
                    })
                })
                .collect();
            let mut injector = Injector::new(cluster, lanes, self.place.disk.clone());
            let injected = self.inject(&mut injector, &mut tally, over);
            over.store(true, Ordering::SeqCst);
            let mut tended = injector.end_all();
            while running.load(Ordering::SeqCst) > 0 && tended.is_ok() {
                tended = injector.wait(LOOK_EVERY);
            }
            for follower in followers {
                match follower.join() {
                    Ok(followed) => followed?,
                    Err(_) => bail!("a lane panicked"),
                }
            }
            injected.and(tended)
        })?;
        let reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((tally, reports))
    }

    fn inject(
        &self,
        injector: &mut Injector<'_>,
        tally: &mut Tally,
        over: &AtomicBool,
    ) -> Result<()> {
        let began = Instant::now();
        let minutes = self.args.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
        let faults = match (self.args.faults, minutes) {
            (Some(faults), _) => faults,
            (None, Some(_)) => u32::MAX,
            (None, None) => FAULTS_DEFAULT,
        };
        for step in Faults::new(self.args.seed).take(faults as usize) {
            // A lane that came to its end has an error to tell.
            if over.load(Ordering::SeqCst) || minutes.is_some_and(|most| began.elapsed() > most) {
                break;
            }
            injector.step(&step, tally)?;
        }
        Ok(())
    }

    fn say(&self, report: &BagReport) {
        if report.is_good() && self.args.quiet {
            return;
        }
        let verdict = if report.is_good() { "good" } else { "BAD" };
        let (bag, way, tasks) = (&report.bag, &report.way, report.tasks);
        let (took, stall) = (report.took_ms / 1e3, report.longest_stall_ms / 1e3);
        message(&format!(
            "{bag}: {verdict}: {tasks} tasks ({way}) in {took:.1} s, longest stall {stall:.1} s, \
             {} damaged, {} given back",
            report.damaged, report.healed
        ));
        for note in &report.notes {
            message(&format!("  {note}"));
        }
    }
}

/// What the server still holds when every bag is over and was removed, and what a late worker wrote of
/// them was swept.
fn left_at_server(bagpress: &Bagpress, runs: &Path, at: &At) -> Result<Vec<String>> {
    let since = Instant::now();
    loop {
        let mut sweep = bagpress.command("rm");
        sweep.args(["--orphans", "--older-than", "0s", "--runs"]).arg(runs);
        sweep.args(["--server", &format!("nats://127.0.0.1:{}", at.port)]).stdin(Stdio::null());
        let swept = sweep.output().context("sweep")?;
        let look = || -> Result<Vec<String>> {
            anyhow::ensure!(swept.status.success(), "{}", String::from_utf8_lossy(&swept.stderr));
            let mut nats = Nats::connect(at)?;
            let mut left = listed(bagpress, at.port)?;
            for stream in nats.streams()? {
                let messages = nats.messages(&stream)?;
                if stream.starts_with("OBJ_") || (stream.starts_with("BAG_") && messages > 0) {
                    left.push(format!("stream {stream} with {messages} messages"));
                }
            }
            Ok(left)
        };
        match look() {
            Ok(left) if left.is_empty() || since.elapsed() > QUIET_WITHIN => return Ok(left),
            Err(error) if since.elapsed() > QUIET_WITHIN => return Err(error),
            Ok(_) | Err(_) => thread::sleep(LOOK_EVERY),
        }
    }
}

/// Bags that the server still has a line of.
fn listed(bagpress: &Bagpress, port: u16) -> Result<Vec<String>> {
    let mut status = bagpress.command("status");
    status.args(["--json", "--server", &format!("nats://127.0.0.1:{port}")]);
    let status = status.stdin(Stdio::null()).output().context("list the bags")?;
    anyhow::ensure!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    let overview: serde_json::Value = serde_json::from_slice(&status.stdout)?;
    let bags = overview["bags"].as_array().context("status lists no bags")?;
    Ok(bags.iter().map(|line| format!("line of bag {}", line["bag"])).collect())
}

/// Processes that speak of our folder, when all of ours have ended.
fn left_processes(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let others = names.filter(|name| *name != own && name.bytes().all(|b| b.is_ascii_digit()));
    others
        .filter_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(&folder).then(|| format!("process {pid}: {}", line.trim()))
        })
        .collect()
}
