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

mod api;
mod bucket;
mod commit;
mod error;
mod fetch;
mod list;
mod meta;
mod reader;
mod writer;

use std::time::Duration;

pub use bucket::Bucket;
pub use commit::{Finished, Stored};
pub use error::Error;
pub use list::{Listing, Orphan};
#[cfg(feature = "testing")]
pub(crate) use meta::read_digest;
pub use meta::{Info, Lookup};
pub use reader::Reader;
pub use writer::Writer;

/// First delay before a message that was refused or not answered is sent again; it doubles.
const RESEND_WAIT: Duration = Duration::from_millis(50);
/// Longest such delay.
const RESEND_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long one message is sent again before its writer gives up: longer than a cluster takes to
/// find a new leader, and far below the two minutes in which the server knows a repeated chunk.
const RESEND_WITHIN: Duration = Duration::from_secs(30);
/// How many times metadata may turn out to be another than the one just read.
const RACES_MAX: u32 = 8;
/// Longest object name, in bytes: its subject must fit in a protocol line.
const NAME_BYTES_MAX: usize = 512;
/// Largest object, in bytes: an output of the largest input, with room to spare.
const OBJECT_BYTES_MAX: u64 = 2 * bagpress_broker::limits::INPUT_BYTES_MAX;
/// Longest bucket name and longest chunk token, in bytes.
const TOKEN_BYTES_MAX: usize = 128;
/// Messages of metadata that one batched direct get asks for.
const LIST_BATCH: u64 = 256;
/// Batches of chunks that a reader holds: one that is consumed, one that arrives.
const BATCHES_HELD: usize = 2;
/// Bytes that a message's headers and subject may add to a chunk.
const HEADER_BYTES: usize = 4 * 1024;

const _: () = assert!(RESEND_WITHIN.as_secs() * 3 < 120);
const _: () = assert!(RESEND_WAIT.as_millis() < RESEND_WAIT_MAX.as_millis());
