//! What a bag's line, as it was found, means for its gatherer and for a process that wants to gather the bag.

use bagpress_broker::{BagLine, BagState, FoundLine, Gatherer, limits};
use tokio::time::Instant;

/// What it means for a gatherer that the bag's line is not as it wrote it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The bag is still ours and the line is to be written again: the broker forgot it, or our last write arrived and
    /// its answer did not.
    Ours,
    /// The same, of a line that cannot be read, for this reason, and that nobody renews.
    Junk(String),
    /// The line cannot be read, for this reason, and whether somebody renews it is not known yet.
    Unknown(String),
    /// The bag was cancelled.
    Cancelled,
    /// The bag was removed; its line must not be there again.
    Removed,
    /// Another gatherer has the bag; which one, if its line can be read.
    Taken(Option<Gatherer>),
}

/// Decides what `found` means for the gatherer with the id `me`.
pub(crate) fn finding(
    found: &FoundLine,
    me: &str,
    overwritten: &mut Overwritten,
    now: Instant,
) -> Finding {
    if found.removed {
        return Finding::Removed;
    }
    if let Some(why) = &found.unreadable {
        return overwritten.finding(found.revision, why, now);
    }
    match &found.line {
        Some(there) if there.gatherer.as_ref().is_some_and(|gatherer| gatherer.id != me) => {
            Finding::Taken(there.gatherer.clone())
        }
        Some(there) if there.state == BagState::Cancelled => Finding::Cancelled,
        None | Some(_) => Finding::Ours,
    }
}

/// A line that is not ours and cannot be read: its revision, and since when it is there.
#[derive(Debug, Default)]
pub(crate) struct Overwritten(Option<(u64, Instant)>);

impl Overwritten {
    /// A gatherer of a later version renews its line as we renew ours; junk stays as it is.
    fn finding(&mut self, revision: u64, why: &str, now: Instant) -> Finding {
        match self.0 {
            Some((before, _)) if before != revision => Finding::Taken(None),
            Some((_, since)) if now - since >= limits::OVERWRITTEN_FOR => {
                self.0 = None;
                Finding::Junk(why.to_owned())
            }
            Some(_) => Finding::Unknown(why.to_owned()),
            None => {
                self.0 = Some((revision, now));
                Finding::Unknown(why.to_owned())
            }
        }
    }
}

/// Why a bag cannot be gathered now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// Its line cannot be read: it may be that of a gatherer of a later version.
    Unreadable,
    /// It was cancelled.
    Cancelled(Box<BagLine>),
    /// This gatherer has it, or had it and died.
    Held(Gatherer),
}

/// What keeps a process that holds the run folder's lock `ours` from gathering the bag; `resume`: it may go on with a
/// cancelled one. Another gatherer with the same lock is dead.
pub(crate) fn obstacle(found: &FoundLine, ours: Option<&str>, resume: bool) -> Option<Obstacle> {
    if found.unreadable.is_some() {
        return Some(Obstacle::Unreadable);
    }
    let there = found.line.as_ref()?;
    if there.state == BagState::Cancelled && !resume {
        return Some(Obstacle::Cancelled(Box::new(there.clone())));
    }
    let holder = there.gatherer.clone()?;
    (Some(holder.lock.as_str()) != ours).then_some(Obstacle::Held(holder))
}

/// What became of a line between two looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// Its gatherer renewed it.
    Renewed,
    /// It is another gatherer's, or nobody's.
    Another,
}

