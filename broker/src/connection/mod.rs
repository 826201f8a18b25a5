//! The connection to a broker: where it is, who connects, and what becomes of it.

mod address;
mod broker;
mod dial;
mod link;
mod patience;
mod resolve;
mod role;
mod tls;

pub use address::{Address, Login, Tls};
pub use broker::Broker;
pub use patience::Patience;
pub use role::Role;
