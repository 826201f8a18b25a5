//! The rights of each role, subject by subject: the one source of a server's configuration and of the table in the docs.
//!
//! A server lets the sender of a request choose where the answer goes, whatever that sender may publish to: with the right to ask
//! anything of JetStream comes everything that an answer can do, such as to delete a stream. Only an account stops
//! that. So workers and observers have an account each, and what they may say to that of the bags is imported, right
//! by right; an answer comes back to their own account and to nowhere else (ADR 0024).

mod conf;
mod keys;
mod rights;

pub use conf::configuration;
pub use keys::{CONFIGURATION, Key, write_auth};
pub use rights::{Account, May, ROLES, Right, is_apart, rights, table};
