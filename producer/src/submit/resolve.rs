//! Objects that are named to be inputs: looked up, the tars of a bag file by file where they are to be restored.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use bagpress_broker::ids::BagId;
use bagpress_broker::result::{Cause, Failed};
use bagpress_broker::{Broker, limits, subjects};
use bagpress_codec::{Codec, Digest};
use bagpress_objstore::object_ref::Reference;
use futures::{StreamExt, TryStreamExt, stream};

use crate::error::Usage;
use crate::object::lineage::may_be_made_again;
use crate::object::look::{look, look_at_what_was_made};
use crate::object::{LOOKS, Named, State};
use crate::submit::in_tars::{Listed, Tars};
use crate::submit::originals::Originals;
use crate::submit::planned::Planned;

/// Looks up what is known of objects that are to be inputs, with `restore` also of what outputs of bags were made. One that is not there yet is
/// waited for when its bag runs.
///
/// # Errors
///
/// [`Usage`] if one has another digest than its list says; if the broker does not answer.
pub async fn resolve(broker: &Broker, named: &[Named], restore: bool) -> Result<Vec<Planned>> {
    let tar = |named: &&Named| restore && tar_of_bag(&named.reference).is_some();
    let (tars, named): (Vec<_>, Vec<_>) = named.iter().partition(tar);
    let looks = stream::iter(named).map(|named| resolve_one(broker, named, restore));
    let mut planned: Vec<_> = Box::pin(looks.buffered(LOOKS)).try_collect().await?;
    if restore {
        add_originals(broker, &mut planned).await?;
    }
    for tar in tars {
        planned.append(&mut resolve_tar(broker, tar).await?);
    }
    Ok(planned)
}

/// The bag and the first task of which an object is the tar, if it is one.
fn tar_of_bag(reference: &Reference) -> Option<(BagId, u32)> {
    let (bag, _) = subjects::bag_of_bucket(reference.bucket()).filter(|(_, inputs)| !inputs)?;
    Some((bag, subjects::first_of_tar(reference.object())?))
}

/// The files of a tar, each as it is to be restored, by what the tar calls them.
async fn resolve_tar(broker: &Broker, named: &Named) -> Result<Vec<Planned>> {
    let Named { reference, digest } = named;
    let (answer, _) = look(broker, reference).await?;
    check_digest(reference, (*digest, answer.digest))?;
    let may_come = answer.ok || may_be_made_again(answer.state);
    let Some((bag, first)) = tar_of_bag(reference).filter(|_| may_come) else {
        let why = answer.why.unwrap_or_default();
        let text = format!("{reference}: {}: {why}", answer.state.as_str());
        let refused = Some(Failed::new(Cause::InputMissing, text));
        return Ok(vec![Planned { refused, ..Planned::of(reference.clone()) }]);
    };
    let originals = Originals::of_pack(broker, &bag, first).await?;
    if originals.tars().is_empty() {
        return Err(Usage::error(
            format!(
                "{reference} has the outputs of several files, and the broker has no result that says what they were made of"
            ),
            "fetch it with `bagpress object get`, unpack it with tar, and restore its files",
        ));
    }
    let (of_bag, bucket) = (broker.find_bag(&bag).await?.line, reference.bucket());
    let of_bag = of_bag.and_then(|line| line.codec.parse().ok());
    let listed = Listed::from([(reference.object().to_owned(), answer)]);
    let tasks = first.saturating_add(limits::PACK_FILES_MAX);
    let tars = Tars::read(broker, bucket, (&listed, of_bag), &originals, (tasks, true)).await?;
    let called: HashMap<_, _> = tars.found().flat_map(|tar| tar.names.clone()).collect();
    let packed = (first..tasks).filter_map(|index| Some((index, originals.packed(index)?)));
    packed.map(|packed| tars.planned(bucket, packed, called.get(&packed.0).cloned())).collect()
}

/// Refuses an object that is another than its list says.
fn check_digest(reference: &Reference, digests: (Option<Digest>, Option<Digest>)) -> Result<()> {
    match digests {
        (Some(wanted), Some(found)) if wanted != found => Err(Usage::error(
            format!("{reference} has the digest {found}, and its list says {wanted}"),
            "make the list again: somebody put other bytes there with another program",
        )),
        _ => Ok(()),
    }
}

async fn resolve_one(broker: &Broker, named: &Named, restore: bool) -> Result<Planned> {
    let Named { reference, digest } = named.clone();
    let (answer, _) = look_at_what_was_made(broker, &reference).await?;
    check_digest(&reference, (digest, answer.digest))?;
    // Which codec made what is gone for ever nobody has to know: what became of it is the reason.
    // Whether what is lost can be made again is found out when its task is published.
    let may_come =
        matches!(answer.state, State::There | State::NeverThere) || may_be_made_again(answer.state);
    if restore && !may_come {
        let why = answer.why.unwrap_or_default();
        let text = format!("{reference}: {}: {why}", answer.state.as_str());
        let refused = Some(Failed::new(Cause::InputMissing, text));
        return Ok(Planned { refused, ..Planned::of(reference) });
    }
    let mut codec: Option<Codec> = answer.codec.and_then(|codec| codec.parse().ok());
    if let (None, None, Some((bag, false))) =
        (codec, answer.bytes, subjects::bag_of_bucket(reference.bucket()))
    {
        codec = broker.find_bag(&bag).await?.line.and_then(|line| line.codec.parse().ok());
    }
    let (bytes, digest) = (answer.bytes, digest.or(answer.digest));
    Ok(Planned { bytes, digest, codec, ..Planned::of(reference) })
}

/// Adds to each object that is an output of a bag what it was made of, as far as that is known.
///
/// # Errors
///
/// If the broker does not answer.
async fn add_originals(broker: &Broker, planned: &mut [Planned]) -> Result<()> {
    let mut wanted: BTreeMap<BagId, Vec<u32>> = BTreeMap::new();
    for (bag, index, _) in planned.iter().filter_map(output) {
        wanted.entry(bag).or_default().push(index);
    }
    let mut known = HashMap::new();
    for (bag, tasks) in wanted {
        // Of an object, its digest tells the round.
        let read = Originals::read(broker, &bag, &tasks, 0).await?;
        known.insert(bag, read);
    }
    for planned in planned {
        if let Some((bag, index, digest)) = output(planned) {
            planned.original = known.get(&bag).and_then(|known| known.of(index, digest));
        }
    }
    Ok(())
}

/// Which output of which bag an object is, and its digest, if it is one that is there.
fn output(planned: &Planned) -> Option<(BagId, u32, Digest)> {
    let (bag, inputs) = subjects::bag_of_bucket(planned.reference.bucket())?;
    let index = subjects::index_of_output(planned.reference.object()).filter(|_| !inputs)?;
    Some((bag, index, planned.digest?))
}
