//! What there is: buckets, and the objects of one.

use std::time::SystemTime;

use anyhow::Result;
use bagpress_broker::{Broker, subjects};
use bagpress_objstore::object_ref::{Bucket, Error, Reference, expires};
use serde::Serialize;

use super::answer::{Answer, State, Tally, shown};
use super::holders::HolderBook;
use crate::claim::buckets::open_bucket;
use crate::error::Usage;

/// Objects that are named where a bucket is not to be removed for them.
const KEPT_NAMED: usize = 5;

/// The objects of a bucket that somebody keeps, each with who does: as many as are to be named, and how many there are.
///
/// # Errors
///
/// If the broker does not answer.
pub(crate) async fn kept_in(broker: &Broker, bucket: &str) -> Result<(Vec<String>, u64)> {
    let (mut named, mut kept) = (Vec::new(), 0);
    let listed = list(broker, bucket, true, |answer| {
        if let Some(why) = super::free::kept(answer) {
            kept += 1;
            if named.len() < KEPT_NAMED {
                named.push(format!("{}: {why}", answer.reference));
            }
        }
        Ok(())
    });
    match listed.await {
        Ok(_) => Ok((named, kept)),
        // It was removed meanwhile.
        Err(error) if error.is::<Usage>() => Ok((Vec::new(), 0)),
        Err(error) => Err(error),
    }
}

/// What is answered about one bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BucketAnswer {
    /// Its name.
    pub bucket: String,
    /// Bytes that it holds.
    pub bytes: u64,
    /// Bytes that are reserved for it; none: as many as the server takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// The bag that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bag: Option<String>,
    /// For how long anything stays in it, in s; none: until it is freed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
}

/// Lists the object buckets of a broker, by name.
///
/// # Errors
///
/// If the broker does not answer, or `tell` fails.
pub async fn buckets(
    broker: &Broker,
    mut tell: impl FnMut(&BucketAnswer) -> Result<()>,
) -> Result<()> {
    for name in Bucket::names(&broker.context_handle()).await? {
        let facts = match open_bucket(broker, &name)?.facts().await {
            Ok(facts) => facts,
            // It was removed meanwhile.
            Err(Error::NoBucket { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let ttl_s = facts.ttl.map(|ttl| ttl.as_secs());
        let (bytes, max_bytes, bag) = (facts.bytes, facts.max_bytes, facts.bag);
        tell(&BucketAnswer { bucket: name, bytes, max_bytes, bag, ttl_s })?;
    }
    Ok(())
}

/// Lists the objects of a bucket, oldest first, by their metadata alone: whether all of each is there, [`info`](super::info())
/// tells. What was freed is left out, and the list of a bag's files. With `holders`, only objects that are pinned, or that some bag reads.
///
/// # Errors
///
/// [`Usage`] if there is no such bucket; if the broker does not answer, or `tell` fails.
pub async fn list(
    broker: &Broker,
    bucket: &str,
    holders: bool,
    mut tell: impl FnMut(&Answer) -> Result<()>,
) -> Result<Tally> {
    let (book, mut tally) = (HolderBook::new(broker), Tally::default());
    let bucket = open_bucket(broker, bucket)?;
    if let Err(error) = bucket.facts().await {
        return Err(match error {
            Error::NoBucket { .. } => {
                let hint =
                    "`bagpress object ls` lists the buckets; the bucket of a bag is bag-<its id>";
                Usage::error(error.to_string(), hint)
            }
            error => error.into(),
        });
    }
    let of_a_bag = subjects::bag_of_bucket(bucket.name()).is_some();
    let mut objects = bucket.list();
    while let Some(info) = objects.next().await? {
        // It is no output; whoever keeps it is told all the same.
        if of_a_bag && !holders && info.name == subjects::TREE {
            continue;
        }
        // Another program may have given an object a name that no reference has.
        let Ok(reference) = Reference::new(bucket.name(), &info.name) else { continue };
        let held = book.of(&info.metadata).await?;
        let found = match expires(&info.metadata).filter(|at| *at <= SystemTime::now()) {
            Some(at) => {
                let why = format!("it expired {}", shown(at));
                Answer::of(&reference, State::Expired).refused(why)
            }
            None => Answer::there(&reference, &info),
        };
        let answer = Answer { holders: held, ..found };
        if !holders || !answer.pins.is_empty() || !answer.holders.is_empty() {
            tally.count(&answer);
            tell(&answer)?;
        }
    }
    Ok(tally)
}
