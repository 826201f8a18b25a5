//! What a bag needs of its broker.

use bagpress_broker::descriptor::{DeliveryPath, ResultPath};
use bagpress_broker::{Broker, Error, Patience, limits};
use bagpress_codec::{Codec, CodecInfo};

use crate::deliver::unserved;
use crate::error::Usage;
use crate::run_folder::specification::Specification;

/// Checks that the broker has what a bag needs; whether it has our streams.
///
/// # Errors
///
/// What is missing, or [`Error::Lost`].
pub(crate) async fn require(broker: &Broker, specification: &Specification) -> Result<bool, Error> {
    let offered = specification.delivery == DeliveryPath::QueueGroup;
    // Tasks and outcomes are kept by the gatherer; only objects need a place on the server.
    let objects = specification.results == ResultPath::Objects;
    match broker.require(&specification.pool).await {
        Err(Error::Missing { .. }) if offered => Ok(false),
        Err(Error::NoJetStream { .. }) if offered && !objects => Ok(false),
        required => required.map(|()| true),
    }
}

/// Codecs that every version of a worker knows.
const FIRST_CODECS: [&str; 4] = ["zlib", "gzip", "store", "noop"];

/// Checks that no worker of the bag's pool would fail its tasks for not knowing their codec, as a worker of an earlier
/// version does. One that is started later is not seen, and a bag without workers waits for some.
///
/// # Errors
///
/// [`Usage`](crate::Usage) with the worker; [`Error::Lost`].
pub async fn refuse_unknown_codec(
    broker: &Broker,
    specification: &Specification,
) -> anyhow::Result<()> {
    let later = later_codecs(specification);
    if later.is_empty() {
        return Ok(());
    }
    let workers = broker.workers(limits::WORKERS_ANSWER_WITHIN).await?;
    let ignorant = |codec: &&str| unserved::ignorant(&workers, &specification.pool, codec);
    match later.iter().find_map(ignorant) {
        None => Ok(()),
        Some(why) => Err(Usage::error(
            why,
            "update these workers, choose another --pool whose workers are up to date, or use gzip",
        )),
    }
}

/// The codecs of a bag that not every version of a worker knows. Each file that is restored has its own, and which they are is
/// known by the list of files alone: it may be any.
fn later_codecs(specification: &Specification) -> Vec<&'static str> {
    let is_of_the_bag = |codec: &&CodecInfo| {
        if specification.restores() {
            !codec.extension.is_empty()
        } else {
            codec.name == specification.codec.name()
        }
    };
    let codecs = Codec::all().filter(is_of_the_bag).map(|codec| codec.name);
    codecs.filter(|codec| !FIRST_CODECS.contains(codec)).collect()
}

/// Waits until the broker has what a bag needs. A bag that needs no streams waits for none.
///
/// # Errors
///
/// What is missing in the end, or [`Error::Lost`].
pub async fn wait_for_streams(
    broker: &Broker,
    specification: &Specification,
    patience: &Patience,
) -> Result<(), Error> {
    patience.streams(broker, || require(broker, specification)).await?;
    Ok(())
}
