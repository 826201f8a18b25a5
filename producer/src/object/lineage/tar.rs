//! What the tar of a pack was made of: the pack's task, by its committed result, is run again with the files that the tar had.

use bagpress_broker::descriptor::{Input, ResultPath, TaskDescriptor};
use bagpress_broker::ids::{BagId, Execution};
use bagpress_broker::result::{Place, TaskResult, wall_clock_us};
use bagpress_broker::{limits, subjects};
use bagpress_codec::Digest;

use super::refusal::{NotMade, Why, repair};

/// The task that makes a tar again.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pack {
    pub(super) task: TaskDescriptor,
    /// Digest of the tar of its inputs.
    pub(super) input_digest: Digest,
    /// What the tar must have.
    pub(super) digest: Digest,
    /// Its size.
    pub(super) bytes: u64,
    /// The name, or second name, that its worker gave it.
    pub(super) named: String,
}

/// What makes a tar again in this round, by all that is committed of the pack that `first` begins, as it was committed. What counts
/// is the result of round 0: packs exist in no other, and what made the tar again since decides nothing.
pub(super) fn pack_of_tar(
    (bag, first): (&BagId, u32),
    committed: &[TaskResult],
    round: u32,
) -> Result<Pack, NotMade> {
    let unknown = |text: &str| {
        let repair = repair(bag);
        let text =
            format!("{text}; {repair} makes its files again, where the run folder of bag {bag} is");
        Why::NoLineage.because(text)
    };
    let pack = committed.iter().find(|result| result.round == 0 && result.index == first);
    let pack = pack.ok_or_else(|| unknown("no result of its pack is there"))?;
    let had = files_of(pack).ok_or_else(|| unknown("the result of its pack names no tar"))?;
    let task = pack.descriptor.as_deref().filter(|task| {
        let of_all = task.tar.is_some_and(|tar| tar.files as usize == pack.members.len());
        of_all && task.id() == pack.id() && task.results == ResultPath::Objects
    });
    let task = task.and_then(|task| {
        let Input::Object { digest: Some(read), .. } = &task.input else { return None };
        Some((task, *read))
    });
    let (task, input_digest) = task.ok_or_else(|| {
        unknown("the result of its pack, by a worker of an earlier version, does not say what it was made of")
    })?;
    let mut task = task
        .run_again(round, had.places.clone(), had.input_bytes)
        .ok_or_else(|| unknown("the result of its pack is that of no pack of objects"))?;
    task.published_us = wall_clock_us();
    let Had { digest, bytes, named, .. } = had;
    Ok(Pack { task, input_digest, digest, bytes, named })
}

/// What a pack's result says of its tar.
struct Had {
    places: Vec<u32>,
    /// Of the inputs of these files.
    input_bytes: u64,
    digest: Digest,
    /// Of the tar.
    bytes: u64,
    named: String,
}

/// The files that are in the tar of a pack; none if it has none, or if they are not all in one.
fn files_of(pack: &TaskResult) -> Option<Had> {
    let mut had: Option<Had> = None;
    for place in 0..u32::try_from(pack.members.len()).ok()? {
        let Some(member) = pack.member(place) else { continue };
        let Some(done) = member.done() else { continue };
        let Place::Tar { digest, at, object, .. } = &done.place else { return None };
        let new = || {
            let (places, named) = (Vec::new(), object.clone());
            Had { places, input_bytes: 0, digest: *digest, bytes: 0, named }
        };
        let had = had.get_or_insert_with(new);
        if had.digest != *digest {
            return None;
        }
        had.places.push(place);
        had.input_bytes = had.input_bytes.saturating_add(done.input_bytes);
        let end = at.saturating_add(done.output_bytes).next_multiple_of(limits::TAR_BLOCK_BYTES);
        had.bytes = had.bytes.max(end + limits::TAR_END_BYTES);
    }
    had
}

/// Whether the outcome of a round is that of the pack that was run again: a gatherer may have begun that round for the file that
/// begins the pack, alone. A failure is anybody's.
pub(super) fn is_of_pack(result: &TaskResult) -> bool {
    result.done().is_none_or(|done| {
        let Place::Tar { object, .. } = &done.place else { return false };
        subjects::first_of_tar(object) == Some(result.index)
    })
}

/// Whether the tar that a worker `named` so may still have that name while `asked` stood for the tar of another execution: a gatherer
/// leaves the second name to a tar that came when files of another one counted.
pub(super) fn may_be_beside(named: &str, asked: &str) -> bool {
    subjects::is_beside(named) && named != asked
}

/// Whether a worker of the bag wrote an object under this token for the pack that `first` begins. Other clients make tokens of another
/// form.
pub(super) fn is_made_by_its_bag(token: &str, first: u32) -> bool {
    let execution = token.strip_prefix(&format!("{first}-"));
    execution.is_some_and(|execution| execution.parse::<Execution>().is_ok())
}

#[cfg(test)]
mod tests {
    use bagpress_broker::descriptor::Pack as Files;
    use bagpress_broker::ids::TaskId;
    use bagpress_broker::result::{Cause, Done, Failed, Outcome};
    use bagpress_broker::samples;

    use super::*;

    fn in_tar(bag: &BagId, at: u64, digest: Digest) -> Outcome {
        let id = TaskId { bag: bag.clone(), index: 3, round: 0 };
        let (bucket, object) = (subjects::bucket(bag), subjects::tar_name(3));
        let place = Place::Tar { bucket, object, chunks: 1, at, digest };
        samples::done(&id, &Execution::random(), b"output", place).outcome
    }

