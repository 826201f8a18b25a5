//! The output of a file that was cut into blocks, while their outputs become one file.
//!
//! It grows as a part file of the file itself. A block's own part file goes only when what was joined is durable, with a
//! note of how far that is: whoever goes on after a crash finds each block in one of the two.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bagpress_broker::ids::Execution;
use bagpress_codec::{Codec, Decoded, Decoder, Digest, Hasher, Joined, Joiner, SEGMENT_BYTES};

use super::files::{Parts, part_name};
use super::hash::{PIECE_BYTES, hash_file};
use super::join_note::{Note, NoteFile, Whole};

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
    /// Digest of its input.
    pub input_digest: Digest,
}

/// Where the join of a file is when it is looked at.
#[derive(Debug)]
pub enum Join {
    /// Blocks are missing.
    Open(Box<Joining>),
    /// It had come to its end before its outcome was counted. Its part file may have the output's name already.
    Whole(Whole),
    /// Nobody waits for it any more: it is where its note says, as before.
    Stopped,
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
    /// Goes on with the join of the file of task `index` where its note says, or begins it. No other process goes on with it
    /// meanwhile.
    ///
    /// Blocks: reads again what is joined, and asks `stopped` before each piece of a few KiB whether nobody waits any more.
    ///
    /// # Errors
    ///
    /// What the system said; `ResourceBusy` if another process joins it.
    pub fn open(
        parts: &Parts,
        index: u32,
        codec: &Codec,
        stopped: impl FnMut() -> bool,
    ) -> io::Result<Join> {
        let mut file_of_note = NoteFile::open(parts, index)?;
        match file_of_note.read()? {
            Some(Note { whole: Some(whole), .. }) => return Ok(Join::Whole(whole)),
            Some(note) => match resume(parts, index, codec, &note, stopped)? {
                Resumed::Found(found) => {
                    let (file, joiner, seen) = *found;
                    let going_on =
                        Self::of(index, note.execution, file, file_of_note, joiner, seen);
                    return Ok(Join::Open(Box::new(going_on)));
                }
                Resumed::Stopped => return Ok(Join::Stopped),
                Resumed::Nothing => {}
            },
            None => {}
        }
        let (execution, joiner) = (Execution::random(), codec.joiner());
        let note = Note {
            execution: execution.clone(),
            joined: joiner.joined(),
            digest: Hasher::new().finish(),
            whole: None,
        };
        let file = parts.create(&parts.part(index, 0, &execution))?;
        file_of_note.begin(parts, &note)?;
        let begun = Self::of(index, execution, file, file_of_note, joiner, Seen::new(codec));
        Ok(Join::Open(Box::new(begun)))
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
        if self.joiner.check(block.bytes, block.input_bytes).is_err() {
            return Ok(false);
        }
        let unjoinable = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        self.joiner.block(block.bytes, block.input_bytes).map_err(unjoinable)?;
        // A format without a checksum says nothing of its blocks.
        self.seen.block = (self.joiner.tail_bytes() == 0).then(Hasher::new);
        let (mut piece, mut joined) = (vec![0; PIECE_BYTES], Vec::new());
        loop {
            let read = from.read(&mut piece)?;
            if read == 0 {
                let is_whole = self.joiner.joined().blocks() == self.joined.blocks() + 1;
                let digest = self.seen.block.take().map(Hasher::finish);
                if !is_whole || digest.is_some_and(|digest| digest != block.input_digest) {
                    return Err(invalid("a block is not what its outcome says"));
                }
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
        let (execution, digest) = (self.execution.clone(), self.stored.clone().finish());
        let note = Note { execution, joined: self.joined, digest, whole: None };
        self.note.write(&note)?;
        for part in self.unsettled.drain(..) {
            parts.remove_decided(&part);
        }
        self.unsettled_bytes = 0;
        Ok(())
    }

    /// Ends the file behind its last block, durably, and notes that. Its blocks stay, and its note, until its outcome is
    /// counted.
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
        let (bytes, input_bytes) = (ended?, joined.input_bytes());
        self.file.sync_data()?;
        if self.seen.input_bytes != input_bytes {
            return Err(invalid("it does not decompress to as many bytes as its blocks"));
        }
        let (input_digest, digest) = self.seen.finish()?;
        let execution = self.execution.clone();
        let whole = Whole { execution, input_bytes, input_digest, bytes, digest };
        let note = Note { execution: self.execution, joined, digest, whole: Some(whole.clone()) };
        self.note.write(&note)?;
        parts.note_closed(self.index, 0, &whole.execution, digest);
        Ok(whole)
    }
}

/// What of a noted join is there.
enum Resumed {
    /// Its part file, cut to what is noted, and what was seen of it.
    Found(Box<(File, Joiner, Seen)>),
    /// Nothing to go on with: its blocks have vanished, too, and are made again.
    Nothing,
    /// Nobody wants to know any more.
    Stopped,
}

fn resume(
    parts: &Parts,
    index: u32,
    codec: &Codec,
    note: &Note,
    stopped: impl FnMut() -> bool,
) -> io::Result<Resumed> {
    let part = parts.part(index, 0, &note.execution);
    let name = part_name(index, 0, &note.execution);
    let bytes = note.joined.output_bytes();
    let (mut joiner, mut seen) = (codec.resume_joiner(note.joined), Seen::new(codec));
    let mut file = match parts.private().write(Path::new(&name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Resumed::Nothing),
        opened => opened?,
    };
    // What is behind was not durable, and its blocks are there.
    let is_long_enough = file.metadata()?.len() >= bytes;
    file.set_len(bytes)?;
    let Some(read) = seen.read(&mut file, &mut joiner, stopped)? else {
        return Ok(Resumed::Stopped);
    };
    if !is_long_enough
        || read != bytes
        || seen.input_bytes != note.joined.input_bytes()
        || seen.stored.clone().finish() != note.digest
    {
        parts.remove_part(&part)?;
        return Ok(Resumed::Nothing);
    }
    Ok(Resumed::Found(Box::new((file, joiner, seen))))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What is written to the file: decompressed and hashed as it comes.
struct Seen {
    decoder: Box<dyn Decoder>,
    input: Hasher,
    input_bytes: u64,
    /// What the block that is being joined decompresses to, if that is to be compared.
    block: Option<Hasher>,
    stored: Hasher,
    buffer: Vec<u8>,
}

impl Seen {
    fn new(codec: &Codec) -> Self {
        let (input, stored) = (Hasher::new(), Hasher::new());
        let buffer = vec![0; SEGMENT_BYTES];
        Self { decoder: codec.decoder(), input, input_bytes: 0, block: None, stored, buffer }
    }

    /// Reads a file from its start to its end, for `joiner` too. Returns how many bytes it has, as far as they can be
    /// decompressed; none if it was stopped.
    fn read(
        &mut self,
        file: &mut File,
        joiner: &mut Joiner,
        mut stopped: impl FnMut() -> bool,
    ) -> io::Result<Option<u64>> {
        file.seek(SeekFrom::Start(0))?;
        let (mut piece, mut bytes) = (vec![0; PIECE_BYTES], 0);
        loop {
            if stopped() {
                return Ok(None);
            }
            let read = file.read(&mut piece)?;
            let piece = &piece[..read];
            if read == 0 || self.take(piece).is_err() || joiner.recall(piece).is_err() {
                return Ok(Some(bytes));
            }
            bytes += read as u64;
        }
    }

    fn take(&mut self, stored: &[u8]) -> io::Result<()> {
        self.stored.update(stored);
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let mut parts = Decoded::new(&mut *self.decoder, stored, &mut self.buffer);
        while let Some(input) = parts.next().map_err(invalid)? {
            self.input.update(input);
            if let Some(block) = &mut self.block {
                block.update(input);
            }
            self.input_bytes += input.len() as u64;
        }
        Ok(())
    }

    /// The digests of what it decompresses to, and of itself.
    fn finish(mut self) -> io::Result<(Digest, Digest)> {
        let ended = self.decoder.finish();
        ended.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok((self.input.finish(), self.stored.finish()))
    }
}
