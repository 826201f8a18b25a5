//! What travels through NATS, and where: descriptors, results, subjects, streams, deliveries,
//! leases, and the supervised nats-server.
//!
//! Only this crate and `objstore` name the NATS client; everybody else speaks of bags and tasks.
//!
//! - `wire/` says what travels; it does no I/O.
//! - `connection/` has the [`Broker`], the handle that everything else is a method of or is given.
//! - `queue/` is the JetStream side, `group/` the queue group's, `bags/` what is known of whole bags.
//! - [`server`] supervises a nats-server, [`roles`] says who may do what on one.
//! - [`limits`] has every bound, [`retry`] the one way to try again, [`Error`] what can go wrong.

mod bags;
mod connection;
mod error;
mod group;
pub mod limits;
mod loss;
pub mod machine;
mod queue;
pub mod quote;
pub mod retry;
pub mod roles;
pub mod secret;
pub mod server;
#[cfg(feature = "testing")]
pub mod testing;
mod version;
mod wire;

pub use bags::{
    BagEvents, BagLine, BagState, Events, FoundLine, Gatherer, HoldingsReport, ReportedDelivery,
};
pub use bags::{Presence, Service, ServiceStats, Traces};
pub use connection::{Address, Broker, Login, Patience, Role, Tls};
pub use error::{During, Error};
pub use group::{Desk, Heard, Reply};
pub use group::{GivenBack, Holder, Lease, Membership, Offer, Offered, Taken, Verdict};
pub use loss::Loss;
pub use queue::{
    AttemptRecord, Committed, Delivery, Followed, LastGiveBack, Queue, UnansweredTask,
};
pub use queue::{Received, Results, Sizes, Standing, Submitted};
pub use secret::{Secret, UnfitFile};
#[cfg(feature = "testing")]
pub use testing::{read_back, samples};
pub use version::{SERVER_VERSION_MIN, version_at_least};
pub use wire::{bounded, descriptor, ids, pack, result, subjects};
