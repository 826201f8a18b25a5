//! Bags by our ways, by the systems that people use today, and by the in-process limits of both.
//!
//! *Warm* is the time from the first task submitted to the last result at who submitted; *cold* the time of the whole process with
//! everything that it starts. What each system promises is in `docs/benchmark.md`. Every output of a peer is decompressed and
//! compared with its input, and so is what our workers say that they read.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use bagpress_codec::DataKind;
use bagpress_producer::{Summary, message};
use serde::Serialize;

use crate::chain::chain;
use crate::cli::{BagArgs, CompareArgs, Kind};
use crate::limit::Measured;
use crate::machine::{Machine, Platform, ms};
use crate::output::show;
use crate::outputs::{Expected, write_inputs};
use crate::peer::{Case, Peer};
use crate::program::{Bagpress, bag_arguments, run, run_bag};
use crate::session::{Session, temporary};
use crate::spread::Spread;
use crate::systems::{System, Way, named};
use crate::table::{row, table};

/// Of a peer in the comparison, the first bag warms up.
const BAGS: u32 = 2;

/// One run of one system.
#[derive(Debug, Serialize)]
struct Run {
    system: &'static str,
    data: DataKind,
    workers: u16,
    makespan_ms: f64,
    cold_ms: f64,
    command: String,
    /// Where a task's time went, of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<Box<Summary>>,
}

/// What every run of a file of raw lines has in common; its first line.
#[derive(Debug, Serialize)]
struct About {
    platform: Platform,
    versions: BTreeMap<&'static str, Vec<String>>,
}

/// One line of the table. A ratio without its reference is empty.
#[derive(Debug, Serialize)]
struct Row {
    system: &'static str,
    data: DataKind,
    workers: u16,
    warm_ms: Spread,
    cold_ms: Spread,
    warm_per_codec_limit: Spread,
    warm_per_pool: Spread,
    warm_per_limit: Spread,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    #[serde(flatten)]
    about: About,
    rows: Vec<Row>,
}

/// Everything about a run but where and what of.
struct Setting<'a> {
    args: &'a CompareArgs,
    case: Case<'a>,
    expected: &'a Expected,
}

pub(crate) fn compare(args: &CompareArgs) -> Result<()> {
    let bags = args.data.iter().map(|data| args.bag.of(*data)).collect::<Result<Vec<_>>>()?;
    let (systems, about) = rows(args, &bags)?;
    let mut session = Session::begin("compare", &args.measuring)?;
    session.note(&about)?;
    let expected = |(bag, data): (BagArgs, _)| (Expected::of(&bag, data, args.then), bag, data);
    let bags: Vec<_> = bags.into_iter().map(expected).collect();
    let mut runs = Vec::new();
    for round in 0..args.measuring.runs {
        message(&format!("round {} of {}", round + 1, args.measuring.runs));
        for (expected, bag, data) in &bags {
            for &workers in &args.workers {
                let then = args.then.as_ref();
                let case = Case { bag, data: *data, workers, bags: BAGS, then };
                let setting = Setting { args, case, expected };
                for place in 0..systems.len() {
                    // Nobody is always first.
                    let system = systems[(round as usize + place) % systems.len()];
                    let ran =
                        session.measure(round, |bagpress, at| setting.one(bagpress, at, system));
                    runs.push(ran.with_context(|| format!("run {}", system.name))?);
                }
            }
        }
    }
    let mut rows = Vec::new();
    for &(_, _, data) in &bags {
        for &workers in &args.workers {
            let case: Vec<_> =
                runs.iter().filter(|run| run.data == data && run.workers == workers).collect();
            rows.extend(systems.iter().map(|system| sum_up(&case, system.name, data, workers)));
        }
    }
    let report = Report { machine: Machine::now(), about, rows };
    show(args.measuring.json, &report, &text(&report))
}

/// The systems of the table. Every peer is asked for its version, so that one that is missing is said before anything is measured.
///
/// # Errors
///
/// A system that was named cannot do it, or is not there; of those that nobody named, it is said why they have no row.
fn rows(args: &CompareArgs, bags: &[(BagArgs, DataKind)]) -> Result<(Vec<&'static System>, About)> {
    let (mut systems, mut versions) = (Vec::new(), BTreeMap::new());
    versions.insert("bagpress", vec![env!("CARGO_PKG_VERSION").to_owned()]);
    for system in named(&args.systems)? {
        match versions_of(args, system, bags) {
            Ok(found) => {
                systems.push(system);
                versions.extend(found.map(|found| (system.name, found)));
            }
            Err(why) if args.systems.is_empty() => {
                message(&format!("note: {why:#}"));
            }
            Err(why) => return Err(why),
        }
    }
    Ok((systems, About { platform: Platform::now(), versions }))
}

/// The versions of a system that can do it all; ours have that of this program.
fn versions_of(
    args: &CompareArgs,
    system: &System,
    bags: &[(BagArgs, DataKind)],
) -> Result<Option<Vec<String>>> {
    let mut versions = None;
    for (bag, _) in bags {
        let checked = system.check(&bag.codec, args.then.as_ref());
        checked.with_context(|| format!("{} has no row", system.name))?;
        if let Way::Peer(kind) = system.way {
            let found = Peer::find(&args.peers, kind);
            let found = found.and_then(|peer| peer.versions(&bag.codec, args.then.as_ref()));
            let said = || format!("{} has no row (--systems leaves it out)", system.name);
            versions = Some(found.with_context(said)?);
        }
    }
    Ok(versions)
}

