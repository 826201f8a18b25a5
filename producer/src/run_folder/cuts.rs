//! Which files are cut into blocks, each a task of its own: a pure function of the list of inputs and of how large blocks are.
//!
//! A bag's tasks are its files, and behind them, from the first index that is no file's, the blocks of each file that is
//! cut, in order. A file is cut in its round 0 only: whatever is run again is run whole.

use std::io;
use std::ops::Range;

use bagpress_broker::limits;
use bagpress_codec::SEGMENT_BYTES;
use bagpress_objstore::staging::Section;
use serde::{Deserialize, Serialize};

use crate::run_folder::packable::Packable;

/// How large the blocks of a bag are, as `bag.json` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockSize {
    /// Bytes of a block; the last one of a file has fewer. A multiple of [`SEGMENT_BYTES`].
    pub bytes: u64,
    /// Files of more bytes than this are cut.
    pub above: u64,
}

/// What a user wants of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Blocks {
    /// Large files are cut, where that is possible.
    #[default]
    Auto,
    /// No file is cut.
    None,
    /// Files of more than so many bytes are cut into blocks of so many.
    Of(u64),
}

impl BlockSize {
    /// For a bag of so many files and bytes, the largest of which has `largest`. None if no file is cut.
    pub(crate) fn of(wanted: Blocks, files: u32, bytes: u64, largest: u64) -> Option<Self> {
        let mut size = match wanted {
            Blocks::None => return None,
            Blocks::Of(bytes) => Self { bytes: segments(bytes), above: segments(bytes) },
            Blocks::Auto => Self { bytes: limits::BLOCK_BYTES_DEFAULT, above: limits::BLOCK_ABOVE },
        };
        // Each file that is cut has one block that is not full.
        let units = |size: Self| u64::from(files) + bytes / size.bytes + bytes / size.above;
        while units(size) >= u64::from(limits::BAG_TASKS_MAX) {
            size = Self { bytes: size.bytes * 2, above: size.above * 2 };
        }
        (largest > size.above).then_some(size)
    }
}

/// The next multiple of a segment.
fn segments(bytes: u64) -> u64 {
    let segment = SEGMENT_BYTES as u64;
    bytes.div_ceil(segment).max(1).saturating_mul(segment)
}

/// A file that is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    file: u32,
    /// Its first block.
    first: u32,
    bytes: u64,
}

/// The files of a bag that are cut: 16 bytes each.
#[derive(Debug)]
pub(crate) struct Cuts {
    size: BlockSize,
    list: Vec<Cut>,
    /// One more than the last block.
    end: u32,
}

impl Cuts {
    /// Cuts the files of a bag.
    ///
    /// # Errors
    ///
    /// That of the list; if they are more tasks than a bag has.
    pub(crate) fn of(
        size: BlockSize,
        files: u32,
        list: impl Iterator<Item = io::Result<Packable>>,
    ) -> io::Result<Self> {
        let too_many = || io::Error::other("its files have more blocks than a bag has tasks");
        if size.bytes == 0
            || !size.bytes.is_multiple_of(SEGMENT_BYTES as u64)
            || size.above < size.bytes
        {
            return Err(io::Error::other("its blocks have no size that blocks have"));
        }
        let (mut cut, mut end) = (Vec::new(), files);
        for (file, found) in (0..files).zip(list) {
            let found = found?;
            let bytes = found.bytes;
            if !found.can_be_cut() || bytes <= size.above {
                continue;
            }
            cut.push(Cut { file, first: end, bytes });
            let blocks = u32::try_from(bytes.div_ceil(size.bytes)).map_err(|_| too_many())?;
            let next = end.checked_add(blocks).filter(|end| *end <= limits::BAG_TASKS_MAX);
            end = next.ok_or_else(too_many)?;
        }
        Ok(Self { size, list: cut, end })
    }

    /// How many tasks there are: files and blocks.
    pub(crate) fn tasks(&self) -> u32 {
        self.end
    }

    /// The files that are cut, in order.
    pub(crate) fn files(&self) -> impl Iterator<Item = u32> {
        self.list.iter().map(|cut| cut.file)
    }

    /// The blocks of a file, if it is cut.
    pub(crate) fn blocks(&self, file: u32) -> Option<Range<u32>> {
        let at = self.list.binary_search_by_key(&file, |cut| cut.file).ok()?;
        let end = self.list.get(at + 1).map_or(self.end, |next| next.first);
        Some(self.list.get(at)?.first..end)
    }

    /// Bytes of the blocks of a file that `is_done` is true of; none if it is not cut.
    pub(crate) fn bytes_of(&self, file: u32, is_done: impl Fn(u32) -> bool) -> u64 {
        let done = self.blocks(file).into_iter().flatten().filter(|block| is_done(*block));
        done.filter_map(|block| self.section(block)).map(|(_, section)| section.bytes).sum()
    }

