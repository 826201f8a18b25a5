//! What the system grants to this process, and how it says that there is no more.

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// Raises the soft limit of open files to the hard one; children inherit it.
///
/// The soft limit is low for the sake of programs that use `select`, which we do not. Where the system refuses,
/// what it grants has to do.
pub(crate) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).ok();
    }
}

/// Lets a write beyond the largest size that a file may have (`ulimit -f`) fail with *file too large*: without a
/// handler its signal ends the process. Children do not inherit a handler.
///
/// # Errors
///
/// What the system said.
pub(crate) fn survive_file_size_limit() -> std::io::Result<()> {
    // Once installed it stays, with or without somebody who listens.
    signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop)
}
