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
mod ends;
mod error;
mod failures;
mod fetch;
mod files;
pub mod folder;
mod from_start;
pub mod gather;
mod glance;
mod history;
mod input_again;
mod inputs;
mod journal;
mod lease;
mod ledger;
pub mod local;
mod lock;
mod manifest;
mod offers;
mod outcomes;
mod patience;
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
mod stats;
pub mod status;
mod status_text;
pub mod submit;
mod summary;
pub mod sweep;
mod tally;
pub mod task_status;
mod trust;
mod vanished;
mod verify;
mod wake;
mod watch;
mod why;
#[cfg(test)]
mod written_and_read;

use std::io::Write;

pub use error::{Cancelled, Interrupted, Stalled, Unwritable, Usage};
pub use failures::{Failure, Failures, write_failed};
pub use folder::{GatherLock, RunFolder};
pub use preview::{Preview, Refused, preview};
pub use requirements::wait_for_streams;
pub use spec::{Data, Specification};
pub use summary::Summary;
pub use trust::Trust;
pub use verify::{Verified, verify};

/// Says something to the person at the terminal, on stderr.
///
/// It is one line whatever is in it: nothing that others have named moves the cursor or forges another.
pub fn message(line: &str) {
    // A stderr that nobody can write to has nobody to tell.
    writeln!(std::io::stderr(), "{}", bagpress_broker::quote::words(line)).ok();
}
