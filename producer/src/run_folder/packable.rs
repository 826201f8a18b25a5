//! A file, as far as it matters for what is delivered together or cut.

use bagpress_codec::Codec;

/// A file, as far as packs and blocks are concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packable {
    /// Of its input, or of its output if that is known to have more.
    pub(crate) bytes: u64,
    /// Whether it is not delivered at all.
    pub(crate) refused: bool,
    /// The codec that reads it, if it is to be restored: those of a pack have one.
    pub(crate) codec: Option<Codec>,
}
