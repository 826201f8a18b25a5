//! Which consecutive files are delivered together: a pure function of the list of inputs and of how large packs may be.

use std::io;

use bagpress_broker::limits;
use bagpress_codec::Codec;
use serde::{Deserialize, Serialize};

use crate::run_folder::ledger::Bits;
use crate::run_folder::packable::Packable;

/// Longest name of a file, in bytes.
const NAME_BYTES_MAX: u64 = 255;

/// How large the packs of a bag may be, as `bag.json` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackSize {
    /// Files, at most [`limits::PACK_FILES_MAX`].
    pub files: u32,
    /// Bytes of input, at most [`limits::PACK_BYTES_MAX`].
    pub bytes: u64,
}

impl PackSize {
    /// For a bag of so many files and bytes. With `wanted`, packs have up to so many files; otherwise the bag is divided into
    /// [`limits::PACKS_MIN`] packs at least. None if that leaves one file each.
    pub(crate) fn of(wanted: Option<u32>, files: u32, bytes: u64) -> Option<Self> {
        let (most_files, most_bytes) = match wanted {
            Some(wanted) => (wanted, limits::PACK_BYTES_MAX),
            None => (files / limits::PACKS_MIN, bytes / u64::from(limits::PACKS_MIN)),
        };
        let files = most_files.min(limits::PACK_FILES_MAX);
        let bytes = most_bytes.min(limits::PACK_BYTES_MAX);
        (files > 1).then_some(Self { files, bytes })
    }

    /// The same for a codec whose outputs may be much larger than their inputs, or whose results say more of each file: the outputs
    /// of a pack are one chunk, and its results one message. None if that leaves one file each.
    pub(crate) fn for_codec(self, codec: &Codec) -> Option<Self> {
        if !codec.takes_arrays() {
            return Some(self);
        }
        let files = self.files.min(limits::PACK_ARRAYS_MAX);
        let (room, least) =
            (limits::CHUNK_BYTES as u64, codec.output_bytes_max(0) + NAME_BYTES_MAX);
        let (files, bytes) = if codec.grid().is_some() {
            // All are of one size, and so are the largest outputs.
            (files.min(u32::try_from(room / least).unwrap_or(u32::MAX)), self.bytes)
        } else {
            let times = (codec.output_bytes_max(1 << 20) - codec.output_bytes_max(0)) >> 20;
            let room = room.saturating_sub(least * u64::from(files));
            (files, self.bytes.min(room / times.max(1)))
        };
        (files > 1).then_some(Self { files, bytes })
    }
}

/// Which files begin a delivery.
#[derive(Debug)]
pub(crate) struct Extents {
    begins: Bits,
    tasks: u32,
}

impl Extents {
    /// Divides the files of a bag.
    ///
    /// # Errors
    ///
    /// That of the list.
    pub(crate) fn of(
        size: PackSize,
        tasks: u32,
        files: impl Iterator<Item = io::Result<Packable>>,
    ) -> io::Result<Self> {
        let mut begins = Bits::new(tasks);
        let (mut in_pack, mut bytes, mut alike) = (0, 0_u64, None);
        let (most, most_bytes) =
            (size.files.clamp(1, limits::PACK_FILES_MAX), size.bytes.min(limits::PACK_BYTES_MAX));
        for (index, file) in (0..tasks).zip(files) {
            let file = file?;
            let alone = !file.can_be_packed() || file.bytes > most_bytes;
            bytes = bytes.saturating_add(file.bytes);
            let is_full = in_pack == most || bytes > most_bytes;
            let of = Some((file.codec, file.part_of));
            if in_pack == 0 || alone || is_full || alike != of {
                begins.set(index, true);
                (in_pack, bytes) = (0, file.bytes);
            }
            in_pack = if alone { 0 } else { in_pack + 1 };
            alike = of;
        }
        Ok(Self { begins, tasks })
    }