impl Setting<'_> {
    fn one(&self, bagpress: &Bagpress, at: &Path, system: &System) -> Result<Run> {
        let folder = temporary(at)?;
        let Case { data, workers, .. } = self.case;
        let (makespan_ms, cold_ms, command, summary) = match system.way {
            Way::Limit(kind) => self.limit(folder.path(), kind)?,
            Way::Bagpress { results, delivery } => {
                self.ours(bagpress, folder.path(), results, delivery)?
            }
            Way::Peer(kind) => {
                let peer = Peer::find(&self.args.peers, kind)?;
                let (made, inputs) = (folder.path().join("made"), folder.path().join("inputs"));
                if kind.reads_files {
                    write_inputs(self.case.bag, data, &inputs)?;
                }
                std::fs::create_dir(&made)?;
                let ran = peer.run(&self.case, &made.canonicalize()?, &absolute(&inputs)?)?;
                self.expected.check_outputs(&made.join("results"))?;
                (ran.makespan_ms, ran.cold_ms, peer.shown(&self.case)?, None)
            }
        };
        Ok(Run { system: system.name, data, workers, makespan_ms, cold_ms, command, summary })
    }

    fn limit(&self, folder: &Path, kind: Kind) -> Result<Measurement> {
        let mut arguments = bag_arguments(self.case.bag, self.case.data);
        let threads = self.case.workers.to_string();
        arguments.extend(["--only", kind.name(), "--threads", &threads].map(str::to_owned));
        let mut command = Command::new(std::env::current_exe().context("find this program")?);
        command.arg("limit").args(&arguments).arg("--json").arg("--dir").arg(folder);
        let ran = run::<serde_json::Value>(command, &folder.join("stderr"))?;
        let measured: Measured = serde_json::from_value(ran.printed[kind.name()].clone())?;
        let shown = format!("bagpress-bench limit {}", arguments.join(" "));
        Ok((Spread::of(&measured.makespans_ms).median, ms(ran.wall), shown, None))
    }

    fn ours(
        &self,
        bagpress: &Bagpress,
        folder: &Path,
        results: &str,
        delivery: &str,
    ) -> Result<Measurement> {
        if let Some(&then) = self.case.then {
            let to = (then, delivery);
            let ran = chain(bagpress, folder, &self.case, to, self.expected)?;
            return Ok((ms(ran.warm), ms(ran.cold), ran.shown, Some(Box::new(ran.summary))));
        }
        let workers = self.case.workers.to_string();
        let arguments = ["--results", results, "--delivery", delivery, "--workers", &workers];
        let mut command = bagpress.run(self.case.bag, self.case.data, folder, "bag");
        command.args(arguments);
        let (ran, ()) = run_bag(command, &folder.join("stderr"), |_, _| ())?;
        self.expected.check_stats(&folder.join("bag").join(results).join("results"))?;
        let bag = bag_arguments(self.case.bag, self.case.data).join(" ");
        let shown = format!("bagpress run {bag} {}", arguments.join(" "));
        // Its folder is a path of this machine, and gone.
        let summary = Summary { folder: String::new(), ..ran.printed };
        Ok((summary.makespan_ms, ms(ran.wall), shown, Some(Box::new(summary))))
    }
}

/// Warm and cold in milliseconds, the command, and our summary.
type Measurement = (f64, f64, String, Option<Box<Summary>>);

fn absolute(path: &Path) -> Result<std::path::PathBuf> {
    std::path::absolute(path).context("find the current folder")
}

fn sum_up(case: &[&Run], system: &'static str, data: DataKind, workers: u16) -> Row {
    let of = |system: &str, what: fn(&Run) -> f64| -> Vec<f64> {
        case.iter().filter(|run| run.system == system).map(|run| what(run)).collect()
    };
    let warm = of(system, |run| run.makespan_ms);
    let per = |reference| Spread::of_ratios(&warm, &of(reference, |run| run.makespan_ms));
    Row {
        system,
        data,
        workers,
        warm_ms: Spread::of(&warm),
        cold_ms: Spread::of(&of(system, |run| run.cold_ms)),
        warm_per_codec_limit: per("codec-limit"),
        warm_per_pool: per("pool"),
        warm_per_limit: per("limit"),
    }
}

fn text(report: &Report) -> String {
    let heading = row![
        "data",
        "workers",
        "system",
        "warm ms",
        "cold ms",
        "warm/codec limit",
        "warm/pool",
        "warm/limit",
        "runs"
    ];
    let ratio = |ratio: Spread| match ratio.count {
        0 => "–".to_owned(),
        _ => format!("{ratio:.2}"),
    };
    let mut rows = vec![heading];
    for row in &report.rows {
        rows.push(row![
            row.data,
            row.workers,
            row.system,
            row.warm_ms,
            row.cold_ms,
            ratio(row.warm_per_codec_limit),
            ratio(row.warm_per_pool),
            ratio(row.warm_per_limit),
            row.warm_ms.count,
        ]);
    }
    let Machine { cores, load_1min } = report.machine;
    let Platform { cpu, .. } = &report.about.platform;
    format!(
        "{}median (min–max); a ratio is taken inside each round; {cores} cores ({cpu}), load {load_1min} at the end\n",
        table(&rows)
    )
}
