//! Staged outputs: files, uploaded to the producer and moved to their final name in one step.

mod attributes;
mod budget;
mod client;
mod closed;
mod incoming;
mod inputs;
mod known;
pub mod messages;
mod on_disk;
mod parts;
mod place;
mod receiver;
mod reopen;
mod room;
mod settle;
mod shared;
mod sync;
mod uploads;

pub use attributes::{Attributes, Owner, apply_dir_metadata, metadata_of_folders};
pub use client::{Grant, Permission, Stager, Upload};
pub use inputs::{InputFile, OpenInput};
pub use parts::{
    BAD_DIR, Own, PART_DIR, Parts, Replaced, Target, hash_file, mtime_ns, part_folder, remove_parts,
};
pub use place::Placed;
pub use receiver::{Plan, Receiver};
pub use shared::{Allowed, Shared};
pub use sync::Syncer;

/// Tells two kernels apart, also two containers' from two machines'. Empty where there is none.
#[must_use]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
