//! A run's ledger and its digests, as anybody can read them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use bagpress_codec::{DataKind, Digest, Generator};
use serde_json::Value;

/// The outcomes of a run's ledger, in its order; a line that is being written is not one yet.
pub(crate) fn outcomes(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("manifest.jsonl")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter_map(|mut line| line.get_mut("outcome").map(Value::take)).collect()
}

/// Fails unless every task has exactly one outcome, and it is *done*.
pub(crate) fn expect_each_done_once(folder: &Path, tasks: u64) {
    let outcomes = outcomes(folder);
    let mut indices: Vec<_> = outcomes.iter().map(|o| o["index"].as_u64().unwrap()).collect();
    indices.sort_unstable();
    assert_eq!(indices, (0..tasks).collect::<Vec<_>>());
    let failed = outcomes.iter().find(|o| o["outcome"].get("done").is_none());
    assert_eq!(failed, None);
}

/// The longest time in which no outcome was made, between the first and the last one.
pub(crate) fn longest_pause(folder: &Path) -> Duration {
    let made = |o: &Value| o["times"]["made_us"].as_u64().unwrap();
    let mut made: Vec<_> = outcomes(folder).iter().map(made).collect();
    made.sort_unstable();
    let pauses = made.windows(2).map(|pair| pair[1] - pair[0]);
    Duration::from_micros(pauses.max().unwrap_or(0))
}

/// What a task failed of, and how that is said.
pub(crate) fn failure(folder: &Path, index: u64) -> (String, String) {
    let outcomes = outcomes(folder);
    let of: Vec<_> = outcomes.iter().filter(|o| o["index"].as_u64() == Some(index)).collect();
    assert_eq!(of.len(), 1, "{of:?}");
    let failed = &of[0]["outcome"]["failed"];
    let text = |key: &str| failed[key].as_str().unwrap_or_default().to_owned();
    (text("cause"), text("message"))
}

/// Digests of input and output, by task.
pub(crate) fn digests(folder: &Path) -> BTreeMap<u64, (String, String)> {
    let digest = |done: &Value, key: &str| done[key].as_str().unwrap().to_owned();
    let pair = |o: Value| {
        let done = &o["outcome"]["done"];
        let pair = (digest(done, "input_digest"), digest(done, "output_digest"));
        (o["index"].as_u64().unwrap(), pair)
    };
    outcomes(folder).into_iter().map(pair).collect()
}

/// The bytes of a generated task.
pub(crate) fn generated(kind: DataKind, index: u32, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    assert_eq!(Generator::new(kind, 0, index, bytes as u64).fill(&mut buffer), bytes);
    buffer
}

/// The digest of a generated task, as it is written.
pub(crate) fn generated_digest(kind: DataKind, index: u32, bytes: usize) -> String {
    Digest::of(&generated(kind, index, bytes)).to_string()
}
