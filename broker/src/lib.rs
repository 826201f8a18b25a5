//! What travels through NATS, and where: descriptors, results, subjects, streams, deliveries,
//! leases, and the supervised nats-server.
//!
//! Only this crate and `objstore` name the NATS client; everybody else speaks of bags and tasks.

mod address;
mod attempts;
mod bags;
pub mod bounded;
mod commit;
mod connect;
mod delayed;
pub mod descriptor;
mod desk;
mod error;
mod events;
mod follow;
mod handed_out;
mod history;
pub mod ids;
mod leased;
pub mod limits;
pub mod machine;
mod offer;
mod patience;
mod pull;
mod queue;
pub mod quote;
#[cfg(feature = "testing")]
pub mod read_back;
pub mod result;
pub mod retry;
pub mod roles;
#[cfg(feature = "testing")]
pub mod samples;
pub mod secret;
pub mod server;
mod service;
mod streams;
pub mod subjects;
mod submit;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod traces;

pub use address::{Address, Login, Tls};
pub use attempts::AttemptRecord;
pub use bags::{BagLine, BagState, Found, Gatherer};
pub use commit::{Committed, Standing};
pub use connect::{Broker, Role, version_at_least};
pub use delayed::LastWord;
pub use desk::{Desk, Heard, Reply};
pub use error::Error;
pub use events::{BagEvents, Events, Held, HeldDelivery};
pub use follow::{Followed, Results};
pub use handed_out::HandedOut;
pub use leased::{GivenBack, Lease, Taken, Verdict};
pub use offer::{Holder, Offer, Offered, Offers};
pub use patience::Patience;
pub use queue::{Delivery, Queue, Received};
pub use secret::{Secret, UnfitFile};
pub use service::{Presence, Service, ServiceStats};
pub use streams::Sizes;
pub use submit::Submitted;
pub use traces::Traces;

/// Oldest nats-server that we work with: batched direct get came with it.
pub const SERVER_VERSION_MIN: &str = "2.11.0";
