//! What an object's labels say of its life: who pinned it, which bags read it, when it expires, and who freed it.
//!
//! They are labels, and so part of the metadata: whoever changes them names the metadata that it has read, and of a pin and a
//! removal at the same time one learns of the other. `nats object info` shows them.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// In front of the name of a pin.
const PIN: &str = "bagpress.pin.";
/// That the chunks have other names as well; its text is their token. What does not know it takes it for a pin, of a name that
/// nobody can give, and lets go of nothing.
const SHARED: &str = "bagpress.pin.~shared";
/// In front of the id of a bag that reads the object.
const HELD: &str = "bagpress.held.";
/// When the chunks expire, in seconds since 1970.
const EXPIRES: &str = "bagpress.expires";
/// Who freed the object.
const FREED_BY: &str = "bagpress.freed-by";
/// Why.
const FREED_FOR: &str = "bagpress.freed-for";
/// The word for an input whose task is done.
const INPUT: &str = "input";

/// Who removed the object, to have it made again by its task.
const AGAIN_BY: &str = "bagpress.again-by";

/// For how long after it expired an object's metadata says so.
pub(super) const KNOWN_FOR: Duration = Duration::from_hours(30 * 24);
/// Longest name of a pin, in bytes.
const PIN_BYTES_MAX: usize = 64;

/// The labels of an object, as its metadata has them.
pub type Labels = HashMap<String, String>;

/// Who let go of an object, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freed {
    /// Who it was, for people.
    pub by: String,
    /// Whether it was the input of a task that was done.
    pub is_input: bool,
    /// When, by the clock of who freed it.
    pub at: Option<SystemTime>,
}

impl Freed {
    /// As labels.
    pub(super) fn mark(&self, labels: &mut Labels) {
        labels.insert(FREED_BY.to_owned(), self.by.clone());
        if self.is_input {
            labels.insert(FREED_FOR.to_owned(), INPUT.to_owned());
        }
    }

    /// From the labels of a tombstone of that time; none if somebody else than us deleted the object.
    pub(super) fn of(labels: &Labels, at: Option<SystemTime>) -> Option<Self> {
        let is_input = labels.get(FREED_FOR).is_some_and(|why| why == INPUT);
        labels.get(FREED_BY).map(|by| Self { by: by.clone(), is_input, at })
    }
}

/// The pins of an object: each name, and who set it.
#[must_use]
pub fn pins(labels: &Labels) -> Vec<(&str, &str)> {
    let pins = labels.iter().filter(|(label, _)| *label != SHARED);
    sorted(pins.filter_map(|(label, by)| Some((label.strip_prefix(PIN)?, by.as_str()))))
}

/// The bags that read the object or did, by id; whether one still does, its line says.
#[must_use]
pub fn holders(labels: &Labels) -> Vec<&str> {
    sorted(labels.keys().filter_map(|label| label.strip_prefix(HELD)))
}

/// Says in the labels of a tombstone who removed the object, to have it made again by its task.
pub(super) fn remove_for_its_task(labels: &mut Labels, by: &str) {
    labels.insert(AGAIN_BY.to_owned(), by.to_owned());
}

/// Who that was; none if it was removed for anything else.
pub(super) fn removed_for_its_task(labels: &Labels) -> Option<String> {
    labels.get(AGAIN_BY).cloned()
}

/// Gives what takes an object's name the pins and holders of what had it: they are about the name.
pub(super) fn carry_over(from: &Labels, to: &mut Labels) {
    let is_kept =
        |label: &str| label.starts_with(PIN) && label != SHARED || label.starts_with(HELD);
    let kept = from.iter().filter(|(label, _)| is_kept(label));
    to.extend(kept.map(|(label, by)| (label.clone(), by.clone())));
}

/// Says that the chunks under `token` have other names as well.
pub(super) fn share(labels: &mut Labels, token: &str) {
    labels.insert(SHARED.to_owned(), token.to_owned());
}

/// Whether the chunks under `token`, which are those of an object with these labels, may have other names.
pub(super) fn is_shared(labels: &Labels, token: &str) -> bool {
    labels.get(SHARED).is_some_and(|shared| shared == token)
}

/// Gives another name of an object the time of its chunks.
pub(super) fn keep_time(from: &Labels, to: &mut Labels) {
    to.extend(from.get(EXPIRES).map(|at| (EXPIRES.to_owned(), at.clone())));
}

fn sorted<T: Ord>(found: impl Iterator<Item = T>) -> Vec<T> {
    let mut found: Vec<_> = found.collect();
    found.sort_unstable();
    found
}

/// Whether a pin may have this name: 1 to 64 characters of `a-z`, `A-Z`, `0-9`, `.`, `-` and `_`.
#[must_use]
pub fn is_pin_name(name: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b".-_".contains(&c);
    (1..=PIN_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

/// Sets a pin; whether it is new.
pub fn pin(labels: &mut Labels, name: &str, by: &str) -> bool {
    labels.insert(format!("{PIN}{name}"), by.to_owned()).is_none()
}

/// Takes a pin away; whether there was one.
pub fn unpin(labels: &mut Labels, name: &str) -> bool {
    labels.remove(&format!("{PIN}{name}")).is_some()
}

/// Notes that a bag reads the object; whether that is new.
pub fn hold(labels: &mut Labels, bag: &str) -> bool {
    labels.insert(format!("{HELD}{bag}"), String::new()).is_none()
}

/// When the object expires, if it does.
#[must_use]
pub fn expires(labels: &Labels) -> Option<SystemTime> {
    let seconds = labels.get(EXPIRES)?.parse().ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Says when the object expires.
pub(super) fn expire_at(labels: &mut Labels, at: SystemTime) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    labels.insert(EXPIRES.to_owned(), since.as_secs().to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_read_back_and_leave_other_labels_alone() {
        let mut labels = Labels::from([("codec".to_owned(), "gzip:6".to_owned())]);
        assert!(pin(&mut labels, "b", "me") && pin(&mut labels, "a", "you"));
        assert!(!pin(&mut labels, "a", "me"));
        assert!(hold(&mut labels, "t1-abcdefgh") && !hold(&mut labels, "t1-abcdefgh"));
        assert_eq!(pins(&labels), [("a", "me"), ("b", "me")]);
        assert_eq!(holders(&labels), ["t1-abcdefgh"]);
        let at = UNIX_EPOCH + Duration::from_hours(500_000);
        expire_at(&mut labels, at);
        assert_eq!(expires(&labels), Some(at));
        assert!(unpin(&mut labels, "a") && !unpin(&mut labels, "a"));
        assert!(unpin(&mut labels, "b") && labels.remove("bagpress.held.t1-abcdefgh").is_some());
        labels.remove(EXPIRES);
        assert_eq!(labels.len(), 1);
    }

    #[test]
    fn a_tombstone_without_our_marks_was_freed_by_somebody_else() {
        let (mut labels, at) = (Labels::new(), Some(UNIX_EPOCH));
        assert_eq!(Freed::of(&labels, at), None);
        for is_input in [false, true] {
            let freed = Freed { by: "h".to_owned(), is_input, at };
            freed.mark(&mut labels);
            assert_eq!(Freed::of(&labels, at), Some(freed));
        }
    }

    #[test]
    fn a_name_that_would_be_two_labels_is_no_pin() {
        assert!(is_pin_name("nightly-2.x_A"));
        for none in ["", "a b", "a\n", "ä", &"x".repeat(65)] {
            assert!(!is_pin_name(none), "{none}");
        }
    }
}
