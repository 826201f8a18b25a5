//! What was measured goes to stdout, for scripts or for people.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;

/// Prints what was measured: as JSON, or its text.
pub(crate) fn show(json: bool, measured: &impl Serialize, text: &str) -> Result<()> {
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(measured)?))
    } else {
        print(text)
    }
}

/// Data goes to stdout; a reader that left is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
