//! Several files in one delivery, and what became of each.
//!
//! A pack is a run of consecutive files of a bag. It has the name of its first file, and exists in round 0 only: whatever is run
//! again is run alone. See ADR 0040.

use super::descriptor::{FilePart, Input, Pack, ResultPath, TaskDescriptor};
use super::result::{Failed, Outcome, Place, TaskResult};
use crate::{limits, subjects};

/// Revision of packs of staged files, in the text of [`TaskDescriptor::library`].
pub const STAGED: &str = "packs/1";
/// Revision of packs of objects, there too.
pub const OBJECTS: &str = "packs/2";
/// Revision of packs of objects that are run again for their tars, there too.
pub const AGAIN: &str = "again/1";
/// Revision of blocks, there too.
pub const BLOCKS: &str = "blocks/1";
/// Revision of inputs that are parts of objects, there too.
pub const PARTS: &str = "parts/1";
/// Revision of packs whose files are parts of one object, there too.
pub const PACKED_PARTS: &str = "parts/2";
/// Revision of generated fields, which a worker says that it knows; no task names it.
pub const FIELDS: &str = "fields/1";
/// Revision of restoring: all of that text, as what comes of a stream depends on its format alone.
pub const RESTORE: &str = "restore/1";

impl TaskDescriptor {
    /// Why its parts do not fit each other, if they do not.
    pub(super) fn misfit(&self) -> Option<&'static str> {
        let is_made = matches!(self.input, Input::Generate { .. });
        let is_file = matches!(self.input, Input::File { .. });
        let is_pack = self.packed().is_some();
        if is_pack && !self.is_a_pack() {
            Some("a pack that is none: it has files of round 0, which fit in one chunk")
        } else if !self.may_be_again() {
            Some("a pack that is none, to be run again: it has files of a tar, in a round above 0")
        } else if self.block.is_some() && (is_made || is_pack) {
            Some("a block of what is no file by itself")
        } else if self.decode.is_some() && !self.can_be_restored() {
            Some("what is to be restored is no whole input that a codec made")
        } else if self.is_of_part() && self.decode.is_none() {
            Some("a part of an object that is not to be restored")
        } else if is_file && self.results == ResultPath::Objects {
            Some("a file input with results in objects: it must come by reference")
        } else {
            None
        }
    }

    /// The pack that it delivers, if it is none of a single task.
    #[must_use]
    pub fn packed(&self) -> Option<Pack> {
        let of_parts = || {
            let files = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
            (files > 0).then_some(Pack { files })
        };
        self.pack.or(self.tar).or_else(of_parts)
    }

    /// The text of [`library`](Self::library) for a codec's `library`: it names the revision of packs, blocks or parts too, so that a
    /// worker that does not know it gives the task back. Of a task that restores it is another text, for the same reason.
    #[must_use]
    pub fn library_of(&self, library: &str) -> String {
        let library = if self.decode.is_some() { RESTORE } else { library };
        match (self.pack, self.tar) {
            (Some(_), _) => format!("{library}, {STAGED}"),
            (None, Some(_)) => format!("{library}, {OBJECTS}"),
            (None, None) if self.again.is_some() => format!("{library}, {AGAIN}"),
            (None, None) if self.block.is_some() => format!("{library}, {BLOCKS}"),
            (None, None) if !self.parts.is_empty() => format!("{library}, {PACKED_PARTS}"),
            (None, None) if self.is_of_part() => format!("{library}, {PARTS}"),
            (None, None) => library.to_owned(),
        }
    }

    /// Whether its input is a part of an object.
    fn is_of_part(&self) -> bool {
        matches!(self.input, Input::Object { part: Some(_), .. })
    }

    /// Whether its input can be what is restored: whole files of a codec that stores something. Of those of a pack the original
    /// of one says nothing.
    pub(super) fn can_be_restored(&self) -> bool {
        let is_made = matches!(self.input, Input::Generate { .. });
        let is_of_one = self.decode.is_some_and(|decode| decode.original.is_some());
        let is_cut =
            self.tar.is_some() || self.block.is_some() || self.packed().is_some() && is_of_one;
        !(is_made || is_cut || self.codec.stores_nothing())
    }

    /// Whether the pack that it says it delivers can be one.
    pub(super) fn is_a_pack(&self) -> bool {
        let is_staged = self.results == ResultPath::Staged;
        let (files, bytes) = match (&self.input, self.pack, self.tar) {
            (Input::File { bytes, .. }, Some(pack), None) if self.parts.is_empty() => {
                (pack.files, *bytes)
            }
            (Input::Object { bytes, .. }, None, Some(pack))
                if !is_staged && self.parts.is_empty() =>
            {
                (pack.files, *bytes)
            }
            (Input::Object { bytes, digest: Some(_), part: None, .. }, None, None)
                if is_staged && self.decode.is_some() && self.are_parts_of(*bytes) =>
            {
                (u32::try_from(self.parts.len()).unwrap_or(u32::MAX), *bytes)
            }
            _ => return false,
        };
        let last = u64::from(self.index) + u64::from(files);
        self.round == 0
            && bytes <= limits::PACK_BYTES_MAX
            && last <= u64::from(limits::BAG_TASKS_MAX)
    }
}

