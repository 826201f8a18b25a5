//! The outputs of one bag: whether one has room, and what an error of their disk means for its worker. What asks the disk is
//! called on threads that may wait for it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bagpress_broker::quote;
use bagpress_broker::result::{Failed, TaskResult};

use super::open_inputs::OpenInputs;
use super::plan::Plan;
use super::room::Room;
use crate::staging::messages::{Close, Closed};
use crate::staging::parts::Parts;
use crate::trouble::{Trouble, is_full, output_failed};

/// Where a bag's outputs go, and what stands in their way.
#[derive(Debug)]
pub(super) struct Outputs {
    parts: Arc<Parts>,
    plan: Arc<dyn Plan>,
    inputs: Arc<OpenInputs>,
    room: Room,
}

impl Outputs {
    pub(super) fn new(parts: Arc<Parts>, plan: Arc<dyn Plan>, inputs: Arc<OpenInputs>) -> Self {
        Self { parts, plan, inputs, room: Room::default() }
    }

    pub(super) fn parts(&self) -> &Arc<Parts> {
        &self.parts
    }

    pub(super) fn plan(&self) -> &dyn Plan {
        &*self.plan
    }

    /// The outcome of the task whose part file this is, if it has one: then the part file is removed.
    pub(super) fn decided_already(
        &self,
        index: u32,
        round: u32,
        part: &Path,
    ) -> Option<TaskResult> {
        let result = self.plan.decided(index, round)?;
        self.parts.remove_decided(part);
        Some(result)
    }

    /// The outcome of what is being closed, if it has one: then its part files are removed.
    pub(super) fn closed_already(&self, close: &Close) -> Option<TaskResult> {
        let result = self.plan.decided(close.index, close.round)?;
        for part in self.parts_of(close) {
            self.parts.remove_decided(&part);
        }
        Some(result)
    }

    /// The part files of all that is being closed.
    pub(super) fn parts_of(&self, close: &Close) -> Vec<PathBuf> {
        let each = close.each();
        each.iter().map(|one| self.parts.part(one.index, one.round, &one.execution)).collect()
    }

    /// Why uploads are being asked to wait, if they are.
    pub(super) fn waiting(&self) -> Option<String> {
        self.room.waiting(&self.parts)
    }

    /// Why nothing can be written any more, if somebody found that out. Asks no disk.
    pub(super) fn gone(&self) -> Option<String> {
        self.room.gone()
    }

    /// Notes that a task has its outcome. Asks no disk.
    pub(super) fn decided(&self, index: u32) {
        self.room.decided(index);
    }

    /// Why a task's output, of which `bytes` more are about to come, is to wait.
    pub(super) fn no_room(&self, index: u32, bytes: u64) -> Option<String> {
        let hangs = self.parts.hangs();
        hangs.or_else(|| self.room.refuses(&self.parts, index, bytes))
    }

    /// The same behind an OPEN of so many `files`, when `arrived` bytes of it are there: if they have no room, how much does not
    /// fit is noted.
    pub(super) fn no_room_for(
        &self,
        (index, files): (u32, u32),
        arrived: u64,
        bytes: u64,
    ) -> Option<String> {
        let why = self.no_room(index, bytes);
        // A disk that hangs says nothing of its room.
        if why.is_some() && self.parts.hangs().is_none() && self.parts.lacks(bytes).is_some() {
            self.found_no_room((index, files), arrived + bytes);
        }
        why
    }

    /// Notes that the output of a task, or those of a pack of so many `files`, found no room after so many bytes. What is needed is
    /// more than that, and not more than their codec can make of their inputs.
    fn found_no_room(&self, (index, files): (u32, u32), bytes: u64) {
        let name = self.plan.target(index).map(|target| target.path).unwrap_or_default();
        let most = |index: u32| {
            let input = self.plan.input(index).map_or(u64::MAX, |input| input.taken_bytes());
            if input == u64::MAX { input } else { self.plan.output_bytes_max(index, input) }
        };
        let most =
            (0..files).map(|place| most(index.saturating_add(place))).fold(0, u64::saturating_add);
        let others = match files {
            0 | 1 => String::new(),
            _ => format!(" and {} files behind it", files - 1),
        };
        self.room.note(index, bytes, most, format!("{}{others}", quote::name(name)));
    }

