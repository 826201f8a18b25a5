//! How far a joiner is: in whole blocks, and within one.

use serde::{Deserialize, Serialize};

/// How far a file is joined: all that a joiner knows after a whole block, hence enough to go on from there.
///
/// It is 32 bytes, and may be written down: [`Codec::resume_joiner`](crate::Codec::resume_joiner) takes it. For zstd the
/// file's bytes belong to it: [`Joiner::recall`](crate::Joiner::recall).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    pub(super) blocks: u64,
    pub(super) input_bytes: u64,
    pub(super) output_bytes: u64,
    pub(super) checksum: u32,
}

impl Joined {
    /// Whole blocks so far.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Uncompressed bytes of these blocks.
    #[must_use]
    pub fn input_bytes(&self) -> u64 {
        self.input_bytes
    }

    /// Bytes of the file that are written with these blocks: its header, and what is kept of them.
    #[must_use]
    pub fn output_bytes(&self) -> u64 {
        self.output_bytes
    }
}

/// A block that is not yet whole.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) bytes: u64,
    pub(super) input_bytes: u64,
    pub(super) kept_bytes: u64,
    /// Bytes of it that were given.
    pub(super) taken: u64,
    /// Its last bytes, as far as they were given.
    pub(super) tail: Vec<u8>,
}
