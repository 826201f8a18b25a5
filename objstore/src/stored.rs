//! Where an output is, once it is complete.

use bagpress_broker::result::TaskResult;
use bagpress_codec::Digest;

use crate::object_ref::Info;

/// Where an output is now.
#[derive(Debug)]
pub enum Stored {
    /// In a durable part file, or in those of a pack.
    Staged,
    /// In the bag's bucket. Another execution may have written it: the same bytes.
    Object(Box<Info>),
    /// Of a pack: in one object of the bag's bucket, a tar.
    Tar {
        /// The tar.
        info: Box<Info>,
        /// At which byte of it each output begins, where there is one.
        at: Vec<Option<u64>>,
        /// Digest of the tar of the inputs.
        input: Digest,
    },
    /// Nowhere: the codec stores nothing.
    Nothing,
    /// The task has another's outcome; this execution left nothing behind.
    Decided(Box<TaskResult>),
}