impl TaskDescriptor {
    /// Whether its parts are several within a tar, of so many bytes together.
    fn are_parts_of(&self, bytes: u64) -> bool {
        let end = |part: &FilePart| part.at.saturating_add(part.bytes);
        let sum = self.parts.iter().map(|part| part.bytes).fold(0, u64::saturating_add);
        let is_inside = self.parts.iter().all(|part| end(part) <= limits::TAR_BYTES_MAX);
        self.parts.len() > 1 && is_inside && sum == bytes
    }
}

/// What is kept of the beginning of a message that is cut.
const CUT_AFTER: usize = 24;

/// A failure of one file of a pack, cut so that a result with [`limits::PACK_FILES_MAX`] of them is a message. What is
/// wrong stands at the end, and the path before it may be long: of that, the middle is left out.
#[must_use]
pub fn cut(mut failed: Failed) -> Failed {
    failed.message.retain(|c| !c.is_control());
    let message = &failed.message;
    if let Some(over) = message.len().checked_sub(limits::MEMBER_MESSAGE_BYTES_MAX + 1) {
        let begin = message.floor_char_boundary(CUT_AFTER);
        let rest = message.ceil_char_boundary(CUT_AFTER + over + 1 + '…'.len_utf8());
        failed.message = format!("{}…{}", &message[..begin], &message[rest..]);
    }
    failed
}

impl TaskResult {
    /// What this says of the file at `place` of a pack of which it is the result, as if that had been delivered by itself; none if
    /// it leaves it open: the file is to be run alone. An output that is not where those of the pack are is none.
    #[must_use]
    pub fn member(&self, place: u32) -> Option<Self> {
        let outcome = self.members.get(place as usize)?.as_ref();
        let outcome = outcome.filter(|outcome| can_be_a_members(outcome, self.index))?.clone();
        // What the pack took, its files took in equal parts.
        let files = self.members.iter().flatten().count().max(1) as u64;
        let mut times = self.times;
        for time in [
            &mut times.input_us,
            &mut times.compress_us,
            &mut times.verify_us,
            &mut times.execute_us,
        ] {
            *time /= files;
        }
        // Field by field: a copy of the whole would copy all members for each of them.
        Some(Self {
            v: self.v,
            bag: self.bag.clone(),
            index: self.index.checked_add(place)?,
            round: self.round,
            execution: self.execution.clone(),
            attempt: self.attempt,
            worker: self.worker.clone(),
            host: self.host.clone(),
            outcome,
            times,
            // That of the pack, where it says that its worker restored. What the tar was made of is no file's.
            descriptor: self.descriptor.as_ref().filter(|task| task.decode.is_some()).cloned(),
            file: None,
            twin_of: None,
            members: Vec::new(),
        })
    }
}

/// Whether an output, if this is one, is where a file of the pack that `first` begins can have it.
fn can_be_a_members(outcome: &Outcome, first: u32) -> bool {
    let Outcome::Done(done) = outcome else { return true };
    match &done.place {
        Place::Staged | Place::Nothing => true,
        Place::Object { .. } => false,
        Place::Tar { object, at, .. } => {
            let end = at.saturating_add(done.output_bytes);
            subjects::first_of_tar(object) == Some(first) && end <= limits::TAR_BYTES_MAX
        }
    }
}

/// Whether a failure of one file ends its task; if not, it is left open.
#[must_use]
pub fn decides(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Done(_) => true,
        Outcome::Failed(failed) => !failed.cause.is_transient() && !failed.cause.is_planned(),
    }
}

