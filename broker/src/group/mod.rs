//! The queue group: a gatherer's desk offers tasks, workers take them, and a lease says who has which.

mod desk;
mod lease;
mod offer;

pub use desk::{Desk, Heard, Reply};
pub use lease::{GivenBack, Lease, Taken, Verdict};
pub use offer::{Holder, Membership, Offer, Offered};
