//! The descriptors of packs.

use bagpress_broker::descriptor::{Decode, FilePart, Input, Pack, ResultPath, TaskDescriptor};
use bagpress_broker::{limits, subjects};
use bagpress_codec::Digest;

use crate::run_folder::inputs::InputEntry;
use crate::run_folder::specification::{Specification, shown};

impl Specification {
    /// The descriptor of a pack of so many files, which `first` begins, and of so many bytes.
    #[must_use]
    pub fn pack_descriptor(
        &self,
        index: u32,
        first: &InputEntry,
        files: u32,
        bytes: u64,
    ) -> TaskDescriptor {
        let (name, pack) = (shown(&first.path), Some(Pack { files }));
        let (input, pack, tar) = match self.results {
            ResultPath::Staged => (Input::File { name, bytes }, pack, None),
            ResultPath::Objects => {
                let bucket = subjects::input_bucket(&self.bag);
                let object = subjects::input_tar_name(index);
                let input = Input::Object { bucket, object, name, bytes, digest: None, part: None };
                (input, None, pack)
            }
        };
        self.pinned(TaskDescriptor { input, pack, tar, ..self.pack_of(index, first) })
    }

    /// The descriptor of a pack of such `parts`, of which `first` is one: all are in one object, which has this digest.
    #[must_use]
    pub(crate) fn parts_descriptor(
        &self,
        index: u32,
        first: &InputEntry,
        (digest, parts): (Digest, Vec<FilePart>),
    ) -> TaskDescriptor {
        let one = self.pack_of(index, first);
        let input = match one.input {
            Input::Object { bucket, object, name, .. } => {
                let bytes = parts.iter().map(|part| part.bytes).sum();
                Input::Object { bucket, object, name, bytes, digest: Some(digest), part: None }
            }
            input => input,
        };
        self.pinned(TaskDescriptor { input, parts, ..one })
    }

    /// What the descriptor of a pack has of that of its first file.
    fn pack_of(&self, index: u32, first: &InputEntry) -> TaskDescriptor {
        let attempts = self.attempts.min(limits::PACK_ATTEMPTS);
        let one = self.descriptor(index, 0, Some(first));
        // What the first was made of says nothing of the others.
        let decode = one.decode.map(|_| Decode { original: None });
        TaskDescriptor { attempts, decode, ..one }
    }
}
