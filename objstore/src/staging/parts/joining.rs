//! The output of a file that was cut into blocks, while their outputs become one file.
//!
//! It grows as a part file of the file itself. A block's own part file goes only when what was joined is durable, with a
//! note of how far that is: whoever goes on after a crash finds each block in one of the two.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bagpress_broker::ids::Execution;
use bagpress_codec::{Codec, Decoder, Digest, Hasher, Joined, Joiner, SEGMENT_BYTES};
use serde::{Deserialize, Serialize};

use super::files::{Parts, part_name};
use super::hash::{PIECE_BYTES, hash_file};

/// The output of one block, as its counted outcome has it.
#[derive(Debug, Clone)]
pub struct BlockOutput {
    /// The block's index and round.
    pub key: (u32, u32),
    /// Whose output it is.
    pub execution: Execution,
    /// Its size.
    pub bytes: u64,
    /// Its digest.
    pub digest: Digest,
    /// Size of its input.
    pub input_bytes: u64,
}

/// A whole file that was joined and is durable.
#[derive(Debug, Clone)]
pub struct Whole {
    /// Names its part file, of round 0.
    pub execution: Execution,
    /// Size of what it decompresses to.
    pub input_bytes: u64,
    /// Digest of what it decompresses to: it was decompressed as it was joined.
    pub input_digest: Digest,
    /// Its size.
    pub bytes: u64,
    /// Its digest.
    pub digest: Digest,
}

/// A file that is being joined.
pub struct Joining {
    index: u32,
    execution: Execution,
    file: File,
    note: NoteFile,
    joiner: Joiner,
    seen: Seen,
    /// How far the file is written, in whole blocks.
    joined: Joined,
    /// Of the bytes of these blocks.
    stored: Hasher,
    /// Blocks that are joined, and whose own part files are there still.
    unsettled: Vec<PathBuf>,
    /// Output bytes of them.
    unsettled_bytes: u64,
}

impl std::fmt::Debug for Joining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (index, joined) = (self.index, self.joined);
        f.debug_struct("Joining")
            .field("index", &index)
            .field("joined", &joined)
            .finish_non_exhaustive()
    }
}

