//! Where a bag's inputs come from.

use bagpress_codec::{DataKind, Digest};
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
}

impl Data {
    /// What local workers may read.
    pub(crate) fn roots(&self) -> Option<&Roots> {
        match self {
            Self::Generated { .. } | Self::Referenced { .. } => None,
            Self::Files { roots, .. } | Self::Restored { roots, .. } => Some(roots),
        }
    }
}
