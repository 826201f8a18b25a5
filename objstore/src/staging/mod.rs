//! Staged outputs: files, uploaded to the producer and moved to their final name in one step.

mod client;
mod closed;
mod incoming;
mod inputs;
pub mod messages;
mod on_disk;
mod parts;
mod place;
mod receiver;
mod room;
mod settle;
mod sync;
mod uploads;

pub use client::{Grant, Permission, Stager, Upload};
pub use inputs::{InputFile, OpenInput};
pub use parts::{
    BAD_DIR, Own, PART_DIR, Parts, Replaced, Target, create_part, hash_file, mtime_ns, part_folder,
    remove_if_there, remove_parts,
};
pub use place::Placed;
pub use receiver::{Plan, Receiver};
pub use sync::Syncer;

/// Tells two kernels apart, also two containers' from two machines'. Empty where there is none.
#[must_use]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