impl Joining {
    /// Goes on with the join of the file of task `index` where its note says, or begins it.
    ///
    /// Blocks: reads again what is joined.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn open(parts: &Parts, index: u32, codec: &Codec) -> io::Result<Self> {
        if let Some(going_on) = Self::resume(parts, index, codec)? {
            return Ok(going_on);
        }
        let (execution, joiner) = (Execution::random(), codec.joiner());
        let (so_far, digest) = (joiner.joined(), Hasher::new().finish());
        let note = Note { execution: execution.clone(), joined: so_far, digest };
        let note = NoteFile::begin(parts, index, &note)?;
        let file = parts.create(&parts.part(index, 0, &execution))?;
        Ok(Self::of(index, execution, file, note, joiner, Seen::new(codec)))
    }

    fn of(
        index: u32,
        execution: Execution,
        file: File,
        note: NoteFile,
        joiner: Joiner,
        seen: Seen,
    ) -> Self {
        let (so_far, stored) = (joiner.joined(), seen.stored.clone());
        Self {
            index,
            execution,
            file,
            note,
            joiner,
            seen,
            joined: so_far,
            stored,
            unsettled: Vec::new(),
            unsettled_bytes: 0,
        }
    }

    /// None if there is nothing to go on with: then its blocks have vanished, too, and are made again.
    fn resume(parts: &Parts, index: u32, codec: &Codec) -> io::Result<Option<Self>> {
        let Some((file_of_note, note)) = NoteFile::read(parts, index)? else { return Ok(None) };
        let part = parts.part(index, 0, &note.execution);
        let name = part_name(index, 0, &note.execution);
        let bytes = note.joined.output_bytes();
        let mut seen = Seen::new(codec);
        let mut file = match parts.private().write(Path::new(&name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // It was whole and had its source's mode already, though not its name.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                parts.remove_part(&part)?;
                return Ok(None);
            }
            opened => opened?,
        };
        // What is behind was not durable, and its blocks are there.
        let is_long_enough = file.metadata()?.len() >= bytes;
        file.set_len(bytes)?;
        if !is_long_enough
            || seen.read(&mut file)? != bytes
            || seen.input_bytes != note.joined.input_bytes()
            || seen.stored.clone().finish() != note.digest
        {
            parts.remove_part(&part)?;
            return Ok(None);
        }
        let joiner = codec.resume_joiner(note.joined);
        Ok(Some(Self::of(index, note.execution, file, file_of_note, joiner, seen)))
    }

    /// How many blocks are joined.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.joined.blocks()
    }

    /// How many output bytes have been joined since this was last [settled](Self::settle).
    #[must_use]
    pub fn unsettled_bytes(&self) -> u64 {
        self.unsettled_bytes
    }

    /// Joins the next block. Returns whether its bytes were what they should be; if not, nothing was joined.
    ///
    /// After an error this can be [settled](Self::settle), and be opened again, and no more.
    ///
    /// # Errors
    ///
    /// What the system said; `InvalidData` if what was joined does not decompress.
    pub fn add(&mut self, parts: &Parts, block: &BlockOutput) -> io::Result<bool> {
        let part = parts.part(block.key.0, block.key.1, &block.execution);
        let name = part_name(block.key.0, block.key.1, &block.execution);
        match hash_file(parts.private(), Path::new(&name)) {
            Ok(found) if found == (block.digest, block.bytes) => {}
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        let Some(mut from) = parts.private().file(Path::new(&name))? else { return Ok(false) };
        let before = self.joined.output_bytes();
        let copied = self.copy(&mut from, block);
        if copied.is_err() {
            self.file.set_len(before)?;
        }
        if !copied? {
            return Ok(false);
        }
        self.joined = self.joiner.joined();
        self.stored = self.seen.stored.clone();
        self.unsettled.push(part);
        self.unsettled_bytes += self.joined.output_bytes() - before;
        Ok(true)
    }

    /// Whether the block is one that can be joined.
    fn copy(&mut self, from: &mut File, block: &BlockOutput) -> io::Result<bool> {
        // What our own encoder made can: this is another's.
        if self.joiner.clone().block(block.bytes, block.input_bytes).is_err() {
            return Ok(false);
        }
        let unjoinable = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        self.joiner.block(block.bytes, block.input_bytes).map_err(unjoinable)?;
        let (mut piece, mut joined) = (vec![0; PIECE_BYTES], Vec::new());
        loop {
            let read = from.read(&mut piece)?;
            if read == 0 {
                return Ok(true);
            }
            joined.clear();
            self.joiner.write(&piece[..read], &mut joined).map_err(unjoinable)?;
            self.file.write_all(&joined)?;
            self.seen.take(&joined)?;
        }
    }

    /// Makes durable what is joined, then removes the blocks that it was made of.
    ///
    /// # Errors
    ///
    /// What the system said: nothing was removed.
    pub fn settle(&mut self, parts: &Parts) -> io::Result<()> {
        if self.unsettled.is_empty() {
            return Ok(());
        }
        self.file.sync_data()?;
        let (execution, joined) = (self.execution.clone(), self.joined);
        let note = Note { execution, joined, digest: self.stored.clone().finish() };
        self.note.write(&note)?;
        for part in self.unsettled.drain(..) {
            parts.remove_decided(&part);
        }
        self.unsettled_bytes = 0;
        Ok(())
    }

    /// Ends the file behind its last block, durably. Its blocks stay, and its note, until its outcome is counted.
    ///
    /// # Errors
    ///
    /// What the system said; `InvalidData` if it does not decompress to as many bytes as its blocks.
    pub fn finish(mut self, parts: &Parts) -> io::Result<Whole> {
        let unjoinable = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let (mut end, joined) = (Vec::new(), self.joined);
        let ended = self.joiner.finish(&mut end).map_err(unjoinable).and_then(|bytes| {
            self.file.write_all(&end)?;
            self.seen.take(&end)?;
            Ok(bytes)
        });
        if ended.is_err() {
            self.file.set_len(joined.output_bytes())?;
        }
        let bytes = ended?;
        self.file.sync_data()?;
        let (input_digest, digest) = self.seen.finish()?;
        parts.note_closed(self.index, 0, &self.execution, digest);
        let input_bytes = joined.input_bytes();
        Ok(Whole { execution: self.execution, input_bytes, input_digest, bytes, digest })
    }
}

/// Removes the note of a file that has its outcome.
///
/// # Errors
///
/// What the system said.
pub fn forget_join(parts: &Parts, index: u32) -> io::Result<()> {
    parts.private().remove_file(&note_name(index))
}

/// What is written to the file: decompressed and hashed as it comes.
struct Seen {
    decoder: Box<dyn Decoder>,
    input: Hasher,
    input_bytes: u64,
    stored: Hasher,
    buffer: Vec<u8>,
}

