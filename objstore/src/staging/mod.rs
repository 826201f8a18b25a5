//! Staged outputs: files, uploaded to the producer and moved to their final name in one step.
//!
//! `worker` and `gatherer` are the two sides, and know each other by `messages` alone. `parts` is the outputs' folder, `input`
//! a file that is an input.

mod gatherer;
mod input;
pub mod messages;
mod parts;
mod worker;

pub use gatherer::{Plan, Receiver};
pub use input::{InputFile, OpenInput, Section};
pub use parts::{
    Attributes, BAD_DIR, BlockOutput, Join, Joining, Own, Owner, PART_DIR, Parts, Placed, Placer,
    Replaced, Syncer, Target, Whole, apply_dir_metadata, forget_join, hash_file,
    metadata_of_folders, mtime_ns, name_new, part_folder, remove_parts,
};
pub use worker::{Allowed, Grant, Permission, SharedFolder, Stager, Upload};
pub(crate) use worker::{InputSink, PACK_SINK};
