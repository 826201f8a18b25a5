//! What a user runs: a bag is made from a request, published, gathered, summed up, verified, looked at and removed.
//!
//! The way of a bag through the rooms of this crate:
//!
//! ```text
//!  request
//!     │ submit: files found, specification written
//!     ▼
//!  run_folder ─────► claim ─────► publish ──inputs, tasks──► ┐
//!  specification,    one process       └─or─► deliver ─offers► broker, workers
//!  inputs, ledger    gathers the bag                          │
//!     ▲                                                       │ outcomes
//!     └─────────────── gather: accept, count ◄────────────────┘
//!                         │
//!                         └─► summary
//! ```
//!
//! | room | is | uses |
//! | --- | --- | --- |
//! | `error` | what a person is told | |
//! | `run_folder` | all that is kept of one run: who may write, what the bag is, what is decided (`ledger`) | `error` |
//! | `claim` | who gathers a bag: its line on the broker, the lease, its buckets | `run_folder` |
//! | `object` | objects by their references: put, looked at, fetched, pinned, freed | `claim` |
//! | `check` | whether outputs give their inputs again; a ledger from its outputs | `run_folder`, `claim` |
//! | `removal` | inputs that are removed once their bag has ended | `run_folder` |
//! | `deliver` | the gatherer's side of the queue group: who listens, who has what, what waits | `run_folder` |
//! | `publish` | tasks into the stream or the offers, and inputs before them | `deliver`, `check`, `claim` |
//! | `submit` | a request becomes a run folder, and a bag for somebody to gather | `publish`, `claim` |
//! | `gather` | follows a bag until every task has an outcome; the only one who counts | all above |
//! | `summary` | what a gathered bag comes to | `gather` |
//! | `status` | how far bags are, and why one does not move | `claim`, `deliver` |
//! | `range` | a range of one file, restored without a bag | `submit`, `status` |
//! | `upkeep` | bags cancelled, removed, swept | `status`, `claim` |
//! | `local` | a server and workers of our own, for one run | `run_folder` |
//!
//! A module uses only modules of its own room and of rooms above it in this table; there are no circles.

mod check;
mod claim;
mod deliver;
mod error;
pub mod gather;
pub mod local;
pub mod object;
mod publish;
mod range;
mod removal;
mod run_folder;
pub mod status;
pub mod submit;
mod summary;
mod upkeep;

pub use check::verified::Verified;
pub use check::verify::verify;
pub use claim::requirements::{refuse_unknown_codec, wait_for_streams};
pub use error::{Cancelled, Damaged, Interrupted, Stalled, Unwritable, Usage, message};
pub use range::{RangeRequest, RestoredRange, Span, restore_range};
pub use removal::{RemovedInputs, remove_sources};
pub use run_folder::cuts::Blocks;
pub use run_folder::folder::RunFolder;
pub use run_folder::helps::Helps;
pub use run_folder::inputs::selection::{Existing, FilesFrom, ListForm, Selected, Selection};
pub use run_folder::ledger::choices::{Choices, Chosen};
pub use run_folder::ledger::failure::Failure;
#[cfg(feature = "testing")]
pub use run_folder::ledger::read_back;
pub use run_folder::lock::GatherLock;
pub use run_folder::plan::{BagPlan, open_plan};
pub use run_folder::runs::Maker;
pub use run_folder::specification::{Data, Specification};
pub use run_folder::trust::Trust;
pub use submit::of_bag::resolve_bag;
pub use submit::planned::Planned;
pub use submit::prepare::{Preparation, Prepared, prepare};
pub use submit::preview::{Preview, Refused, preview};
pub use submit::request::{Generated, Request};
pub use submit::resolve::resolve;
pub use summary::Summary;
pub use summary::failures::{Failures, write_failed};
pub use upkeep::{cancel, remove, sweep};
