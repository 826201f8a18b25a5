//! The same bag with and without a worker that dies of SIGKILL when half of the tasks are done.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Result, ensure};
use bagpress_codec::DataKind;
use bagpress_producer::message;
use rustix::process::Signal;
use serde::Serialize;

use crate::cli::{BagArgs, KillArgs};
use crate::cluster::Cluster;
use crate::machine::{self, Machine, ms};
use crate::output::show;
use crate::program::{Bagpress, run_bag};
use crate::session::Session;
use crate::spread::Spread;
use crate::table::{row, table};

const LOOK_EVERY: Duration = Duration::from_millis(5);

#[derive(Debug, Serialize)]
struct Run {
    /// What was compressed, if it was not generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<PathBuf>,
    killed: bool,
    server: bool,
    delivery: &'static str,
    workers: u16,
    makespan_ms: f64,
    wall_ms: f64,
    retried: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    tasks: u32,
    workers: u16,
    server: bool,
    delivery: &'static str,
    without_ms: Spread,
    with_ms: Spread,
    /// Inside each round.
    difference_ms: Spread,
    ratio: Spread,
}

pub(crate) fn kill(args: &KillArgs) -> Result<()> {
    let mut session = Session::begin("kill", &args.measuring)?;
    let mut makespans: [Vec<f64>; 2] = Default::default();
    for round in 0..args.measuring.runs {
        message(&format!("round {} of {}", round + 1, args.measuring.runs));
        let order = if round % 2 == 0 { [false, true] } else { [true, false] };
        for killed in order {
            let name = format!("kill-{}-{round}", if killed { "with" } else { "without" });
            let run = session
                .measure(round, |bagpress, folder| one(args, bagpress, folder, &name, killed))?;
            makespans[usize::from(killed)].push(run.makespan_ms);
        }
    }
    let [without, with] = makespans;
    let report = Report {
        machine: Machine::now(),
        tasks: args.tasks,
        workers: args.workers,
        server: args.server,
        delivery: args.delivery.as_str(),
        without_ms: Spread::of(&without),
        with_ms: Spread::of(&with),
        difference_ms: Spread::of_differences(&with, &without),
        ratio: Spread::of_ratios(&with, &without),
    };
    show(args.measuring.json, &report, &text(&report))
}

fn one(
    args: &KillArgs,
    bagpress: &Bagpress,
    folder: &Path,
    name: &str,
    killed: bool,
) -> Result<Run> {
    let log = folder.join("stderr");
    let cluster = if args.server {
        Some(Cluster::start(bagpress, folder, name, args.workers)?)
    } else {
        None
    };
    let of_cluster = cluster.as_ref().map(|cluster| cluster.server.bagpress());
    let mut command = bag(args, of_cluster.unwrap_or(bagpress), folder, name)?;
    command.args(["--delivery", args.delivery.as_str()]);
    match &cluster {
        Some(cluster) => command.args(["--server", &cluster.server.url()]),
        None => command.args(["--workers", &args.workers.to_string()]),
    };
    let ledger = folder.join(name).join("staged/manifest.jsonl");
    let victim = cluster.as_ref().map(Cluster::a_worker);
    let half = args.tasks as usize / 2;
    let (ran, hit) = run_bag(command, &log, |pid, end| {
        killed && wait_for_lines(&ledger, half, end) && kill_a_worker(victim, pid)
    })?;
    ensure!(hit == killed, "the bag ended before a worker was killed: make it larger");
    fs::remove_dir_all(folder.join(name))?;
    if args.input.is_some() {
        fs::remove_dir_all(outputs(folder, name))?;
    }
    Ok(Run {
        input: args.input.clone(),
        killed,
        server: args.server,
        delivery: args.delivery.as_str(),
        workers: args.workers,
        makespan_ms: ran.printed.makespan_ms,
        wall_ms: ms(ran.wall),
        retried: ran.printed.retried,
    })
}

fn bag(args: &KillArgs, bagpress: &Bagpress, folder: &Path, name: &str) -> Result<Command> {
    let Some(input) = &args.input else {
        let codec = "zlib:6,full".parse()?;
        let bag = BagArgs { tasks: args.tasks, bytes: args.bytes, codec, seed: 0 };
        return Ok(bagpress.run(&bag, DataKind::Random, folder, name));
    };
    let mut command = bagpress.command("run");
    command.arg(input).args(["--codec", "gzip:6", "--quiet", "--json", "--name", name, "--runs"]);
    command.arg(folder).arg("--out").arg(outputs(folder, name));
    Ok(command)
}

/// Where the outputs of files go.
fn outputs(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}-out"))
}

/// Waits until the run's ledger has so many lines; false if the run ended first.
fn wait_for_lines(ledger: &Path, lines: usize, end: &Receiver<()>) -> bool {
    loop {
        let text = fs::read(ledger).unwrap_or_default();
        if text.split(|&byte| byte == b'\n').skip(1).count() >= lines {
            return true;
        }
        if end.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout) {
            return false;
        }
    }
}

fn kill_a_worker(victim: Option<u32>, producer: u32) -> bool {
    let is_worker = |pid: &u32| machine::called(*pid).is_some_and(|(_, verb)| verb == "worker");
    let victim = victim.or_else(|| machine::children(producer).into_iter().find(is_worker));
    victim.is_some_and(|pid| machine::send(pid, Signal::KILL))
}

fn text(report: &Report) -> String {
    let rows = [
        row!["makespan", "ms: median (min–max)", "runs"],
        row!["undisturbed", report.without_ms, report.without_ms.count],
        row!["one worker killed", report.with_ms, report.with_ms.count],
        row!["difference", report.difference_ms, report.difference_ms.count],
        row!["ratio", format!("{:.2}", report.ratio), report.ratio.count],
    ];
    let Machine { cores, load_1min } = report.machine;
    let (workers, place) = (report.workers, if report.server { "--server" } else { "local" });
    format!(
        "{}{workers} workers, {place}, {}, {cores} cores, load {load_1min} at the end\n",
        table(&rows),
        report.delivery
    )
}
