//! Lost objects are made again from what they were made of: the task that a committed result carries is run once more, and
//! before it the one that made its input, if that is lost, too. No producer has to be there, nor its run folder.

mod origin;
mod refusal;
pub(crate) mod room;
mod run;
mod tar;
mod turns;
mod workers;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use bagpress_broker::descriptor::Input;
use bagpress_broker::{Broker, subjects};
use bagpress_codec::{Codec, Digest};
use bagpress_objstore::object_ref::Reference;
use futures::FutureExt;
use futures::future::BoxFuture;

use self::origin::Origin;
use self::refusal::repair;
pub use self::refusal::{NotMade, Why};
use self::run::Runner;
use self::turns::Turns;
use super::answer::{Answer, State};
use super::look::{gone, look_at_what_was_made};
use crate::claim::buckets::open_bucket;

/// How far back one command goes to make lost objects again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconstruct {
    /// How many tasks may lie one behind the other, that of the lost object included: with 1, an object whose input is
    /// lost is not made again, and with 0 none is.
    pub depth: u32,
    /// How many tasks the command may run in all.
    pub tasks: u32,
}

impl Default for Reconstruct {
    fn default() -> Self {
        Self { depth: 16, tasks: 1_000 }
    }
}

/// Makes objects again, for one command or one bag.
#[derive(Debug)]
pub(crate) struct Lineage {
    broker: Broker,
    depth: u32,
    tasks: u32,
    /// What they were run for: an object costs one, however often it takes a try.
    spent: Mutex<HashSet<Reference>>,
    runner: Runner,
    /// Of tars, which many may want at once.
    turns: Turns,
    /// Why they were not made, where their packs were run for that: a pack is not run again for each of its files.
    not_made: Mutex<HashMap<Reference, NotMade>>,
}

/// A lost tar that can be made again, as far as that is known before.
#[derive(Debug)]
pub(crate) struct Remakable {
    /// The codec of its files.
    pub(crate) codec: Codec,
    /// The tar of their inputs, which is there.
    pub(crate) inputs: Reference,
}

/// What an input is good for.
#[derive(Debug, PartialEq, Eq)]
enum InputIs {
    /// It is there, and the bytes are those that were read then.
    Right,
    /// It is to be made again.
    Missing,
    /// Nothing can be made of it.
    Useless(Why),
}

impl Lineage {
    pub(crate) fn new(broker: &Broker, how: Reconstruct) -> Self {
        let Reconstruct { depth, tasks } = how;
        let runner = Runner::new(broker);
        let (spent, turns, not_made) = <(_, Turns, _)>::default();
        Self { broker: broker.clone(), depth, tasks, spent, runner, turns, not_made }
    }

    /// Whether an object in this state is made again when somebody asks for it. What was freed was given up, and what
    /// expired was not to stay.
    pub(crate) fn is_for(&self, state: State) -> bool {
        self.depth > 0 && may_be_made_again(state)
    }

    /// Makes a lost object again, and what it needs. How many tasks that took, or why it was not done.
    ///
    /// # Errors
    ///
    /// If the broker does not answer.
    pub(crate) async fn reconstruct(&self, lost: &Reference) -> Result<Result<u32, NotMade>> {
        self.make(lost, Vec::new()).await
    }

    /// Whether the lost tar of a pack can be made again, before that is tried; or why not.
    ///
    /// # Errors
    ///
    /// If the broker does not answer.
    pub(crate) async fn can_make(&self, tar: &Reference) -> Result<Result<Remakable, NotMade>> {
        let origin = match Origin::of(&self.broker, tar).await? {
            Ok(origin) => origin,
            Err(not_made) => return Ok(Err(not_made)),
        };
        let Input::Object { bucket, object, .. } = &origin.task.input else {
            return Ok(Err(Why::NoLineage.because("it is none of the tars of packs")));
        };
        if let Some(not_made) = self.runner.other_tar(&origin, tar).await? {
            return Ok(Err(not_made));
        }
        let inputs = Reference::new(bucket, object)?;
        let answer = self.read_back(&inputs).await?;
        Ok(match what_is(answer.state, answer.digest, origin.input_digest) {
            InputIs::Right => Ok(Remakable { codec: origin.task.codec, inputs }),
            // Nobody makes it again: its bag had put it.
            InputIs::Missing => Err(Why::NoLineage.because(useless(&answer))),
            InputIs::Useless(why) => Err(why.because(useless(&answer))),
        })
    }

