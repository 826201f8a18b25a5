//! Where inputs and outputs go: staged files and object references.

pub mod object_ref;
