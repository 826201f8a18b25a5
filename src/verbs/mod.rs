//! What each verb does: one file a verb, and below `run` and `submit` the steps that they share.

mod auth;
pub(crate) mod broker;
pub(crate) mod cancel;
mod conclude;
mod follow;
pub(crate) mod object;
mod object_text;
mod prepare;
mod preview;
pub(crate) mod restore;
pub(crate) mod results;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod verify;
pub(crate) mod worker;
