//! What is known of the room for outputs: which tasks found none, and how much they need.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bagpress_broker::{limits, quote};

use crate::staging::parts::Parts;

/// Tasks that found no space, and why nothing can be written at all.
#[derive(Debug, Default)]
pub(super) struct Room(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    needs: HashMap<u32, Need>,
    /// What held an output up last, though it passes.
    held_up: Option<(Instant, String)>,
    /// When a disk said that it is full although it has free bytes: files or a quota are used up.
    full_at: Option<Instant>,
    /// When a disk was last seen without free bytes.
    short_at: Option<Instant>,
    gone: Option<String>,
}

/// What the output of one task needs, as far as is known: so much did not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Need {
    /// Free bytes to wait for.
    bytes: u64,
    /// So many did not fit.
    tried: u64,
    /// It has no more.
    most: u64,
    name: String,
    /// When it was let begin again.
    begun: Option<Instant>,
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the output of a task, which people know by `name`, found no room after `bytes`, of `most` that it can have. It is
    /// tried again when there is a quarter more: to try for each byte more would keep workers busy with nothing.
    pub(super) fn note(&self, index: u32, bytes: u64, most: u64, name: String) {
        let (tried, bytes) = (bytes, bytes.saturating_add(bytes / 4).min(most));
        let mut noted = self.lock();
        if noted.needs.len() >= limits::UPLOADS_MAX && !noted.needs.contains_key(&index) {
            return;
        }
        let need = Need { bytes, tried, most, name, begun: None };
        let known = noted.needs.entry(index).or_insert_with(|| need.clone());
        known.bytes = known.bytes.max(need.bytes);
        known.tried = known.tried.max(need.tried);
        known.begun = None;
    }

    /// Forgets a task that has its outcome.
    pub(super) fn decided(&self, index: u32) {
        self.lock().needs.remove(&index);
    }

    /// Why a task's output, of which `bytes` more are about to come, is to wait.
    pub(super) fn refuses(&self, parts: &Parts, index: u32, bytes: u64) -> Option<String> {
        let gone = parts.gone();
        let mut noted = self.lock();
        if gone.is_some() {
            noted.gone.clone_from(&gone);
            return gone;
        }
        let stopped = noted.full_at.is_some_and(|at| at.elapsed() < limits::FULL_DELAY_MAX);
        if bytes == 0 && stopped {
            return noted.held_up.as_ref().map(|(_, why)| why.clone());
        }
        // What has arrived of it takes space already: only a task that begins must wait for all of it.
        if bytes == 0
            && let Some(need) = noted.needs.get(&index)
        {
            let why = need.unmet(parts, noted.begun_beside(index)).or_else(|| parts.full(bytes));
            if why.is_none()
                && let Some(need) = noted.needs.get_mut(&index)
            {
                need.begun = Some(Instant::now());
            }
            return why;
        }
        drop(noted);
        parts.full(bytes)
    }

    /// Why somebody waits, if there is no room for somebody.
    pub(super) fn waiting(&self, parts: &Parts) -> Option<String> {
        let noted = self.lock();
        if let Some(gone) = &noted.gone {
            return Some(gone.clone());
        }
        let recent = |(at, _): &&(Instant, String)| at.elapsed() < limits::FULL_DELAY_MAX * 2;
        if let Some((_, why)) = noted.held_up.as_ref().filter(recent) {
            return Some(why.clone());
        }
        let largest = noted.needs.values().max_by_key(|need| need.bytes).cloned();
        drop(noted);
        parts.full(0).or_else(|| largest?.unmet(parts, 0))
    }

    /// Notes that a disk was full for lack of bytes, whatever is free by now: what did not fit has been removed.
    pub(super) fn short(&self) {
        self.lock().short_at = Some(Instant::now());
    }

    /// Notes that a disk said that it is full, whatever it says of its free bytes: nobody begins for a while. Not of an output
    /// that found it so together with one that lacked bytes: those were free as soon as the other was removed.
    pub(super) fn full_after_all(&self, parts: &Parts) {
        let root = quote::name(parts.root());
        let why = format!(
            "disk full: {root} accepts no more data although bytes are free; its inodes or a quota are used up"
        );
        let mut noted = self.lock();
        if noted.short_at.is_some_and(|at| at.elapsed() < limits::FULL_DELAY_MAX) {
            return;
        }
        noted.full_at = Some(Instant::now());
        noted.held_up = Some((Instant::now(), why));
    }

    /// Notes what an output is held up by that is no lack of room. It is tried again within [`limits::FULL_DELAY_MAX`].
    pub(super) fn hold_up(&self, why: &str) {
        self.lock().held_up = Some((Instant::now(), why.to_owned()));
    }

    /// Notes that nothing can be written any more.
    pub(super) fn lose(&self, why: String) {
        self.lock().gone = Some(why);
    }

    /// Why nothing can be written any more, if somebody found that out.
    pub(super) fn gone(&self) -> Option<String> {
        self.lock().gone.clone()
    }
}