    /// The same where a disk said so. If more bytes than it had taken are free, and were while they were there, it is something
    /// else that is used up.
    pub(super) fn was_full(&self, (index, files): (u32, u32), bytes: u64, free_then: Option<u64>) {
        self.found_no_room((index, files), bytes);
        let was_short = free_then.is_some_and(|free| self.parts.is_short(free));
        if was_short || self.parts.lacks(bytes).is_some() {
            self.room.short();
        } else {
            self.room.full_after_all(&self.parts);
        }
    }

    /// What a worker is told whose output could not be written after `bytes` of it: that it never can be, or, as the error,
    /// why to come again.
    pub(super) fn not_written(
        &self,
        index: u32,
        bytes: u64,
        error: &io::Error,
    ) -> Result<Failed, String> {
        let failed = output_failed("write the part file", error);
        match self.parts.trouble(error) {
            Trouble::Passes => {
                if is_full(error) {
                    self.was_full((index, 1), bytes, None);
                } else {
                    self.inputs.close();
                    self.room.hold_up(&failed.message);
                }
                Err(failed.message)
            }
            Trouble::Run => {
                self.room.lose(self.parts.gone().unwrap_or_else(|| failed.message.clone()));
                Err(failed.message)
            }
            Trouble::Own => Ok(failed),
        }
    }

    /// The answer to the CLOSE of an output that could not be written or read back.
    pub(super) fn not_closed(&self, close: &Close, error: &io::Error) -> Closed {
        let other = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::NotFound);
        if other && self.parts.gone().is_none() {
            return Closed::Mismatch { message: error.to_string() };
        }
        match self.not_written(close.index, close.bytes, error) {
            Ok(failed) => Closed::Refused(failed),
            Err(reason) => Closed::wait(reason),
        }
    }

    /// Notes that what was written could not be made durable.
    pub(super) fn not_synced(&self, error: &io::Error) {
        if self.parts.trouble(error) != Trouble::Passes {
            let root = quote::name(self.parts.root());
            self.room.lose(format!("{root} cannot be synced: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::staging::input::InputFile;
    use crate::staging::parts::{Own, Target};

    /// More than any disk has.
    const EACH: u64 = 1 << 58;

    /// A bag of files of 2^58 bytes, each with an output of at most twice that.
    #[derive(Debug)]
    struct Large;

    impl Plan for Large {
        fn decided(&self, _: u32, _: u32) -> Option<TaskResult> {
            None
        }
        fn files(&self, _: u32, _: u32) -> u32 {
            1
        }
        fn is_file_decided(&self, _: u32, _: u32) -> bool {
            false
        }
        fn target(&self, index: u32) -> io::Result<Target> {
            let path = format!("{index}.gz").into();
            Ok(Target { path, attributes: None, replaces: None, own: Own::Nothing })
        }
        fn input(&self, index: u32) -> io::Result<InputFile> {
            let path = index.to_string().into();
            Ok(InputFile { path, bytes: EACH, mtime_ns: 0, inode: 0, section: None })
        }
        fn by_path(&self) -> bool {
            false
        }
        fn output_bytes_max(&self, _index: u32, input_bytes: u64) -> u64 {
            input_bytes * 2
        }
    }

    #[test]
    fn a_pack_without_room_needs_at_most_what_all_of_its_files_can_have() {
        let folder = tempfile::tempdir().unwrap();
        let parts = Arc::new(Parts::open(folder.path(), &"b-1".parse().unwrap()).unwrap());
        let plan: Arc<dyn Plan> = Arc::new(Large);
        for (files, bytes, needed) in [
            (1, EACH, format!("between {EACH} and {} needed for 7.gz;", EACH * 2)),
            (
                3,
                EACH * 5,
                format!(
                    "between {} and {} needed for 7.gz and 2 files behind it;",
                    EACH * 5,
                    EACH * 6
                ),
            ),
        ] {
            let inputs = Arc::new(OpenInputs::default());
            let outputs = Outputs::new(parts.clone(), plan.clone(), inputs);
            assert!(outputs.no_room_for((7, files), 0, bytes).is_some());
            let why = outputs.waiting().unwrap();
            assert!(why.contains(&needed), "{why}");
        }
    }
}
