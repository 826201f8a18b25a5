//! Where a bag's inputs come from.

use bagpress_codec::{Codec, DataKind, Digest};
use serde::{Deserialize, Serialize};

use crate::run_folder::inputs::roots::Roots;

/// Where a bag's inputs come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Data {
    /// The workers make them.
    Generated {
        /// What kind of bytes.
        data: DataKind,
        /// The seed.
        seed: u64,
        /// Bytes of each task.
        bytes: u64,
    },
    /// The files of `inputs.jsonl`.
    Files {
        /// Digest of that list.
        list: Digest,
        /// Size of the largest file.
        largest: u64,
        /// What local workers may read.
        #[serde(default)]
        roots: Roots,
    },
    /// The files of `inputs.jsonl`, which are compressed, and are to be restored. A version that knows of none refuses to
    /// read the whole.
    Restored {
        /// Digest of that list.
        list: Digest,
        /// Size of the largest file.
        largest: u64,
        /// What local workers may read.
        #[serde(default)]
        roots: Roots,
    },
    /// The objects of `inputs.jsonl`, which workers read where they are. A version that knows of none refuses to read the whole.
    Referenced {
        /// Digest of that list.
        list: Digest,
        /// Size of the largest object that was there when the bag was made.
        largest: u64,
        /// Whether they are compressed, and to be restored.
        restored: bool,
    },
    /// The objects of `inputs.jsonl`, and parts of such: they are compressed, and to be restored. A version that knows no parts
    /// refuses to read the whole.
    Parts {
        /// Digest of that list.
        list: Digest,
        /// Size of the largest object or part that was there when the bag was made.
        largest: u64,
    },
    /// The same, and parts of one object that follow each other are delivered together. A version that knows no such packs refuses to
    /// read the whole.
    #[serde(rename = "packed-parts")]
    PackedParts {
        /// Digest of that list.
        list: Digest,
        /// Size of the largest object or part that was there when the bag was made.
        largest: u64,
    },
    /// The tasks of `inputs.jsonl`, of which each may have a codec of its own, and may be generated, a file or an object. A
    /// version that knows of none refuses to read the whole.
    Listed {
        /// Digest of that list.
        list: Digest,
        /// Size of the largest file.
        largest: u64,
        /// What local workers may read.
        #[serde(default)]
        roots: Roots,
        /// How many of the tasks are files.
        files: u32,
        /// Whether any of the tasks is a generated array.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        fields: bool,
        /// The codecs of tasks that have another one than the bag's, at most 64.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        codecs: Vec<OwnCodec>,
    },
}

/// Most codecs that the tasks of a bag have besides that of the bag.
pub(crate) const OWN_CODECS_MAX: usize = 64;

/// A codec of tasks that have another one than their bag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnCodec {
    /// Codec and level.
    pub codec: Codec,
    /// The codec's library, which the descriptors pin.
    pub library: String,
}

impl Data {
    /// What local workers may read.
    pub(crate) fn roots(&self) -> Option<&Roots> {
        match self {
            Self::Generated { .. }
            | Self::Referenced { .. }
            | Self::Parts { .. }
            | Self::PackedParts { .. } => None,
            Self::Files { roots, .. }
            | Self::Restored { roots, .. }
            | Self::Listed { roots, .. } => Some(roots),
        }
    }

    /// Size of the largest file that is put into a bucket, if any file is.
    pub(crate) fn largest_put(&self) -> Option<u64> {
        match self {
            Self::Files { largest, .. } | Self::Listed { largest, files: 1.., .. } => {
                Some(*largest)
            }
            Self::Listed { .. }
            | Self::Generated { .. }
            | Self::Restored { .. }
            | Self::Referenced { .. }
            | Self::Parts { .. }
            | Self::PackedParts { .. } => None,
        }
    }

    /// Whether inputs are objects that the bag did not put, or may be.
    pub(crate) fn has_references(&self) -> bool {
        self.has_parts() || matches!(self, Self::Referenced { .. } | Self::Listed { .. })
    }

    /// Whether inputs are parts of objects, or may be.
    pub(crate) fn has_parts(&self) -> bool {
        matches!(self, Self::Parts { .. } | Self::PackedParts { .. })
    }

    /// The same inputs, however they are delivered.
    pub(crate) fn unpacked(&self) -> Self {
        match self {
            Self::PackedParts { list, largest } => Self::Parts { list: *list, largest: *largest },
            data => data.clone(),
        }
    }

    /// The codecs of tasks that have another one than the bag's.
    pub(crate) fn own_codecs(&self) -> &[OwnCodec] {
        match self {
            Self::Listed { codecs, .. } => codecs,
            _ => &[],
        }
    }
}
