//! The inputs of a pack, read for one answer.

use bagpress_broker::limits;
use bagpress_broker::pack::cut;
use bagpress_broker::result::{Cause, Failed};

use super::plan::Plan;
use crate::staging::input::OpenInput;
use crate::staging::messages::PackInput;

/// What a worker is sent of the files of a pack.
#[derive(Debug, Default)]
pub(super) struct PackInputs {
    /// Of each file, in order.
    pub(super) files: Vec<Option<PackInput>>,
    /// Their bytes, one file after another: [`limits::CHUNK_BYTES`] at most.
    pub(super) bytes: Vec<u8>,
}

impl PackInputs {
    /// Reads the files from `first` on that have no outcome yet. Blocks.
    pub(super) fn read(plan: &dyn Plan, first: u32, files: u32) -> Self {
        let mut inputs = Self::default();
        for index in (0..files).map(|place| first.saturating_add(place)) {
            let read = if plan.is_file_decided(index, 0) { None } else { inputs.add(plan, index) };
            inputs.files.push(read);
        }
        inputs
    }

    fn add(&mut self, plan: &dyn Plan, index: u32) -> Option<PackInput> {
        let room = limits::CHUNK_BYTES - self.bytes.len();
        let mut file = Vec::new();
        let unreadable = |e: std::io::Error| Failed::new(Cause::InputUnreadable, e.to_string());
        let read = plan.input(index).map_err(unreadable).and_then(OpenInput::open);
        match read.and_then(|input| input.read_at(0, room, &mut file)) {
            Ok(true) => {
                self.bytes.extend_from_slice(&file);
                Some(PackInput::Bytes(file.len() as u64))
            }
            // Longer than its system says.
            Ok(false) => None,
            // Such as too many open files.
            Err(failed) if failed.cause.is_planned() => None,
            Err(failed) => Some(PackInput::Failed(cut(failed))),
        }
    }
}
