//! How far a file is joined, written down so that a crash at any time leaves it readable.

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bagpress_broker::ids::Execution;
use bagpress_codec::{Digest, Joined};
use serde::{Deserialize, Serialize};

use super::files::Parts;

/// A whole file that was joined and is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// How far a file was joined, durably.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) execution: Execution,
    pub(super) joined: Joined,
    /// Of the bytes that are joined: no checksum of `store` would tell that they changed.
    pub(super) digest: Digest,
    /// That it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) whole: Option<Whole>,
}

/// The file of a note. It has two places, which are written in turn: a crash damages one of them at most, and a full disk has
/// room for what overwrites.
#[derive(Debug)]
pub(super) struct NoteFile {
    file: File,
    next: u64,
}

const NOTE_BYTES: usize = 1024;

impl NoteFile {
    /// Opens the note of a file, which no other process has open.
    pub(super) fn open(parts: &Parts, index: u32) -> io::Result<Self> {
        let name = note_name(index);
        let file = match parts.private().write(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                parts.private().create(&name)?
            }
            there => there?,
        };
        // Where files cannot be locked, only the lease on the bag keeps others away.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            let text = "another process joins its blocks";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
        }
        Ok(Self { file, next: 0 })
    }

    /// Writes the note of a join that begins, and leaves nothing of any other. Durable with all that is in the folder.
    pub(super) fn begin(&mut self, parts: &Parts, note: &Note) -> io::Result<()> {
        let mut both = encoded(note)?.to_vec();
        both.resize(2 * NOTE_BYTES, b' ');
        self.file.write_all_at(&both, 0)?;
        self.file.sync_all()?;
        parts.private().itself()?.sync_all()?;
        self.next = 1;
        Ok(())
    }

    /// The newest note, if there is one.
    pub(super) fn read(&mut self) -> io::Result<Option<Note>> {
        let mut both = Vec::new();
        (&self.file).take(2 * NOTE_BYTES as u64).read_to_end(&mut both)?;
        let notes = (1..).zip(both.chunks(NOTE_BYTES).map(decoded));
        let newest = notes
            .filter_map(|(next, note)| Some((next, note?)))
            .max_by_key(|(_, note)| (note.whole.is_some(), note.joined.blocks()));
        Ok(newest.map(|(next, note)| {
            self.next = next;
            note
        }))
    }

    /// Takes the place of the older one of the two, durably.
    pub(super) fn write(&mut self, note: &Note) -> io::Result<()> {
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

fn note_name(index: u32) -> PathBuf {
    format!("joined.{index}").into()
}

/// Removes the note of a file that has its outcome.
///
/// # Errors
///
/// What the system said.
pub fn forget_join(parts: &Parts, index: u32) -> io::Result<()> {
    parts.private().remove_file(&note_name(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_note_fits_in_its_place_and_a_damaged_one_is_none() {
        let most = u64::MAX;
        let joined = serde_json::json!({
            "blocks": most, "input_bytes": most, "output_bytes": most, "checksum": u32::MAX
        });
        let (execution, digest) = (Execution::random(), Digest::of(b""));
        let whole = Whole {
            execution: execution.clone(),
            input_bytes: most,
            input_digest: digest,
            bytes: most,
            digest,
        };
        let joined = serde_json::from_value(joined).unwrap();
        let note = Note { execution, joined, digest, whole: Some(whole.clone()) };
        let place = encoded(&note).unwrap();
        assert_eq!(decoded(&place).and_then(|note| note.whole), Some(whole));
        let bytes = place.iter().rposition(|byte| *byte != b' ').unwrap();
        for at in 0..bytes {
            let mut damaged = place;
            damaged[at] ^= 1;
            assert!(decoded(&damaged).is_none(), "{at}");
        }
    }
}
