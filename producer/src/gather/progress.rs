//! Progress while a bag runs: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::error::message;
use crate::gather::pace::Amount;

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Between two notices.
const NOTICE_EVERY: Duration = Duration::from_secs(10);

/// What there is to show.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) done: Amount,
    pub(crate) bytes_per_s: u64,
    pub(crate) workers: usize,
    pub(crate) eta: Option<Duration>,
}

/// The display. Everything goes to stderr.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    lines: bool,
    all: Amount,
    next_line: Instant,
    next_notice: Instant,
}

impl Progress {
    /// The display of a bag of so much; `shown`: more of it than notices.
    pub(crate) fn start(all: Amount, shown: bool) -> Self {
        let terminal = shown && std::io::stderr().is_terminal();
        let bar = terminal.then(|| {
            let bar = ProgressBar::with_draw_target(Some(all.work()), ProgressDrawTarget::stderr());
            let template = "{bar:32} {msg}";
            bar.set_style(
                ProgressStyle::with_template(template)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        let now = Instant::now();
        Self { bar, lines: shown && !terminal, all, next_line: now + LINE_EVERY, next_notice: now }
    }

    pub(crate) fn update(&mut self, seen: &Figures) {
        if let Some(bar) = &self.bar {
            bar.set_position(seen.done.work());
            bar.set_message(text(seen, &self.all));
        } else if self.lines && Instant::now() >= self.next_line {
            self.next_line = Instant::now() + LINE_EVERY;
            self.print(&text(seen, &self.all));
        }
    }

    /// Whether a notice is due.
    pub(crate) fn may_say(&self) -> bool {
        Instant::now() >= self.next_notice
    }

    /// Says why something waits, not more often than people can read.
    pub(crate) fn say(&mut self, notice: &str) {
        if !self.may_say() {
            return;
        }
        self.next_notice = Instant::now() + NOTICE_EVERY;
        self.print(&format!("note: {notice}"));
    }

    /// Says something that happened, whenever something else was said.
    pub(crate) fn tell(&self, what: &str) {
        self.print(&format!("note: {what}"));
    }

    fn print(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| message(line)),
            None => message(line),
        }
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn text(seen: &Figures, all: &Amount) -> String {
    let Figures { done: Amount { tasks, failed, bytes }, bytes_per_s, workers, eta } = *seen;
    let failed = if failed > 0 { format!("  {failed} failed") } else { String::new() };
    let eta =
        eta.map_or_else(|| "unknown".to_owned(), |eta| humantime::format_duration(eta).to_string());
    let (of, rate) = (all.tasks, ByteSize(bytes_per_s));
    // What the system says of a size may be less than there is.
    let bytes = match all.bytes.max(bytes) {
        0 => ByteSize(0).to_string(),
        all => format!("{} of {}", ByteSize(bytes), ByteSize(all)),
    };
    format!("{tasks}/{of} tasks  {bytes}  {rate}/s  {workers} workers busy{failed}  ETA {eta}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_done_in_part_moves_the_line() {
        let (gib, all) = (1 << 30, Amount { tasks: 1, failed: 0, bytes: 4 << 30 });
        let line = |bytes| {
            let done = Amount { bytes, ..Amount::default() };
            let eta = Some(Duration::from_secs(30));
            text(&Figures { done, bytes_per_s: 1 << 20, workers: 2, eta }, &all)
        };
        assert_eq!(line(gib), "0/1 tasks  1.0 GiB of 4.0 GiB  1.0 MiB/s  2 workers busy  ETA 30s");
        assert!(line(0).starts_with("0/1 tasks  0 B of 4.0 GiB  "), "{}", line(0));
    }
}
