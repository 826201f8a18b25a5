//! Outputs as files at their gatherer's: part files first, each with its final name when its outcome counts.

mod again;
mod attributes;
mod digests;
mod files;
mod folder;
mod hash;
mod join_note;
mod joining;
mod place;
mod sync;
mod target;
mod waits;

pub use attributes::{Attributes, Owner, apply_dir_metadata, metadata_of_folders};
pub use files::Parts;
pub(crate) use files::part_name;
pub use folder::{PART_DIR, part_folder, remove_parts};
pub(crate) use hash::PIECE_BYTES;
pub use hash::hash_file;
pub use join_note::{Whole, forget_join};
pub use joining::{BlockOutput, Join, Joining};
pub use place::{BAD_DIR, Placed, Placer, name_new};
pub use sync::Syncer;
pub use target::{Own, Replaced, Target, mtime_ns};
pub(crate) use waits::UnderWay;
