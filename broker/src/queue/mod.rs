//! The JetStream side: the streams, tasks in and out of the queue, outcomes, and why deliveries were given back.
//!
//! Most of it is what a [`Broker`](crate::Broker) can do, a file for each purpose.

mod attempts;
mod commit;
mod delayed;
mod delivery;
mod follow;
pub(crate) mod publish;
mod pull;
mod read;
mod streams;
mod submit;
mod unanswered_tasks;

pub use attempts::AttemptRecord;
pub use commit::{Committed, Standing};
pub use delayed::LastGiveBack;
pub use delivery::{Delivery, Queue, Received};
pub use follow::{Followed, Results};
pub use streams::Sizes;
pub use submit::Submitted;
pub use unanswered_tasks::UnansweredTask;
