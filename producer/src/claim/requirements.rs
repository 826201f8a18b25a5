//! What a bag needs of its broker.

use bagpress_broker::descriptor::{DeliveryPath, ResultPath};
use bagpress_broker::{Broker, Error, Patience};

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
