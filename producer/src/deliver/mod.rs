//! Tasks on their way to workers: what is offered, which worker has what, and what is given back.

pub(crate) mod dispatch;
pub(crate) mod handed;
pub(crate) mod journal;
pub(crate) mod offers;
pub(crate) mod table;
pub(crate) mod unserved;
pub(crate) mod wake;
pub(crate) mod watch;
mod window;
mod workers;
