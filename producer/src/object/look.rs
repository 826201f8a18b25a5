//! What became of an object: what its bucket knows, and what is known of the bag whose bucket it is.

use anyhow::Result;
use bagpress_broker::ids::BagId;
use bagpress_broker::result::{Done, Place, TaskResult};
use bagpress_broker::{BagLine, BagState, Broker, subjects};
use bagpress_codec::Digest;
use bagpress_objstore::object_ref::{Bucket, Error, Freed, Info, Reference};
use futures::{StreamExt, stream};

use super::acting::LOOKS;
use super::answer::{Answer, State, Tally, shown};
use super::holders::HolderBook;
use crate::claim::buckets::open_bucket;

/// Answers what became of each object, as it becomes known; with `compare`, all its bytes are read, and their digest is compared.
///
/// # Errors
///
/// If the broker does not answer, or `tell` fails.
pub async fn info(
    broker: &Broker,
    references: &[Reference],
    compare: bool,
    mut tell: impl FnMut(&Answer) -> Result<()>,
) -> Result<Tally> {
    let book = HolderBook::new(broker);
    let looks = stream::iter(references).map(async |reference| {
        let (mut answer, found) = if compare {
            look_at_what_was_made(broker, reference).await?
        } else {
            look(broker, reference).await?
        };
        if let Some(info) = &found {
            answer.holders = book.of(&info.metadata).await?;
            if compare {
                answer = compared(broker, answer, info).await?;
            }
        }
        anyhow::Ok(answer)
    });
    let (mut looks, mut tally) = (Box::pin(looks.buffer_unordered(LOOKS)), Tally::default());
    while let Some(answer) = looks.next().await {
        let answer = answer?;
        tally.count(&answer);
        tell(&answer)?;
    }
    Ok(tally)
}

async fn compared(broker: &Broker, answer: Answer, info: &Info) -> Result<Answer> {
    let reference = answer.reference.clone();
    let bucket = open_bucket(broker, reference.bucket())?;
    match bucket.read_back(info).await {
        Ok(()) => Ok(answer),
        Err(error) => gone(broker, &bucket, &reference, error).await,
    }
}

/// Looks an object up: the answer, and its metadata if all of it is there.
///
/// # Errors
///
/// If the broker does not answer.
pub(crate) async fn look(broker: &Broker, reference: &Reference) -> Result<(Answer, Option<Info>)> {
    let bucket = open_bucket(broker, reference.bucket())?;
    match bucket.find(reference.object()).await {
        Ok(info) => Ok((Answer::there(reference, &info), Some(info))),
        Err(error) => Ok((gone(broker, &bucket, reference, error).await?, None)),
    }
}

/// The same, compared with what the bag recorded that made it: another program may have put other bytes under its name. Nothing is
/// compared of what no bag made, or of which its bag's result is not known.
///
/// # Errors
///
/// If the broker does not answer.
pub(crate) async fn look_at_what_was_made(
    broker: &Broker,
    reference: &Reference,
) -> Result<(Answer, Option<Info>)> {
    let (answer, found) = look(broker, reference).await?;
    let Some(info) = found else { return Ok((answer, None)) };
    match recorded(broker, reference, info.digest).await? {
        Some(digest) if digest != info.digest => {
            Ok((not_what_was_made(reference, info.digest, digest), None))
        }
        _ => Ok((answer, Some(info))),
    }
}

/// What has the name of something that a bag made, and other bytes.
pub(crate) fn not_what_was_made(reference: &Reference, found: Digest, made: Digest) -> Answer {
    let why = format!("its digest is {found}, and its bag made {made}");
    Answer::of(reference, State::Corrupt).refused(why)
}

/// The digest of the output of a task, by the outcome of the last round that a gatherer of its bag began; of a tar, which several executions of its pack
/// may have made, the one that was `found` if it is that of any.
async fn recorded(broker: &Broker, reference: &Reference, found: Digest) -> Result<Option<Digest>> {
    let Some((bag, false)) = subjects::bag_of_bucket(reference.bucket()) else { return Ok(None) };
    let name = subjects::name_of(reference.object());
    if let Some(first) = subjects::first_of_tar(name) {
        let results = of_pack(broker, &bag, first).await?;
        // What was run again for a lost tar decides nothing about it.
        let of_pack = results.iter().filter(|result| result.round == 0);
        let tars = of_pack.filter_map(TaskResult::done).filter_map(|done| tar(done, name));
        return Ok(tars.min_by_key(|made| *made != found));
    }
    let Some(index) = subjects::index_of_output(reference.object()) else { return Ok(None) };
    let results = results_of(broker, &bag, index).await?;
    if agree(&results) {
        return Ok(results.iter().find_map(TaskResult::done).and_then(made));
    }
    let Some(line) = broker.find_bag(&bag).await?.line else { return Ok(None) };
    Ok(of_last_round(&line, &results).and_then(|(_, done)| made(done)))
}

/// The digest of the tar of that name, or second name, that has an outcome's output.
fn tar(done: &Done, name: &str) -> Option<Digest> {
    match &done.place {
        Place::Tar { object, digest, .. } if subjects::name_of(object) == name => Some(*digest),
        _ => None,
    }
}

