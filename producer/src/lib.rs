//! What a user runs: a bag is specified, published, gathered, summed up and verified.
//!
//! ```text
//! inputs ─► spec ─► publish ──────────► (broker, workers)
//! summary ◄─ ledger ◄─ accept ◄─ gather ◄──────┘
//! ```

mod accept;
mod error;
pub mod folder;
pub mod gather;
mod inputs;
mod ledger;
pub mod local;
mod manifest;
mod plan;
mod progress;
mod publish;
mod rerun;
pub mod run;
mod spec;
mod standstill;
mod summary;
mod tally;
mod verify;
mod watch;

pub use error::{Interrupted, Stalled, Usage};
pub use folder::RunFolder;
pub use spec::{Data, Specification};
pub use summary::Summary;
pub use verify::{Verified, verify};

/// Says something to the person at the terminal, on stderr.
#[expect(clippy::print_stderr, reason = "the one place of this crate that talks")]
pub fn message(line: &str) {
    eprintln!("{line}");
}
