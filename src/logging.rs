//! Where logs go: one structured file per process.
//!
//! A thread of its own writes it: a disk that hangs stops no code that logs. tracing-appender does the same, but where that
//! disk hangs its guard prints to stdout, where a summary in JSON goes, and a thread that cannot start is a panic.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::{Context, Result};
use bagpress_broker::limits;
use bagpress_broker::quote::{name, words};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The way to the thread, once there is one.
static LOG: OnceLock<Log> = OnceLock::new();

/// Starts logging to `file`, one JSON line per event; without one, warnings go to stderr.
pub(crate) fn start(file: Option<&Path>) -> Result<()> {
    let open = |path| {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.with_context(|| format!("open the log {}", name(path)))
    };
    start_with(file.map(open).transpose()?)
}

/// The same, to a file that is open.
pub(crate) fn start_in(file: File) -> Result<()> {
    start_with(Some(file))
}

fn start_with(file: Option<File>) -> Result<()> {
    let level = if file.is_some() { "info" } else { "warn" };
    let filter = EnvFilter::try_from_env("BAGPRESS_LOG").unwrap_or_else(|_| {
        // The client's own words about lost connections repeat ours.
        EnvFilter::new(format!("{level},async_nats=error"))
    });
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter);
    if let Some(file) = file {
        let log = Log::start(file).context("start the log's thread")?;
        subscriber.json().with_writer(LOG.get_or_init(|| log).clone()).init();
    } else {
        // Colours are for a terminal, unless somebody said that they are not wanted.
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let ansi = io::stderr().is_terminal() && !plain;
        subscriber.with_writer(move || OneLine { ansi }).with_ansi(ansi).without_time().init();
    }
    Ok(())
}

/// Waits until what was logged is in the file, for a moment at most.
pub(crate) fn finish() {
    let Some(log) = LOG.get() else { return };
    let (written, waits) = sync_channel(1);
    if log.lines.try_send(Said::Written(written)).is_ok() {
        // Nobody answers where the disk hangs.
        waits.recv_timeout(limits::LOG_WAIT).ok();
    }
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

enum Said {
    Line(Vec<u8>),
    Written(SyncSender<()>),
}

/// Lines on their way to the file.
#[derive(Clone)]
struct Log {
    lines: SyncSender<Said>,
}

impl Log {
    fn start(file: File) -> io::Result<Self> {
        let (lines, said) = sync_channel(limits::LOG_LINES_MAX);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write(file, &said))?;
        Ok(Self { lines })
    }
}

fn write(mut file: File, said: &Receiver<Said>) {
    while let Ok(said) = said.recv() {
        match said {
            // A log that cannot be written has nobody to tell.
            Said::Line(line) => file.write_all(&line).ok(),
            // The process may have stopped waiting.
            Said::Written(written) => written.send(()).ok(),
        };
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Log {
    /// Takes a whole line; where too many wait already, it is lost.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.try_send(Said::Line(line.to_vec())).ok();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