/// The digest of the object that an outcome made. What is in a tar is no object.
fn made(done: &Done) -> Option<Digest> {
    matches!(done.place, Place::Object { .. }).then_some(done.output_digest)
}

/// Whether all rounds made the same: only where they did not, the bag's line has to tell which of them counts.
fn agree(results: &[TaskResult]) -> bool {
    let of_task = results.iter().filter(|result| !is_of_lost_tar(result));
    let mut all = of_task.filter_map(TaskResult::done).map(made);
    let first = all.next();
    all.all(|made| Some(made) == first)
}

/// The committed results of a task, of all rounds; none where there is no stream of results.
///
/// # Errors
///
/// If the broker does not answer.
pub(crate) async fn results_of(
    broker: &Broker,
    bag: &BagId,
    index: u32,
) -> Result<Vec<TaskResult>> {
    let mut results = Vec::new();
    answered(broker.results(bag, Some(index), |result| results.push(result)).await)?;
    Ok(results)
}

/// The committed results of the files of a pack.
async fn of_pack(broker: &Broker, bag: &BagId, first: u32) -> Result<Vec<TaskResult>> {
    let mut results = Vec::new();
    answered(broker.results_of_pack(bag, first, |result| results.push(result)).await)?;
    Ok(results)
}

/// What is committed of the pack that `first` begins, by any round and as it is.
///
/// # Errors
///
/// If the broker does not answer.
pub(super) async fn as_committed(
    broker: &Broker,
    bag: &BagId,
    first: u32,
) -> Result<Vec<TaskResult>> {
    let mut results = Vec::new();
    answered(broker.results_as_committed(bag, first, |result| results.push(result)).await)?;
    Ok(results)
}

