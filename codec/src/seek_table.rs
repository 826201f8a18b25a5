//! The table that a file of zstd frames may end with, whoever made it: the seekable format of the zstd project, version 0.1.0.
//!
//! It says where frames are, and what each frame that is read decodes to is compared with what it says. Of others its lengths are
//! believed.

use crate::Error;

/// A table that was read. It holds the bytes of its entries: 8 or 12 a frame.
#[derive(Debug, Clone)]
pub struct SeekTable {
    entries: Vec<u8>,
    entry_bytes: usize,
}

/// What a table says of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeekFrame {
    /// At which byte of the file it begins.
    pub at: u64,
    /// Its length.
    pub bytes: u64,
    /// At which byte of all that is decoded it begins.
    pub input_at: u64,
    /// Length of what it decodes to.
    pub input_bytes: u64,
    /// The lower half of the XXH64 of what it decodes to.
    pub checksum: Option<u32>,
}

const FORMAT: &str = "zstd";
const MAGIC: u32 = 0x8f92_eab1;
const SKIPPABLE_MAGIC: u32 = 0x184d_2a5e;
const SKIPPABLE_HEADER_BYTES: usize = 8;
/// In the descriptor: entries have checksums; bits that must be zero.
const CHECKSUMS: u8 = 0x80;
const RESERVED: u8 = 0x7c;

impl SeekTable {
    /// Length of what every table ends with.
    pub const FOOTER_BYTES: usize = 9;
    /// The longest table that is read: of five million frames.
    pub const BYTES_MAX: u64 = 64 << 20;

    /// Length of the frame that has the table, by the last bytes of a file; none if they do not end a table.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if it is longer than [`BYTES_MAX`](Self::BYTES_MAX), or of a kind that is not known.
    pub fn frame_bytes(footer: &[u8; Self::FOOTER_BYTES]) -> Result<Option<u64>, Error> {
        let [a, b, c, d, descriptor, magic @ ..] = *footer;
        if u32::from_le_bytes(magic) != MAGIC {
            return Ok(None);
        }
        if descriptor & RESERVED != 0 {
            return Err(corrupt("its table is of another kind"));
        }
        let entries = u64::from(u32::from_le_bytes([a, b, c, d])) * entry_bytes(descriptor) as u64;
        let bytes = entries + (SKIPPABLE_HEADER_BYTES + Self::FOOTER_BYTES) as u64;
        if bytes > Self::BYTES_MAX {
            return Err(corrupt("its table is longer than any that is read"));
        }
        Ok(Some(bytes))
    }

    /// Reads the frame that has the table, of which [`frame_bytes`](Self::frame_bytes) gave the length; `before` are the bytes
    /// of the file in front of it.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] unless it is the table of exactly these bytes.
    pub fn read(mut frame: Vec<u8>, before: u64) -> Result<Self, Error> {
        let footer = frame.last_chunk().ok_or_else(|| corrupt("its table is cut"))?;
        if Self::frame_bytes(footer)? != Some(frame.len() as u64) {
            return Err(corrupt("its table has another length"));
        }
        let entry_bytes = entry_bytes(footer[4]);
        let inside = frame.len() - SKIPPABLE_HEADER_BYTES;
        let (magic, bytes) = (number(&frame[..4]), number(&frame[4..SKIPPABLE_HEADER_BYTES]));
        if magic != SKIPPABLE_MAGIC || bytes as usize != inside {
            return Err(corrupt("its table is in no frame of its own"));
        }
        frame.truncate(frame.len() - Self::FOOTER_BYTES);
        frame.drain(..SKIPPABLE_HEADER_BYTES);
        let table = Self { entries: frame, entry_bytes };
        // One that was made before something was appended, or put in front, leads to other places.
        if table.frames().last().map_or(0, |last| last.at + last.bytes) != before {
            return Err(corrupt("its table is not that of the whole file"));
        }
        Ok(table)
    }

    /// Its frames, in order.
    pub fn frames(&self) -> impl Iterator<Item = SeekFrame> {
        let (mut at, mut input_at) = (0, 0);
        self.entries.chunks_exact(self.entry_bytes).map(move |entry| {
            let (bytes, input_bytes) = (number(&entry[..4]).into(), number(&entry[4..8]).into());
            let checksum = entry.get(8..).filter(|checksum| !checksum.is_empty()).map(number);
            let frame = SeekFrame { at, bytes, input_at, input_bytes, checksum };
            (at, input_at) = (at + bytes, input_at + input_bytes);
            frame
        })
    }
}

