//! What a descriptor says of a pack of objects that is run again for its tar. See ADR 0062.

use bagpress_codec::Digest;
use serde::{Deserialize, Serialize};

use crate::bounded;

/// What of a descriptor says that its pack is run again, so that the tar of its outputs is there once more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    /// How many files the pack has, at least 2 and at most [`limits::PACK_FILES_MAX`](crate::limits::PACK_FILES_MAX).
    #[serde(deserialize_with = "bounded::pack_files")]
    pub files: u32,
    /// Which of them the tar had, by their places in the pack, ascending: no other one is run.
    #[serde(deserialize_with = "bounded::each_file")]
    pub places: Vec<u32>,
    /// Digest of the tar of their inputs: anything else is not the input.
    pub digest: Digest,
}

impl Again {
    /// What its task says of the digest of its input. No input has it: whoever does not know such tasks takes the whole of
    /// the input for that of one file, and is to refuse it.
    #[must_use]
    pub fn of_no_input(&self) -> Digest {
        Digest::of(self.digest.to_string().as_bytes())
    }
}
