//! Frames of zstd in a row, and a table of them behind the last one: the seekable format of the zstd project, version 0.1.0.
//!
//! A frame may refer to nothing outside itself, and a file of several frames is what they decode to in a row (RFC 8878 §3),
//! so a block is joined as it is. The table is a frame that decoders skip. It has each frame's two lengths and the
//! checksum that the frame itself ends with, so it follows from the file: nobody has to keep it from one process to the
//! next.

use super::frame::FrameReader;
use super::joined::{Joined, Open};

/// What stands in the table of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameEntry {
    /// Length of the frame.
    pub(super) bytes: u32,
    /// Length of what it decodes to.
    pub(super) input_bytes: u32,
    /// Its content's checksum.
    pub(super) checksum: u32,
}

/// Length of an entry in the table.
const ENTRY_BYTES: usize = 12;
/// Magic number and length of a frame that is skipped.
const SKIPPABLE_MAGIC: u32 = 0x184d_2a5e;
/// What the table ends with.
const TABLE_MAGIC: u32 = 0x8f92_eab1;
/// Entries have checksums.
const TABLE_DESCRIPTOR: u8 = 1 << 7;
/// Number of frames, descriptor, magic number.
const TABLE_FOOTER_BYTES: usize = 9;
/// The most that a frame of the format decodes to.
const FRAME_INPUT_BYTES_MAX: u64 = 1 << 30;
/// The most frames that the format has.
const FRAMES_MAX: u64 = 1 << 27;
/// The shortest frame with a length and a checksum: of no bytes.
const EMPTY_FRAME: [u8; 13] = [0x28, 0xb5, 0x2f, 0xfd, 0x24, 0, 1, 0, 0, 0x99, 0xe9, 0xd8, 0x51];
/// Length of the checksum that a frame ends with.
const CHECKSUM_BYTES: usize = 4;

/// The frames of a file so far: 12 bytes each.
#[derive(Debug, Clone)]
pub(crate) struct Frames {
    /// The longest block of so many input bytes.
    bytes_max: fn(u64) -> u64,
    entries: Vec<FrameEntry>,
    /// Of these entries.
    checksum: u32,
    /// Where the frame is read that is being joined, or recalled.
    reader: FrameReader,
    /// Bytes that were recalled, and where of them the last frame begins.
    recalled: u64,
    begins: u64,
}

impl Frames {
    pub(crate) fn new(bytes_max: fn(u64) -> u64) -> Self {
        let (entries, reader) = (Vec::new(), FrameReader::default());
        Self { bytes_max, entries, checksum: 0, reader, recalled: 0, begins: 0 }
    }

    pub(super) const FORMAT: &'static str = "zstd";
    pub(super) const TAIL_BYTES: usize = CHECKSUM_BYTES;
    pub(super) const INPUT_BYTES_MAX: u64 = FRAME_INPUT_BYTES_MAX;

    /// Whether a frame of the codec may have these lengths.
    pub(super) fn fits(&self, bytes: u64, input_bytes: u64) -> bool {
        let least = EMPTY_FRAME.len() as u64;
        input_bytes <= FRAME_INPUT_BYTES_MAX
            && (least..=(self.bytes_max)(input_bytes)).contains(&bytes)
    }

