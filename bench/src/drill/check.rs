//! Looks at a bag from outside: the ledger's lines, and each output decompressed against its input.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use bagpress_codec::Digest;
use serde_json::Value;

use super::bag::Bag;
use super::nats::{At, Nats};

/// Ends a line: `,"crc":"` + 8 hexadecimal digits + `"}`.
const CRC_BYTES: usize = 8 + 8 + 2;

/// A bag's ledger, read by our own rules.
#[derive(Debug, Default)]
pub(super) struct LedgerLines {
    /// Outcomes by task and round, in the order of their lines.
    pub(super) outcomes: BTreeMap<(u32, u32), Vec<Value>>,
    /// The highest round of each task.
    rounds: BTreeMap<u32, u32>,
    /// Lines that are nothing.
    pub(super) bad: u32,
}

impl LedgerLines {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let mut lines = Self::default();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if lines.take(line).is_none() {
                lines.bad += 1;
            }
        }
        Ok(lines)
    }

    fn take(&mut self, line: &[u8]) -> Option<()> {
        let (body, end) = line.split_at(line.len().checked_sub(CRC_BYTES)?);
        if end != format!(",\"crc\":\"{:08x}\"}}", crc32fast::hash(body)).as_bytes() {
            return None;
        }
        let line: Value = serde_json::from_slice(line).ok()?;
        let number = |of: &Value, key: &str| u32::try_from(of[key].as_u64()?).ok();
        let (outcome, begun) = (&line["outcome"], &line["begun"]);
        let of = if outcome.is_object() { outcome } else { begun };
        let (index, round) = (number(of, "index")?, number(of, "round")?);
        let highest = self.rounds.entry(index).or_default();
        *highest = round.max(*highest);
        if outcome.is_object() {
            self.outcomes.entry((index, round)).or_default().push(outcome["outcome"].clone());
        }
        Some(())
    }

    /// The outcome of a task that counts.
    pub(super) fn outcome(&self, index: u32) -> Option<&Value> {
        let round = self.rounds.get(&index).copied().unwrap_or(0);
        self.outcomes.get(&(index, round))?.first()
    }

    /// Tasks that are done, in order.
    pub(super) fn done(&self) -> Vec<u32> {
        let indices: BTreeSet<_> = self.outcomes.keys().map(|(index, _)| *index).collect();
        let done = |index: &u32| self.outcome(*index).is_some_and(|o| o.get("done").is_some());
        indices.into_iter().filter(done).collect()
    }

    /// Outcomes that were counted more than once.
    fn doubled(&self) -> u64 {
        self.outcomes.values().map(|lines| lines.len() as u64 - 1).sum()
    }
}

/// The bucket and the name of a task's object.
pub(super) fn object_of(outcome: &Value) -> Option<(&str, &str)> {
    let object = &outcome["done"]["place"]["object"];
    Some((object["bucket"].as_str()?, object["object"].as_str()?))
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// Tasks without an outcome, or whose output is not there.
    pub(super) lost: BTreeMap<u32, String>,
    /// Tasks whose output does not give its input again.
    pub(super) unreadable: BTreeMap<u32, String>,
    /// Tasks that the product calls failed, with its words.
    pub(super) failed: BTreeMap<u32, String>,
    pub(super) doubled: u64,
}

impl Checked {
    pub(super) fn is_good(&self) -> bool {
        self.lost.is_empty() && self.unreadable.is_empty() && self.failed.is_empty()
    }

    /// Tasks that are not as they should be.
    pub(super) fn bad(&self) -> BTreeMap<u32, String> {
        let all = [&self.lost, &self.unreadable, &self.failed].into_iter().flatten();
        all.map(|(index, why)| (*index, why.clone())).collect()
    }
}

/// Checks every task of a bag. `server` is asked for objects.
///
/// # Errors
///
/// If the server does not answer now.
pub(super) fn check(bag: &Bag, server: &At) -> Result<Checked> {
    let lines = LedgerLines::read(&bag.run.join("manifest.jsonl"))?;
    let mut checked = Checked { doubled: lines.doubled(), ..Checked::default() };
    let mut nats = None;
    for index in 0..bag.shape.tasks() {
        let Some(outcome) = lines.outcome(index) else {
            checked.lost.insert(index, "no line of the ledger".to_owned());
            continue;
        };
        if outcome.get("done").is_none() {
            checked.failed.insert(index, outcome["failed"].to_string());
            continue;
        }
        let output = if bag.shape.has_files() {
            let path = bag.files(index)?.0;
            fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
        } else {
            let (bucket, object) = object_of(outcome).context("a result without its object")?;
            if nats.is_none() {
                nats = Some(Nats::connect(server)?);
            }
            let found = match &mut nats {
                Some(nats) => nats.object(bucket, object)?,
                None => None,
            };
            found.ok_or_else(|| format!("obj://{bucket}/{object} is not there"))
        };
        match output {
            Err(why) => drop(checked.lost.insert(index, why)),
            // A flipped bit need not change what the bytes decompress to.
            Ok(output) if outcome["done"]["output_digest"] != Digest::of(&output).to_string() => {
                checked.unreadable.insert(index, "not the bytes of the ledger".to_owned());
            }
            Ok(output) => {
                if let Err(error) = bag.check(index, &output) {
                    checked.unreadable.insert(index, format!("{error:#}"));
                }
            }
        }
    }
    Ok(checked)
}

/// Files that should not be there: part files, and more files set aside than were damaged.
pub(super) fn left_over(bag: &Bag, damaged: usize) -> Vec<String> {
    let count = |folder: &str| {
        let entries = fs::read_dir(bag.root().join(folder)).into_iter().flatten();
        entries.flatten().map(|entry| entry.file_name().display().to_string()).collect::<Vec<_>>()
    };
    let mut left = count(".bagpress-part");
    let set_aside = count(".bad");
    if set_aside.len() > damaged {
        left.extend(set_aside);
    }
    left
}