/// Where there is no stream of results, there is nothing to read.
pub(crate) fn answered(read: std::result::Result<(), bagpress_broker::Error>) -> Result<()> {
    match read {
        Ok(()) | Err(bagpress_broker::Error::Missing { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What the name of an output stands for: the outcome of the last round that a gatherer began. Of a round that somebody took to make it
/// again only whoever took it knows whether it gave the right bytes.
pub(super) fn of_last_round<'a>(
    line: &BagLine,
    results: &'a [TaskResult],
) -> Option<(&'a TaskResult, &'a Done)> {
    let began = |round: u32| (round > line.rounds, round.abs_diff(line.rounds));
    let of_task = results.iter().filter(|result| !is_of_lost_tar(result));
    let done = of_task.filter_map(|result| Some((result, result.done()?)));
    done.min_by_key(|(result, _)| began(result.round))
}

/// Whether a pack was run again for its tar: the name of the first file's own object has nothing to do with that.
fn is_of_lost_tar(result: &TaskResult) -> bool {
    let in_tar = |done: &Done| matches!(done.place, Place::Tar { .. });
    result.round > 0 && (!result.members.is_empty() || result.done().is_some_and(in_tar))
}

/// What an error about an object means for who asked for it.
///
/// # Errors
///
/// The error itself, if it passes or is none about the object.
pub(crate) async fn gone(
    broker: &Broker,
    bucket: &Bucket,
    reference: &Reference,
    error: Error,
) -> Result<Answer> {
    let text = error.to_string();
    let (state, why) = match &error {
        Error::Freed { freed, .. } => freed_by(freed),
        Error::Deleted { .. } => (State::Deleted, text),
        Error::Expired { at, .. } => (State::Expired, format!("it expired {}", shown(*at))),
        Error::Lost { found, wanted, .. } => {
            (State::Lost, format!("{found} of its {wanted} chunks are there"))
        }
        Error::Digest { found, wanted, .. } => {
            (State::Corrupt, format!("its digest is {found}, not {wanted}"))
        }
        Error::Malformed { .. } => (State::Unreadable, text),
        Error::NoBucket { .. } => without_bucket(broker, reference).await?,
        Error::NotFound { .. } => without_metadata(broker, bucket, reference).await?,
        _ => return Err(error.into()),
    };
    Ok(Answer::of(reference, state).refused(why))
}

fn freed_by(freed: &Freed) -> (State, String) {
    let at = freed.at.map(|at| format!(", {}", shown(at))).unwrap_or_default();
    if freed.is_input {
        let why = format!("the task whose input it was is done; freed by {}{at}", freed.by);
        return (State::InputFreed, why);
    }
    (State::Freed, format!("freed by {}{at}", freed.by))
}

async fn without_bucket(broker: &Broker, reference: &Reference) -> Result<(State, String)> {
    let never = format!("there is no bucket {}", reference.bucket());
    let Some((bag, inputs)) = subjects::bag_of_bucket(reference.bucket()) else {
        return Ok((State::NeverThere, never));
    };
    let found = broker.find_bag(&bag).await?;
    Ok(match (found.removed, found.line.is_some() || found.unreadable.is_some()) {
        (true, _) if inputs => (State::InputFreed, format!("bag {bag} was removed")),
        (true, _) => (State::Freed, format!("bag {bag} was removed with its objects")),
        (false, true) if inputs && is_under_way(found.line.as_ref()) => {
            (State::NeverThere, format!("bag {bag} has not put its inputs yet"))
        }
        (false, true) if inputs => {
            (State::InputFreed, format!("bag {bag} has put no inputs, or has freed them all"))
        }
        (false, true) if has_done(broker, &bag, reference).await?.is_some() => {
            (State::Lost, format!("its bucket is gone, though bag {bag} was not removed"))
        }
        _ => (State::NeverThere, never),
    })
}

/// Whether a bag's bucket may still be made: it goes when the bag ends.
fn is_under_way(line: Option<&BagLine>) -> bool {
    line.is_some_and(|line| matches!(line.state, BagState::Submitting | BagState::Running))
}

/// No metadata and no tombstone: it was never there, unless a result names it.
async fn without_metadata(
    broker: &Broker,
    bucket: &Bucket,
    reference: &Reference,
) -> Result<(State, String)> {
    let never = (State::NeverThere, "no object of that name is known".to_owned());
    let Some((bag, false)) = subjects::bag_of_bucket(reference.bucket()) else { return Ok(never) };
    if broker.find_bag(&bag).await?.removed {
        return Ok((State::Freed, format!("bag {bag} was removed with its objects")));
    }
    let Some(bytes) = has_done(broker, &bag, reference).await? else { return Ok(never) };
    let ttl = bucket.facts().await?.ttl;
    Ok(match ttl {
        Some(ttl) => {
            let ttl = humantime::format_duration(ttl);
            (State::Expired, format!("outputs of bag {bag} stay for {ttl}"))
        }
        None => (State::Lost, format!("bag {bag} has a result with {bytes} bytes of it")),
    })
}

/// How many bytes an object had, if a committed result of the bag names it.
async fn has_done(broker: &Broker, bag: &BagId, reference: &Reference) -> Result<Option<u64>> {
    let name = subjects::name_of(reference.object());
    let results = match (subjects::index_of_output(name), subjects::first_of_tar(name)) {
        (Some(index), _) => results_of(broker, bag, index).await?,
        // The file that begins its pack need not be in it.
        (None, Some(first)) => of_pack(broker, bag, first).await?,
        (None, None) => return Ok(None),
    };
    let named = results.iter().filter_map(TaskResult::done).rfind(|done| {
        done.place.object().is_some_and(|(_, object)| subjects::name_of(object) == name)
    });
    Ok(named.map(|done| done.output_bytes))
}

#[cfg(test)]
mod tests {
    use bagpress_broker::ids::{Execution, TaskId};
    use bagpress_broker::result::{Cause, Failed, Outcome};
    use bagpress_broker::samples;

    use super::*;

    #[test]
    fn what_ran_again_for_a_lost_tar_says_nothing_of_the_object_of_its_first_file() {
        let bag = samples::bag();
        let mut line = samples::line(&bag, BagState::Finished);
        let bucket = subjects::bucket(&bag);
        let of = |round: u32, place: Place| {
            let id = TaskId { bag: bag.clone(), index: 3, round };
            samples::done(&id, &Execution::random(), b"output", place)
        };
        let in_tar = |round| {
            let (bucket, object) = (bucket.clone(), subjects::tar_name(3));
            let digest = Digest::of(b"tar");
            of(round, Place::Tar { bucket, object, chunks: 1, at: 0, digest })
        };
        let (bucket, object) = (bucket.clone(), subjects::output_name(3));
        let alone = of(1, Place::Object { bucket, object, chunks: 1 });
        let results = [in_tar(0), alone, in_tar(2)];
        let failed = Outcome::Failed(Failed::new(Cause::VerifyFailed, "bytes differ"));
        let failed = TaskResult { outcome: failed, members: vec![None; 2], ..in_tar(2) };
        assert!(is_of_lost_tar(&failed) && !is_of_lost_tar(&in_tar(0)));
        // Another task was run again in the round that the tar took.
        line.rounds = 2;
        assert_eq!(of_last_round(&line, &results).map(|(result, _)| result.round), Some(1));
        assert!(agree(&[in_tar(0), in_tar(2)]));
    }

    #[test]
    fn the_line_of_a_bag_is_asked_only_where_its_rounds_have_made_different_bytes() {
        let bag = samples::bag();
        let of = |round: u32, output: &[u8]| {
            let id = TaskId { bag: bag.clone(), index: 3, round };
            let (bucket, object) = (subjects::bucket(&bag), subjects::output_name(3));
            let place = Place::Object { bucket, object, chunks: 1 };
            samples::done(&id, &Execution::random(), output, place)
        };
        let failed = TaskResult {
            outcome: Outcome::Failed(Failed::new(Cause::InputMissing, "")),
            ..of(2, b"")
        };
        assert!(agree(&[]));
        assert!(agree(&[of(0, b"a"), failed.clone(), of(1, b"a")]));
        assert!(!agree(&[of(0, b"a"), failed, of(1, b"b")]));
    }
}
