//! The server's log, from its last start on.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use rustix::fs::OFlags;

use super::store::Store;

/// Name of the log, in the store.
pub(super) const FILE: &str = "server.log";
/// How a line goes on that says what the server ended of: in its log, and before it has one.
const CAUSES: [&str; 2] = [" [FTL] ", "nats-server: "];
/// How many lines an error shows.
const LINES: usize = 10;
/// How much of a log is read for them.
const BYTES: u64 = 16 * 1024;

#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    /// Where the last start began: what is before it is another server's.
    start: u64,
}

impl Log {
    /// Where a store has it.
    pub(crate) fn of(store: &Store) -> PathBuf {
        store.path().join(FILE)
    }

    /// Opens the log for appending, and remembers where it ended.
    pub(crate) fn open(store: &Store) -> io::Result<(Self, File)> {
        let path = Self::of(store);
        let file = store.file(FILE, OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND)?;
        let start = file.metadata()?.len();
        Ok((Self { path, start }, file))
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// The last lines, each after a line break and two blanks; nothing if there are none.
    pub(crate) fn tail(&self) -> String {
        let bytes = self.read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let tail = &lines[lines.len().saturating_sub(LINES)..];
        tail.iter().flat_map(|line| ["\n  ", line]).collect()
    }

    /// What the server of this start says it ended of, if it does: without its process id and the time.
    pub(crate) fn cause(&self) -> Option<String> {
        let bytes = self.read().ok()?;
        let text = String::from_utf8_lossy(&bytes);
        text.lines().rev().find_map(|line| {
            let said = CAUSES.iter().find_map(|cause| Some(line.split_once(cause)?.1))?;
            Some(said.trim().to_owned())
        })
    }

    /// Whether its end has `words`, of this start.
    pub(crate) fn tells(&self, words: &str) -> bool {
        self.read().is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(words))
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut file = File::open(&self.path)?;
        let end = file.metadata()?.len();
        // A log that the server has begun again is shorter than where we started.
        let start = if self.start <= end { self.start } else { 0 };
        file.seek(SeekFrom::Start(start.max(end.saturating_sub(BYTES))))?;
        let mut bytes = Vec::new();
        file.take(BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_cause_is_what_the_server_ended_of() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::make(folder.path()).unwrap();
        let (log, mut file) = Log::open(&store).unwrap();
        writeln!(file, "[7] 2026/01/02 03:04:05.678901 [INF] Starting nats-server").unwrap();
        assert_eq!(log.cause(), None);
        writeln!(file, "[7] 2026/01/02 03:04:05.678901 [FTL] Error listening: in use").unwrap();
        writeln!(file, "[7] 2026/01/02 03:04:05.678901 [INF] Exiting").unwrap();
        assert_eq!(log.cause().as_deref(), Some("Error listening: in use"));
        writeln!(file, "nats-server: server.conf:5:12: unknown field").unwrap();
        assert_eq!(log.cause().as_deref(), Some("server.conf:5:12: unknown field"));
    }

    #[test]
    fn the_tail_is_of_this_start_only_and_ten_lines_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::make(folder.path()).unwrap();
        let path = Log::of(&store);
        std::fs::write(&path, "an older server\n").unwrap();
        let (log, mut file) = Log::open(&store).unwrap();
        assert_eq!(log.tail(), "");
        for number in 0..12 {
            writeln!(file, "line {number}").unwrap();
        }
        let tail = log.tail();
        assert!(tail.starts_with("\n  line 2\n  line 3"), "{tail}");
        assert!(tail.ends_with("\n  line 11"), "{tail}");
        assert!(std::fs::read_to_string(path).unwrap().starts_with("an older server\nline 0"));
    }
}
