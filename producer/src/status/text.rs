//! Status for people.

use std::fmt::Write;
use std::time::Duration;

use bagpress_broker::quote::{name, words};
use bagpress_broker::result::Outcome;
use bagpress_broker::{BagLine, BagState, Gatherer};
use bytesize::ByteSize;

use crate::run_folder::attempts::by_cause;
use crate::status::task::{Attempt, Blocks, Task};
use crate::status::{Bag, Overview, Worker, progress};

/// Blocks that are named as those which workers have.
const BLOCKS_NAMED: usize = 16;

impl std::fmt::Display for Overview {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.bags.is_empty() {
            writeln!(f, "no bags")?;
        }
        for bag_line in &self.bags {
            let BagLine { bag, state, done, failed, tasks, .. } = bag_line;
            let codec = words(&bag_line.codec);
            let gatherer = bag_line.gatherer.as_ref().filter(|gatherer| !gatherer.is_dead());
            let by = gathered_by(gatherer, &state.to_string());
            let by = if gatherer.is_none() { by } else { String::new() };
            let percent = percent(progress(bag_line), bag_line.total_bytes);
            let percent = percent.filter(|_| bag_line.state != BagState::Finished);
            let percent = percent.map(|percent| format!(", {percent} %")).unwrap_or_default();
            writeln!(
                f,
                "{bag}  {state}{by}  {done}/{tasks} done, {failed} failed{percent}  {codec}"
            )?;
        }
        if self.workers.is_empty() {
            writeln!(f, "no workers")?;
        }
        self.workers.iter().try_for_each(|worker| writeln!(f, "{worker}"))
    }
}

impl std::fmt::Display for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stats = &self.stats;
        write!(
            f,
            "worker {}  {}/{}  pool {}  {} of {} slots busy, holds {}; {} done, {} failed",
            words(&self.id),
            words(&stats.host),
            stats.pid,
            words(&stats.pool),
            stats.running,
            stats.slots,
            self.holds,
            stats.done,
            stats.failed
        )
    }
}

impl std::fmt::Display for Bag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A name that fills its column still ends before the value begins; values are others' words.
        let mut row = |name: &str, value: &str| writeln!(f, "{name:<13} {}", words(value));
        let Self { bag, codec, results, pool, .. } = self;
        row("bag", &format!("{bag}  ({codec}, {results}, pool {pool})"))?;
        row(
            "state",
            &format!("{}{}", self.state, gathered_by(self.gatherer.as_ref(), &self.state)),
        )?;
        let mut tasks = format!("{}/{} done, {} failed", self.done, self.tasks, self.failed);
        if let (Some(running), Some(waiting)) = (self.running, self.waiting) {
            // Writing into a string cannot fail.
            write!(tasks, ", {running} with workers, {waiting} waiting").ok();
        }
        if let Some(nowhere @ 1..) = self.not_queued {
            write!(tasks, ", {nowhere} not submitted or not gathered").ok();
        }
        row("tasks", &tasks)?;
        if self.state == "running" || self.state == "submitting" {
            let eta = self.eta_s.map_or_else(
                || "unknown".to_owned(),
                |s| humantime::format_duration(Duration::from_secs(s)).to_string(),
            );
            row("rate", &format!("{}/s, ETA {eta}", ByteSize(self.bytes_per_s)))?;
        }
        if !self.failed_by_cause.is_empty() {
            row("failed", &by_cause(&self.failed_by_cause))?;
        }
        let counts = [
            ("tasks retried", self.retried),
            ("workers lost", self.workers_lost),
            ("duplicates", self.duplicates),
        ];
        let counts: Vec<_> = counts.iter().map(|(name, n)| format!("{name}: {n}")).collect();
        row("attempts", &counts.join(", "))?;
        if !self.given_back.is_empty() {
            row("given back", &by_cause(&self.given_back))?;
        }
        let done = self.progress_bytes;
        if let Some(percent) = percent(done, self.total_bytes).filter(|_| self.state != "finished")
        {
            let (done, total) = (ByteSize(done), ByteSize(self.total_bytes));
            row("progress", &format!("{done} of {total}, {percent} %"))?;
        }
        let (input, output) = (ByteSize(self.input_bytes), ByteSize(self.output_bytes));
        row("bytes", &format!("{input} in, {output} out"))?;
        for worker in &self.workers {
            row("", &worker.to_string())?;
        }
        if let Some(folder) = &self.folder {
            row("folder", &name(folder))?;
        }
        self.why.as_ref().map_or(Ok(()), |why| row("why it waits", why))
    }
}