    /// How many files are delivered with the one at `index`, that one included: of a pack that begins before it, none but it.
    pub(crate) fn files(&self, index: u32) -> u32 {
        if !self.begins.get(index) {
            return 1;
        }
        let others = (index + 1..self.tasks).take(limits::PACK_FILES_MAX as usize - 1);
        1 + u32::try_from(others.take_while(|other| !self.begins.get(*other)).count()).unwrap_or(0)
    }

    /// The file that begins the delivery which this one is in.
    pub(crate) fn first(&self, index: u32) -> u32 {
        let least = index.saturating_sub(limits::PACK_FILES_MAX - 1);
        (least..=index).rev().find(|first| self.begins.get(*first)).unwrap_or(index)
    }

    /// Whether a delivery begins with this file.
    pub(crate) fn begins(&self, index: u32) -> bool {
        self.begins.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of so many bytes, which may be refused.
    fn file((bytes, refused): (u64, bool)) -> Packable {
        Packable { bytes, refused, is_file: true, part_of: None, codec: None }
    }

    fn divided(size: (u32, u64), files: &[(u64, bool)]) -> Vec<u32> {
        divided_of(size, files.iter().copied().map(file).collect())
    }

    fn divided_of(size: (u32, u64), files: Vec<Packable>) -> Vec<u32> {
        let size = PackSize { files: size.0, bytes: size.1 };
        let tasks = u32::try_from(files.len()).unwrap();
        let extents = Extents::of(size, tasks, files.into_iter().map(Ok)).unwrap();
        let begins: Vec<_> = (0..tasks).filter(|index| extents.begins(*index)).collect();
        let each: Vec<_> = begins.iter().map(|index| extents.files(*index)).collect();
        assert_eq!(each.iter().sum::<u32>(), tasks, "each file is delivered once");
        for (first, files) in begins.into_iter().zip(&each) {
            assert!((first..first + files).all(|index| extents.first(index) == first));
        }
        each
    }

    #[test]
    fn packs_end_at_so_many_files_or_bytes() {
        let small = [(1, false); 7];
        assert_eq!(divided((3, 100), &small), [3, 3, 1]);
        assert_eq!(divided((64, 3), &small), [3, 3, 1]);
        assert_eq!(divided((64, 1000), &small), [7]);
        assert_eq!(divided((u32::MAX, u64::MAX), &[(0, false); 130]), [64, 64, 2]);
    }

    #[test]
    fn a_file_that_is_too_large_or_not_delivered_is_alone() {
        let files =
            [(1, false), (1, false), (99, false), (1, false), (1, true), (1, false), (1, false)];
        assert_eq!(divided((64, 10), &files), [2, 1, 1, 1, 2]);
    }

    #[test]
    fn parts_are_packed_with_those_of_their_object_and_an_object_is_alone() {
        let part = |of: &[u8]| Packable {
            is_file: false,
            part_of: Some(bagpress_codec::Digest::of(of)),
            ..file((1, false))
        };
        let object = || Packable { is_file: false, ..file((1, false)) };
        let refused = || Packable { refused: true, ..part(b"a") };
        let (a, b) = (|| part(b"a"), || part(b"b"));
        let files = vec![a(), a(), a(), b(), b(), object(), object(), b(), b(), refused(), b()];
        assert_eq!(divided_of((64, 10), files), [3, 2, 1, 1, 2, 1, 1]);
    }

    #[test]
    fn a_small_bag_is_divided_so_that_every_worker_gets_some_and_a_wish_is_followed() {
        assert_eq!(PackSize::of(None, 511, 1 << 30), None);
        assert_eq!(PackSize::of(None, 512, 512 * 100), Some(PackSize { files: 2, bytes: 200 }));
        let largest = PackSize { files: limits::PACK_FILES_MAX, bytes: limits::PACK_BYTES_MAX };
        assert_eq!(PackSize::of(None, 4_000_000, u64::MAX), Some(largest));
        assert_eq!(PackSize::of(Some(1), 1_000_000, 1 << 40), None);
        let wanted = PackSize { files: 10, bytes: limits::PACK_BYTES_MAX };
        assert_eq!(PackSize::of(Some(10), 12, 12), Some(wanted));
    }
}
