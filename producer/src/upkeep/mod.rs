//! Bags that are to end, and what they leave behind: cancelled, removed, swept.

pub mod cancel;
pub mod remove;
pub mod sweep;
