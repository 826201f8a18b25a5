//! The line of a bag that a user names, or why there is none.

use anyhow::Result;
use bagpress_broker::ids::BagId;
use bagpress_broker::{BagLine, FoundLine};

use crate::error::Usage;

/// There is no such bag.
pub(crate) fn unknown(bag: &BagId) -> anyhow::Error {
    Usage::error(
        format!("the broker knows no bag {bag}"),
        "list the bags with `bagpress status --server URL`",
    )
}

/// The line of a bag that there is.
///
/// # Errors
///
/// [`Usage`] if there is none, or if it cannot be read.
pub(crate) fn known(found: FoundLine, bag: &BagId) -> Result<BagLine> {
    match (found.line, found.unreadable) {
        (Some(line), _) => Ok(line),
        (None, Some(why)) => Err(Usage::error(
            format!("the line of bag {bag} cannot be read: {why}"),
            "use the version of bagpress that gathers it",
        )),
        (None, None) => Err(unknown(bag)),
    }
}
