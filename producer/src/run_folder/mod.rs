//! Where everything of one run is: its folder, who may write there, what the bag is and what is decided.

pub(crate) mod attempts;
mod bag_server;
mod codecs;
pub(crate) mod cuts;
pub(crate) mod data;
pub(crate) mod earlier;
pub(crate) mod extents;
pub(crate) mod files;
pub(crate) mod folder;
pub(crate) mod from_start;
pub(crate) mod growth;
pub(crate) mod helps;
pub(crate) mod inputs;
pub(crate) mod ledger;
pub(crate) mod lock;
pub(crate) mod of_producer;
pub(crate) mod packable;
mod packs;
pub(crate) mod plan;
pub(crate) mod runs;
pub(crate) mod specification;
pub(crate) mod stats;
pub(crate) mod tree;
pub(crate) mod trust;
pub(crate) mod twins;
#[cfg(test)]
mod written_and_read;
