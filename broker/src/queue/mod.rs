//! The JetStream side: the streams, tasks in and out of the queue, outcomes, and why deliveries were given back.
//!
//! Most of it is what a [`Broker`](crate::Broker) can do, a file for each purpose.

mod attempts;
mod commit;
mod delayed;
mod delivery;
mod follow;
mod handed_out;
pub(crate) mod publish;
mod pull;
mod read;
mod streams;
mod submit;

pub use attempts::AttemptRecord;
pub use commit::{Committed, Standing};
pub use delayed::LastWord;
pub use delivery::{Delivery, Queue, Received};
pub use follow::{Followed, Results};
pub use handed_out::HandedOut;
pub use streams::Sizes;
pub use submit::Submitted;
