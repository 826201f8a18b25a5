//! Tasks with nothing to do: what remains is our overhead. One descriptor, one result and one ack each.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::Result;
use bagpress_producer::message;
use serde::Serialize;

use crate::cli::NoopArgs;
use crate::machine::{self, Machine, ms};
use crate::output::show;
use crate::program::{Bagpress, run_bag};
use crate::session::Session;
use crate::spread::Spread;
use crate::table::{row, table};

const SAMPLE_EVERY: Duration = Duration::from_millis(20);
/// Children are looked for once in so many samples: that reads all of `/proc`.
const SAMPLES_PER_LOOK: u32 = 25;
const MIB: f64 = 1024.0 * 1024.0;

/// One run.
#[derive(Debug, Serialize)]
struct Run {
    tasks: u32,
    workers: u16,
    makespan_ms: f64,
    wall_ms: f64,
    tasks_per_s: f64,
    /// The most that any process of each kind held.
    peak_rss_bytes: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct Row {
    tasks: u32,
    tasks_per_s: Spread,
    producer_peak_rss_mib: Spread,
    worker_peak_rss_mib: Spread,
    server_peak_rss_mib: Spread,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    workers: u16,
    rows: Vec<Row>,
}

pub(crate) fn noop(args: &NoopArgs) -> Result<()> {
    let mut session = Session::begin("noop", &args.measuring)?;
    let mut runs = Vec::new();
    for round in 0..args.measuring.runs {
        for &tasks in &args.tasks {
            message(&format!("round {}: {tasks} tasks", round + 1));
            let name = format!("noop-{tasks}-{round}");
            runs.push(
                session
                    .measure(round, |bagpress, folder| one(args, bagpress, folder, &name, tasks))?,
            );
        }
    }
    let rows = args.tasks.iter().map(|&tasks| sum_up(&runs, tasks)).collect();
    let report = Report { machine: Machine::now(), workers: args.workers, rows };
    show(args.measuring.json, &report, &text(&report))
}

fn one(args: &NoopArgs, bagpress: &Bagpress, folder: &Path, name: &str, tasks: u32) -> Result<Run> {
    let mut command = bagpress.command("run");
    command.args(["--codec", "noop", "--name", name, "--quiet", "--json", "--runs"]);
    command.arg(folder).args(["--tasks", &tasks.to_string()]);
    command.args(["--workers", &args.workers.to_string()]);
    command.args(["--stats", if args.stats { "always" } else { "never" }]);
    let (ran, peak_rss_bytes) = run_bag(command, &folder.join("stderr"), sample)?;
    std::fs::remove_dir_all(folder.join(name))?;
    let makespan_ms = ran.printed.makespan_ms;
    Ok(Run {
        tasks,
        workers: args.workers,
        makespan_ms,
        wall_ms: ms(ran.wall),
        tasks_per_s: f64::from(tasks) * 1e3 / makespan_ms,
        peak_rss_bytes,
    })
}

/// Looks at the memory of a producer and of what it started, until it ends.
fn sample(pid: u32, end: &Receiver<()>) -> BTreeMap<String, u64> {
    let mut peaks = BTreeMap::new();
    let mut children = Vec::new();
    for look in 0_u32.. {
        if look.is_multiple_of(SAMPLES_PER_LOOK) || look == 5 {
            children = machine::children(pid);
        }
        note(&mut peaks, "producer", pid);
        for &child in &children {
            if let Some(kind) = kind(child) {
                note(&mut peaks, kind, child);
            }
        }
        if end.recv_timeout(SAMPLE_EVERY) != Err(RecvTimeoutError::Timeout) {
            break;
        }
    }
    peaks
}

fn kind(pid: u32) -> Option<&'static str> {
    let (program, verb) = machine::called(pid)?;
    match verb.as_str() {
        _ if program.starts_with("nats-server") => Some("server"),
        "worker" => Some("worker"),
        _ => None,
    }
}

fn note(peaks: &mut BTreeMap<String, u64>, kind: &str, pid: u32) {
    let Some(bytes) = machine::peak_rss_bytes(pid) else { return };
    let peak = peaks.entry(kind.to_owned()).or_default();
    *peak = bytes.max(*peak);
}

fn sum_up(runs: &[Run], tasks: u32) -> Row {
    let of = |what: &dyn Fn(&Run) -> f64| {
        let runs = runs.iter().filter(|run| run.tasks == tasks);
        Spread::of(&runs.map(what).collect::<Vec<_>>())
    };
    #[expect(clippy::cast_precision_loss, reason = "mebibytes for people")]
    let peak = |kind: &str| {
        of(&|run: &Run| run.peak_rss_bytes.get(kind).map_or(0.0, |bytes| *bytes as f64 / MIB))
    };
    Row {
        tasks,
        tasks_per_s: of(&|run| run.tasks_per_s),
        producer_peak_rss_mib: peak("producer"),
        worker_peak_rss_mib: peak("worker"),
        server_peak_rss_mib: peak("server"),
    }
}

fn text(report: &Report) -> String {
    let mut rows = vec![row![
        "tasks",
        "tasks/s",
        "producer peak MiB",
        "worker peak MiB",
        "server peak MiB",
        "runs"
    ]];
    for row in &report.rows {
        rows.push(row![
            row.tasks,
            row.tasks_per_s,
            format!("{:.1}", row.producer_peak_rss_mib),
            format!("{:.1}", row.worker_peak_rss_mib),
            format!("{:.1}", row.server_peak_rss_mib),
            row.tasks_per_s.count,
        ]);
    }
    let Machine { cores, load_1min } = report.machine;
    let workers = report.workers;
    format!(
        "{}median (min–max); {workers} workers, {cores} cores, load {load_1min} at the end\n",
        table(&rows)
    )
}