#[cfg(test)]
mod tests {
    use bagpress_codec::Digest;

    use super::*;
    use crate::descriptor::{Block, Decode};
    use crate::ids::{Execution, TaskId};
    use crate::result::{Cause, Done};
    use crate::samples;

    fn result(members: Vec<Option<Outcome>>) -> TaskResult {
        let id = TaskId { bag: samples::bag(), index: 7, round: 0 };
        let one = samples::done(&id, &Execution::random(), b"output", Place::Staged);
        TaskResult { members, ..one }
    }

    fn done() -> Outcome {
        result(Vec::new()).outcome
    }

    /// An output in `object`, the longest that a place can be.
    fn in_tar(object: String, at: u64) -> Outcome {
        let bucket = format!("bag-{}", "b".repeat(limits::BAG_ID_BYTES_MAX));
        let (chunks, digest) = (2, Digest::of(b"tar"));
        let place = Place::Tar { bucket, object, chunks, at, digest };
        let Outcome::Done(done) = done() else { panic!("it is done") };
        Outcome::Done(Done { place, input_bytes: limits::PACK_BYTES_MAX, ..done })
    }

    #[test]
    fn a_result_of_a_pack_says_of_each_file_what_became_of_it_or_leaves_it_open() {
        let why = Outcome::Failed(Failed::new(Cause::InputMissing, "gone"));
        let packed = result(vec![Some(done()), None, Some(why.clone())]);
        let of = |place| packed.member(place).map(|of| (of.index, of.outcome, of.execution));
        let execution = packed.execution.clone();
        assert_eq!(of(0), Some((7, done(), execution.clone())));
        assert_eq!(of(1), None);
        assert_eq!(of(2), Some((9, why, execution)));
        assert_eq!(of(3), None);
        assert!(packed.member(0).is_some_and(|of| of.members.is_empty()));
    }

    #[test]
    fn an_output_elsewhere_than_in_the_tar_of_its_pack_is_none() {
        let most = limits::TAR_BYTES_MAX - done_bytes();
        let bin =
            Place::Object { bucket: "b".to_owned(), object: "out_7.bin".to_owned(), chunks: 1 };
        let Outcome::Done(one) = done() else { panic!("it is done") };
        let bin = Outcome::Done(Done { place: bin, ..one });
        for (outcome, is_one) in [
            (in_tar(subjects::tar_name(7), most), true),
            (in_tar(format!("{}~7-a", subjects::tar_name(7)), 0), true),
            (in_tar(subjects::tar_name(7), most + 1), false),
            (in_tar(subjects::tar_name(8), 0), false),
            (in_tar("out_7.tar.gz".to_owned(), 0), false),
            (bin, false),
        ] {
            let member = result(vec![Some(outcome.clone())]).member(0);
            assert_eq!(member.is_some(), is_one, "{outcome:?}");
        }
    }

    fn done_bytes() -> u64 {
        result(Vec::new()).done().map_or(0, |done| done.output_bytes)
    }

    #[test]
    fn of_a_long_message_of_a_file_the_end_stays() {
        let of = |message: &str| cut(Failed::new(Cause::InputChanged, message)).message;
        let most = limits::MEMBER_MESSAGE_BYTES_MAX;
        let path = "/über/".repeat(40);
        for bytes in 0..path.len() {
            let Some(path) = path.get(..bytes) else { continue };
            let (whole, cut) =
                (format!("'{path}' changed: its size"), of(&format!("'{path}' changed: its size")));
            assert!(cut.len() <= most && cut.ends_with("changed: its size"), "{cut}");
            assert_eq!(cut == whole, whole.len() <= most, "{cut}");
            assert!(
                cut == whole || cut.len() > most - 4,
                "no more is left out than must be: {cut}"
            );
        }
    }

