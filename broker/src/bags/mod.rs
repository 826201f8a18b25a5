//! What a broker knows of whole bags: their lines, their events, the workers on them, and what they left.

mod events;
mod line;
mod service;
mod traces;

pub use events::{BagEvents, Events, HoldingsReport, ReportedDelivery};
pub use line::{BagLine, BagState, FoundLine, Gatherer};
pub use service::{Presence, Service, ServiceStats};
pub use traces::Traces;
