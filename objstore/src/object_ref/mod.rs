//! Outputs as immutable objects in JetStream object buckets, and references to them.
//!
//! A bucket is a stream `OBJ_<bucket>` in the format of NATS' ADR-20, so that `nats object` and
//! every client's own object store read what is written here, and the other way round. Ours has
//! its own [`Writer`] and [`Reader`]: chunks travel under a window instead of one by one, reading
//! makes no consumer, nothing waits without a deadline, and metadata is never written over.
//!
//! What a writer may rely on, and must do:
//!
//! - Chunks come first, metadata last: nobody sees half an object.
//! - Metadata is create-only. Who finds another one there [adopts](Writer::commit_or_adopt) that
//!   object if it has the very bytes. Other bytes stay, and the own object gets a name
//!   [beside](Writer::commit_beside) them: who counts decides which has the name.
//! - Every execution writes under a token of its own, `<index>-<execution>`, and deletes no chunk
//!   of another token. What nobody names any more is listed by [`Bucket::orphans`].

mod bucket;
mod commit;
mod error;
mod fetch;
mod list;
mod meta;
mod metadata;
mod names;
mod reader;
mod resend;
mod settings;
mod writer;

pub use bucket::Bucket;
pub use commit::Committed;
pub use error::Error;
pub use list::{Listing, Orphan};
#[cfg(feature = "testing")]
pub(crate) use meta::read_digest;
pub use meta::{Info, Lookup};
pub use reader::Reader;
pub use writer::Writer;
