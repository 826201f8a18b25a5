//! Inputs that are objects: looked up when their tasks are published, noted as held, made again if they are lost, and waited for while
//! they are not there.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bagpress_broker::result::{Cause, Failed};
use bagpress_broker::{limits, subjects};
use bagpress_codec::Digest;
use bagpress_objstore::object_ref::{self, Bucket, Info};
use bagpress_objstore::tarred::slice;
use futures::{StreamExt, stream};
use tracing::{debug, info};

use crate::claim::buckets::open_bucket;
use crate::object::look::{gone, look, look_at_what_was_made, not_what_was_made};
use crate::object::{Answer, LOOKS, NotMade, State, Why};
use crate::publish::forming::Forming;
use crate::publish::publisher::Publisher;
use crate::run_folder::inputs::{InputEntry, Referenced};
use crate::run_folder::ledger::Key;

/// Between two looks at objects that are not there yet.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

impl Publisher {
    /// The input of a task as it is there, held by the bag from now on. None if it is not there yet, which is noted, or if that
    /// was the end of its task.
    pub(super) async fn there(&self, (index, round): Key, entry: InputEntry) -> Option<InputEntry> {
        let referenced = entry.reference.clone()?;
        let looked = self.found((&referenced, entry.bytes), round).await?;
        match (looked.state, looked.bytes) {
            (State::There, Some(bytes)) => {
                if entry.bytes == 0 && bytes > 0 && referenced.part.is_none() {
                    self.make_room(bytes).await;
                }
                let digest = referenced.digest.or(looked.digest);
                // Of a part it is known since the bag was made.
                let bytes = if referenced.part.is_some() { entry.bytes } else { bytes };
                let reference = Some(Referenced { digest, ..referenced });
                Some(InputEntry { bytes, reference, ..entry })
            }
            (State::NeverThere, _) => {
                self.shared.awaited.tasks().insert(index, (round, entry));
                None
            }
            _ => {
                let why = not_there(&looked, &entry);
                Box::pin(self.fail(index, round, why)).await;
                None
            }
        }
    }

    /// Publishes a pack whose files are parts of one object. If that is not there each is run alone, and waits or fails by its name.
    pub(super) async fn pack_of_parts(&self, pack: Forming, message_id: bool) {
        let Forming { first, entry, parts, .. } = pack;
        let Some(referenced) = entry.reference.clone() else { return };
        let Some(looked) = Box::pin(self.found((&referenced, entry.bytes), 0)).await else {
            return;
        };
        let digest = referenced.digest.filter(|_| looked.state == State::There);
        let Some(digest) = digest else {
            return Box::pin(self.fail(first, 0, not_there(&looked, &entry))).await;
        };
        let task = self.shared.plan.specification.parts_descriptor(first, &entry, (digest, parts));
        self.deliver(&task, message_id).await;
    }

    /// An object that is an input, or has it, as it is now that it is looked at, made again if it was lost, and held if it is there. None
    /// when publishing gives way.
    async fn found(&self, (referenced, bytes): (&Referenced, u64), round: u32) -> Option<Answer> {
        let (mut made_again, mut waited) = (false, false);
        let looked = loop {
            let looked = match self.look_and_hold((referenced, bytes), round).await {
                Ok(looked) if !made_again && self.shared.lineage.is_for(looked.state) => {
                    (made_again, waited) = (true, true);
                    self.shared.obstacle.set(runs_first(&looked));
                    let making = self.shared.lineage.reconstruct(&referenced.object);
                    let made = self.shared.window.unless_it_gives_way(making).await?;
                    match made {
                        // As with its own tasks: the bag waits for a worker.
                        Ok(Err(NotMade { why: Why::NoWorkers, text })) => {
                            Err(anyhow::anyhow!("{} is lost: {text}", referenced.object))
                        }
                        made => made.map(|made| made.err().map(|why| looked.not_made(why))),
                    }
                }
                looked => looked.map(Some),
            };
            match looked {
                Ok(Some(looked)) => break looked,
                Ok(None) => {}
                Err(error) => {
                    (made_again, waited) = (false, true);
                    debug!(%error, "an input is not looked up now");
                    self.shared.obstacle.set(format!("{error:#}"));
                    if self.shared.window.pause(LOOK_AGAIN).await {
                        return None;
                    }
                }
            }
        };
        if waited {
            self.shared.obstacle.clear();
        }
        Some(looked)
    }

