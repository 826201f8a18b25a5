//! The file of a ledger: lines that are appended durably, and read in their order or one by one.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bagpress_broker::limits;
use tracing::warn;

use super::line::{Entry, decode, encode};
use crate::run_folder::from_start::FromStart;

/// Most bytes that are read as one line.
pub(super) const LINE_BYTES_MAX: u64 = limits::MESSAGE_BYTES_MAX as u64 * 2;

/// The open file.
#[derive(Debug)]
pub(crate) struct LedgerFile {
    file: File,
    path: PathBuf,
}

/// A line that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, from 1.
    pub number: u64,
    /// What is wrong with it.
    pub why: String,
}

impl LedgerFile {
    /// Reads every line of a ledger into `see`, with the byte at which the line begins, and returns the lines that cannot be
    /// used: they are skipped, never believed, and what they said is found out again. `path` is what it is called. Writes
    /// nothing.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn of(
        file: File,
        path: &Path,
        see: impl FnMut(u64, Entry),
    ) -> io::Result<(Self, Vec<BadLine>)> {
        let bad = read(&file, see)?;
        Ok((Self { file, path: path.to_owned() }, bad))
    }

    /// Ends a torn last line, which must not swallow the next one: before anything is appended to what was just read.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn end_last_line(&self) -> io::Result<()> {
        let end = self.file.metadata()?.len();
        if end > 0 {
            let mut last = [0];
            self.file.read_exact_at(&mut last, end - 1)?;
            if last != *b"\n" {
                (&self.file).write_all(b"\n")?;
            }
        }
        Ok(())
    }

    /// The ledger at `path`, made if it is not there.
    #[cfg(test)]
    pub(crate) fn at(path: &Path, see: impl FnMut(u64, Entry)) -> io::Result<(Self, Vec<BadLine>)> {
        let file = File::options().read(true).append(true).create(true).open(path)?;
        let (ledger, bad) = Self::of(file, path, see)?;
        ledger.end_last_line()?;
        Ok((ledger, bad))
    }

    /// What it is called.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Appends lines; durable when this returns. Returns the byte at which each of them begins, which holds as long as
    /// nobody else appends meanwhile.
    ///
    /// Blocks: writes and syncs.
    ///
    /// # Errors
    ///
    /// What the system said: none of the lines is there. After a crash some of them may be, and the
    /// next opening skips a torn one.
    pub(crate) fn append(&self, entries: &[Entry]) -> io::Result<Vec<u64>> {
        let mut text = Vec::with_capacity(entries.len() * 512);
        let mut places = Vec::with_capacity(entries.len());
        for entry in entries {
            places.push(text.len() as u64);
            text.extend_from_slice(&encode(entry));
            text.push(b'\n');
        }
        let start = whole_or_nothing(&self.file, |mut file| {
            file.write_all(&text)?;
            file.sync_data()
        })?;
        Ok(places.into_iter().map(|place| start + place).collect())
    }

    /// The line that begins at byte `at`.
    ///
    /// # Errors
    ///
    /// What the system said; what is wrong with the line.
    pub(crate) fn entry_at(&self, at: u64) -> io::Result<Entry> {
        let mut line = Vec::new();
        let reader = BufReader::with_capacity(4096, FromStart::behind(&self.file, at));
        reader.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        decode(line.strip_suffix(b"\n").unwrap_or(&line)).map_err(io::Error::other)
    }
}

/// Appends to a file, or takes back what a disk that is full let through: its lines would be there
/// twice after the next try, and a torn one would swallow the line behind it. Returns where the file ended before.
pub(crate) fn whole_or_nothing(
    file: &File,
    append: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<u64> {
    let before = file.metadata()?.len();
    append(file).inspect_err(|_| {
        if let Err(error) = file.set_len(before) {
            warn!(%error, "part of a ledger line left behind");
        }
    })?;
    Ok(before)
}

/// Reads every line of a ledger into `see`, with the byte at which it begins, and returns those that cannot be used.
///
/// # Errors
///
/// What the system said.
pub(crate) fn read(file: &File, mut see: impl FnMut(u64, Entry)) -> io::Result<Vec<BadLine>> {
    let mut reader = BufReader::with_capacity(256 * 1024, FromStart::of(file));
    let (mut bad, mut number) = (Vec::new(), 0);
    let (mut line, mut at) = (Vec::new(), 0);
    loop {
        at += line.len() as u64;
        line.clear();
        if reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(bad);
        }
        number += 1;
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if text.is_empty() {
            continue;
        }
        match decode(text) {
            Ok(entry) => see(at, entry),
            Err(why) => bad.push(BadLine { number, why }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::line::tests::outcome;
    use super::*;

    /// What a disk lets through before it is full is no part of the ledger: the next try has it all.
    #[test]
    fn an_append_that_fails_half_way_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.jsonl");
        let (ledger, _) = LedgerFile::at(&path, |_, _| panic!("it is new")).unwrap();
        let lines = [outcome(0, 0), outcome(1, 0), outcome(2, 0)];
        ledger.append(&lines[..1]).unwrap();
        let text = lines[1..].iter().flat_map(|line| [encode(line), b"\n".to_vec()].concat());
        let text: Vec<_> = text.collect();
        for part in [1, text.len() / 2 - 1, text.len() / 2 + 40, text.len()] {
            let full = whole_or_nothing(&ledger.file, |mut file| {
                file.write_all(&text[..part])?;
                Err(io::ErrorKind::StorageFull.into())
            });
            assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
        ledger.append(&lines[1..]).unwrap();
        let mut seen = Vec::new();
        assert_eq!(read(&ledger.file, |_, entry| seen.push(entry)).unwrap(), []);
        assert_eq!(seen, lines);
    }

    #[test]
    fn bad_lines_are_reported_and_the_rest_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.jsonl");
        let (ledger, bad) = LedgerFile::at(&path, |_, _| panic!("it is new")).unwrap();
        assert_eq!(bad, []);
        ledger.append(&[outcome(0, 0), outcome(1, 0), outcome(2, 0)]).unwrap();
        drop(ledger);
        let mut bytes = std::fs::read(&path).unwrap();
        let second = bytes.iter().position(|b| *b == b'\n').unwrap() + 40;
        bytes[second] ^= 1;
        // A block of zeros, and a torn end.
        bytes.extend_from_slice(&[0; 4096]);
        bytes.extend_from_slice(b"\n{\"v\":1,\"outc");
        std::fs::write(&path, &bytes).unwrap();

        let mut seen = HashSet::new();
        let see = |_, entry| {
            if let Entry::Outcome(result) = entry {
                seen.insert(result.index);
            }
        };
        let (ledger, bad) = LedgerFile::at(&path, see).unwrap();
        assert_eq!(seen, HashSet::from([0, 2]));
        assert_eq!(bad.iter().map(|bad| bad.number).collect::<Vec<_>>(), [2, 4, 5]);
        ledger.append(&[outcome(1, 0)]).unwrap();
        // What is appended behind a torn line is read.
        let mut last = None;
        read(&ledger.file, |at, entry| last = Some((at, entry))).unwrap();
        let (at, entry) = last.unwrap();
        assert_eq!(entry.key(), (1, 0));
        assert_eq!(ledger.entry_at(at).unwrap(), entry);
        assert!(ledger.entry_at(at + 1).is_err());
    }
}
