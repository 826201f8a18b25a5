//! Where logs go: one structured file per process.
//!
//! A thread of its own writes it: a disk that hangs must not stop a process that only wants to say so.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use bagpress_broker::limits;
use bagpress_broker::quote::{name, words};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// The thread that writes the log, while there is one.
static WRITER: Mutex<Option<WorkerGuard>> = Mutex::new(None);

/// Starts logging to `file`, a JSON line an event; without one, warnings go to stderr.
pub(crate) fn start(file: Option<&Path>) -> Result<()> {
    let open = |path| {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.with_context(|| format!("open the log {}", name(path)))
    };
    start_with(file.map(open).transpose()?);
    Ok(())
}

/// The same, to a file that is open.
pub(crate) fn start_in(file: File) {
    start_with(Some(file));
}

fn start_with(file: Option<File>) {
    let level = if file.is_some() { "info" } else { "warn" };
    let filter = EnvFilter::try_from_env("BAGPRESS_LOG").unwrap_or_else(|_| {
        // The client's own words about lost connections repeat ours.
        EnvFilter::new(format!("{level},async_nats=error"))
    });
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter);
    if let Some(file) = file {
        // Lines that find no space are lost: nothing waits for a log.
        let writer = NonBlockingBuilder::default().buffered_lines_limit(limits::LOG_LINES_MAX);
        let (log, guard) = writer.lossy(true).finish(file);
        *WRITER.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
        subscriber.json().with_writer(log).init();
    } else {
        // Colours are for a terminal, unless NO_COLOR refuses them.
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let ansi = io::stderr().is_terminal() && !plain;
        subscriber.with_writer(move || OneLine { ansi }).with_ansi(ansi).without_time().init();
    }
}

/// Waits until what was logged is in the file, for about a second at most: nothing answers where the disk hangs.
pub(crate) fn finish() {
    drop(WRITER.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// Stderr, where an event is one line whatever is in it.
struct OneLine {
    /// Whether there are colours, which are ours: those of others the formatter has escaped.
    ansi: bool,
}

impl Write for OneLine {
    /// Takes a whole event.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = if self.ansi {
            line.split('\u{1b}').map(words).collect::<Vec<_>>().join("\u{1b}")
        } else {
            words(line)
        };
        io::stderr().write_all(format!("{line}\n").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
