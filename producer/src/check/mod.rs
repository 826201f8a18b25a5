//! Outputs read again: verified, found to be broken, and ledger lines rebuilt from them.

pub(crate) mod input_again;
pub(crate) mod rebuild;
pub(crate) mod repair;
pub(crate) mod tar_again;
mod tree_again;
pub(crate) mod verified;
pub(crate) mod verify;