fn entry_bytes(descriptor: u8) -> usize {
    if descriptor & CHECKSUMS == 0 { 8 } else { 12 }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn corrupt(reason: &str) -> Error {
    Error::Corrupt { format: FORMAT, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(entries: &[&[u32]], descriptor: u8) -> Vec<u8> {
        let body: Vec<u8> = entries.concat().into_iter().flat_map(u32::to_le_bytes).collect();
        let bytes = u32::try_from(body.len() + SeekTable::FOOTER_BYTES).unwrap();
        let mut frame = [SKIPPABLE_MAGIC.to_le_bytes(), bytes.to_le_bytes()].concat();
        frame.extend_from_slice(&body);
        frame.extend_from_slice(&u32::try_from(entries.len()).unwrap().to_le_bytes());
        frame.push(descriptor);
        frame.extend_from_slice(&MAGIC.to_le_bytes());
        frame
    }

    fn read(frame: &[u8], before: u64) -> Result<SeekTable, Error> {
        let bytes = SeekTable::frame_bytes(frame.last_chunk().unwrap())?;
        assert_eq!(bytes, Some(frame.len() as u64));
        SeekTable::read(frame.to_vec(), before)
    }

    #[test]
    fn a_table_with_and_without_checksums_says_where_frames_are() {
        let with = read(&table(&[&[10, 100, 7], &[5, 0, 8], &[20, 50, 9]], 0x80), 35).unwrap();
        let last =
            SeekFrame { at: 15, bytes: 20, input_at: 100, input_bytes: 50, checksum: Some(9) };
        assert_eq!((with.frames().count(), with.frames().last()), (3, Some(last)));
        // The two lowest bits of the descriptor mean nothing.
        let without = read(&table(&[&[10, 100], &[25, 50]], 0x03), 35).unwrap();
        let last = SeekFrame { at: 10, bytes: 25, input_at: 100, input_bytes: 50, checksum: None };
        assert_eq!((without.frames().count(), without.frames().last()), (2, Some(last)));
        assert_eq!(read(&table(&[], 0x80), 0).unwrap().frames().next(), None);
    }

    #[test]
    fn a_table_that_is_not_of_the_file_or_no_table_is_refused() {
        let good = table(&[&[10, 100, 7]], 0x80);
        assert!(read(&good, 10).is_ok());
        for before in [0, 9, 11, u64::MAX] {
            assert!(read(&good, before).is_err(), "{before}");
        }
        for reserved in [0x84, 0xc0, 0x40, 0x04] {
            assert!(read(&table(&[&[10, 100, 7]], reserved), 10).is_err(), "{reserved}");
        }
        for at in 0..SKIPPABLE_HEADER_BYTES {
            let mut other = good.clone();
            other[at] ^= 1;
            assert!(read(&other, 10).is_err(), "{at}");
        }
        assert!(SeekTable::read(good[1..].to_vec(), 10).is_err());
        assert!(SeekTable::read(Vec::new(), 0).is_err());
        let mut none = good.clone();
        *none.last_mut().unwrap() ^= 1;
        assert_eq!(SeekTable::frame_bytes(none.last_chunk().unwrap()), Ok(None));
    }

    #[test]
    fn a_table_that_would_take_gigabytes_is_refused_before_it_is_read() {
        let mut frame = table(&[&[10, 100, 7]], 0x80);
        let count = frame.len() - SeekTable::FOOTER_BYTES;
        frame[count..count + 4].copy_from_slice(&(1_u32 << 27).to_le_bytes());
        assert!(SeekTable::frame_bytes(frame.last_chunk().unwrap()).is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_read_as_a_table_is_of_all_bytes_before_it(
            entries in proptest::collection::vec(any::<[u32; 3]>(), 0..5),
            flipped in any::<(usize, u8)>(),
            other in any::<u64>(),
        ) {
            let entries: Vec<_> = entries.iter().map(<[u32; 3]>::as_slice).collect();
            let mut frame = table(&entries, 0x80);
            let before = entries.iter().map(|entry| u64::from(entry[0])).sum();
            prop_assert!(SeekTable::read(frame.clone(), before).is_ok());
            let at = flipped.0 % frame.len();
            frame[at] ^= flipped.1;
            for before in [before, other] {
                if let Ok(table) = SeekTable::read(frame.clone(), before) {
                    prop_assert_eq!(table.frames().map(|frame| frame.bytes).sum::<u64>(), before);
                }
            }
        }
    }
}
