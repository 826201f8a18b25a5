//! What an object was made of: the task that the committed result of its bag carries.

use anyhow::Result;
use bagpress_broker::descriptor::{Input, ResultPath, TaskDescriptor};
use bagpress_broker::ids::{BagId, Pool};
use bagpress_broker::result::{TaskResult, wall_clock_us};
use bagpress_broker::{BagLine, Broker, Standing, limits, subjects};
use bagpress_codec::Digest;
use bagpress_objstore::object_ref::Reference;

use super::refusal::{NotMade, Why, called_off, repair};
use super::room::Outputs;
use super::tar::{Pack, pack_of_tar};
use crate::object::look::{as_committed, of_last_round, results_of};

/// How many rounds above the highest readable one are looked at for one that nothing was committed of.
pub(super) const ROUNDS_TRIED: u32 = 8;

/// The task that makes an object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Origin {
    /// As it is to be published: in a round of which there is no outcome.
    pub(super) task: TaskDescriptor,
    /// Whose workers run it.
    pub(super) pool: Pool,
    /// What the task read.
    pub(super) input_digest: Digest,
    /// What the object must have.
    pub(super) digest: Digest,
    /// Its size.
    pub(super) bytes: u64,
    /// What its bag says of all its outputs.
    pub(super) outputs: Outputs,
    /// Of a tar, the name that its worker gave it.
    pub(super) named: Option<String>,
}

impl Origin {
    /// Finds it.
    ///
    /// # Errors
    ///
    /// If the broker does not answer.
    pub(super) async fn of(broker: &Broker, object: &Reference) -> Result<Result<Self, NotMade>> {
        let (bag, of) = match task_of(object) {
            Ok(task) => task,
            Err(not_made) => return Ok(Err(not_made)),
        };
        let found = broker.find_bag(&bag).await?;
        if found.is_called_off() {
            return Ok(Err(called_off(&bag)));
        }
        let Some(line) = found.line else {
            let text = format!("nothing is known of bag {bag}");
            return Ok(Err(Why::NoLineage.because(text)));
        };
        let origin = match of {
            Made::Alone(index) => origin(&line, &results_of(broker, &bag, index).await?),
            Made::Tar(first) => {
                origin_of_tar(&line, first, &as_committed(broker, &bag, first).await?)
            }
        };
        let mut origin = match origin {
            Ok(origin) => origin,
            Err(not_made) => return Ok(Err(not_made)),
        };
        // What cannot be read has taken its round all the same.
        for _ in 0..ROUNDS_TRIED {
            if matches!(broker.standing(&origin.task.id()).await?, Standing::Open) {
                break;
            }
            origin.task.round += 1;
        }
        Ok(Ok(origin))
    }
}

/// What made an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    /// This task.
    Alone(u32),
    /// The pack that this file begins.
    Tar(u32),
}

/// What makes objects of this name.
fn task_of(object: &Reference) -> Result<(BagId, Made), NotMade> {
    let Some((bag, inputs)) = subjects::bag_of_bucket(object.bucket()) else {
        return Err(Why::NoLineage.because("it was put, and no task made it"));
    };
    if inputs {
        return Err(Why::NoLineage.because(format!("bag {bag} put it, and no task made it")));
    }
    let name = subjects::name_of(object.object());
    let alone = subjects::index_of_output(name).map(Made::Alone);
    let made = alone.or_else(|| subjects::first_of_tar(name).map(Made::Tar));
    let made = made.ok_or_else(|| Why::NoLineage.because("no task has an output of that name"))?;
    Ok((bag, made))
}

/// What makes a task's output again, by the committed results of all its rounds.
fn origin(line: &BagLine, results: &[TaskResult]) -> Result<Origin, NotMade> {
    let Some((result, done)) = of_last_round(line, results) else {
        let text = format!(
            "the broker has no result of it, as of a small file that is a copy of another one; {} makes it again where the files and the \
             run folder are",
            repair(&line.bag)
        );
        return Err(Why::NoLineage.because(text));
    };
    let task = result.descriptor.as_deref().filter(|task| {
        task.id() == result.id()
            && task.results == ResultPath::Objects
            && task.packed().is_none()
            && result.fits(&task.codec, ResultPath::Objects)
    });
    let Some(task) = task else {
        let text = format!("the result of bag {} does not say what it was made of", line.bag);
        return Err(Why::NoLineage.because(text));
    };
    let mut task = task.clone();
    task.round = next_round(line, results)?;
    task.published_us = wall_clock_us();
    let mut input_digest = done.input_digest;
    match &mut task.input {
        // The part has its own.
        Input::Object { digest: Some(digest), part: Some(_), .. } => input_digest = *digest,
        // Whatever has the name by then.
        Input::Object { digest, .. } => *digest = Some(done.input_digest),
        Input::Generate { .. } | Input::File { .. } => {}
    }
    Ok(Origin {
        task,
        pool: line.pool.clone(),
        input_digest,
        digest: done.output_digest,
        bytes: done.output_bytes,
        outputs: Outputs::of(line),
        named: None,
    })
}