    #[test]
    fn the_result_of_the_largest_pack_is_a_message() {
        let message = "\"\n".repeat(limits::FAILURE_BYTES_MAX / 2);
        let failed = cut(Failed::new(Cause::InputUnreadable, message));
        let name = format!("out_3999936.tar~3999936-{}", Execution::random());
        let tar = in_tar(name, limits::TAR_BYTES_MAX);
        for outcome in [done(), Outcome::Failed(failed), tar] {
            let mut packed = result(vec![Some(outcome); limits::PACK_FILES_MAX as usize]);
            packed.worker = "\u{1}".repeat(limits::TEXT_BYTES_MAX);
            packed.host.clone_from(&packed.worker);
            let mut task = samples::task(&packed.bag, packed.index, ResultPath::Staged);
            (task.decode, task.codec) =
                (Some(Decode { original: None }), "gzip:6".parse().unwrap());
            task.input = Input::File { name: String::new(), bytes: limits::PACK_BYTES_MAX };
            task.pack = Some(Pack { files: limits::PACK_FILES_MAX });
            task.library = task.library_of("");
            // The longest that a result carries.
            let more = limits::PACK_DESCRIPTOR_BYTES_MAX - task.encode().len();
            task.library += &"l".repeat(more);
            let task = task.of_result(None).unwrap();
            packed.descriptor = Some(Box::new(task));
            let payload = packed.encode();
            assert!(payload.len() <= limits::MESSAGE_BYTES_MAX, "{}", payload.len());
            assert_eq!(TaskResult::decode(&payload).unwrap(), packed);
            packed.members.push(None);
            assert!(TaskResult::decode(&packed.encode()).is_err());
        }
    }

    #[test]
    fn only_files_of_round_0_that_fit_are_a_pack() {
        let mut task = samples::task(&samples::bag(), 7, ResultPath::Staged);
        task.input = Input::File { name: "f".to_owned(), bytes: limits::PACK_BYTES_MAX };
        task.pack = Some(Pack { files: 2 });
        let decode = |task: &TaskDescriptor| TaskDescriptor::decode(&task.encode(), &task.id());
        assert_eq!(decode(&task).unwrap(), task);
        for files in [0, 1, limits::PACK_FILES_MAX + 1] {
            task.pack = Some(Pack { files });
            assert!(decode(&task).is_err(), "{files}");
        }
        task.pack = Some(Pack { files: 64 });
        assert!(decode(&TaskDescriptor { round: 1, ..task.clone() }).is_err());
        let last = limits::BAG_TASKS_MAX - 1;
        assert!(decode(&TaskDescriptor { index: last, ..task.clone() }).is_err());
        task.input = Input::File { name: "f".to_owned(), bytes: limits::PACK_BYTES_MAX + 1 };
        assert!(decode(&task).is_err());
    }

    #[test]
    fn a_pack_is_of_files_or_is_a_tar_and_never_both() {
        let task = samples::task(&samples::bag(), 7, ResultPath::Objects);
        let (bucket, object) = ("b".to_owned(), subjects::input_tar_name(7));
        let name = "f".to_owned();
        let input = Input::Object { bucket, object, name, bytes: 1, digest: None, part: None };
        let pack = Some(Pack { files: 2 });
        let tar = TaskDescriptor { input: input.clone(), tar: pack, ..task.clone() };
        let decode = |task: &TaskDescriptor| TaskDescriptor::decode(&task.encode(), &task.id());
        assert_eq!(decode(&tar).unwrap(), tar);
        for other in [
            TaskDescriptor { pack, ..tar.clone() },
            TaskDescriptor { tar: None, pack, ..tar.clone() },
            TaskDescriptor { round: 1, ..tar.clone() },
            TaskDescriptor { results: ResultPath::Staged, ..tar.clone() },
            TaskDescriptor { tar: pack, ..task },
        ] {
            assert!(decode(&other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_worker_that_knows_no_packs_has_another_library() {
        let task = samples::task(&samples::bag(), 7, ResultPath::Staged);
        let pack = Some(Pack { files: 2 });
        let library = |pack, tar| TaskDescriptor { pack, tar, ..task.clone() }.library_of("l/1");
        assert_eq!(library(None, None), "l/1");
        assert_eq!(library(pack, None), "l/1, packs/1");
        assert_eq!(library(None, pack), "l/1, packs/2");
        let block = Some(Block { file: 0, at: 0 });
        assert_eq!(TaskDescriptor { block, ..task.clone() }.library_of("l/1"), "l/1, blocks/1");
        let decode = Some(Decode { original: None });
        let restores = TaskDescriptor { decode, ..task };
        assert_eq!(restores.library_of("l/1"), "restore/1");
        let packed = TaskDescriptor { pack, ..restores };
        assert_eq!(packed.library_of("l/1"), "restore/1, packs/1");
    }
}