    /// `above`: what is to be made of it, and of that.
    fn make<'a>(
        &'a self,
        object: &'a Reference,
        above: Vec<Reference>,
    ) -> BoxFuture<'a, Result<Result<u32, NotMade>>> {
        async move {
            if above.contains(object) {
                return Ok(Err(Why::NoLineage.because("its lineage leads back to itself")));
            }
            if above.len() >= self.depth as usize {
                let text = format!(
                    "that takes more than {} tasks one after the other (--depth)",
                    self.depth
                );
                return Ok(Err(Why::TooDeep.because(text)));
            }
            let is_tar = subjects::first_of_tar(object.object()).is_some();
            let _turn = if is_tar { Some(self.turns.of(object).await) } else { None };
            if is_tar && self.read_back(object).await?.ok {
                return Ok(Ok(0)); // since it was looked at
            }
            if let Some(not_made) = self.not_made().get(object) {
                return Ok(Err(not_made.clone()));
            }
            let origin = match Origin::of(&self.broker, object).await? {
                Ok(origin) => origin,
                Err(not_made) => return Ok(Err(not_made)),
            };
            let before = match self.have_input(&origin, object, above).await? {
                Ok(tasks) => tasks,
                Err(not_made) => return Ok(Err(not_made)),
            };
            if !self.may_spend(object) {
                let text =
                    format!("no more than {} tasks may be run for that (--budget)", self.tasks);
                return Ok(Err(Why::OverBudget.because(text)));
            }
            let ran = self.runner.run(&origin, object).await?;
            if let Err(not_made @ NotMade { why: Why::TaskFailed | Why::OtherBytes, .. }) = &ran
                && is_tar
            {
                self.not_made().insert(object.clone(), not_made.clone());
            }
            Ok(ran.map(|()| before + 1))
        }
        .boxed()
    }

    fn not_made(&self) -> MutexGuard<'_, HashMap<Reference, NotMade>> {
        self.not_made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_spend(&self, object: &Reference) -> bool {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.contains(object) || spent.len() < self.tasks as usize && spent.insert(object.clone())
    }

    /// Sees to it that the input of a task is there. How many tasks that took.
    async fn have_input(
        &self,
        origin: &Origin,
        object: &Reference,
        mut above: Vec<Reference>,
    ) -> Result<Result<u32, NotMade>> {
        let Input::Object { bucket, object: input, .. } = &origin.task.input else {
            return Ok(Ok(0)); // it is made by the worker
        };
        let input = Reference::new(bucket, input)?;
        let answer = self.read_back(&input).await?;
        match what_is(answer.state, answer.digest, origin.input_digest) {
            InputIs::Right => Ok(Ok(0)),
            InputIs::Missing => {
                above.push(object.clone());
                let made = self.make(&input, above).await?;
                Ok(made.map_err(|NotMade { why, text }| {
                    let (input, state) = (&answer.reference, answer.state.as_str());
                    why.because(format!("its input {input} is {state}, and {text}"))
                }))
            }
            InputIs::Useless(why) => Ok(Err(why.because(useless(&answer)))),
        }
    }

    /// What is there of an object, after every byte was read: a task that fails for its input takes a round.
    async fn read_back(&self, reference: &Reference) -> Result<Answer> {
        let (answer, found) = look_at_what_was_made(&self.broker, reference).await?;
        let Some(info) = found else { return Ok(answer) };
        let bucket = open_bucket(&self.broker, reference.bucket())?;
        match bucket.read_back(&info).await {
            Ok(()) => Ok(answer),
            Err(error) => gone(&self.broker, &bucket, reference, error).await,
        }
    }
}

/// Whether an object in this state is not gone for good, as far as its state tells.
pub(crate) fn may_be_made_again(state: State) -> bool {
    matches!(state, State::Lost | State::Corrupt | State::Deleted)
}

/// What an input of this state and digest is good for, of which a task once read `wanted`. One that expired is made again for what
/// is made of it, and expires again.
fn what_is(state: State, digest: Option<Digest>, wanted: Digest) -> InputIs {
    match state {
        State::There if digest == Some(wanted) => InputIs::Right,
        State::There => InputIs::Useless(Why::OtherBytes),
        State::Lost | State::Corrupt | State::Deleted | State::Expired => InputIs::Missing,
        State::Freed | State::InputFreed => InputIs::Useless(Why::InputFreed),
        State::NeverThere | State::Unreadable => InputIs::Useless(Why::InputGone),
    }
}

/// That nothing can be made of an input, for people.
fn useless(input: &Answer) -> String {
    let (reference, state) = (&input.reference, input.state.as_str());
    match &input.why {
        None => format!("its input {reference} has other bytes now"),
        // Of files that were twins of others none was put.
        Some(why) => match subjects::bag_of_bucket(reference.bucket()) {
            Some((bag, true)) => format!(
                "its input {reference} is {state}: {why}; where the files and the run folder are, {} puts it again, and with \
                 --keep-inputs a bag keeps its inputs",
                repair(&bag)
            ),
            _ => format!("its input {reference} is {state}: {why}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_made_again_unless_somebody_gave_it_up_or_nobody_had_it() {
        let (wanted, other) = (Digest::of(b"a"), Digest::of(b"b"));
        for state in [State::Lost, State::Corrupt, State::Deleted, State::Expired] {
            assert_eq!(what_is(state, None, wanted), InputIs::Missing, "{state:?}");
        }
        for (state, why) in [
            (State::Freed, Why::InputFreed),
            (State::InputFreed, Why::InputFreed),
            (State::NeverThere, Why::InputGone),
            (State::Unreadable, Why::InputGone),
        ] {
            assert_eq!(what_is(state, None, wanted), InputIs::Useless(why), "{state:?}");
        }
        assert_eq!(what_is(State::There, Some(wanted), wanted), InputIs::Right);
        for digest in [Some(other), None] {
            let found = what_is(State::There, digest, wanted);
            assert_eq!(found, InputIs::Useless(Why::OtherBytes));
        }
    }
}
