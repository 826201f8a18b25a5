//! Where logs go: one structured file a process.

use std::fs::OpenOptions;
use std::path::Path;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// Starts logging to `file`, a JSON line an event; without one, warnings go to stderr.
pub(crate) fn start(file: Option<&Path>) -> Result<()> {
    let level = if file.is_some() { "info" } else { "warn" };
    let filter = EnvFilter::try_from_env("BAGPRESS_LOG").unwrap_or_else(|_| {
        // The client's own words about lost connections repeat ours.
        EnvFilter::new(format!("{level},async_nats=error"))
    });
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter);
    match file {
        Some(path) => {
            let log = OpenOptions::new().create(true).append(true).open(path);
            let log = log.with_context(|| format!("open the log {}", path.display()))?;
            subscriber.json().with_writer(BoxMakeWriter::new(std::sync::Mutex::new(log))).init();
        }
        None => subscriber.with_writer(std::io::stderr).without_time().init(),
    }
    Ok(())
}
