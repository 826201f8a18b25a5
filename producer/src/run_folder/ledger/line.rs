//! A line of the ledger as text: a checksummed one per outcome, and per begun round.

use std::sync::Arc;

use bagpress_broker::result::TaskResult;
use bagpress_broker::{bounded, limits};
use serde::{Deserialize, Serialize};

/// Ends a line: `,"crc":"` + 8 hexadecimal digits + `"}`.
const CRC_BYTES: usize = 8 + 8 + 2;

/// A task and one of its rounds: outcomes are decided for these, one by one.
pub(crate) type Key = (u32, u32);

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Entry {
    /// A task's round has an outcome. It is the one that counts.
    Outcome(Arc<TaskResult>),
    /// A task is run again: what an earlier round said no longer counts.
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

impl Entry {
    /// The task and the round that it names.
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Begun { index, round, .. } => (*index, *round),
            Self::Outcome(result) => (result.index, result.round),
        }
    }
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

#[cfg(test)]
pub(super) mod tests {
    use bagpress_broker::ids::Execution;
    use bagpress_broker::result::{Cause, Failed, Outcome, Times};

    use super::*;

    pub(crate) fn outcome(index: u32, round: u32) -> Entry {
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
            twin_of: None,
            members: Vec::new(),
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
}
