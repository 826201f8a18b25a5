//! Where inputs and outputs go: staged files and object references, behind one [`Store`].
//!
//! An input comes, and an output goes, through these modules:
//!
//! ```text
//!  worker                                                                    gatherer, or bucket
//!
//!  store::Store::open ──OPEN──► staging::worker::stager ──────────────────► staging::gatherer::receiver
//!    │
//!    │ input   a file, in place ◄── staging::input, in a folder that worker::by_path proved
//!    │         a file, by wire  ◄── staging::worker::fetch ◄──────────────── gatherer::open_inputs
//!    │         an object        ◄── referenced ◄── object_ref::reader ◄───── bucket
//!    ▼
//!  source::Source ─► (a slot's thread compresses) ─► sink::Sink
//!                                                      │
//!    ┌─────────────────────────────────────────────────┘
//!    │ output  a file, in place ──► part file
//!    │         a file, by wire  ──► staging::worker::upload ─chunks─────────► gatherer::uploads ─► writing ─► part file
//!    │         an object        ──► object_ref::writer ──────────────────────► bucket
//!    ▼
//!  store::Carried::close ──CLOSE──────────────────────────────────────────► gatherer::durability
//!                        ──metadata─► object_ref::commit ─────────────────► bucket
//!
//!  Once its result counts, the gatherer gives a part file its name: staging::parts::place.
//! ```
//!
//! [`Source`] and [`Sink`] block and belong to the thread that compresses; everything else is
//! asynchronous and runs at the same time. What asks a disk does so on a thread that may wait for it: at the gatherer's in
//! turns, by `gatherer::disk`.

pub mod beneath;
mod error;
pub mod object_ref;
mod pack;
#[cfg(feature = "testing")]
pub mod read_back;
mod referenced;
mod sink;
mod source;
pub mod staging;
mod store;
mod stored;
pub mod tarred;
mod trouble;

pub use error::StoreError;
pub use pack::{OpenFile, PackOutputs, PackReady};
pub use sink::Sink;
pub use source::{Fetched, Source};
pub use store::{Carried, Opened, Output, Ready, Store, label};
pub use stored::Stored;
pub use trouble::{Trouble, is_too_many, output_failed, said, trouble};
