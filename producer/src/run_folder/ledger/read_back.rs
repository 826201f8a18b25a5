//! What holds of every line of the ledger that is believed: it reads back as itself, and no changed
//! byte of it goes unnoticed.
//!
//! Fuzzers call this with whatever they find, and `cargo test` with the committed corpus.

use std::sync::Arc;

use bagpress_broker::result::TaskResult;

use super::line::{Entry, decode, encode, seal};

/// Reads a line of the ledger from any bytes: as they are, and as the text of a line whose checksum is
/// right. Returns whether the latter is believed.
///
/// # Panics
///
/// If a line is believed that does not read back, or that was changed.
#[must_use]
pub fn manifest_line(text: &[u8]) -> bool {
    if let Ok(entry) = decode(text) {
        reads_back(entry);
    }
    let line = seal(text.strip_suffix(b"}").unwrap_or(text).to_vec());
    let Ok(entry) = decode(&line) else { return false };
    for at in [0, text.len() / 2, line.len() - 1] {
        for bit in 0..8 {
            let mut flipped = line.clone();
            flipped[at] ^= 1 << bit;
            assert!(decode(&flipped).is_err(), "bit {bit} of byte {at}");
        }
    }
    assert!(decode(&line[..line.len() - 1]).is_err());
    reads_back(entry);
    true
}

/// The line, with its end, by which a gatherer begins a round of a task: all that a gatherer leaves that dies
/// right behind it.
#[must_use]
pub fn begun_line(index: u32, round: u32) -> Vec<u8> {
    let mut line = encode(&Entry::Begun { index, round, input: None });
    line.push(b'\n');
    line
}

fn reads_back(entry: Entry) {
    let written = encode(&entry);
    assert!(!written.contains(&b'\n'));
    // The descriptor is left out: the run folder has the specification.
    let expected = match entry {
        Entry::Outcome(result) => {
            let result = TaskResult { descriptor: None, ..Arc::unwrap_or_clone(result) };
            Entry::Outcome(Arc::new(result))
        }
        begun @ Entry::Begun { .. } => begun,
    };
    let again = decode(&written);
    assert_eq!(again.as_ref(), Ok(&expected));
    assert_eq!(again.map(|entry| encode(&entry)), Ok(written));
}
