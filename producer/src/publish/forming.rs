//! A pack that is about to be published, while its files are looked at one by one.

use crate::run_folder::inputs::InputEntry;

/// A pack, as far as its files were seen.
#[derive(Debug)]
pub(crate) struct Forming {
    pub(crate) first: u32,
    pub(crate) entry: InputEntry,
    pub(crate) files: u32,
    /// Of those that are to be run.
    pub(crate) bytes: u64,
    /// Those, with their places, if they are to be put.
    pub(crate) members: Vec<(u32, InputEntry)>,
    /// Whether its delivery is wanted, and any of its files.
    delivery: bool,
    file: bool,
}

impl Forming {
    /// A pack of `files`, of which `entry` is the first; `delivery`: nobody has its delivery.
    pub(crate) fn new(first: u32, entry: InputEntry, files: u32, delivery: bool) -> Self {
        Self { first, entry, files, bytes: 0, members: Vec::new(), delivery, file: false }
    }

    /// Sees a file that is to be run with the pack; `put`: its bytes are to be put.
    pub(crate) fn take(&mut self, index: u32, entry: &InputEntry, put: bool) {
        self.bytes = self.bytes.saturating_add(entry.bytes);
        self.file = true;
        if put {
            self.members.push((index.saturating_sub(self.first), entry.clone()));
        }
    }

    /// Whether `index` is its last file.
    pub(crate) fn ends_with(&self, index: u32) -> bool {
        index + 1 >= self.first.saturating_add(self.files)
    }

    /// Whether it is to be published.
    pub(crate) fn is_wanted(&self) -> bool {
        self.delivery && self.file
    }
}
