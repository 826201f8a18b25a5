//! Counts and times of a bag, in memory that does not grow with it.

use bagpress_broker::result::{Done, Fidelity, Figure, Outcome, TaskResult, Times};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::choices::Choices;
use super::failure::Failure;

/// Failures that a summary lists one by one.
const FAILURES_LISTED: usize = 20;

/// What is known of the outcomes so far.
#[derive(Debug)]
pub struct Tally {
    /// Tasks that were done.
    pub done: u64,
    /// Tasks that failed.
    pub failed: u64,
    /// Input bytes of the tasks done.
    pub input_bytes: u64,
    /// Output bytes of the tasks done.
    pub output_bytes: u64,
    /// Input bytes of the blocks done of files that have no outcome yet.
    pub block_bytes: u64,
    /// Tasks that took more than one attempt.
    pub retried: u64,
    /// Whether any was not verified.
    pub unverified: u64,
    /// Tasks done that got the output of another one.
    pub twins: u64,
    /// Their input bytes.
    pub twin_bytes: u64,
    /// Of these, those that got an output which was there before the bag.
    pub earlier: u64,
    /// What was chosen for outputs, those of blocks among them.
    pub choices: Choices,
    /// The largest error of any value, where not every bit was to be kept.
    pub max_abs_error: Option<f64>,
    /// Arrays in which large values made others coarse.
    pub outliers: Option<Outliers>,
    /// The failures of the lowest indices.
    pub failures: Vec<Failure>,
    sums: Split,
    execute: Histogram<u64>,
}

/// Arrays with values that are far larger than others, and made those coarse.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Outliers {
    /// How many.
    pub arrays: u64,
    /// The largest of their values.
    pub largest: f64,
}

/// Where the time of tasks went, in µs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "a quantity ends in its unit")]
pub struct Split {
    /// Published to attempt started.
    pub queue_us: u64,
    /// Waiting for the input.
    pub input_us: u64,
    /// Compressing.
    pub compress_us: u64,
    /// Verifying, and digests.
    pub verify_us: u64,
    /// Output made to output durable.
    pub transfer_us: u64,
    /// Result made to result read by the gatherer.
    pub commit_us: u64,
    /// Attempt started to output made.
    pub execute_us: u64,
}

impl Split {
    fn add(&mut self, times: &Times, commit_us: u64) {
        add(&mut self.queue_us, times.queue_us);
        add(&mut self.input_us, times.input_us);
        add(&mut self.compress_us, times.compress_us);
        add(&mut self.verify_us, times.verify_us);
        add(&mut self.transfer_us, times.transfer_us);
        add(&mut self.execute_us, times.execute_us);
        add(&mut self.commit_us, commit_us);
    }
}

/// Times of four million tasks may come to more than there are numbers for.
fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

impl Default for Tally {
    #[expect(clippy::expect_used, reason = "three digits are within what the histogram takes")]
    fn default() -> Self {
        Self {
            done: 0,
            failed: 0,
            input_bytes: 0,
            output_bytes: 0,
            block_bytes: 0,
            retried: 0,
            unverified: 0,
            twins: 0,
            twin_bytes: 0,
            earlier: 0,
            choices: Choices::default(),
            max_abs_error: None,
            outliers: None,
            failures: Vec::new(),
            sums: Split::default(),
            execute: Histogram::new(3).expect("a histogram of three digits"),
        }
    }
}

impl Tally {
    /// Counts one outcome; `commit_us` is how long ago its result was made.
    pub fn add(&mut self, result: &TaskResult, commit_us: u64) {
        self.retried += u64::from(result.attempt > 1);
        match &result.outcome {
            Outcome::Done(done) => {
                self.done += 1;
                add(&mut self.input_bytes, done.input_bytes);
                add(&mut self.output_bytes, done.output_bytes);
                self.unverified += u64::from(!done.verified);
                if let Some(fidelity) = done.fidelity {
                    self.add_fidelity(&fidelity);
                }
                self.choices.add(done);
                if let Some(first) = result.twin_of {
                    self.twins += 1;
                    self.earlier += u64::from(first == result.index);
                    // It was not executed: no time of it says anything of tasks.
                    return add(&mut self.twin_bytes, done.input_bytes);
                }
                self.sums.add(&result.times, commit_us);
                if let Err(error) = self.execute.record(result.times.execute_us.max(1)) {
                    tracing::debug!(%error, "time not counted");
                }
            }
            Outcome::Failed(_) => {
                self.failed += 1;
                let Some(failure) = Failure::of(result) else { return };
                // By index: the same summary in whatever order results came.
                let at = self.failures.partition_point(|other| other.index < failure.index);
                self.failures.insert(at, failure);
                self.failures.truncate(FAILURES_LISTED);
            }
        }
    }

    fn add_fidelity(&mut self, fidelity: &Fidelity) {
        let error = fidelity.max_abs_error.get();
        self.max_abs_error = Some(self.max_abs_error.map_or(error, |max| max.max(error)));
        if let Some(outlier) = fidelity.outlier.map(Figure::get) {
            let Outliers { arrays, largest } = self.outliers.unwrap_or_default();
            self.outliers = Some(Outliers { arrays: arrays + 1, largest: largest.max(outlier) });
        }
    }

    /// Counts what was chosen for a block: all else is counted with its file.
    pub(super) fn add_block(&mut self, done: &Done) {
        self.choices.add_block(done);
    }

    /// Takes over how long results were on their way, which only who read them knows.
    pub(crate) fn keep_commit_times(&mut self, before: &Self) {
        self.sums.commit_us = before.sums.commit_us;
    }

    /// Input bytes of all that is done, be it a file or only a part of one.
    #[must_use]
    pub fn done_bytes(&self) -> u64 {
        self.input_bytes.saturating_add(self.block_bytes)
    }

    /// Tasks with an outcome.
    #[must_use]
    pub fn decided(&self) -> u64 {
        self.done + self.failed
    }

    /// Mean of each part of a task done that was executed.
    #[must_use]
    pub fn means(&self) -> Split {
        let mean = |sum: u64| sum / self.done.saturating_sub(self.twins).max(1);
        let sums = &self.sums;
        Split {
            queue_us: mean(sums.queue_us),
            input_us: mean(sums.input_us),
            compress_us: mean(sums.compress_us),
            verify_us: mean(sums.verify_us),
            transfer_us: mean(sums.transfer_us),
            commit_us: mean(sums.commit_us),
            execute_us: mean(sums.execute_us),
        }
    }

    /// The execute time, in µs, that a share `quantile` of the tasks done did not exceed.
    #[must_use]
    pub fn execute_us(&self, quantile: f64) -> u64 {
        if self.execute.is_empty() { 0 } else { self.execute.value_at_quantile(quantile) }
    }
}
