//! Who sits at the terminal: signals come from there, and data goes there.

use std::io::Write;

use anyhow::{Context, Result};
use bagpress_producer::Usage;
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

/// Data goes to stdout; a reader that left is no error.
///
/// # Errors
///
/// [`Usage`] if it cannot be written: whoever named that place can name another.
pub(crate) fn print(text: &str) -> Result<()> {
    printed(|stdout| stdout.write_all(text.as_bytes()))
}

/// As [`print()`], for what is written piece by piece.
///
/// # Errors
///
/// As [`print()`].
pub(crate) fn printed(write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
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
        "what was done is done; print it again to a place with room",
    )
}
