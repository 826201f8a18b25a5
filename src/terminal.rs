//! The terminal: signals come from there, and data goes there.

use std::io::Write;

use anyhow::{Context, Result};
use bagpress_broker::quote;
use bagpress_producer::{Usage, message};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Signalled;

/// SIGINT and SIGTERM.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self> {
        let wait = "wait for signals";
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context(wait)?,
            terminate: signal(SignalKind::terminate()).context(wait)?,
        })
    }

    pub(crate) async fn received(&mut self) -> Signalled {
        tokio::select! {
            _ = self.interrupt.recv() => Signalled { name: "SIGINT", code: 130 },
            _ = self.terminate.recv() => Signalled { name: "SIGTERM", code: 143 },
        }
    }
}

/// Does `work` until it is done, or a signal ends it.
///
/// # Errors
///
/// [`Signalled`]; what `work` says.
pub(crate) async fn interruptible<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut signals = Signals::listen()?;
    tokio::select! {
        done = work => done,
        signalled = signals.received() => Err(signalled.into()),
    }
}

/// Says what a person should know, a line each.
pub(crate) fn notes(notes: &[String]) {
    for note in notes {
        message(&format!("note: {note}"));
    }
}

/// Prints a value for a script, as JSON, or its text for a person.
///
/// # Errors
///
/// As [`print()`].
pub(crate) fn tell<T: Serialize>(json: bool, value: &T, text: &str) -> Result<()> {
    if json { print_json(value) } else { print(text) }
}

/// Lines of data go to stdout; a reader that left is no error. Whatever words of others are in them, no cursor is moved.
///
/// # Errors
///
/// [`Usage`] if it cannot be written: the user can name another place.
pub(crate) fn print(text: &str) -> Result<()> {
    printed(|stdout| stdout.write_all(quote::lines(text).as_bytes()))
}

/// Begins an empty page, where somebody watches.
///
/// # Errors
///
/// As [`print()`].
pub(crate) fn clear() -> Result<()> {
    printed(|stdout| stdout.write_all(b"\x1b[2J\x1b[H"))
}

/// A value as JSON, for a script, or for a person who looks at what a script would get.
///
/// # Errors
///
/// As [`print()`].
pub(crate) fn print_json<T: Serialize>(value: &T) -> Result<()> {
    printed(|stdout| {
        let mut harmless = Harmless(stdout);
        serde_json::to_writer_pretty(&mut harmless, value)?;
        harmless.write_all(b"\n")
    })
}

/// A value as one line of JSON, for a script that reads values as they come.
///
/// # Errors
///
/// As [`print()`].
pub(crate) fn print_json_line<T: Serialize>(value: &T) -> Result<()> {
    printed(|stdout| {
        let mut harmless = Harmless(stdout);
        serde_json::to_writer(&mut harmless, value)?;
        harmless.write_all(b"\n")
    })
}

/// Takes JSON, piece by piece, each of whole characters.
struct Harmless<'a>(&'a mut dyn Write);

impl Write for Harmless<'_> {
    fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        match str::from_utf8(piece) {
            Ok(text) => self.0.write_all(quote::json(text).as_bytes())?,
            Err(error) => return Err(std::io::Error::other(error)),
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// As [`print()`], for what is written piece by piece.
///
/// # Errors
///
/// As [`print()`].
fn printed(write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
    match write(&mut stdout).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(unwritable(&error)),
        _ => Ok(()),
    }
}

/// That stdout takes no more.
pub(crate) fn unwritable(error: &dyn std::fmt::Display) -> anyhow::Error {
    Usage::error(
        format!("stdout cannot be written: {error}"),
        "the work is done; print the result again to a place with space",
    )
}
