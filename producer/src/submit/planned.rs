//! Objects that are to be inputs: what is known of each when the bag is made.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use anyhow::Result;
use bagpress_broker::descriptor::Original;
use bagpress_broker::ids::BagId;
use bagpress_broker::result::{Cause, Failed};
use bagpress_broker::{Broker, subjects};
use bagpress_codec::{Codec, Digest};
use bagpress_objstore::object_ref::Reference;
use futures::{StreamExt, TryStreamExt, stream};

use crate::error::Usage;
use crate::object::lineage::may_be_made_again;
use crate::object::look::look_at_what_was_made;
use crate::object::{LOOKS, Named, State};
use crate::submit::originals::Originals;

/// An object that is to be an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Which.
    pub reference: Reference,
    /// Its size; none if it is not there yet.
    pub bytes: Option<u64>,
    /// Digest of its bytes; none if nobody has said it yet.
    pub digest: Option<Digest>,
    /// The codec that made it, if its metadata says so, or the line of the bag that is to make it.
    pub codec: Option<Codec>,
    /// What it was made of, if that is known: what it is restored to is compared with that.
    pub original: Option<Original>,
    /// What it is called when it is restored, below the outputs' folder, if that does not follow from its own name.
    pub target: Option<PathBuf>,
    /// Why it cannot be an input.
    pub refused: Option<Failed>,
}

impl Planned {
    /// One of which nothing more is known.
    pub(super) fn of(reference: Reference) -> Self {
        let (original, target, refused) = (None, None, None);
        Self { reference, bytes: None, digest: None, codec: None, original, target, refused }
    }
}

/// Looks up what is known of objects that are to be inputs, with `restore` also of what outputs of bags were made. One that is not there yet is
/// waited for when its bag runs.
///
/// # Errors
///
/// [`Usage`] if one has another digest than its list says; if the broker does not answer.
pub async fn resolve(broker: &Broker, named: &[Named], restore: bool) -> Result<Vec<Planned>> {
    let looks = stream::iter(named).map(|named| resolve_one(broker, named, restore));
    let mut planned: Vec<_> = Box::pin(looks.buffered(LOOKS)).try_collect().await?;
    if restore {
        add_originals(broker, &mut planned).await?;
    }
    Ok(planned)
}

async fn resolve_one(broker: &Broker, named: &Named, restore: bool) -> Result<Planned> {
    let Named { reference, digest } = named.clone();
    let (answer, _) = look_at_what_was_made(broker, &reference).await?;
    if let (Some(wanted), Some(found)) = (digest, answer.digest)
        && wanted != found
    {
        return Err(Usage::error(
            format!("{reference} has the digest {found}, and its list says {wanted}"),
            "make the list again: somebody put other bytes there with another program",
        ));
    }
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
        let read = Originals::read(broker, &bag, &tasks).await?;
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