/// What makes the tar of the pack again that `first` begins, by all that is committed of it.
fn origin_of_tar(line: &BagLine, first: u32, committed: &[TaskResult]) -> Result<Origin, NotMade> {
    let round = next_round(line, committed)?;
    let Pack { task, input_digest, digest, bytes, named } =
        pack_of_tar((&line.bag, first), committed, round)?;
    let (pool, outputs, named) = (line.pool.clone(), Outputs::of(line), Some(named));
    Ok(Origin { task, pool, input_digest, digest, bytes, outputs, named })
}

/// A round above all that are known of a task.
fn next_round(line: &BagLine, results: &[TaskResult]) -> Result<u32, NotMade> {
    let highest = results.iter().map(|result| result.round).max().unwrap_or(0).max(line.rounds);
    if highest >= limits::ROUND_MAX - 2 * ROUNDS_TRIED {
        return Err(Why::NoLineage.because("its task was run too often"));
    }
    Ok(highest + 1)
}

#[cfg(test)]
mod tests {
    use bagpress_broker::ids::{Execution, TaskId};
    use bagpress_broker::result::Place;
    use bagpress_broker::{BagState, samples};

    use super::*;

    /// A task's result in a round, whose output are these bytes.
    fn result(bag: &BagId, round: u32, output: &[u8]) -> TaskResult {
        let id = TaskId { bag: bag.clone(), index: 3, round };
        let bucket = subjects::bucket(bag);
        let place = Place::Object { bucket, object: subjects::output_name(3), chunks: 1 };
        let descriptor = samples::task(bag, 3, ResultPath::Objects);
        let descriptor = Some(Box::new(TaskDescriptor { round, ..descriptor }));
        TaskResult { descriptor, ..samples::done(&id, &Execution::random(), output, place) }
    }

    #[test]
    fn an_object_is_what_the_last_round_gave_that_a_gatherer_began_and_no_later_one() {
        let bag = samples::bag();
        let mut line = samples::line(&bag, BagState::Finished);
        let results = [result(&bag, 0, b"first"), result(&bag, 2, b"other"), result(&bag, 1, b"x")];
        for (rounds, digest, next) in [(0, &b"first"[..], 3), (1, b"x", 3), (5, b"other", 6)] {
            line.rounds = rounds;
            let origin = origin(&line, &results).unwrap();
            assert_eq!(origin.digest, Digest::of(digest), "{rounds}");
            assert_eq!((origin.task.round, origin.task.index), (next, 3));
        }
    }

    #[test]
    fn the_input_must_be_what_the_task_read() {
        let bag = samples::bag();
        let mut made = result(&bag, 0, b"output");
        let input = Input::Object {
            bucket: "b".to_owned(),
            object: "o".to_owned(),
            name: String::new(),
            bytes: 1,
            digest: None,
            part: None,
        };
        made.descriptor.as_mut().unwrap().input = input;
        let origin = origin(&samples::line(&bag, BagState::Finished), &[made]).unwrap();
        let Input::Object { digest, .. } = origin.task.input else { panic!("{origin:?}") };
        assert_eq!(digest, Some(origin.input_digest));
    }

    #[test]
    fn what_no_task_made_or_nobody_wrote_down_has_no_lineage() {
        for name in ["obj://objects/a", "obj://bag-t-abcdefgh-in/in_0", "obj://bag-t-abcdefgh/x"] {
            let refused = task_of(&name.parse().unwrap()).unwrap_err();
            assert_eq!(refused.why, Why::NoLineage, "{name}");
        }
        for name in ["out_7.tar", "out_7.tar~7-0a"] {
            let tar = task_of(&format!("obj://bag-t-abcdefgh/{name}").parse().unwrap());
            assert_eq!(tar.unwrap().1, Made::Tar(7), "{name}");
        }
        let bag = samples::bag();
        let line = samples::line(&bag, BagState::Finished);
        assert_eq!(origin(&line, &[]).unwrap_err().why, Why::NoLineage);
        let silent = TaskResult { descriptor: None, ..result(&bag, 0, b"output") };
        assert_eq!(origin(&line, &[silent]).unwrap_err().why, Why::NoLineage);
    }
}
