//! Who gathers a bag: the bag's line, the lease on it, and what the bag needs of its broker.

pub(crate) mod buckets;
mod finding;
pub(crate) mod holder;
pub(crate) mod lease;
pub(crate) mod line;
pub(crate) mod requirements;
