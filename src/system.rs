//! What the system grants to this process, and how it reports a limit.

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use rustix::thread::disable_transparent_huge_pages;
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

/// Takes memory by the small page, whatever the system is set to: by the huge one, what the allocator keeps for each thread
/// becomes 2 MiB each, many times what is used. Children inherit it.
pub(crate) fn use_small_pages() {
    // A system that knows no huge pages has none to refuse.
    disable_transparent_huge_pages(true).ok();
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