    /// Reads another piece of what is joined; see [`Joiner::recall`](crate::Joiner::recall).
    pub(super) fn recall(&mut self, joined: &Joined, mut piece: &[u8]) -> Result<(), &'static str> {
        if piece.len() as u64 > joined.output_bytes.saturating_sub(self.recalled) {
            return Err("the file has more bytes than were joined");
        }
        while !piece.is_empty() {
            let taken = self.reader.take(piece)?;
            piece = &piece[taken..];
            self.recalled += taken as u64;
            if let Some(frame) = self.reader.ended() {
                let bytes = self.recalled - self.begins;
                self.push(entry(bytes, frame.input_bytes, frame.checksum)?);
                (self.reader, self.begins) = (FrameReader::default(), self.recalled);
            }
        }
        Ok(())
    }

    /// Whether the frames of everything that is joined are known.
    pub(super) fn check_known(&self, joined: &Joined) -> Result<(), &'static str> {
        let is_known =
            (self.entries.len() as u64, self.checksum) == (joined.blocks, joined.checksum);
        if is_known { Ok(()) } else { Err("what was joined before was not read again") }
    }

    /// Begins with a block.
    pub(super) fn begin(&mut self) {
        self.reader = FrameReader::default();
    }

    /// Takes a piece of a block, and appends it.
    pub(super) fn take(
        &mut self,
        open: &mut Open,
        piece: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), &'static str> {
        let taken = self.reader.take(piece)?;
        open.taken += piece.len() as u64;
        let has_ended = self.reader.ended();
        if taken < piece.len() || has_ended.is_some() != (open.taken == open.bytes) {
            return Err("it is not one frame of the announced length");
        }
        if let Some(frame) = has_ended {
            if frame.input_bytes != open.input_bytes {
                return Err("its header has another length than announced");
            }
            open.tail = frame.checksum.to_le_bytes().to_vec();
        }
        output.extend_from_slice(piece);
        Ok(())
    }

    /// Notes the next frame, by its lengths and its last bytes. Returns the checksum of all entries.
    pub(super) fn add(
        &mut self,
        joined: &Joined,
        (bytes, input_bytes): (u64, u64),
        tail: &[u8],
    ) -> Result<u32, &'static str> {
        let checksum = tail.try_into().map_err(|_| "its checksum is missing")?;
        let entry = entry(bytes, input_bytes, u32::from_le_bytes(checksum))?;
        if joined.blocks >= FRAMES_MAX {
            return Err("the file has more frames than its format allows");
        }
        self.push(entry);
        Ok(self.checksum)
    }

    fn push(&mut self, entry: FrameEntry) {
        // Whether two tables are equal: the note of a join has no room for a table.
        let mut crc = crc32fast::Hasher::new_with_initial(self.checksum);
        crc.update(&entry.encoded());
        self.checksum = crc.finalize();
        self.entries.push(entry);
    }

    /// Appends what ends the file: the table, if it has more than one frame.
    pub(super) fn end(&self, output: &mut Vec<u8>) -> Result<(), &'static str> {
        if self.entries.is_empty() {
            output.extend_from_slice(&EMPTY_FRAME);
        }
        if self.entries.len() < 2 {
            return Ok(());
        }
        let too_many = |_| "its table is too long";
        let table = self.entries.len() * ENTRY_BYTES + TABLE_FOOTER_BYTES;
        let (table, frames) = (u32::try_from(table), u32::try_from(self.entries.len()));
        output.extend_from_slice(&SKIPPABLE_MAGIC.to_le_bytes());
        output.extend_from_slice(&table.map_err(too_many)?.to_le_bytes());
        self.entries.iter().for_each(|entry| output.extend_from_slice(&entry.encoded()));
        output.extend_from_slice(&frames.map_err(too_many)?.to_le_bytes());
        output.push(TABLE_DESCRIPTOR);
        output.extend_from_slice(&TABLE_MAGIC.to_le_bytes());
        Ok(())
    }
}

impl FrameEntry {
    fn encoded(self) -> [u8; ENTRY_BYTES] {
        let mut encoded = [0; ENTRY_BYTES];
        let numbers = [self.bytes, self.input_bytes, self.checksum];
        for (field, number) in encoded.chunks_exact_mut(4).zip(numbers) {
            field.copy_from_slice(&number.to_le_bytes());
        }
        encoded
    }
}

fn entry(bytes: u64, input_bytes: u64, checksum: u32) -> Result<FrameEntry, &'static str> {
    let fits = |number: u64| u32::try_from(number).map_err(|_| "it is too long for the table");
    Ok(FrameEntry { bytes: fits(bytes)?, input_bytes: fits(input_bytes)?, checksum })
}
