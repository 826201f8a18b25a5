//! An object that is to be an input: what is known of it when the bag is made.

use std::path::PathBuf;

use bagpress_broker::descriptor::{Original, Part};
use bagpress_broker::result::Failed;
use bagpress_codec::{Codec, Digest};
use bagpress_objstore::object_ref::Reference;

use crate::run_folder::inputs::stream::Recorded;

/// An object that is to be an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Which.
    pub reference: Reference,
    /// Its size; none if it is not there yet.
    pub bytes: Option<u64>,
    /// Digest of its bytes; none if nobody has said it yet.
    pub digest: Option<Digest>,
    /// The codec that made it, if its metadata says so, or the line of the bag that is to make it.
    pub codec: Option<Codec>,
    /// What of the object it is, if that is not all of it: then its size is that of the part, and the digest that of the object.
    pub part: Option<Part>,
    /// What it was made of, if that is known: what it is restored to is compared with that.
    pub original: Option<Original>,
    /// Mode and time of what it was made of, if they are known.
    pub attributes: Option<Recorded>,
    /// What it is called when it is restored, below the outputs' folder, if that does not follow from its own name.
    pub target: Option<PathBuf>,
    /// Why it cannot be an input.
    pub refused: Option<Failed>,
}

impl Planned {
    /// One of which nothing more is known.
    pub(super) fn of(reference: Reference) -> Self {
        let (bytes, digest, codec, part) = (None, None, None, None);
        let (original, attributes, target, refused) = (None, None, None, None);
        Self { reference, bytes, digest, codec, part, original, attributes, target, refused }
    }
}