    /// The file that a block is of, and what of it, if it is one.
    pub(crate) fn section(&self, block: u32) -> Option<(u32, Section)> {
        let behind = self.list.partition_point(|cut| cut.first <= block);
        let cut = self.list.get(behind.checked_sub(1)?).filter(|_| block < self.end)?;
        let at = u64::from(block - cut.first) * self.size.bytes;
        Some((cut.file, Section { at, bytes: self.size.bytes.min(cut.bytes.checked_sub(at)?) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn cut(size: BlockSize, files: &[(u64, bool)]) -> Cuts {
        let list = files.iter().map(|&(bytes, refused)| {
            Ok(Packable { bytes, refused, is_file: true, part_of: None, codec: None })
        });
        Cuts::of(size, u32::try_from(files.len()).unwrap(), list).unwrap()
    }

    #[test]
    fn the_blocks_of_a_file_are_the_whole_file_once() {
        let size = BlockSize { bytes: 2 * MIB, above: 4 * MIB };
        let files = [
            (4 * MIB, false),
            (4 * MIB + 1, false),
            (9 * MIB, true),
            (8 * MIB, false),
            (0, false),
            (11 * MIB, false),
        ];
        let cuts = cut(size, &files);
        assert_eq!(cuts.files().collect::<Vec<_>>(), [1, 3, 5]);
        assert_eq!(cuts.blocks(1), Some(6..9));
        assert_eq!(cuts.blocks(3), Some(9..13));
        assert_eq!(cuts.blocks(5), Some(13..19));
        assert_eq!((cuts.blocks(0), cuts.blocks(2), cuts.blocks(6)), (None, None, None));
        assert_eq!(cuts.tasks(), 19);
        for file in cuts.files() {
            let mut next = 0;
            for block in cuts.blocks(file).unwrap() {
                let (of, Section { at, bytes }) = cuts.section(block).unwrap();
                assert_eq!((of, at), (file, next));
                assert!(bytes > 0 && bytes <= size.bytes);
                next = at + bytes;
            }
            assert_eq!(next, files[file as usize].0);
            assert_eq!((cuts.bytes_of(file, |_| true), cuts.bytes_of(file, |_| false)), (next, 0));
        }
        assert_eq!(cuts.bytes_of(0, |_| true), 0);
        for none in [0, 5, 19, u32::MAX] {
            assert_eq!(cuts.section(none), None, "{none}");
        }
    }

    #[test]
    fn a_bag_without_a_large_file_has_none() {
        assert_eq!(BlockSize::of(Blocks::Auto, 3, 1 << 40, 64 * MIB), None);
        let auto = BlockSize { bytes: 8 * MIB, above: 64 * MIB };
        assert_eq!(BlockSize::of(Blocks::Auto, 3, 1 << 40, 64 * MIB + 1), Some(auto));
        assert_eq!(BlockSize::of(Blocks::None, 3, 1 << 40, 1 << 40), None);
        let odd = BlockSize { bytes: MIB + MIB / 4, above: MIB + MIB / 4 };
        assert_eq!(BlockSize::of(Blocks::Of(MIB + 1), 1, 2 * MIB, 2 * MIB), Some(odd));
        assert_eq!(BlockSize::of(Blocks::Of(2 * MIB), 1, 2 * MIB, 2 * MIB), None);
    }

    #[test]
    fn blocks_grow_with_a_bag_so_that_it_has_no_more_tasks_than_it_may_have() {
        let bytes = limits::INPUT_BYTES_MAX * 200;
        let size = BlockSize::of(Blocks::Auto, 200, bytes, limits::INPUT_BYTES_MAX).unwrap();
        let files = [(limits::INPUT_BYTES_MAX, false); 200];
        assert!(size.bytes > limits::BLOCK_BYTES_DEFAULT);
        assert!(cut(size, &files).tasks() <= limits::BAG_TASKS_MAX);
        let list = files.iter().map(|&(bytes, refused)| {
            Ok(Packable { bytes, refused, is_file: true, part_of: None, codec: None })
        });
        let small = BlockSize { bytes: MIB, above: MIB };
        assert!(Cuts::of(small, 200, list).is_err());
    }

    #[test]
    fn a_size_that_no_block_has_is_refused() {
        for (bytes, above) in [(0, 0), (MIB + 1, 2 * MIB), (2 * MIB, MIB)] {
            let list = std::iter::empty();
            assert!(Cuts::of(BlockSize { bytes, above }, 0, list).is_err(), "{bytes}");
        }
    }
}
