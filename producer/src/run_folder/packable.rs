//! A file, as far as it matters for what is delivered together or cut.

/// A file, as far as packs and blocks are concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packable {
    pub(crate) bytes: u64,
    /// Whether it is not delivered at all.
    pub(crate) refused: bool,
}
