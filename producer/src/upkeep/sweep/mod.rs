//! Sweeping what no bag owns. In doubt it stays: each thing is named with the reason why it goes.

mod on_broker;
mod run_folders;
mod swept;

pub use self::on_broker::broker;
pub use self::run_folders::{Runs, runs};
pub use self::swept::Swept;
