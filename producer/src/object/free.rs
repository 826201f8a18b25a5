//! Freeing objects, unless somebody keeps them.

use anyhow::Result;
use bagpress_broker::{BagState, Broker, subjects};
use bagpress_objstore::object_ref::{Error, Freed, Lookup, Reference};
use futures::{StreamExt, stream};

use super::acting::{LOOKS, by};
use super::answer::{Answer, State, Tally};
use super::holders::HolderBook;
use super::look::{gone, look};
use crate::claim::buckets::open_bucket;

/// Times that an object may turn out to be labelled anew while it is freed.
const RACES_MAX: u32 = 8;

/// Frees objects: their bytes go, and a tombstone says by whom, and when. One that is pinned, that a bag reads, or that belongs to a
/// bag which is not over, stays. One that was freed before is done.
///
/// # Errors
///
/// If the broker does not answer, or `tell` fails.
pub async fn free(
    broker: &Broker,
    references: &[Reference],
    mut tell: impl FnMut(&Answer) -> Result<()>,
) -> Result<Tally> {
    let book = HolderBook::new(broker);
    let freeing = stream::iter(references).map(|reference| free_one(broker, &book, reference));
    let (mut freeing, mut tally) = (Box::pin(freeing.buffer_unordered(LOOKS)), Tally::default());
    while let Some(answer) = freeing.next().await {
        let answer = answer?;
        tally.count(&answer);
        tell(&answer)?;
    }
    Ok(tally)
}

async fn free_one(broker: &Broker, book: &HolderBook, reference: &Reference) -> Result<Answer> {
    if let Some(why) = belongs_to_a_bag_that_runs(broker, reference).await? {
        let (answer, _) = look(broker, reference).await?;
        return Ok(answer.refused(why));
    }
    let bucket = open_bucket(broker, reference.bucket())?;
    for _ in 0..RACES_MAX {
        let found = match bucket.info_from_leader(reference.object()).await {
            Ok(Lookup::Found(info)) => info,
            Ok(Lookup::Deleted { freed: Some(_), token, shared, .. }) => {
                // Who freed it may have died before its chunks were gone.
                bucket.finish_removal(&token, shared).await?;
                return Ok(Answer { ok: true, ..look(broker, reference).await?.0 });
            }
            Ok(lookup) => match lookup.found(reference.bucket(), reference.object()) {
                Ok(info) => info,
                Err(error) => return gone(broker, &bucket, reference, error).await,
            },
            Err(error) => return gone(broker, &bucket, reference, error).await,
        };
        let holders = book.of(&found.metadata).await?;
        let answer = Answer { holders, ..Answer::there(reference, &found) };
        if let Some(why) = kept(&answer) {
            return Ok(answer.refused(why));
        }
        let freed = Freed { by: by(), is_input: false, at: None };
        if bucket.free_exactly(&found, &freed).await? {
            forget_its_task(broker, reference).await?;
            let ok = Answer { ok: true, ..Answer::of(reference, State::Freed) };
            return Ok(Answer { bytes: Some(found.bytes), ..ok });
        }
    }
    let cause = format!("{reference} changes all the time");
    Err(Error::Unanswered { what: "free an object", cause }.into())
}

/// Takes a task out of the queue that was to make an object again for somebody who has gone.
async fn forget_its_task(broker: &Broker, freed: &Reference) -> Result<()> {
    let name = subjects::name_of(freed.object());
    let index = subjects::index_of_output(name).or_else(|| subjects::first_of_tar(name));
    if let (Some((bag, false)), Some(index)) = (subjects::bag_of_bucket(freed.bucket()), index) {
        broker.purge_task(&bag, index).await?;
    }
    Ok(())
}

/// Why an object is not to be freed, if somebody keeps it.
pub(crate) fn kept(answer: &Answer) -> Option<String> {
    let pins: Vec<_> = answer.pins.iter().map(|pin| format!("{:?}", pin.name)).collect();
    let bags: Vec<_> =
        answer.holders.iter().map(|held| format!("{} ({})", held.bag, held.is)).collect();
    match (&pins[..], &bags[..]) {
        ([], []) => None,
        ([], _) => Some(format!("it is an input of bag {}", bags.join(", "))),
        (_, []) => Some(format!("it is pinned as {}", pins.join(", "))),
        _ => Some(format!(
            "it is pinned as {}, and an input of {}",
            pins.join(", "),
            bags.join(", ")
        )),
    }
}

async fn belongs_to_a_bag_that_runs(
    broker: &Broker,
    reference: &Reference,
) -> Result<Option<String>> {
    let Some((bag, _)) = subjects::bag_of_bucket(reference.bucket()) else { return Ok(None) };
    let state = broker.find_bag(&bag).await?.line.map(|line| line.state);
    let runs = state.filter(|state| matches!(state, BagState::Submitting | BagState::Running));
    Ok(runs.map(|state| {
        format!(
            "it belongs to bag {bag}, which is {state}; wait until it is finished, or cancel it"
        )
    }))
}
