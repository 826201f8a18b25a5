//! The gatherer's side of staged outputs: what it is asked, and what it answers.

mod answers;
mod disk;
mod durability;
mod incoming;
mod ledger_reader;
mod memory_budget;
mod open_inputs;
mod open_uploads;
mod outputs;
mod pack_inputs;
mod plan;
mod receiver;
mod room;
mod serving;
mod uploads;
mod writing;

pub use plan::Plan;
pub use receiver::Receiver;
