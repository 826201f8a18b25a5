//! The RFC's table, and where the time went.

pub(crate) mod failures;
pub(crate) mod stats;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use bagpress_broker::quote::name;
use bagpress_broker::result::Cause;
use serde::{Deserialize, Serialize};

use crate::gather::Gathered;
use crate::run_folder::folder::{FAILED, RunFolder, SUMMARY, SUMMARY_TEXT};
use crate::run_folder::inputs::selection::Selected;
use crate::run_folder::ledger::tally::Split;
use crate::summary::failures::Failures;

/// What a finished run came to; `summary.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Version of this form.
    pub v: u32,
    /// The bag.
    pub bag: String,
    /// The run's folder.
    pub folder: String,
    /// How the outputs came back.
    pub results: String,
    /// Codec and level.
    pub codec: String,
    /// How many tasks.
    pub tasks: u64,
    /// How many were done.
    pub completed: u64,
    /// How many failed.
    pub failed: u64,
    /// How many took more than one attempt.
    pub retried: u64,
    /// Workers that died: no failures of the program that they ran.
    pub workers_lost: u64,
    /// Executions that came too late: another's outcome counted.
    #[serde(default)]
    pub duplicates: u64,
    /// Deliveries that were given back, by cause.
    #[serde(default)]
    pub given_back: BTreeMap<Cause, u64>,
    /// First publish to last outcome counted, in ms.
    pub makespan_ms: f64,
    /// Mean execute time of a task, in ms: the RFC's `total_ms`.
    pub total_ms_mean: f64,
    /// Half of the tasks took no longer, in ms.
    pub total_ms_p50: f64,
    /// 19 of 20 tasks took no longer, in ms.
    pub total_ms_p95: f64,
    /// Input bytes of the tasks done.
    pub input_bytes: u64,
    /// Output bytes of the tasks done.
    pub output_bytes: u64,
    /// The RFC's "compression ratio".
    pub output_per_input: f64,
    /// Whether every output was decompressed and gave its input again.
    pub verified: bool,
    /// What the files were to the outputs that were there, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selected>,
    /// Mean of each part of a task, in µs.
    pub split: Split,
    /// The first failures, or all of them: [`all_failures`](Self::all_failures).
    pub failures: Failures,
}

impl Summary {
    /// Sums a gathered bag up.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub fn of(gathered: &Gathered, folder: &RunFolder) -> Self {
        let specification = &gathered.plan.specification;
        let ms = |us: u64| us as f64 / 1000.0;
        gathered.plan.ledger.tally(|tally| Self {
            v: 1,
            bag: specification.bag.to_string(),
            folder: folder.path().display().to_string(),
            results: specification.results.to_string(),
            codec: specification.codec.to_string(),
            tasks: u64::from(specification.tasks),
            completed: tally.done,
            failed: tally.failed,
            retried: tally.retried,
            workers_lost: gathered.workers_lost,
            duplicates: gathered.duplicates,
            given_back: gathered.given_back.clone(),
            makespan_ms: round(gathered.makespan),
            total_ms_mean: ms(tally.means().execute_us),
            total_ms_p50: ms(tally.execute_us(0.50)),
            total_ms_p95: ms(tally.execute_us(0.95)),
            input_bytes: tally.input_bytes,
            output_bytes: tally.output_bytes,
            output_per_input: tally.output_bytes as f64 / tally.input_bytes.max(1) as f64,
            verified: tally.done > 0 && tally.unverified == 0,
            selection: specification.selection,
            split: tally.means(),
            failures: Failures::first(&tally.failures, &gathered.plan),
        })
    }

    /// The same, to be written with all failures, which are read meanwhile.
    #[must_use]
    pub fn all_failures(self, gathered: &Gathered) -> Self {
        Self { failures: self.failures.all(&gathered.plan), ..self }
    }

    /// Writes `summary.txt` and `summary.json`.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn write(&self, folder: &RunFolder) -> Result<()> {
        folder.write_durably(SUMMARY_TEXT, self.text().as_bytes())?;
        let json = format!("{}\n", serde_json::to_string_pretty(self)?);
        folder.write_durably(SUMMARY, json.as_bytes())
    }

    /// The table for people.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: String| {
            // Writing into a string cannot fail.
            writeln!(text, "{name:<16}{value}").ok();
        };
        row("bag", format!("{}  ({}, {})", self.bag, self.codec, self.results));
        row("makespan", format!("{:.0} ms", self.makespan_ms));
        let verified = if self.verified { ", every output verified" } else { "" };
        row(
            "completed",
            format!("{}/{}, failed: {}{verified}", self.completed, self.tasks, self.failed),
        );
        if let Some(selection) = self.selection {
            row("selection", selection.to_string());
        }
        if self.retried > 0 || self.workers_lost > 0 {
            row("retried", format!("{} tasks, workers lost: {}", self.retried, self.workers_lost));
        }
        if self.duplicates > 0 {
            row("duplicates", format!("{}, none counted", self.duplicates));
        }
        if !self.given_back.is_empty() {
            row("given back", by_cause(&self.given_back));
        }
        row(
            "task total_ms",
            format!(
                "mean {:.2}, p50 {:.2}, p95 {:.2}",
                self.total_ms_mean, self.total_ms_p50, self.total_ms_p95
            ),
        );
        row(
            "output/input",
            format!(
                "{:.5}  ({} of {} bytes)",
                self.output_per_input, self.output_bytes, self.input_bytes
            ),
        );
        let ms = |us: u64| us as f64 / 1000.0;
        let split = &self.split;
        row(
            "mean ms",
            format!(
                "queue {:.2}, input {:.2}, compress {:.2}, verify {:.2}, transfer {:.2}, commit {:.2}",
                ms(split.queue_us),
                ms(split.input_us),
                ms(split.compress_us),
                ms(split.verify_us),
                ms(split.transfer_us),
                ms(split.commit_us)
            ),
        );
        row("folder", name(&self.folder));
        let listed = &self.failures.first;
        for failure in listed {
            row("failed task", failure.to_string());
        }
        if self.failed > listed.len() as u64 {
            let all = name(Path::new(&self.folder).join(FAILED));
            row("", format!("and {} more, all in {all}", self.failed - listed.len() as u64));
        }
        text
    }
}

/// Counts by cause, for people.
pub(crate) fn by_cause(counts: &BTreeMap<Cause, u64>) -> String {
    let counts: Vec<_> = counts.iter().map(|(cause, n)| format!("{cause} {n}")).collect();
    counts.join(", ")
}

fn round(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