impl Noted {
    /// Bytes for the other outputs that found no room before and were let begin since. Without them two that have room
    /// one after the other would begin together each time, and none would end. One that is not heard of within a lease
    /// is counted no longer.
    fn begun_beside(&self, index: u32) -> u64 {
        let begun = |need: &Need| need.begun.is_some_and(|at| at.elapsed() < limits::LEASE);
        let others = self.needs.iter().filter(|(other, need)| **other != index && begun(need));
        others.fold(0, |sum: u64, (_, need)| sum.saturating_add(need.bytes))
    }
}

impl Need {
    /// Why there is no room for it, besides `beside` bytes for others.
    fn unmet(&self, parts: &Parts, beside: u64) -> Option<String> {
        let (free, _) = parts.lacks(self.bytes.saturating_add(beside))?;
        let (root, Self { tried, most, name, .. }) = (quote::name(parts.root()), self);
        let needed = if *most == u64::MAX {
            format!("more than {tried}")
        } else {
            format!("between {tried} and {most}")
        };
        let others = match beside {
            0 => String::new(),
            _ => format!(", {beside} for outputs that have begun"),
        };
        Some(format!(
            "disk full: {free} bytes free at {root}, {needed} needed for {name}{others}; free some space"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_found_no_room_waits_for_more_than_there_was_and_others_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let parts = Parts::open(folder.path(), &"b-1".parse().unwrap()).unwrap();
        let room = Room::default();
        assert_eq!(room.waiting(&parts), None);
        // More than any disk has.
        room.note(7, 1 << 60, 1 << 61, quote::name("a b.gz"));
        let why = room.refuses(&parts, 7, 0).unwrap();
        let needed = 1_u64 << 60;
        assert!(why.contains("disk full") && why.contains("'a b.gz'"), "{why}");
        let numbers: Vec<u64> = why.split(' ').filter_map(|word| word.parse().ok()).collect();
        assert!(numbers.iter().any(|number| *number >= needed), "{why}");
        assert_eq!(room.refuses(&parts, 8, 0), None);
        assert!(room.waiting(&parts).is_some_and(|why| why.contains("'a b.gz'")));
        room.decided(7);
        assert_eq!(room.refuses(&parts, 7, 0), None);
        assert_eq!(room.waiting(&parts), None);
    }

    #[test]
    fn no_more_is_asked_for_than_the_output_can_have() {
        let folder = tempfile::tempdir().unwrap();
        let parts = Parts::open(folder.path(), &"b-1".parse().unwrap()).unwrap();
        let room = Room::default();
        room.note(7, 1 << 60, 1_000, quote::name("x"));
        assert_eq!(room.refuses(&parts, 7, 0), None);
    }

    #[test]
    fn two_that_have_room_one_after_the_other_begin_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let parts = Parts::open(folder.path(), &"b-1".parse().unwrap()).unwrap();
        let (free, kept) = parts.lacks(u64::MAX - (1 << 40)).unwrap();
        let kept = kept - (u64::MAX - (1 << 40));
        let most_of_it = (free - kept) / 3 * 2;
        let room = Room::default();
        for index in [0, 1] {
            room.note(index, most_of_it, most_of_it, quote::name("x"));
        }
        assert_eq!(room.refuses(&parts, 0, 0), None);
        assert_eq!(room.refuses(&parts, 0, 0), None, "it does not wait for itself");
        let why = room.refuses(&parts, 1, 0).unwrap();
        assert!(why.contains("outputs that have begun"), "{why}");
        assert_eq!(room.waiting(&parts), None, "somebody has room");
        assert_eq!(room.refuses(&parts, 2, 0), None, "of this one nothing is known");
        room.note(0, most_of_it, most_of_it, quote::name("x"));
        assert_eq!(room.refuses(&parts, 1, 0), None, "the first found no room again");
        assert!(room.refuses(&parts, 0, 0).is_some());
        room.decided(1);
        assert_eq!(room.refuses(&parts, 0, 0), None);
    }

    #[test]
    fn outputs_that_lack_bytes_together_use_up_no_inodes() {
        let folder = tempfile::tempdir().unwrap();
        let parts = Parts::open(folder.path(), &"b-1".parse().unwrap()).unwrap();
        let room = Room::default();
        room.short();
        room.full_after_all(&parts);
        assert_eq!(room.refuses(&parts, 7, 0), None);
        let room = Room::default();
        room.full_after_all(&parts);
        assert!(room.refuses(&parts, 7, 0).is_some_and(|why| why.contains("inodes")));
    }

    #[test]
    fn a_folder_that_is_gone_is_no_full_disk() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let parts = Parts::open(&out, &"b-1".parse().unwrap()).unwrap();
        let room = Room::default();
        std::fs::remove_dir_all(&out).unwrap();
        let why = room.refuses(&parts, 0, 0).unwrap();
        assert!(why.contains("output folder") && why.contains("No such file"), "{why}");
        assert_eq!(room.gone(), Some(why));
    }
}
