//! What a broker knows of whole bags: their lines, their events, the workers on them, and what they left.

mod events;
mod line;
mod service;
mod traces;

pub use events::{BagEvents, Events, Held, HeldDelivery};
pub use line::{BagLine, BagState, Found, Gatherer};
pub use service::{Presence, Service, ServiceStats};
pub use traces::Traces;
