//! An explicit-state model of how a task gets exactly one outcome: every order of steps of two workers, a
//! gatherer and a broker, with crashes between all steps, within small bounds; and how each of two files does that are
//! delivered as a pack, and a file that is cut into two blocks.
//!
//! It imports nothing of ours: it is the design once more, and each step names the function of the real
//! code that it stands for. `docs/model.md` says what it covers, and what it does not.
//!
//! - [`Config`] is one exploration: which dimensions, how many faults of each kind.
//! - [`Clause`] is something that the design says and that can be taken out, to see what it is good for.
//! - [`explore`] visits every state and reports the shortest way to a violation, in words.

mod blocks;
mod broken;
mod clause;
mod config;
mod explore;
mod faults;
mod gatherer;
mod object;
mod pack;
mod placing;
mod process;
mod property;
mod queue_group;
mod state;
mod task;
mod trace;
mod values;
mod worker;

pub use blocks::BLOCKS;
pub use config::{Bag, Clause, Config, Delivery, Faults, Path, SMALL};
pub use explore::Report;
pub use pack::PACKS;
pub use trace::Violation;

/// Visits every state that `config` can reach.
#[must_use]
pub fn explore(config: &Config) -> Report {
    match config.bag {
        Bag::Task => explore::search(&task::OneTask(config)),
        Bag::Pack => explore::search(&pack::OnePack(config)),
        Bag::Blocks => explore::search(&blocks::OneCut(config)),
    }
}

/// The configuration of [`SMALL`], [`PACKS`] or [`BLOCKS`] whose name is `name`.
///
/// # Panics
///
/// If there is none.
#[must_use]
#[expect(clippy::expect_used, reason = "a misspelt name is a mistake of the test")]
pub fn named(name: &str) -> Config {
    let mut all = SMALL.iter().chain(PACKS).chain(BLOCKS);
    *all.find(|config| config.name == name).expect("a configuration of that name")
}
