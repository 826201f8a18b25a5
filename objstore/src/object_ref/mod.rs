//! Outputs as immutable objects in JetStream object buckets, and references to them.
//!
//! A bucket is a stream `OBJ_<bucket>` in the format of NATS' ADR-20, so that `nats object` and
//! every client's own object store read what is written here, and the other way round. Ours has
//! its own [`Writer`] and [`Reader`]: chunks travel under a window instead of one by one, reading
//! makes no consumer, nothing waits without a deadline, and metadata is never written over.
//!
//! What a writer may rely on, and must do:
//!
//! - Chunks come first, metadata last: no reader sees half an object.
//! - Metadata is create-only. A writer that finds metadata of another object [adopts](Writer::commit_or_adopt) that
//!   object if it has the very bytes. Other bytes stay, and the own object gets
//!   [another name](Writer::commit_beside): the gatherer decides which object has the name.
//! - Every execution writes under a token of its own, `<index>-<execution>`, and deletes no chunk
//!   of another token. [`Bucket::orphans`] lists chunks that no metadata names.
//! - Two names may have the same chunks, by [`Bucket::share`]: these go with the last of them.
//!
//! The modules are layers: `names` and `error`; `meta`; `bucket`, with the requests that one message answers; on these
//! `settings`, `fetch` and `list`; then `metadata` with `share`, `reader`, then `commit`, then `writer`.

mod became;
mod bucket;
mod commit;
mod error;
mod fetch;
mod labels;
mod list;
mod marks;
mod meta;
mod metadata;
mod names;
mod put;
mod reader;
mod reference;
mod resend;
mod settings;
mod share;
mod writer;

pub use bucket::Bucket;
pub use commit::Written;
pub use error::Error;
pub use list::{Listing, Orphan};
pub use marks::{Freed, Labels, expires, hold, holders, is_pin_name, pin, pins, unpin};
#[cfg(feature = "testing")]
pub(crate) use meta::read_digest;
pub use meta::{Info, Lookup};
pub use reader::Reader;
pub use reference::Reference;
pub use settings::{Facts, Settings};
pub use writer::Writer;
