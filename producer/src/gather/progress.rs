//! Progress while a bag runs: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::error::message;

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Between two notices.
const NOTICE_EVERY: Duration = Duration::from_secs(10);

/// What there is to show.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) decided: u64,
    pub(crate) failed: u64,
    /// Input bytes of the tasks done.
    pub(crate) bytes: u64,
    pub(crate) bytes_per_s: u64,
    pub(crate) workers: usize,
    pub(crate) eta: Option<Duration>,
}

/// The display. Everything goes to stderr.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    lines: bool,
    tasks: u64,
    next_line: Instant,
    next_notice: Instant,
}

impl Progress {
    /// The display of a bag of `tasks`; `shown`: more of it than notices.
    pub(crate) fn start(tasks: u64, shown: bool) -> Self {
        let terminal = shown && std::io::stderr().is_terminal();
        let bar = terminal.then(|| {
            let bar = ProgressBar::with_draw_target(Some(tasks), ProgressDrawTarget::stderr());
            let template = "{bar:32} {pos}/{len} tasks  {msg}";
            bar.set_style(
                ProgressStyle::with_template(template)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        let now = Instant::now();
        Self {
            bar,
            lines: shown && !terminal,
            tasks,
            next_line: now + LINE_EVERY,
            next_notice: now,
        }
    }

    pub(crate) fn update(&mut self, seen: &Figures) {
        if let Some(bar) = &self.bar {
            bar.set_position(seen.decided);
            bar.set_message(text(seen));
        } else if self.lines && Instant::now() >= self.next_line {
            self.next_line = Instant::now() + LINE_EVERY;
            self.print(&format!("{}/{} tasks  {}", seen.decided, self.tasks, text(seen)));
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

fn text(seen: &Figures) -> String {
    let Figures { failed, bytes, bytes_per_s, workers, eta, .. } = *seen;
    let failed = if failed > 0 { format!("  {failed} failed") } else { String::new() };
    let eta =
        eta.map_or_else(|| "unknown".to_owned(), |eta| humantime::format_duration(eta).to_string());
    let (bytes, rate) = (ByteSize(bytes), ByteSize(bytes_per_s));
    format!("{bytes}  {rate}/s  {workers} workers busy{failed}  ETA {eta}")
}
