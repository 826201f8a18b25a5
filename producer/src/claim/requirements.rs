//! What a bag needs of its broker.

use bagpress_broker::descriptor::{DeliveryPath, ResultPath};
use bagpress_broker::{Broker, Error, Patience, limits, pack};
use bagpress_codec::Codec;

use crate::deliver::unserved;
use crate::error::Usage;
use crate::run_folder::specification::{Data, Specification};

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
/// Workers that know this one, or a later codec, give back what names a codec that they do not know.
const GIVES_BACK: &str = "zstd";

/// Checks that no worker of the bag's pool would fail its tasks for not knowing their codec or the kind of their data, as a worker
/// of an earlier version does; and that one can take them, where a codec is not in every program. One that is started later is not
/// seen, and a bag without workers waits for some.
///
/// # Errors
///
/// [`Usage`](crate::Usage) with the worker; [`Error::Lost`].
pub async fn refuse_unknown_codec(
    broker: &Broker,
    specification: &Specification,
) -> anyhow::Result<()> {
    let codecs = later_codecs(specification);
    let is_field = specification.generates_fields();
    if codecs.is_empty() && !is_field {
        return Ok(());
    }
    let workers = broker.workers(limits::WORKERS_ANSWER_WITHIN).await?;
    let pool = &specification.pool;
    let ignorant = |codec: &&str| unserved::ignorant(&workers, pool, codec);
    if let Some(why) = codecs.iter().find_map(ignorant) {
        return Err(Usage::error(
            why,
            "update these workers, choose another --pool whose workers are up to date, or use gzip",
        ));
    }
    if let Some(why) = unserved::without_fields(&workers, pool).filter(|_| is_field) {
        return Err(Usage::error(
            why,
            "update these workers, choose another --pool whose workers are up to date, or other --data",
        ));
    }
    let without_parts = || match specification.data {
        Data::Parts { .. } => unserved::without_parts(&workers, pool, pack::PARTS),
        Data::PackedParts { .. } => unserved::without_parts(&workers, pool, pack::PACKED_PARTS),
        _ => None,
    };
    if let Some(why) = without_parts() {
        return Err(Usage::error(
            why,
            "update these workers, choose another --pool whose workers are up to date, or restore with --pack 1",
        ));
    }
    let mut own = specification.codecs().map(Codec::name);
    let lacks = own.find_map(|own| {
        unserved::nobody_has(&workers, pool, own).filter(|_| !FIRST_CODECS.contains(&own))
    });
    lacks.map_or(Ok(()), |why| {
        let hint = "start workers that have it, which are built with `--features zfp`; or choose another --pool or --codec";
        Err(Usage::error(why, hint))
    })
}

/// The codecs of a bag that not every version of a worker knows, and that those which do not know them would not give back. Each
/// file that is restored has its own, and which they are is known by the list of files alone: it may be any.
fn later_codecs(specification: &Specification) -> Vec<&'static str> {
    let mut own = specification.codecs().map(Codec::name);
    let later = specification.restores() || own.any(|own| !FIRST_CODECS.contains(&own));
    if later { vec![GIVES_BACK] } else { Vec::new() }
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
