//! What a person sees while a bag runs: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::run_folder::specification::Specification;

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Between two notices.
const NOTICE_EVERY: Duration = Duration::from_secs(10);

/// What there is to show.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) decided: u64,
    pub(crate) failed: u64,
    /// Input bytes of the tasks done.
    pub(crate) bytes: u64,
    pub(crate) workers: usize,
}

/// The display. Everything goes to stderr.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    lines: bool,
    tasks: u64,
    began: Instant,
    already: Option<u64>,
    next_line: Instant,
    next_notice: Instant,
}

impl Progress {
    pub(crate) fn start(specification: &Specification, shown: bool) -> Self {
        let tasks = u64::from(specification.tasks);
        let terminal = shown && std::io::stderr().is_terminal();
        let bar = terminal.then(|| {
            let bar = ProgressBar::with_draw_target(Some(tasks), ProgressDrawTarget::stderr());
            let template = "{bar:32} {pos}/{len} tasks  {msg}  ETA {eta}";
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
            began: now,
            already: None,
            next_line: now + LINE_EVERY,
            next_notice: now,
        }
    }

    pub(crate) fn update(&mut self, seen: &Seen) {
        let already = *self.already.get_or_insert(seen.decided);
        let text = self.text(seen);
        if let Some(bar) = &self.bar {
            bar.set_position(seen.decided);
            bar.set_message(text);
        } else if self.lines && Instant::now() >= self.next_line {
            self.next_line = Instant::now() + LINE_EVERY;
            let eta = self.eta(seen.decided - already.min(seen.decided), seen.decided);
            self.print(&format!("{}/{} tasks  {text}  ETA {eta}", seen.decided, self.tasks));
        }
    }

    fn text(&self, seen: &Seen) -> String {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            clippy::cast_possible_truncation,
            reason = "a rate for people"
        )]
        let rate = (seen.bytes as f64 / self.began.elapsed().as_secs_f64().max(0.001)) as u64;
        let failed =
            if seen.failed > 0 { format!("  {} failed", seen.failed) } else { String::new() };
        format!(
            "{}  {}/s  {} workers busy{failed}",
            ByteSize(seen.bytes),
            ByteSize(rate),
            seen.workers
        )
    }

    fn eta(&self, new: u64, decided: u64) -> String {
        if new == 0 {
            return "unknown".to_owned();
        }
        let left = self.tasks.saturating_sub(decided);
        #[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
        let seconds = self.began.elapsed().as_secs_f64() * left as f64 / new as f64;
        humantime::format_duration(Duration::from_secs_f64(seconds.round().min(1e9))).to_string()
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
            Some(bar) => bar.suspend(|| crate::error::message(line)),
            None => crate::error::message(line),
        }
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
