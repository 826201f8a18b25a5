//! A pack of objects that is run again because its tar is lost: its task, by what its result says. See ADR 0062.

use bagpress_codec::Digest;

use super::again::Again;
use super::descriptor::{Input, Pack, ResultPath, TaskDescriptor};
use super::pack::OBJECTS;
use crate::limits;

impl TaskDescriptor {
    /// Whether it says nothing of a pack that is run again, or what can be.
    pub(super) fn may_be_again(&self) -> bool {
        self.again.as_deref().is_none_or(|again| fits(again, self))
    }

    /// How many files it has, if its input and its output are tars.
    #[must_use]
    pub fn tarred(&self) -> Option<Pack> {
        let again = self.again.as_deref().map(|again| Pack { files: again.files });
        self.tar.or(again)
    }

    /// The task that makes the tar of this pack again, in a round above 0; none if this is no pack of objects, or if it does
    /// not say which bytes it read. `places`: which of its files the tar had; `bytes`: those of their inputs.
    #[must_use]
    pub fn run_again(&self, round: u32, places: Vec<u32>, bytes: u64) -> Option<Self> {
        let Pack { files } = self.tar?;
        let mut task = Self { round, tar: None, ..self.clone() };
        let Input::Object { digest: input, bytes: of_input, .. } = &mut task.input else {
            return None;
        };
        let again = Again { files, places, digest: (*input)? };
        (*input, *of_input) = (Some(again.of_no_input()), bytes);
        task.again = Some(Box::new(again));
        let library = task.library.strip_suffix(OBJECTS).and_then(|of| of.strip_suffix(", "));
        task.library = task.library_of(library?);
        Some(task)
    }

    /// The descriptor as the result of its pack carries it: with the digest of the tar of inputs that was `read`, if there is one, and with
    /// neither the path of a file nor what parts of an object its files were. None if it has more than [`limits::PACK_DESCRIPTOR_BYTES_MAX`] bytes all the same: the message would be too long.
    #[must_use]
    pub fn of_result(&self, read: Option<Digest>) -> Option<Self> {
        let mut task = self.clone();
        match &mut task.input {
            Input::Generate { .. } => {}
            Input::File { name, .. } => name.clear(),
            Input::Object { name, digest, .. } => {
                name.clear();
                *digest = read;
            }
        }
        if !task.parts.is_empty() {
            let input = Input::File { name: String::new(), bytes: task.input.bytes() };
            task = Self { input, pack: task.packed(), parts: Vec::new(), ..task };
        }
        (task.encode().len() <= limits::PACK_DESCRIPTOR_BYTES_MAX).then_some(task)
    }
}

