//! What a user runs: a bag is specified, published, gathered, summed up and verified.
//!
//! ```text
//! inputs ─► spec ─► publish ─┬────────────────► (broker, workers)
//!                            └─► dispatch ─offers─►      │
//! summary ◄─ ledger ◄─ accept ◄─ gather ◄─ outcomes ◄────┘
//! ```

mod accept;
#[cfg(test)]
mod any_order;
pub mod cancel;
mod dispatch;
mod error;
pub mod folder;
pub mod gather;
mod glance;
mod history;
mod inputs;
mod journal;
mod lease;
mod ledger;
pub mod local;
mod manifest;
mod offers;
mod outcomes;
mod plan;
mod preview;
mod progress;
mod publish;
#[cfg(feature = "testing")]
pub mod read_back;
mod rebuild;
pub mod remove;
mod request;
mod requirements;
mod rerun;
mod room;
pub mod run;
mod spec;
mod standstill;
pub mod status;
mod status_text;
pub mod submit;
mod summary;
pub mod sweep;
mod tally;
pub mod task_status;
mod vanished;
mod verify;
mod wake;
mod watch;
mod why;
#[cfg(test)]
mod written_and_read;

pub use error::{Cancelled, Interrupted, Stalled, Usage};
pub use folder::{GatherLock, RunFolder};
pub use preview::{Preview, Refused, preview};
pub use spec::{Data, Specification};
pub use summary::Summary;
pub use verify::{Verified, verify};

/// Says something to the person at the terminal, on stderr.
#[expect(clippy::print_stderr, reason = "the one place of this crate that talks")]
pub fn message(line: &str) {
    eprintln!("{line}");
}
