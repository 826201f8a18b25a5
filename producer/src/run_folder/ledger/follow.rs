//! A ledger that is read while another process writes it: whole lines, as they come.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bagpress_broker::result::TaskResult;

use super::file::LINE_BYTES_MAX;
use super::line::{Entry, decode};
use super::rounds::Rounds;
use crate::run_folder::from_start::FromStart;

/// How far a ledger was read.
#[derive(Debug)]
pub(crate) struct Follower {
    rounds: Rounds,
    /// Where the next line begins.
    at: u64,
    /// The line before that, with its end.
    last: Vec<u8>,
}

impl Follower {
    /// Begins with the first line, of a bag of so many tasks, blocks among them.
    pub(crate) fn new(tasks: u32) -> Self {
        Self { rounds: Rounds::new(tasks), at: 0, last: Vec::new() }
    }

    /// Whether a task has an outcome by what was read.
    pub(crate) fn is_decided(&self, index: u32) -> bool {
        self.rounds.is_decided(index)
    }

    /// Shows `see` the outcomes that came since this was last asked, each that counts by all that is there now. Blocks: reads the
    /// new lines twice.
    ///
    /// # Errors
    ///
    /// What the system or `see` said.
    pub(crate) fn look(
        &mut self,
        file: &File,
        mut see: impl FnMut(Arc<TaskResult>) -> io::Result<()>,
    ) -> io::Result<()> {
        let end = file.metadata()?.len();
        // A writer takes back what a full disk let through only in part, and writes on: then all is read again.
        if !self.is_as_it_was(file)? {
            self.at = 0;
        }
        let (rounds, from) = (&mut self.rounds, self.at);
        let mut last = Vec::new();
        whole_lines(file, (from, end), &mut last, |entry| {
            rounds.note(entry.key());
            Ok(())
        })?;
        self.at = whole_lines(file, (from, end), &mut last, |entry| match entry {
            Entry::Outcome(result) if rounds.decide(result.key()) => see(result),
            _ => Ok(()),
        })?;
        if self.at > from {
            self.last = last;
        }
        Ok(())
    }

    /// Whether the line that was read last is still where it was.
    fn is_as_it_was(&self, file: &File) -> io::Result<bool> {
        let mut there = vec![0; self.last.len()];
        match file.read_exact_at(&mut there, self.at.saturating_sub(self.last.len() as u64)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            read => read.map(|()| there == self.last),
        }
    }
}

/// Reads the lines from byte `at` on that have ended before byte `end`, and returns where the next one begins; `last` is then
/// the one before that, if there is any. What cannot be read is passed over.
fn whole_lines(
    file: &File,
    (mut at, end): (u64, u64),
    last: &mut Vec<u8>,
    mut see: impl FnMut(Entry) -> io::Result<()>,
) -> io::Result<u64> {
    let lines = FromStart::behind(file, at).take(end.saturating_sub(at));
    let (mut reader, mut line) = (BufReader::with_capacity(256 * 1024, lines), Vec::new());
    loop {
        line.clear();
        let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        let Some(text) = line.strip_suffix(b"\n") else {
            // Torn, or still being written; one that is too long is read on as if it were several.
            let is_too_long = read as u64 == LINE_BYTES_MAX;
            if is_too_long {
                at += read as u64;
                last.clone_from(&line);
            }
            return Ok(at);
        };
        at += read as u64;
        if let Ok(entry) = decode(text) {
            see(entry)?;
        }
        std::mem::swap(last, &mut line);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::line::encode;
    use super::super::line::tests::outcome;
    use super::*;

    #[test]
    fn each_outcome_is_seen_once_as_it_comes_and_again_in_a_later_round() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.jsonl");
        let mut file = File::options().create(true).append(true).read(true).open(&path).unwrap();
        let mut follower = Follower::new(3);
        let mut look = |file: &File| {
            let mut seen = Vec::new();
            let see = |result: Arc<TaskResult>| {
                seen.push(result.key());
                Ok(())
            };
            follower.look(file, see).unwrap();
            seen
        };
        let line = |entry| [encode(&entry), b"\n".to_vec()].concat();
        let begun = |index| Entry::Begun { index, round: 1, input: None };
        assert_eq!(look(&file), []);
        // Of what was there before, the last round counts.
        let lines = [line(outcome(0, 0)), line(outcome(1, 0)), line(begun(0)), line(outcome(0, 1))];
        file.write_all(&lines.concat()).unwrap();
        assert_eq!(look(&file), [(1, 0), (0, 1)]);
        assert_eq!(look(&file), []);
        // A line that is being written is read when it has ended.
        let torn = line(outcome(2, 0));
        file.write_all(&torn[..30]).unwrap();
        assert_eq!(look(&file), []);
        file.write_all(&torn[30..]).unwrap();
        assert_eq!(look(&file), [(2, 0)]);
        // A second one of the same round does not count, nor does one of no task; what is damaged is passed over.
        let others = [line(outcome(2, 0)), line(outcome(3, 0)), b"damaged\n".to_vec()];
        file.write_all(&others.concat()).unwrap();
        assert_eq!(look(&file), []);
        file.write_all(&[line(begun(1)), line(outcome(1, 1))].concat()).unwrap();
        assert_eq!(look(&file), [(1, 1)]);
        // What was taken back comes again, and is not seen twice.
        let bytes = file.metadata().unwrap().len();
        file.write_all(&line(begun(2))).unwrap();
        assert_eq!(look(&file), []);
        file.set_len(bytes).unwrap();
        file.write_all(&line(outcome(2, 1))).unwrap();
        assert_eq!(look(&file), [(2, 1)]);
    }
}
