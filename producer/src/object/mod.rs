//! Objects by their references: put, looked at, waited for, fetched, pinned and freed, many at once.
//!
//! | verb | function |
//! | --- | --- |
//! | `object put` | [`put()`] |
//! | `object get` | [`get()`] |
//! | `object wait` | [`wait()`] |
//! | `object info` | [`info()`] |
//! | `object ls` | [`buckets()`], [`list()`] |
//! | `object pin`, `object unpin` | [`pin()`], [`unpin()`] |
//! | `object free` | [`free()`] |
//!
//! Each answers once for each reference, as soon as it knows: an [`Answer`] says what became of the object, and is what `--json`
//! prints. None makes a consumer, and none reads a byte of an object but `get`, and `info` where it is to be compared. `get` makes
//! again what is lost, as far as a [`Reconstruct`] goes; an answer says how many tasks that took, or [`Why`] it was not done.

mod acting;
mod answer;
mod free;
mod get;
pub(crate) mod holders;
pub(crate) mod lineage;
mod list;
pub(crate) mod look;
mod named;
mod pins;
mod put;
mod wait;

pub(crate) use acting::LOOKS;
pub use acting::by;
pub use answer::{Answer, Holding, Pin, State, Tally};
pub use free::free;
pub use get::{Get, To, get};
pub use lineage::{NotMade, Reconstruct, Why};
pub(crate) use list::kept_in;
pub use list::{BucketAnswer, buckets, list};
pub use look::info;
pub use named::{Named, named};
pub use pins::{pin, unpin};
pub use put::{Put, put};
pub use wait::{Wait, wait};
