//! The handles by which a bag is looked at and acted on.

use std::sync::Arc;

use bagpress_broker::Broker;
use bagpress_objstore::staging::{Parts, Receiver};

use crate::claim::lease::BagLease;
use crate::deliver::wake::Waker;
use crate::deliver::watch::Watch;
use crate::publish::Publisher;
use crate::run_folder::plan::BagPlan;

/// One handle a thing that has a state of its own; here is none. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    pub(crate) broker: Broker,
    pub(crate) plan: BagPlan,
    pub(crate) lease: BagLease,
    pub(crate) watch: Watch,
    pub(crate) waker: Waker,
    pub(crate) publisher: Publisher,
    /// Where outputs become files, if they do.
    pub(crate) parts: Option<Arc<Parts>>,
    /// Serves uploads and inputs, if the bag needs them.
    pub(crate) receiver: Option<Arc<Receiver>>,
}
