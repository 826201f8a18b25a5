//! An explicit-state model of how a task gets exactly one outcome: every order of steps of two workers, a
//! gatherer and a broker, with crashes between all steps, within small bounds.
//!
//! It imports nothing of ours: it is the design once more, and each step names the function of the real
//! code that it stands for. `docs/model.md` says what it covers, and what it does not.
//!
//! - [`Config`] is one exploration: which dimensions, how many faults of each kind.
//! - [`Clause`] is something that the design says and that can be taken out, to see what it is good for.
//! - [`explore`] visits every state and reports the shortest way to a violation, in words.

mod broken;
mod config;
mod explore;
mod faults;
mod gatherer;
mod object;
mod placing;
mod process;
mod property;
mod queue_group;
mod state;
mod trace;
mod values;
mod worker;

pub use config::{Clause, Config, Delivery, Faults, Path, SMALL, named};
pub use explore::{Report, explore};
pub use trace::Violation;
