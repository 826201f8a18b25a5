//! Files whose blocks are to be looked at: each once, and in its turn.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Files whose blocks are to be looked at, each in its turn.
#[derive(Debug, Default)]
pub(crate) struct Todo {
    files: Mutex<(VecDeque<u32>, HashMap<u32, Look>)>,
    more: Notify,
}

/// At what of a file to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Its next blocks.
    Next,
    /// All of its blocks: one may have failed.
    All,
}

impl Todo {
    /// Adds a file, or looks at more of one that waits.
    pub(crate) fn add(&self, file: u32, look: Look) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let before = files.1.insert(file, look);
        match before {
            None => files.0.push_back(file),
            Some(before) if before == Look::All => drop(files.1.insert(file, before)),
            Some(_) => {}
        }
        drop(files);
        self.more.notify_one();
    }

    fn take(&self) -> Option<(u32, Look)> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let file = files.0.pop_front()?;
        files.1.remove(&file).map(|look| (file, look))
    }

    /// The files that have waited longest, `most` of them at most, and at least one. Cancel-safe.
    pub(crate) async fn next(&self, most: usize) -> Vec<(u32, Look)> {
        loop {
            let next: Vec<_> = std::iter::from_fn(|| self.take()).take(most).collect();
            if !next.is_empty() {
                return next;
            }
            self.more.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_has_its_turn_once_and_all_of_it_is_looked_at_if_anybody_wants_that() {
        let todo = Todo::default();
        for (file, look) in [(7, Look::Next), (3, Look::All), (7, Look::All), (3, Look::Next)] {
            todo.add(file, look);
        }
        assert_eq!(todo.take(), Some((7, Look::All)));
        todo.add(7, Look::Next);
        assert_eq!(todo.take(), Some((3, Look::All)));
        assert_eq!(todo.take(), Some((7, Look::Next)));
        assert_eq!(todo.take(), None);
    }
}
