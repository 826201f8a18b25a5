//! Where inputs and outputs go: staged files and object references, behind one [`Store`].
//!
//! ```text
//! Store::open ──► Source ──► (a slot's thread compresses) ──► Sink ──► Output::carry ──► Carried::close
//! ```
//!
//! [`Source`] and [`Sink`] block and belong to the thread that compresses; everything else is
//! asynchronous and runs beside it.

pub mod beneath;
mod error;
pub mod object_ref;
#[cfg(feature = "testing")]
pub mod read_back;
mod sink;
mod source;
pub mod staging;
mod store;
mod trouble;

pub use error::StoreError;
pub use sink::Sink;
pub use source::{Fetched, Source};
pub use store::{Carried, Opened, Output, Ready, Store, Stored};
pub use trouble::{Trouble, is_too_many, output_failed, said, trouble};
