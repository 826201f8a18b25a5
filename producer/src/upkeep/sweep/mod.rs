//! Sweeping what no bag owns. In doubt it stays; each removal is named with its reason.

mod on_broker;
mod run_folders;
mod swept;

pub use self::on_broker::broker;
pub use self::run_folders::{Runs, runs};
pub use self::swept::Swept;
