//! Pinning objects, so that nobody frees them.

use anyhow::Result;
use bagpress_broker::{Broker, quote, subjects};
use bagpress_objstore::object_ref::{self, Reference, expires, is_pin_name};
use futures::{StreamExt, stream};

use super::acting::{LOOKS, by};
use super::answer::{Answer, Tally, shown};
use super::holders::HolderBook;
use super::look::{gone, look};
use crate::claim::buckets::open_bucket;
use crate::error::Usage;

/// Pins objects under a name: until each of its pins is taken away, nothing of ours frees an object, or removes its bag. What
/// expires is not pinned, as no pin keeps its chunks; nor is an input that its bag frees.
///
/// # Errors
///
/// [`Usage`] if the name is none for a pin; if the broker does not answer, or `tell` fails.
pub async fn pin(
    broker: &Broker,
    references: &[Reference],
    name: &str,
    tell: impl FnMut(&Answer) -> Result<()>,
) -> Result<Tally> {
    change(broker, references, name, true, tell).await
}

/// Takes the pins of a name away. An object that has none of that name is as it should be.
///
/// # Errors
///
/// As [`pin()`].
pub async fn unpin(
    broker: &Broker,
    references: &[Reference],
    name: &str,
    tell: impl FnMut(&Answer) -> Result<()>,
) -> Result<Tally> {
    change(broker, references, name, false, tell).await
}

async fn change(
    broker: &Broker,
    references: &[Reference],
    name: &str,
    pins: bool,
    mut tell: impl FnMut(&Answer) -> Result<()>,
) -> Result<Tally> {
    if !is_pin_name(name) {
        return Err(Usage::error(
            format!("{} is no name of a pin", quote::name(name)),
            "use 1 to 64 letters, digits, dots, - and _",
        ));
    }
    let book = HolderBook::new(broker);
    let changing =
        stream::iter(references).map(|reference| change_one(broker, &book, reference, name, pins));
    let (mut changing, mut tally) = (Box::pin(changing.buffer_unordered(LOOKS)), Tally::default());
    while let Some(answer) = changing.next().await {
        let answer = answer?;
        tally.count(&answer);
        tell(&answer)?;
    }
    Ok(tally)
}

async fn change_one(
    broker: &Broker,
    book: &HolderBook,
    reference: &Reference,
    name: &str,
    pins: bool,
) -> Result<Answer> {
    let (answer, found) = look(broker, reference).await?;
    let Some(info) = found else { return Ok(answer) };
    let bucket = open_bucket(broker, reference.bucket())?;
    if pins {
        if let Some(at) = expires(&info.metadata) {
            let why = format!("it expires {}, and no pin keeps it", shown(at));
            return Ok(answer.refused(why));
        }
        if let Some(ttl) = bucket.facts().await?.ttl {
            let ttl = humantime::format_duration(ttl);
            return Ok(answer.refused(format!("its bucket keeps nothing longer than {ttl}")));
        }
        if subjects::bag_of_bucket(reference.bucket()).is_some_and(|(_, inputs)| inputs) {
            return Ok(answer.refused("it is an input that its bag frees; put the file itself"));
        }
    }
    let by = by();
    let labelled = bucket.relabel(reference.object(), |labels| {
        if pins { object_ref::pin(labels, name, &by) } else { object_ref::unpin(labels, name) }
    });
    match labelled.await {
        Ok(info) => {
            let holders = book.of(&info.metadata).await?;
            Ok(Answer { holders, ..Answer::there(reference, &info) })
        }
        Err(error) => gone(broker, &bucket, reference, error).await,
    }
}
