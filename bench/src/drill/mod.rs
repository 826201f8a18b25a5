//! Random faults, drawn from a seed: bags run on a local cluster while processes die, disks fill,
//! bits flip and connections break. Then every output is compared with its input.

mod bag;
mod chain;
mod check;
mod cluster;
mod faults;
mod flip;
mod folder;
mod gatherer;
mod isolate;
mod lane;
mod ledger;
mod nats;
mod plan;
mod product;
mod proxy;
mod remains;
mod report;
mod victim;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bagpress_broker::descriptor::DeliveryPath;
use bagpress_producer::message;

use self::cluster::Cluster;
use self::faults::Injector;
use self::folder::DrillFolder;
use self::lane::Lane;
use self::plan::{Bags, Faults};
use self::report::{BagReport, DrillReport, Tally};
use self::victim::Victim;
use crate::cli::DrillArgs;
use crate::machine;
use crate::output::{print, show};
use crate::program::Bagpress;

/// Bags at a time.
const LANES: usize = 2;
/// Faults of a drill that was told neither minutes nor faults.
const FAULTS_DEFAULT: u32 = 100;
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
    let place = DrillFolder::make(&args.dir, args.isolated)?;
    let began = Instant::now();
    let mut verdict = Drill { args, bagpress, deliveries, place: &place }.run()?;
    verdict.took_s = began.elapsed().as_secs_f64();
    verdict.left_over.extend(machine::mentioning(&place.path().display().to_string()));
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
    print(&text)
}

/// The deliveries that were asked for, or all there are.
fn deliveries(args: &DrillArgs) -> Vec<DeliveryPath> {
    args.delivery.clone().unwrap_or_else(|| vec![DeliveryPath::Jetstream, DeliveryPath::QueueGroup])
}

struct Drill<'a> {
    args: &'a DrillArgs,
    bagpress: Bagpress,
    deliveries: Vec<DeliveryPath>,
    place: &'a DrillFolder,
}

impl Drill<'_> {
    fn run(&self) -> Result<DrillReport> {
        let (folder, workers) = (self.place.path(), usize::from(self.args.workers));
        let mut cluster = Cluster::start(self.bagpress.clone(), folder, workers, &self.deliveries)?;
        let victims: Vec<_> =
            (0..LANES).map(|_| Victim::new(cluster.at().port)).collect::<Result<_>>()?;
        let (tally, bags) = self.disaster(&mut cluster, &victims)?;
        let mut verdict = DrillReport::of(self.args.seed, workers, &tally, bags);
        if verdict.good {
            let left = remains::at_server(cluster.bagpress(), &self.place.runs(), &cluster.at())?;
            verdict.left_over.extend(left);
        }
        verdict.left_over.extend(cluster.stop()?);
        verdict.surprises = cluster.take_surprises();
        Ok(verdict)
    }

    /// Runs bags while faults happen, until the last fault; then the bags that have begun.
    fn disaster(
        &self,
        cluster: &mut Cluster,
        victims: &[Victim],
    ) -> Result<(Tally, Vec<BagReport>)> {
        let lane = |victim| {
            let bagpress = cluster.bagpress().clone();
            Lane::new(victim, bagpress, cluster.at(), self.place.path(), self.place.runs())
        };
        let lanes: Vec<_> = victims.iter().map(lane).collect();
        let bags = Mutex::new(Bags::new(self.args.seed, &self.deliveries));
        let reports = Mutex::new(Vec::new());
        let (over, running) = (AtomicBool::new(false), AtomicUsize::new(lanes.len()));
        let mut tally = Tally::default();
        let follow = |lane: &Lane<'_>| -> Result<()> {
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
            let mut injector = Injector::new(cluster, victims, self.place.disk());
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
            report.counts.damaged, report.counts.healed
        ));
        for note in &report.notes {
            message(&format!("  {note}"));
        }
    }
}
