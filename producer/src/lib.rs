//! What a user runs: a bag is specified, published, gathered, summed up and verified.
//!
//! ```text
//! inputs ─► spec ─► publish ─┬────────────────► (broker, workers)
//!                            └─► dispatch ─offers─►      │
//! summary ◄─ ledger ◄─ accept ◄─ gather ◄─ outcomes ◄────┘
//! ```

mod check;
mod claim;
mod deliver;
mod error;
pub mod gather;
pub mod local;
mod publish;
mod run_folder;
pub mod status;
pub mod submit;
mod summary;
mod upkeep;

pub use check::verify::{Verified, verify};
pub use claim::requirements::wait_for_streams;
pub use error::{Cancelled, Interrupted, Stalled, Unwritable, Usage, message};
pub use run_folder::folder::RunFolder;
#[cfg(feature = "testing")]
pub use run_folder::ledger::read_back;
pub use run_folder::lock::GatherLock;
pub use run_folder::plan::{BagPlan, open_plan};
pub use run_folder::specification::{Data, Specification};
pub use run_folder::trust::Trust;
pub use status::task as task_status;
pub use submit::prepare as run;
pub use submit::preview::{Preview, Refused, preview};
pub use summary::Summary;
pub use summary::failures::{Failure, Failures, write_failed};
pub use upkeep::{cancel, remove, sweep};
