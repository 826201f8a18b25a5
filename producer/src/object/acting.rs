//! Who acts, and on how much at a time.

use bagpress_broker::machine;

/// References that are looked at, or changed, at a time; no bytes travel.
pub(crate) const LOOKS: usize = 64;

/// Who acts, as it is noted with what was done.
#[must_use]
pub fn by() -> String {
    format!("process {} on {}", std::process::id(), machine::host())
}