impl Seen {
    fn new(codec: &Codec) -> Self {
        let (input, stored) = (Hasher::new(), Hasher::new());
        let buffer = vec![0; SEGMENT_BYTES];
        Self { decoder: codec.decoder(), input, input_bytes: 0, stored, buffer }
    }

    /// Reads a file from its start to its end. Returns how many bytes it has, as far as they can be decompressed.
    fn read(&mut self, file: &mut File) -> io::Result<u64> {
        file.seek(SeekFrom::Start(0))?;
        let (mut piece, mut bytes) = (vec![0; PIECE_BYTES], 0);
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 || self.take(&piece[..read]).is_err() {
                return Ok(bytes);
            }
            bytes += read as u64;
        }
    }

    fn take(&mut self, mut stored: &[u8]) -> io::Result<()> {
        self.stored.update(stored);
        loop {
            let decoded = self.decoder.read_into(stored, &mut self.buffer);
            let progress = decoded.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            stored = &stored[progress.consumed..];
            self.input.update(&self.buffer[..progress.produced]);
            self.input_bytes += progress.produced as u64;
            if progress.consumed == 0 && progress.produced == 0 {
                return Ok(());
            }
        }
    }

    /// The digests of what it decompresses to, and of itself.
    fn finish(mut self) -> io::Result<(Digest, Digest)> {
        let ended = self.decoder.finish();
        ended.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok((self.input.finish(), self.stored.finish()))
    }
}

fn note_name(index: u32) -> PathBuf {
    format!("joined.{index}").into()
}

/// How far a file was joined, durably.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {
    execution: Execution,
    joined: Joined,
    /// Of the bytes that are joined: no checksum of `store` would tell that they changed.
    digest: Digest,
}

/// The file of a note. It has two places, which are written in turn: a crash damages one of them at most, and a full disk has
/// room for what overwrites.
#[derive(Debug)]
struct NoteFile {
    file: File,
    next: u64,
}

const NOTE_BYTES: usize = 512;

impl NoteFile {
    /// With a note of a join that begins, and nothing of any other.
    fn begin(parts: &Parts, index: u32, note: &Note) -> io::Result<Self> {
        let name = note_name(index);
        let file = match parts.private().write(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                parts.private().create(&name)?
            }
            there => there?,
        };
        let mut both = encoded(note)?.to_vec();
        both.resize(2 * NOTE_BYTES, b' ');
        file.write_all_at(&both, 0)?;
        file.sync_all()?;
        parts.private().itself()?.sync_all()?;
        Ok(Self { file, next: 1 })
    }

    /// The newest note, if there is one.
    fn read(parts: &Parts, index: u32) -> io::Result<Option<(Self, Note)>> {
        let file = match parts.private().write(&note_name(index)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            there => there?,
        };
        let mut both = Vec::new();
        (&file).take(2 * NOTE_BYTES as u64).read_to_end(&mut both)?;
        let notes = (1..).zip(both.chunks(NOTE_BYTES).map(decoded));
        let newest = notes
            .filter_map(|(next, note)| Some((next, note?)))
            .max_by_key(|(_, note)| note.joined.blocks());
        Ok(newest.map(|(next, note)| (Self { file, next }, note)))
    }

    /// Takes the place of the older one of the two, durably.
    fn write(&mut self, note: &Note) -> io::Result<()> {
        self.file.write_all_at(&encoded(note)?, self.next % 2 * NOTE_BYTES as u64)?;
        self.file.sync_data()?;
        self.next += 1;
        Ok(())
    }
}

/// Its CRC-32 and itself, filled up with spaces.
fn encoded(note: &Note) -> io::Result<[u8; NOTE_BYTES]> {
    let json = serde_json::to_string(note)?;
    let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
    let mut place = [b' '; NOTE_BYTES];
    let there = place.get_mut(..line.len()).ok_or(io::ErrorKind::InvalidData)?;
    there.copy_from_slice(line.as_bytes());
    Ok(place)
}

fn decoded(place: &[u8]) -> Option<Note> {
    let line = str::from_utf8(place).ok()?.trim_end();
    let (crc, json) = line.split_once(' ')?;
    let is_whole = u32::from_str_radix(crc, 16).ok()? == crc32fast::hash(json.as_bytes());
    serde_json::from_str(json).ok().filter(|_| is_whole)
}
