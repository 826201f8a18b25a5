//! The workers: slots that take tasks, compress, verify and answer.
//!
//! The way of a task through the modules, top to bottom:
//!
//! ```text
//!  intake      receives it: from the stream, or as an offer in the queue group
//!    │            (appetite decides how many are asked for, by the load of the slots)
//!  worker      puts it among the holdings, which renew its lease and report it, and spawns an attempt
//!    │
//!  attempt     reads it; a task that is cancelled or has its outcome ends here
//!    ├─ place ──job──► slots (threads: execute)
//!    │            the output is carried to its place while a slot makes it, within attempt::limit
//!    ├─ verdict   decides, without a clock and without a wire, what the end of the execution means
//!    └─ conclude  commits the outcome, then answers
//!         │
//!  answer      what either delivery wants to hear: ack, nak, term, the outcome
//! ```
//!
//! One word, one meaning: an `Assignment` is a task that this worker has been given, by either delivery;
//! its `Holdings` are all of them that are not answered yet, one `Holding` each; a
//! [`Holder`](bagpress_broker::Holder) is the worker as others name it. What all attempts of a worker
//! share is its `Context`.
//!
//! Everything that waits is asynchronous; everything that compresses is on the slots' threads. So no
//! compression, however long, can keep a lease from being renewed.

mod answer;
mod appetite;
mod assignment;
mod attempt;
mod cancelled;
mod context;
mod holdings;
mod intake;
mod options;
mod slots;
mod stats;
mod worker;

pub use options::Options;
pub use worker::run;