/// Whether a task can be that of such a pack.
fn fits(again: &Again, task: &TaskDescriptor) -> bool {
    let Input::Object { bytes, digest, part: None, .. } = &task.input else { return false };
    let last = u64::from(task.index) + u64::from(again.files);
    let ascend = again.places.is_sorted_by(|one, next| one < next);
    task.round > 0
        && task.results == ResultPath::Objects
        && (task.pack, task.tar, task.block) == (None, None, None)
        && task.decode.is_none()
        && *digest == Some(again.of_no_input())
        && *bytes <= limits::PACK_BYTES_MAX
        && last <= u64::from(limits::BAG_TASKS_MAX)
        && ascend
        && again.places.last().is_some_and(|place| *place < again.files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{samples, subjects};

    /// A pack of three files, as its result has it.
    fn pack() -> TaskDescriptor {
        let task = samples::task(&samples::bag(), 7, ResultPath::Objects);
        let (bucket, object) = (subjects::input_bucket(&task.bag), subjects::input_tar_name(7));
        let name = "/srv/a".to_owned();
        let input = Input::Object { bucket, object, name, bytes: 9, digest: None, part: None };
        let mut pack = TaskDescriptor { input, tar: Some(Pack { files: 3 }), ..task };
        pack.library = pack.library_of("l/1");
        pack.of_result(Some(Digest::of(b"inputs"))).unwrap()
    }

    fn again() -> TaskDescriptor {
        pack().run_again(4, vec![0, 2], 6).unwrap()
    }

    fn decode(task: &TaskDescriptor) -> Option<TaskDescriptor> {
        TaskDescriptor::decode(&task.encode(), &task.id()).ok()
    }

    #[test]
    fn a_pack_that_is_run_again_is_what_its_result_says_and_asks_for_workers_that_know_it() {
        let task = again();
        assert_eq!(decode(&task).as_ref(), Some(&task));
        assert_eq!((task.round, task.input.bytes()), (4, 6));
        assert_eq!((task.tarred(), task.packed()), (Some(Pack { files: 3 }), None));
        assert_eq!(task.library, "l/1, again/1");
        let of = task.again.unwrap();
        assert_eq!((of.places.as_slice(), of.digest), (&[0, 2][..], Digest::of(b"inputs")));
    }

    /// It knows no field `again`: to it this is a task like any other, with one object that it is to compress.
    #[test]
    fn a_worker_of_an_earlier_version_finds_no_input_that_is_right() {
        let task = again();
        let theirs = TaskDescriptor { again: None, ..task.clone() };
        let theirs = decode(&theirs).unwrap();
        let Input::Object { digest, .. } = theirs.input else { panic!("{theirs:?}") };
        assert!(digest.is_some() && digest != Some(Digest::of(b"inputs")));
    }

    #[test]
    fn the_longest_names_fit_in_a_result_and_a_library_of_another_program_may_not() {
        let mut task = pack();
        task.bag =
            format!("{}-abcdefgh", "b".repeat(limits::BAG_ID_BYTES_MAX - 9)).parse().unwrap();
        (task.index, task.attempts) = (limits::BAG_TASKS_MAX - 64, limits::ATTEMPTS_MAX);
        task.tar = Some(Pack { files: 64 });
        for codec in ["zlib:6,full", "zstd:19,long"] {
            task.codec = codec.parse().unwrap();
            task.library = task.library_of(&task.codec.library());
            let (bucket, object) =
                (subjects::input_bucket(&task.bag), subjects::input_tar_name(task.index));
            let name = "/".repeat(limits::TEXT_BYTES_MAX);
            let bytes = limits::PACK_BYTES_MAX;
            task.input = Input::Object { bucket, object, name, bytes, digest: None, part: None };
            let bytes = task.of_result(Some(Digest::of(b"inputs"))).unwrap().encode().len();
            // The text of an array's codec says its shape, too.
            assert!(bytes + 256 < limits::PACK_DESCRIPTOR_BYTES_MAX, "{codec}: {bytes}");
        }
        task.library = "l".repeat(limits::PACK_DESCRIPTOR_BYTES_MAX);
        assert_eq!(task.of_result(Some(Digest::of(b"inputs"))), None);
    }

    #[test]
    fn what_is_no_pack_of_objects_or_does_not_say_what_it_read_is_not_run_again() {
        assert_eq!(pack().of_result(None).unwrap().run_again(1, vec![0], 1), None);
        let staged = samples::task(&samples::bag(), 7, ResultPath::Staged);
        assert_eq!(staged.run_again(1, vec![0], 1), None);
    }

    #[test]
    fn a_pack_that_says_anything_else_is_no_descriptor() {
        let with = |change: &dyn Fn(&mut TaskDescriptor)| {
            let mut task = again();
            change(&mut task);
            decode(&task)
        };
        let places = |places: Vec<u32>| {
            with(&|task| {
                task.again.as_mut().unwrap().places.clone_from(&places);
            })
        };
        assert!(places(vec![0, 1, 2]).is_some());
        for wrong in [vec![], vec![3], vec![1, 0], vec![1, 1]] {
            assert_eq!(places(wrong.clone()), None, "{wrong:?}");
        }
        assert_eq!(with(&|task| task.round = 0), None);
        assert_eq!(with(&|task| task.tar = Some(Pack { files: 3 })), None);
        assert_eq!(with(&|task| task.results = ResultPath::Staged), None);
        assert_eq!(with(&|task| task.again.as_mut().unwrap().files = 65), None);
        // As whoever knows no such tasks would read it.
        assert_eq!(with(&|task| task.again.as_mut().unwrap().digest = Digest::of(b"")), None);
    }
}
