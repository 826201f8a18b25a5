//! The worker's side of staged outputs: leave is asked for, inputs come, outputs go.

mod by_path;
mod fetch;
mod fetch_pack;
mod stager;
mod upload;

pub use by_path::{Allowed, SharedFolder};
pub(crate) use fetch_pack::{InputSink, PACK_SINK};
pub use stager::{Grant, Permission, Stager};
pub use upload::Upload;
