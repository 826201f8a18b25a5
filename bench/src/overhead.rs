//! The benchmark's bag (`docs/benchmark.md`) by both result paths, compared with both limits.
//!
//! *Warm* is the makespan, *cold* the time of the whole process: server, workers and all. The limits
//! run in processes of their own too, with as many threads as the bag has workers.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use bagpress_codec::DataKind;
use bagpress_producer::{Summary, message};
use serde::Serialize;

use crate::cli::{Kind, OverheadArgs};
use crate::limit::Measured;
use crate::machine::{Machine, ms};
use crate::output::show;
use crate::program::{Bagpress, Ran, bag_arguments, run, run_bag};
use crate::session::Session;
use crate::spread::Spread;
use crate::table::{row, table};

const SYSTEMS: [&str; 4] = ["codec-limit", "limit", "staged", "objects"];

/// One run of one system.
#[derive(Debug, Clone, Serialize)]
struct Run {
    system: &'static str,
    data: DataKind,
    workers: u16,
    makespan_ms: f64,
    wall_ms: f64,
    /// Where a task's time went; the limits do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<Box<Summary>>,
}

/// One line of the table.
#[derive(Debug, Serialize)]
struct Row {
    system: &'static str,
    data: DataKind,
    workers: u16,
    warm_ms: Spread,
    cold_ms: Spread,
    warm_per_limit: Spread,
    warm_per_codec_limit: Spread,
    cold_per_limit: Spread,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    rows: Vec<Row>,
}

pub(crate) fn overhead(args: &OverheadArgs) -> Result<()> {
    let mut session = Session::begin("overhead", &args.measuring)?;
    let mut runs = Vec::new();
    for round in 0..args.measuring.runs {
        message(&format!("round {} of {}", round + 1, args.measuring.runs));
        for &data in &args.data {
            for &workers in &args.workers {
                // Nobody is always first.
                let first = round as usize % SYSTEMS.len();
                for place in 0..SYSTEMS.len() {
                    let system = SYSTEMS[(first + place) % SYSTEMS.len()];
                    let name = format!("{system}-{data}-{workers}-{round}");
                    runs.push(session.measure(round, |bagpress, folder| {
                        one(args, bagpress, folder, system, data, workers, &name)
                    })?);
                }
            }
        }
    }
    let mut rows = Vec::new();
    for &data in &args.data {
        for &workers in &args.workers {
            let case: Vec<_> =
                runs.iter().filter(|run| run.data == data && run.workers == workers).collect();
            rows.extend(SYSTEMS.map(|system| sum_up(&case, system, data, workers)));
        }
    }
    let report = Report { machine: Machine::now(), rows };
    show(args.measuring.json, &report, &text(&report))
}

fn one(
    args: &OverheadArgs,
    bagpress: &Bagpress,
    folder: &Path,
    system: &'static str,
    data: DataKind,
    workers: u16,
    name: &str,
) -> Result<Run> {
    let log = folder.join("stderr");
    let kind = [Kind::CodecLimit, Kind::Limit].into_iter().find(|kind| kind.name() == system);
    let (makespan_ms, wall, summary) = if let Some(kind) = kind {
        let mut command = Command::new(std::env::current_exe().context("find this program")?);
        command.arg("limit").args(bag_arguments(&args.bag, data)).arg("--dir").arg(folder);
        command.args(["--only", kind.name(), "--threads", &workers.to_string(), "--json"]);
        let Ran { printed, wall } = run::<serde_json::Value>(command, &log)?;
        let measured: Measured = serde_json::from_value(printed[kind.name()].clone())?;
        (Spread::of(&measured.makespans_ms).median, wall, None)
    } else {
        let mut command = bagpress.run(&args.bag, data, folder, name);
        command.args(["--results", system, "--workers", &workers.to_string()]);
        let (Ran { printed, wall }, ()) = run_bag(command, &log, |_, _| ())?;
        std::fs::remove_dir_all(folder.join(name))?;
        (printed.makespan_ms, wall, Some(Box::new(printed)))
    };
    Ok(Run { system, data, workers, makespan_ms, wall_ms: ms(wall), summary })
}

fn sum_up(case: &[&Run], system: &'static str, data: DataKind, workers: u16) -> Row {
    let of = |system: &str, what: fn(&Run) -> f64| -> Vec<f64> {
        case.iter().filter(|run| run.system == system).map(|run| what(run)).collect()
    };
    let (warm, cold) = (of(system, |run| run.makespan_ms), of(system, |run| run.wall_ms));
    let limit = of("limit", |run| run.makespan_ms);
    Row {
        system,
        data,
        workers,
        warm_ms: Spread::of(&warm),
        cold_ms: Spread::of(&cold),
        warm_per_limit: Spread::of_ratios(&warm, &limit),
        warm_per_codec_limit: Spread::of_ratios(&warm, &of("codec-limit", |run| run.makespan_ms)),
        cold_per_limit: Spread::of_ratios(&cold, &limit),
    }
}

fn text(report: &Report) -> String {
    let mut rows = vec![row![
        "data",
        "workers",
        "system",
        "warm ms",
        "cold ms",
        "warm/limit",
        "warm/codec limit",
        "cold/limit",
        "runs"
    ]];
    for row in &report.rows {
        rows.push(row![
            row.data,
            row.workers,
            row.system,
            row.warm_ms,
            row.cold_ms,
            format!("{:.2}", row.warm_per_limit),
            format!("{:.2}", row.warm_per_codec_limit),
            format!("{:.2}", row.cold_per_limit),
            row.warm_ms.count,
        ]);
    }
    let Machine { cores, load_1min } = report.machine;
    format!(
        "{}median (min–max); a ratio is taken inside each round; {cores} cores, load {load_1min} at the end\n",
        table(&rows)
    )
}
