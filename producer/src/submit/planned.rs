//! Objects that are to be inputs: what is known of each when the bag is made.

use anyhow::Result;
use bagpress_broker::{Broker, subjects};
use bagpress_codec::{Codec, Digest};
use bagpress_objstore::object_ref::Reference;
use futures::{StreamExt, TryStreamExt, stream};

use crate::error::Usage;
use crate::object::look::look;
use crate::object::{LOOKS, Named};

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
}

/// Looks up what is known of objects that are to be inputs. One that is not there yet is waited for when its bag runs.
///
/// # Errors
///
/// [`Usage`] if one has another digest than its list says; if the broker does not answer.
pub async fn resolve(broker: &Broker, named: &[Named]) -> Result<Vec<Planned>> {
    let looks = stream::iter(named).map(|named| resolve_one(broker, named));
    Box::pin(looks.buffered(LOOKS)).try_collect().await
}

async fn resolve_one(broker: &Broker, named: &Named) -> Result<Planned> {
    let Named { reference, digest } = named.clone();
    let (answer, _) = look(broker, &reference).await?;
    if let (Some(wanted), Some(found)) = (digest, answer.digest)
        && wanted != found
    {
        return Err(Usage::error(
            format!("{reference} has the digest {found}, and its list says {wanted}"),
            "make the list again: somebody put other bytes there with another program",
        ));
    }
    let mut codec: Option<Codec> = answer.codec.and_then(|codec| codec.parse().ok());
    if let (None, None, Some((bag, false))) =
        (codec, answer.bytes, subjects::bag_of_bucket(reference.bucket()))
    {
        codec = broker.find_bag(&bag).await?.line.and_then(|line| line.codec.parse().ok());
    }
    Ok(Planned { reference, bytes: answer.bytes, digest: digest.or(answer.digest), codec })
}