    /// The result of a pack of four files, of which two are in its tar.
    fn pack(bag: &BagId) -> TaskResult {
        let (bucket, object) = (subjects::input_bucket(bag), subjects::input_tar_name(3));
        let name = "/srv/a".to_owned();
        let input = Input::Object { bucket, object, name, bytes: 90, digest: None, part: None };
        let tar = Some(Files { files: 4 });
        let mut task = TaskDescriptor { input, tar, ..samples::task(bag, 3, ResultPath::Objects) };
        task.library = task.library_of("l/1+2");
        let digest = Digest::of(b"tar");
        let failed = Outcome::Failed(Failed::new(Cause::ArrayUnsupported, "no array"));
        let members = vec![
            Some(in_tar(bag, 512, digest)),
            Some(failed),
            None,
            Some(in_tar(bag, 1536, digest)),
        ];
        let id = TaskId { bag: bag.clone(), index: 3, round: 0 };
        let one = samples::done(&id, &Execution::random(), b"output", Place::Staged);
        let descriptor = task.of_result(Some(Digest::of(b"inputs"))).map(Box::new);
        TaskResult { descriptor, members, ..one }
    }

    fn made_of(committed: &[TaskResult]) -> Result<Pack, NotMade> {
        pack_of_tar((&committed[0].bag, 3), committed, 5)
    }

    #[test]
    fn a_tar_is_made_again_of_the_files_that_it_had() {
        let bag = samples::bag();
        let one = pack(&bag).done().unwrap().clone();
        let alone = TaskResult {
            round: 2,
            members: Vec::new(),
            descriptor: None,
            outcome: Outcome::Failed(Failed::new(Cause::InputMissing, "")),
            ..pack(&bag)
        };
        let found = made_of(&[pack(&bag), alone]).unwrap();
        assert_eq!((found.task.index, found.task.round), (3, 5));
        let again = found.task.again.as_deref().unwrap();
        assert_eq!((again.files, again.places.as_slice()), (4, &[0, 3][..]));
        assert_eq!(again.digest, Digest::of(b"inputs"));
        assert_eq!(found.input_digest, Digest::of(b"inputs"));
        assert_eq!((found.digest, found.bytes), (Digest::of(b"tar"), 2048 + 1024));
        assert_eq!(found.named, "out_3.tar");
        assert_eq!(found.task.input.bytes(), 2 * one.input_bytes);
        assert_eq!(found.task.library, "l/1+2, again/1");
        let sent = TaskDescriptor::decode(&found.task.encode(), &found.task.id());
        assert_eq!(sent.unwrap(), found.task);
    }

    #[test]
    fn what_made_it_again_since_decides_nothing_about_it() {
        let bag = samples::bag();
        let other = Some(in_tar(&bag, 512, Digest::of(b"other")));
        let later = TaskResult { round: 1, members: vec![other; 4], ..pack(&bag) };
        let found = made_of(&[later.clone(), pack(&bag)]).unwrap();
        assert_eq!(found.digest, Digest::of(b"tar"));
        assert_eq!(made_of(&[later]).unwrap_err().why, Why::NoLineage);
    }

    #[test]
    fn a_result_that_does_not_say_what_its_tar_was_made_of_names_the_way_by_the_files() {
        let bag = samples::bag();
        let silent = |change: &dyn Fn(&mut TaskResult)| {
            let mut pack = pack(&bag);
            change(&mut pack);
            let refused = made_of(&[pack]).unwrap_err();
            assert_eq!(refused.why, Why::NoLineage);
            assert!(refused.text.contains("--repair"), "{refused:?}");
        };
        silent(&|pack| pack.descriptor = None);
        silent(&|pack| pack.members = vec![None; 4]);
        silent(&|pack| pack.members.truncate(2));
        silent(&|pack| pack.members[0] = Some(in_tar(&bag, 512, Digest::of(b"another"))));
        silent(&|pack| {
            let task = pack.descriptor.as_deref().unwrap().of_result(None);
            pack.descriptor = task.map(Box::new);
        });
    }

    #[test]
    fn a_round_that_a_gatherer_began_for_one_file_is_not_that_of_the_pack() {
        let bag = samples::bag();
        let with = |place: Place| {
            let Outcome::Done(done) = in_tar(&bag, 0, Digest::of(b"tar")) else { panic!("done") };
            TaskResult { outcome: Outcome::Done(Done { place, ..done }), ..pack(&bag) }
        };
        let of = |object: &str| {
            let (bucket, object) = (subjects::bucket(&bag), object.to_owned());
            with(Place::Tar { bucket, object, chunks: 1, at: 0, digest: Digest::of(b"tar") })
        };
        assert!(is_of_pack(&of("out_3.tar")) && is_of_pack(&of("out_3.tar~3-0a")));
        assert!(!is_of_pack(&of("out_4.tar")));
        let (bucket, object) = (subjects::bucket(&bag), subjects::output_name(3));
        assert!(!is_of_pack(&with(Place::Object { bucket, object, chunks: 1 })));
    }

    #[test]
    fn a_name_may_stand_for_another_tar_only_where_the_result_names_a_second_one() {
        assert!(may_be_beside("out_3.tar~3-0a", "out_3.tar"));
        assert!(may_be_beside("out_3.tar~3-0a", "out_3.tar~3-0b"));
        assert!(!may_be_beside("out_3.tar~3-0a", "out_3.tar~3-0a"));
        assert!(!may_be_beside("out_3.tar", "out_3.tar~3-0a"));
    }

    #[test]
    fn what_workers_wrote_is_known_by_its_token() {
        let token = format!("3-{}", Execution::random());
        assert!(is_made_by_its_bag(&token, 3));
        assert!(!is_made_by_its_bag(&token, 4));
        for other in ["3-", "3-0a", "put-abc", "fGhJkLmNpQrStUvWxYzAbC"] {
            assert!(!is_made_by_its_bag(other, 3), "{other}");
        }
    }
}
