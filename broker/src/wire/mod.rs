//! What travels, and under which names: bags, tasks, descriptors, results, subjects. Nothing here speaks to a broker.

pub(crate) mod ack;
mod again;
pub mod bounded;
pub(crate) mod cause;
pub(crate) mod decode;
pub mod descriptor;
mod fidelity;
pub mod ids;
mod lost_tar;
pub mod pack;
mod restore;
pub mod result;
pub mod subjects;
