//! The summary of a run, and where the time went.

pub(crate) mod failures;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use bagpress_broker::quote::name;
use bagpress_broker::result::Cause;
use serde::{Deserialize, Serialize};

use crate::gather::Gathered;
use crate::removal::RemovedInputs;
use crate::run_folder::attempts::by_cause;
use crate::run_folder::folder::{FAILED, RunFolder, SUMMARY, SUMMARY_TEXT};
use crate::run_folder::inputs::selection::Selected;
use crate::run_folder::ledger::choices::Choices;
use crate::run_folder::ledger::tally::{Outliers, Split};
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
    /// Mean execute time of a task, in ms.
    pub total_ms_mean: f64,
    /// Half of the tasks took no longer, in ms.
    pub total_ms_p50: f64,
    /// 19 of 20 tasks took no longer, in ms.
    pub total_ms_p95: f64,
    /// Input bytes of the tasks done.
    pub input_bytes: u64,
    /// Output bytes of the tasks done.
    pub output_bytes: u64,
    /// Output bytes divided by input bytes.
    pub output_per_input: f64,
    /// Whether every output was decompressed and gave its input again.
    pub verified: bool,
    /// Tasks done that got the output of another one, as their inputs have the same content.
    #[serde(default)]
    pub twins: u64,
    /// Input bytes of these.
    #[serde(default)]
    pub twin_bytes: u64,
    /// Of these tasks, those that got the output of an earlier run.
    #[serde(default)]
    pub earlier: u64,
    /// What was chosen for outputs, where the codec chooses.
    #[serde(default, skip_serializing_if = "Choices::is_empty")]
    pub choices: Choices,
    /// The largest error of any value, where not every bit was to be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_abs_error: Option<f64>,
    /// Arrays in which values that are far larger than others made those coarse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outliers: Option<Outliers>,
    /// What the files were to the outputs that were there, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selected>,
    /// What became of the inputs, if they were to be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<RemovedInputs>,
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
        let summed = gathered.plan.ledger.tally(|tally| Self {
            v: 1,
            bag: specification.bag.to_string(),
            folder: folder.path().display().to_string(),
            results: specification.results.to_string(),
            codec: specification.work(),
            tasks: u64::from(specification.tasks),
            completed: tally.done,
            failed: tally.failed,
            retried: tally.retried,
            workers_lost: gathered.workers_lost,
            duplicates: gathered.duplicates,
            given_back: gathered.given_back.clone(),
            makespan_ms: round(gathered.makespan.unwrap_or_default()),
            total_ms_mean: ms(tally.means().execute_us),
            total_ms_p50: ms(tally.execute_us(0.50)),
            total_ms_p95: ms(tally.execute_us(0.95)),
            input_bytes: tally.input_bytes,
            output_bytes: tally.output_bytes,
            output_per_input: tally.output_bytes as f64 / tally.input_bytes.max(1) as f64,
            verified: tally.done > 0 && tally.unverified == 0,
            twins: tally.twins,
            twin_bytes: tally.twin_bytes,
            earlier: tally.earlier,
            choices: tally.choices.clone(),
            max_abs_error: tally.max_abs_error,
            outliers: tally.outliers,
            selection: specification.selection,
            sources: None,
            split: tally.means(),
            failures: Failures::first(&tally.failures, &gathered.plan),
        });
        match (gathered.makespan, Self::before(folder)) {
            (None, Some(before)) if before.bag == summed.bag => summed.measured_by(&before),
            _ => summed,
        }
    }

    /// The summary that is in the folder, if it can be read.
    fn before(folder: &RunFolder) -> Option<Self> {
        serde_json::from_slice(&folder.read(SUMMARY).ok()?).ok()
    }

    /// With what only the gathering could measure that counted the outcomes: one that found them all has seen none of it.
    fn measured_by(self, before: &Self) -> Self {
        let Self { workers_lost, makespan_ms, .. } = *before;
        let split = Split { commit_us: before.split.commit_us, ..self.split };
        Self { workers_lost, makespan_ms, split, ..self }
    }

    /// The same, with what became of the inputs.
    #[must_use]
    pub fn with_sources(self, sources: Option<RemovedInputs>) -> Self {
        Self { sources, ..self }
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
    pub fn text(&self) -> String {
        let mut rows = Rows::default();
        rows.add("bag", &format!("{}  ({}, {})", self.bag, self.codec, self.results));
        rows.add("makespan", &format!("{:.0} ms", self.makespan_ms));
        self.counts(&mut rows);
        self.measures(&mut rows);
        rows.add("folder", &name(&self.folder));
        let listed = &self.failures.first;
        for failure in listed {
            rows.add("failed task", &failure.to_string());
        }
        if self.failed > listed.len() as u64 {
            let all = name(Path::new(&self.folder).join(FAILED));
            rows.add("", &format!("and {} more, all in {all}", self.failed - listed.len() as u64));
        }
        rows.0
    }

    fn counts(&self, rows: &mut Rows) {
        let verified = if self.verified { ", every output verified" } else { "" };
        rows.add(
            "completed",
            &format!("{}/{}, failed: {}{verified}", self.completed, self.tasks, self.failed),
        );
        if let Some(error) = self.max_abs_error {
            rows.add("largest error", &format!("{error:e}"));
        }
        if let Some(Outliers { arrays, largest }) = self.outliers {
            let text = format!(
                "{arrays} of them have values up to {largest:e}, and many that are 2^30 times smaller, which lose their bits where the two are side by side: \
                 put something near in the place of missing values, or ask for accuracy or reversible"
            );
            rows.add("coarse", &text);
        }
        if let Some(selection) = self.selection {
            rows.add("selection", &selection.to_string());
        }
        if self.twins > 0 {
            let Self { twins, twin_bytes, earlier, .. } = self;
            let before = match earlier {
                0 => String::new(),
                earlier => format!(", {earlier} that of an earlier run"),
            };
            let text = format!(
                "{twins} of them have the output of another, with the same input ({twin_bytes} bytes){before}"
            );
            rows.add("not made again", &text);
        }
        if let Some(sources) = &self.sources {
            rows.add("sources", &sources.to_string());
        }
        if self.retried > 0 || self.workers_lost > 0 {
            // Those that this gathering saw. What earlier ones lost is counted with what was given back.
            let lost = match self.workers_lost {
                0 => String::new(),
                lost => format!(", workers lost: {lost}"),
            };
            rows.add("retried", &format!("{} tasks{lost}", self.retried));
        }
        if self.duplicates > 0 {
            rows.add("duplicates", &format!("{}, none counted", self.duplicates));
        }
        if !self.given_back.is_empty() {
            rows.add("given back", &by_cause(&self.given_back));
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn measures(&self, rows: &mut Rows) {
        let Self { total_ms_mean, total_ms_p50, total_ms_p95, .. } = self;
        rows.add(
            "task total_ms",
            &format!("mean {total_ms_mean:.2}, p50 {total_ms_p50:.2}, p95 {total_ms_p95:.2}"),
        );
        let Self { output_per_input, output_bytes, input_bytes, split, .. } = self;
        rows.add(
            "output/input",
            &format!("{output_per_input:.5}  ({output_bytes} of {input_bytes} bytes)"),
        );
        if !self.choices.is_empty() {
            rows.add("chosen", &self.choices.to_string());
        }
        let parts = [
            ("queue", split.queue_us),
            ("input", split.input_us),
            ("compress", split.compress_us),
            // Of an output that nobody decompressed, a digest was made all the same.
            (
                if self.verified || self.completed == 0 { "verify" } else { "digest" },
                split.verify_us,
            ),
            ("transfer", split.transfer_us),
            ("commit", split.commit_us),
        ];
        let parts = parts.map(|(part, us)| format!("{part} {:.2}", us as f64 / 1000.0));
        rows.add("mean ms", &parts.join(", "));
    }
}

/// Rows of a name and a value each.
#[derive(Default)]
struct Rows(String);

impl Rows {
    fn add(&mut self, name: &str, value: &str) {
        // Writing into a string cannot fail.
        writeln!(self.0, "{name:<16}{value}").ok();
    }
}

fn round(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(verified: bool, workers_lost: u64) -> Summary {
        let split = Split { verify_us: 2_000, ..Split::default() };
        let given_back = BTreeMap::from([(Cause::WorkerLost, 2)]);
        Summary {
            v: 1,
            bag: "b-1".to_owned(),
            folder: "runs/t/staged".to_owned(),
            results: "staged".to_owned(),
            codec: "zlib:6".to_owned(),
            tasks: 4,
            completed: 4,
            failed: 0,
            retried: 2,
            workers_lost,
            duplicates: 0,
            given_back,
            makespan_ms: 1.0,
            total_ms_mean: 1.0,
            total_ms_p50: 1.0,
            total_ms_p95: 1.0,
            input_bytes: 4,
            output_bytes: 4,
            output_per_input: 1.0,
            verified,
            twins: 0,
            twin_bytes: 0,
            earlier: 0,
            choices: Choices::default(),
            max_abs_error: None,
            outliers: None,
            selection: None,
            sources: None,
            split,
            failures: Failures::default(),
        }
    }

    #[test]
    fn a_gathering_that_saw_no_worker_die_does_not_say_that_none_did() {
        let text = summary(true, 0).text();
        assert!(text.contains("2 tasks\n") && text.contains("worker-lost 2"), "{text}");
        assert!(summary(true, 1).text().contains("2 tasks, workers lost: 1\n"));
    }

    #[test]
    fn what_nobody_verified_has_no_time_of_verifying() {
        assert!(summary(true, 0).text().contains(", verify 2.00, "));
        let text = summary(false, 0).text();
        assert!(text.contains(", digest 2.00, ") && !text.contains("verify"), "{text}");
    }
}
