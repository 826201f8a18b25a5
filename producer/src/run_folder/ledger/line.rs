//! The ledger: one checksummed line per outcome and per begun round.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bagpress_broker::result::TaskResult;
use bagpress_broker::{bounded, limits};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::run_folder::from_start::FromStart;

/// Ends a line: `,"crc":"` + 8 hexadecimal digits + `"}`.
const CRC_BYTES: usize = 8 + 8 + 2;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Entry {
    /// A task's round has an outcome. It is the one that counts.
    Outcome(Arc<TaskResult>),
    /// A task is run anew: what an earlier round said no longer counts.
    Begun {
        /// The task's place in its bag.
        #[serde(deserialize_with = "bounded::index")]
        index: u32,
        /// The new round.
        #[serde(deserialize_with = "bounded::round")]
        round: u32,
        /// Its file as it is now, where the new round is to take it so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<InputNow>,
    },
}

/// What became of an input since the bag was made: from this round on the task takes it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InputNow {
    /// Its size.
    pub(crate) bytes: u64,
    /// Its modification time, ns since 1970.
    pub(crate) mtime_ns: i64,
    /// Its permission bits.
    pub(crate) mode: u32,
    /// Its inode.
    pub(crate) inode: u64,
}

#[derive(Serialize, Deserialize)]
struct Line {
    v: u32,
    #[serde(flatten)]
    entry: Entry,
}

/// Writes a line, without its end: the CRC-32 is that of everything before its own comma.
#[must_use]
pub(crate) fn encode(entry: &Entry) -> Vec<u8> {
    let entry = match entry {
        // The run folder has the specification: a descriptor in each line would double the ledger.
        Entry::Outcome(result) if result.descriptor.is_some() => {
            let result = TaskResult { descriptor: None, ..(**result).clone() };
            Entry::Outcome(Arc::new(result))
        }
        other => other.clone(),
    };
    let mut line = serde_json::to_vec(&Line { v: limits::WIRE_VERSION, entry }).unwrap_or_default();
    line.pop();
    seal(line)
}

/// Ends a line that lacks its last brace.
pub(crate) fn seal(mut line: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&line);
    line.extend_from_slice(format!(",\"crc\":\"{crc:08x}\"}}").as_bytes());
    line
}

/// A line without its end, if its checksum is right.
pub(crate) fn sealed(line: &[u8]) -> Option<&[u8]> {
    let (body, end) = line.split_at_checked(line.len().checked_sub(CRC_BYTES)?)?;
    let right = format!(",\"crc\":\"{:08x}\"}}", crc32fast::hash(body));
    (end == right.as_bytes()).then_some(line)
}

/// Reads a line without its end.
///
/// # Errors
///
/// What is wrong with it: torn, flipped, of another version.
pub(crate) fn decode(line: &[u8]) -> Result<Entry, String> {
    if line.len() < CRC_BYTES {
        return Err("it is torn".to_owned());
    }
    let line = sealed(line).ok_or("its checksum is wrong")?;
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if line.v != limits::WIRE_VERSION {
        return Err(format!("its version is {}", line.v));
    }
    Ok(line.entry)
}

