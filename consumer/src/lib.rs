//! The workers: slots that pull, compress, verify and answer.
//!
//! ```text
//! worker ◄── intake: the stream, the queue group
//!   └──handed──► attempt (opens, commits, answers) ──job──► slot (a thread: compresses)
//!  appetite: how many     └── holdings: renews leases, says what is held
//! ```
//!
//! Everything that waits is asynchronous and on one thread; everything that compresses is on the
//! slots' threads. So no compression, however long, can keep a lease from being renewed.

mod appetite;
mod attempt;
mod cancelled;
mod duplicate;
mod execute;
mod handed;
mod holdings;
mod intake;
mod limit;
mod slot;
mod worker;

pub use worker::{Options, run};
