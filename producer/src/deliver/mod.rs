//! Tasks on their way to workers: who has what, what is offered, and what is given back.

pub(crate) mod dispatch;
pub(crate) mod handed;
pub(crate) mod journal;
pub(crate) mod offers;
pub(crate) mod unserved;
pub(crate) mod wake;
pub(crate) mod watch;