/// The open ledger of one run.
#[derive(Debug)]
pub(crate) struct Manifest {
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

impl Manifest {
    /// Reads every line of a ledger that was opened to append to it into `see`, and returns the lines that cannot be used:
    /// they are skipped, never believed, and what they said is found out anew. `path` is what it is called.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn of(
        mut file: File,
        path: &Path,
        see: impl FnMut(Entry),
    ) -> io::Result<(Self, Vec<BadLine>)> {
        let bad = read(&file, see)?;
        let end = file.metadata()?.len();
        if end > 0 {
            let mut last = [0];
            file.read_exact_at(&mut last, end - 1)?;
            // A torn last line must not swallow the next one.
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        Ok((Self { file, path: path.to_owned() }, bad))
    }

    /// The ledger at `path`, made if it is not there.
    #[cfg(test)]
    pub(crate) fn at(path: &Path, see: impl FnMut(Entry)) -> io::Result<(Self, Vec<BadLine>)> {
        let file = File::options().read(true).append(true).create(true).open(path)?;
        Self::of(file, path, see)
    }

    /// What it is called.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads every line of it into `see`.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn read(&self, see: impl FnMut(Entry)) -> io::Result<Vec<BadLine>> {
        read(&self.file, see)
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Appends lines; durable when this returns.
    ///
    /// # Errors
    ///
    /// What the system said: none of the lines is there. After a crash some of them may be, and the
    /// next opening skips a torn one.
    pub(crate) fn append(&self, entries: &[Entry]) -> io::Result<()> {
        let mut text = Vec::with_capacity(entries.len() * 512);
        for entry in entries {
            text.extend_from_slice(&encode(entry));
            text.push(b'\n');
        }
        whole_or_nothing(&self.file, |mut file| {
            file.write_all(&text)?;
            file.sync_data()
        })
    }

    /// The outcome of a task in its highest round, from the file. Reads the whole ledger: for the rare
    /// question of a late worker.
    #[must_use]
    pub(crate) fn outcome(&self, index: u32) -> Option<TaskResult> {
        let mut found: Option<TaskResult> = None;
        read(&self.file, |entry| match entry {
            Entry::Outcome(result) if result.index == index => {
                if found.as_ref().is_none_or(|before| before.round < result.round) {
                    found = Some(Arc::unwrap_or_clone(result));
                }
            }
            Entry::Outcome(_) | Entry::Begun { .. } => {}
        })
        .ok()?;
        found
    }
}

/// Appends to a file, or takes back what a disk that is full let through: its lines would be there
/// twice after the next try, and a torn one would swallow the line behind it.
pub(crate) fn whole_or_nothing(
    file: &File,
    append: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let before = file.metadata()?.len();
    append(file).inspect_err(|_| {
        if let Err(error) = file.set_len(before) {
            warn!(%error, "part of a ledger line left behind");
        }
    })
}

/// Reads every line of a ledger into `see`, and returns those that cannot be used.
///
/// # Errors
///
/// What the system said.
pub(crate) fn read(file: &File, mut see: impl FnMut(Entry)) -> io::Result<Vec<BadLine>> {
    let mut reader = BufReader::with_capacity(256 * 1024, FromStart::of(file));
    let (mut bad, mut number) = (Vec::new(), 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        let most = limits::MESSAGE_BYTES_MAX as u64 * 2;
        if reader.by_ref().take(most).read_until(b'\n', &mut line)? == 0 {
            return Ok(bad);
        }
        number += 1;
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if text.is_empty() {
            continue;
        }
        match decode(text) {
            Ok(entry) => see(entry),
            Err(why) => bad.push(BadLine { number, why }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use bagpress_broker::ids::Execution;
    use bagpress_broker::result::{Cause, Failed, Outcome, Times};

    use super::*;

    fn outcome(index: u32, round: u32) -> Entry {
        Entry::Outcome(Arc::new(TaskResult {
            v: 1,
            bag: "demo-abcdefgh".parse().unwrap(),
            index,
            round,
            execution: Execution::random(),
            attempt: 1,
            worker: "W".to_owned(),
            host: "h".to_owned(),
            outcome: Outcome::Failed(Failed::new(Cause::InputMissing, "gone, \"quoted\"\nand é")),
            times: Times::default(),
            descriptor: None,
            file: None,
        }))
    }

    #[test]
    fn a_line_reads_back() {
        for entry in [outcome(7, 1), Entry::Begun { index: 7, round: 2, input: None }] {
            let line = encode(&entry);
            assert!(!line.contains(&b'\n'));
            assert_eq!(decode(&line).unwrap(), entry);
            let json: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(json["v"], 1);
        }
    }

    /// What a disk lets through before it is full is no part of the ledger: the next try has it all.
    #[test]
    fn an_append_that_fails_half_way_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.jsonl");
        let (manifest, _) = Manifest::at(&path, |_| panic!("it is new")).unwrap();
        let lines = [outcome(0, 0), outcome(1, 0), outcome(2, 0)];
        manifest.append(&lines[..1]).unwrap();
        let text = lines[1..].iter().flat_map(|line| [encode(line), b"\n".to_vec()].concat());
        let text: Vec<_> = text.collect();
        for part in [1, text.len() / 2 - 1, text.len() / 2 + 40, text.len()] {
            let full = whole_or_nothing(&manifest.file, |mut file| {
                file.write_all(&text[..part])?;
                Err(io::ErrorKind::StorageFull.into())
            });
            assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
        manifest.append(&lines[1..]).unwrap();
        let mut seen = Vec::new();
        assert_eq!(read(&manifest.file, |entry| seen.push(entry)).unwrap(), []);
        assert_eq!(seen, lines);
    }

    #[test]
    fn bad_lines_are_reported_and_the_rest_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.jsonl");
        let (manifest, bad) = Manifest::at(&path, |_| panic!("it is new")).unwrap();
        assert_eq!(bad, []);
        manifest.append(&[outcome(0, 0), outcome(1, 0), outcome(2, 0)]).unwrap();
        drop(manifest);
        let mut bytes = std::fs::read(&path).unwrap();
        let second = bytes.iter().position(|b| *b == b'\n').unwrap() + 40;
        bytes[second] ^= 1;
        // A block of zeros, and a torn end.
        bytes.extend_from_slice(&[0; 4096]);
        bytes.extend_from_slice(b"\n{\"v\":1,\"outc");
        std::fs::write(&path, &bytes).unwrap();

        let mut seen = HashSet::new();
        let see = |entry| {
            if let Entry::Outcome(result) = entry {
                seen.insert(result.index);
            }
        };
        let (manifest, bad) = Manifest::at(&path, see).unwrap();
        assert_eq!(seen, HashSet::from([0, 2]));
        assert_eq!(bad.iter().map(|bad| bad.number).collect::<Vec<_>>(), [2, 4, 5]);
        // What is appended behind a torn line is read.
        manifest.append(&[outcome(1, 0)]).unwrap();
        assert_eq!(manifest.outcome(1).unwrap().index, 1);
    }
}
