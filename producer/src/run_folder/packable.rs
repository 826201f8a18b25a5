//! A file, as far as it matters for what is delivered together or cut.

use bagpress_codec::{Codec, Digest};

/// A file, as far as packs and blocks are concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packable {
    /// Of its input, or of its output if that is known to have more.
    pub(crate) bytes: u64,
    /// Whether it is not delivered at all.
    pub(crate) refused: bool,
    /// Whether it is a file, and neither an object nor generated.
    pub(crate) is_file: bool,
    /// Digest of the object that it is a part of, if it is one: those of a pack are parts of one.
    pub(crate) part_of: Option<Digest>,
    /// The codec that reads it, if it is to be restored, or its own, if it has another one than the bag: those of a pack have one.
    pub(crate) codec: Option<Codec>,
}

impl Packable {
    /// Whether it may be with others in a pack.
    pub(crate) fn can_be_packed(&self) -> bool {
        self.has_file() || !self.refused && self.part_of.is_some()
    }

    /// Whether it is a file that is delivered.
    pub(crate) fn has_file(&self) -> bool {
        !self.refused && self.is_file
    }

    /// Whether it may be cut, in a bag whose codec can be.
    pub(crate) fn can_be_cut(&self) -> bool {
        self.has_file() && self.codec.is_none_or(|own| own.can_be_cut())
    }
}