/// How much of so many bytes is done, where anything is known of them. A size may be less than what was read.
fn percent(done: u64, total: u64) -> Option<u64> {
    let percent = (u128::from(done) * 100).checked_div(u128::from(total))?;
    u64::try_from(percent.min(100)).ok()
}

/// Who gathers a bag, behind its state. One that is not over and that nobody gathers gets no further: its state is how its last
/// gatherer left it.
fn gathered_by(gatherer: Option<&Gatherer>, state: &str) -> String {
    match gatherer {
        Some(by) => format!(", gathered by {by}"),
        None if state == "running" || state == "submitting" => ", gathered by nobody".to_owned(),
        None => String::new(),
    }
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "task {} of bag {}: {}", self.index, self.bag, self.state)?;
        if let Some(blocks) = &self.blocks {
            writeln!(f, "  {blocks}")?;
        }
        for attempt in &self.attempts {
            writeln!(f, "  {attempt}")?;
        }
        match &self.outcome {
            Some(Outcome::Done(done)) => {
                let (output, input) = (done.output_bytes, done.input_bytes);
                writeln!(f, "  {output} bytes from {input}, {}", done.output_digest)?;
                if let Some(fidelity) = done.fidelity {
                    writeln!(f, "  {fidelity}")?;
                }
                if self.twin_of == Some(self.index) {
                    writeln!(f, "  its output is that of an earlier run, with the same content")?;
                } else if let Some(first) = self.twin_of {
                    writeln!(
                        f,
                        "  its output is that of task {first}: both inputs have the same content"
                    )?;
                }
                let Some(choice) = &done.choice else { return Ok(()) };
                write!(f, "  chosen: zstd:{}", choice.level)?;
                let predicted = choice.predicted_bytes;
                writeln!(
                    f,
                    "{}",
                    predicted.map_or(String::new(), |of| format!(", predicted {of} bytes"))
                )
            }
            Some(Outcome::Failed(_)) | None => Ok(()),
        }
    }
}

impl std::fmt::Display for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { blocks, done, failed, running } = self;
        write!(f, "blocks: {done} of {blocks} done, {failed} failed")?;
        let Some(running) = running else { return Ok(()) };
        let waiting = (*blocks as usize).saturating_sub((done + failed) as usize + running.len());
        write!(f, ", {} with workers", running.len())?;
        if !running.is_empty() {
            let named: Vec<_> = running.iter().take(BLOCKS_NAMED).map(u32::to_string).collect();
            let more = if running.len() > BLOCKS_NAMED { ", …" } else { "" };
            write!(f, " ({}{more})", named.join(", "))?;
        }
        write!(f, ", {waiting} waiting")
    }
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = jiff::Timestamp::from_microsecond(self.at_us.cast_signed());
        let at = at.map_or_else(|_| "?".to_owned(), |at| format!("{at:.3}"));
        write!(f, "{at}  round {} delivery {}  ", self.round, self.delivery)?;
        match (self.cause, self.planned) {
            (None, _) => write!(f, "done")?,
            (Some(cause), true) => write!(f, "{cause} (planned, no attempt spent)")?,
            (Some(cause), false) => write!(f, "{cause}")?,
        }
        write!(f, "  worker {}", words(&self.worker))?;
        if !self.host.is_empty() {
            write!(f, " on {}", words(&self.host))?;
        }
        if let Some(execution) = &self.execution {
            write!(f, "  execution {}", words(execution))?;
        }
        if !self.message.is_empty() {
            write!(f, "  {}", words(&self.message))?;
        }
        Ok(())
    }
}
