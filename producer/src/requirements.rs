//! What a bag needs of its broker.

use bagpress_broker::descriptor::{DeliveryPath, ResultPath};
use bagpress_broker::{Broker, Error};

use crate::spec::Specification;

/// Checks that the broker has what a bag needs; whether it has our streams.
///
/// # Errors
///
/// What is missing, or [`Error::Lost`].
pub(crate) async fn require(broker: &Broker, specification: &Specification) -> Result<bool, Error> {
    let required = broker.require(&specification.pool).await;
    // Tasks and outcomes are kept by who gathers; only objects need a place on the server.
    let bucket = specification.results == ResultPath::Objects;
    match required {
        Err(Error::NoJetStream { .. } | Error::Missing { .. })
            if specification.delivery == DeliveryPath::QueueGroup && !bucket =>
        {
            Ok(false)
        }
        Err(Error::Missing { .. }) if specification.delivery == DeliveryPath::QueueGroup => {
            Ok(false)
        }
        required => required.map(|()| true),
    }
}