    /// Of a task that is run again, it may be for its input: every byte is read then.
    async fn look_and_hold(
        &self,
        (input, bytes): (&Referenced, u64),
        round: u32,
    ) -> anyhow::Result<Answer> {
        let (broker, reference) = (&self.shared.broker, &input.object);
        let (answer, found) = look_at_what_was_made(broker, reference).await?;
        let answer = of_tar(input, answer);
        if let Some(found) = found.filter(|_| answer.ok) {
            let bag = self.shared.plan.specification.bag.as_str();
            let bucket = open_bucket(broker, reference.bucket())?;
            if round > 0
                && let Err(error) = read_again(&bucket, &found, input, bytes).await
            {
                return gone(broker, &bucket, reference, error).await;
            }
            let holding =
                bucket.relabel(reference.object(), |labels| object_ref::hold(labels, bag));
            if let Err(error) = holding.await {
                // Freed between the two, or nearly: the next look tells.
                anyhow::ensure!(!error.is_transient(), error);
                return Ok(look(broker, reference).await?.0);
            }
        }
        Ok(answer)
    }

    /// Reserves room for the output of an input whose size was not known when the bag was made.
    async fn make_room(&self, bytes: u64) {
        let specification = &self.shared.plan.specification;
        if !specification.has_objects() {
            return;
        }
        let came = self.shared.awaited.came.fetch_add(bytes, Relaxed) + bytes;
        let needed = specification.bucket_bytes() + came + came / 256;
        let Ok(bucket) = open_bucket(&self.shared.broker, &subjects::bucket(&specification.bag))
        else {
            return;
        };
        if let Err(error) = bucket.grow_to(needed).await {
            // Then the bucket is full at some time, which is said.
            info!(%error, needed, "no room reserved for the output of an input that came");
        }
    }

    /// Publishes each task whose input was not there, when it is. Ends before the last one when it is to give way.
    pub(super) async fn publish_what_comes(&self, message_id: bool) {
        let tasks = self.shared.plan.specification.tasks;
        while let Some(why) = self.shared.awaited.text(tasks) {
            self.shared.awaited.why.set(why.clone());
            self.shared.obstacle.set(why);
            if self.shared.window.pause(LOOK_AGAIN).await {
                self.shared.awaited.why.clear();
                return;
            }
            let waiting = std::mem::take(&mut *self.shared.awaited.tasks());
            let open = waiting
                .into_iter()
                .filter(|(index, (round, _))| self.shared.plan.is_task_open((*index, *round)));
            let sending = stream::iter(open)
                .map(|(index, (round, entry))| self.one(index, round, Some(entry), message_id));
            sending.buffer_unordered(LOOKS).for_each(|()| std::future::ready(())).await;
        }
        self.shared.awaited.why.clear();
        self.shared.obstacle.clear();
    }
}

/// Why a task has no input.
fn not_there(looked: &Answer, entry: &InputEntry) -> Failed {
    let (state, why) = (looked.state.as_str(), looked.why.as_deref().unwrap_or_default());
    Failed::new(Cause::InputMissing, format!("{}: {state}: {why}", entry.path.display()))
}

/// The same answer, unless the input is a part of an object that another program has put there: its bag's results do not name it by
/// a task.
fn of_tar(input: &Referenced, answer: Answer) -> Answer {
    let wanted = input.digest.filter(|_| input.part.is_some());
    match (wanted, answer.digest) {
        (Some(wanted), Some(found)) if wanted != found => {
            not_what_was_made(&input.object, found, wanted)
        }
        _ => answer,
    }
}

/// Reads every byte of an input. What is beside a part does no harm to it.
async fn read_again(
    bucket: &Bucket,
    info: &Info,
    input: &Referenced,
    bytes: u64,
) -> Result<(), object_ref::Error> {
    let Some(part) = input.part else { return bucket.read_back(info).await };
    let tar = bucket.read_parts(info, limits::TAR_BYTES_MAX).await?;
    let found = Digest::of(&slice(&tar, part.at, bytes).unwrap_or_default());
    if found == part.digest {
        return Ok(());
    }
    let (bucket, object, wanted) = (info.bucket.clone(), info.name.clone(), part.digest);
    Err(object_ref::Error::Digest { bucket, object, found, wanted })
}

/// That an input is made again, for people.
fn runs_first(lost: &Answer) -> String {
    let (reference, state) = (&lost.reference, lost.state.as_str());
    format!(
        "{reference} is {state}: the task that makes it is run again first, which takes a worker"
    )
}
