//! Files that seem to have the content of an earlier one: they get its output, instead of being compressed again.
//!
//! What was seen when the bag was made is only a hint. Whoever gives a file the output of another compares the contents
//! first; and a task of round 1 and later is always run.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use serde::{Deserialize, Serialize};

/// Smaller files are compressed as fast as they are compared, in bytes.
pub(crate) const BYTES_MIN: u64 = 16 * 1024;

/// A file that seems to have the content of an earlier one; a line of `twins.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Twin {
    /// Its index.
    pub(crate) index: u32,
    /// Index of the earlier one, which is no twin itself.
    pub(crate) first: u32,
}

/// The twins of a bag: 16 bytes each.
#[derive(Debug, Default)]
pub(crate) struct Twins {
    /// By index.
    list: Vec<Twin>,
    /// The same by the first one, then by index.
    by_first: Vec<Twin>,
}

impl Twins {
    /// Reads the list of a bag with so many files. A line that cannot be right is left out: its file is run as any other.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn read(file: File, tasks: u32) -> io::Result<Self> {
        let mut list = Vec::new();
        for line in BufReader::new(file).lines() {
            match serde_json::from_str::<Twin>(&line?) {
                Ok(twin) if twin.first < twin.index && twin.index < tasks => list.push(twin),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(Self::of(list))
    }

    fn of(mut list: Vec<Twin>) -> Self {
        list.sort_unstable();
        list.dedup_by_key(|twin| twin.index);
        // One that waits for a file that waits itself would do so for ever.
        let is_twin = |index| list.binary_search_by_key(&index, |twin: &Twin| twin.index).is_ok();
        let firsts: Vec<_> = list.iter().copied().filter(|twin| !is_twin(twin.first)).collect();
        let mut by_first = firsts.clone();
        by_first.sort_unstable_by_key(|twin| (twin.first, twin.index));
        Self { list: firsts, by_first }
    }

    /// The file whose content this one seems to have.
    pub(crate) fn first_of(&self, index: u32) -> Option<u32> {
        let at = self.list.binary_search_by_key(&index, |twin| twin.index).ok()?;
        self.list.get(at).map(|twin| twin.first)
    }

    /// The files that seem to have the content of this one.
    pub(crate) fn of_first(&self, first: u32) -> impl Iterator<Item = u32> + '_ {
        let begin = self.by_first.partition_point(|twin| twin.first < first);
        let same = self.by_first[begin..].iter().take_while(move |twin| twin.first == first);
        same.map(|twin| twin.index)
    }

    /// Every file that others have the content of.
    pub(crate) fn firsts(&self) -> impl Iterator<Item = u32> + '_ {
        self.by_first.chunk_by(|one, other| one.first == other.first).map(|same| same[0].first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_are_found_from_both_sides_and_none_waits_for_one_that_waits() {
        let list = [(7, 2), (3, 0), (5, 0), (8, 3), (7, 2)];
        let twins = Twins::of(list.map(|(index, first)| Twin { index, first }).into());
        let firsts = (0..10).map(|index| twins.first_of(index)).collect::<Vec<_>>();
        let expected =
            [None, None, None, Some(0), None, Some(0), None, Some(2), None, None].to_vec();
        assert_eq!(firsts, expected);
        assert_eq!(twins.of_first(0).collect::<Vec<_>>(), [3, 5]);
        assert_eq!(twins.of_first(2).collect::<Vec<_>>(), [7]);
        assert_eq!(twins.of_first(3).count(), 0);
        assert_eq!(twins.firsts().collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn a_line_that_cannot_be_right_is_left_out() {
        let mut file = tempfile::tempfile().unwrap();
        let lines = "junk\n{\"index\":1,\"first\":1}\n{\"index\":9,\"first\":0}\n{\"index\":2,\"first\":0}\n";
        io::Write::write_all(&mut file, lines.as_bytes()).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let twins = Twins::read(file, 9).unwrap();
        assert_eq!(twins.list, [Twin { index: 2, first: 0 }]);
    }
}