/// Compares two looks at the line of a bag that somebody gathers, or that cannot be read.
pub(crate) fn change(before: &FoundLine, now: &FoundLine) -> Change {
    let holder = |found: &FoundLine| Some(found.line.as_ref()?.gatherer.as_ref()?.id.clone());
    let same = match (holder(before), holder(now)) {
        (Some(before), Some(now)) => before == now,
        (None, None) => before.unreadable.is_some() && now.unreadable.is_some(),
        _ => false,
    };
    match same {
        false => Change::Another,
        true if before.revision == now.revision => Change::None,
        true => Change::Renewed,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bagpress_broker::samples;

    use super::*;

    fn gatherer(id: &str) -> Gatherer {
        Gatherer {
            id: id.to_owned(),
            host: "h".to_owned(),
            pid: 1,
            since_us: 0,
            lock: format!("lock of {id}"),
            processes: String::new(),
        }
    }

    fn line(state: BagState, by: Option<&str>) -> FoundLine {
        let line = BagLine { gatherer: by.map(gatherer), ..samples::line(&samples::bag(), state) };
        FoundLine { line: Some(line), unreadable: None, revision: 7, removed: false }
    }

    fn no_line() -> FoundLine {
        FoundLine { line: None, unreadable: None, revision: 0, removed: false }
    }

    fn unreadable(revision: u64) -> FoundLine {
        FoundLine { unreadable: Some("junk".to_owned()), revision, ..no_line() }
    }

    #[test]
    fn what_a_gatherer_finds_tells_whether_the_bag_is_still_its_own() {
        let found =
            |found: &FoundLine| finding(found, "me", &mut Overwritten::default(), Instant::now());
        assert_eq!(found(&no_line()), Finding::Ours, "the broker forgot it");
        assert_eq!(found(&line(BagState::Running, Some("me"))), Finding::Ours);
        assert_eq!(found(&line(BagState::Running, None)), Finding::Ours);
        let other = found(&line(BagState::Running, Some("other")));
        assert_eq!(other, Finding::Taken(Some(gatherer("other"))));
        let other = found(&line(BagState::Cancelled, Some("other")));
        assert_eq!(other, Finding::Taken(Some(gatherer("other"))));
        assert_eq!(found(&line(BagState::Cancelled, Some("me"))), Finding::Cancelled);
        assert_eq!(found(&line(BagState::Cancelled, None)), Finding::Cancelled);
        assert_eq!(found(&FoundLine { removed: true, ..no_line() }), Finding::Removed);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_somebody_elses_if_it_is_renewed_and_junk_if_not() {
        let (mut overwritten, now) = (Overwritten::default(), Instant::now());
        let mut found = |revision, now| finding(&unreadable(revision), "me", &mut overwritten, now);
        let unknown = Finding::Unknown("junk".to_owned());
        assert_eq!(found(3, now), unknown);
        let soon = now + limits::OVERWRITTEN_FOR - Duration::from_millis(1);
        assert_eq!(found(3, soon), unknown);
        assert_eq!(found(3, now + limits::OVERWRITTEN_FOR), Finding::Junk("junk".to_owned()));
        // It was written over, and comes again.
        assert_eq!(found(5, now + limits::OVERWRITTEN_FOR), unknown);
        assert_eq!(found(6, now + limits::OVERWRITTEN_FOR), Finding::Taken(None));
    }

    #[test]
    fn a_bag_is_free_unless_it_is_cancelled_or_another_lock_has_it() {
        let ours = Some("lock of dead");
        let held = |by: &str| Some(Obstacle::Held(gatherer(by)));
        assert_eq!(obstacle(&no_line(), ours, false), None);
        assert_eq!(obstacle(&line(BagState::Running, None), ours, false), None);
        assert_eq!(obstacle(&line(BagState::Running, Some("dead")), ours, false), None);
        assert_eq!(obstacle(&line(BagState::Running, Some("dead")), None, false), held("dead"));
        assert_eq!(obstacle(&line(BagState::Running, Some("other")), ours, false), held("other"));
        assert_eq!(obstacle(&unreadable(3), ours, true), Some(Obstacle::Unreadable));
        let cancelled = line(BagState::Cancelled, None);
        assert!(matches!(obstacle(&cancelled, ours, false), Some(Obstacle::Cancelled(_))));
        assert_eq!(obstacle(&cancelled, ours, true), None);
    }

    #[test]
    fn a_line_that_stays_as_it_is_is_told_from_one_that_is_renewed_or_changes_hands() {
        let before = line(BagState::Running, Some("a"));
        assert_eq!(change(&before, &before), Change::None);
        assert_eq!(change(&before, &FoundLine { revision: 8, ..before.clone() }), Change::Renewed);
        for another in [line(BagState::Running, Some("b")), no_line(), unreadable(8)] {
            assert_eq!(change(&before, &another), Change::Another);
        }
        assert_eq!(change(&unreadable(7), &unreadable(7)), Change::None);
        assert_eq!(change(&unreadable(7), &unreadable(8)), Change::Renewed);
        assert_eq!(change(&unreadable(7), &before), Change::Another);
        assert_eq!(change(&unreadable(7), &no_line()), Change::Another);
    }
}
