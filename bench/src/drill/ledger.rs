//! A bag's ledger, read by rules of the drill's own: it is not trusted because the product reads it so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// Ends a line: `,"crc":"` + 8 hexadecimal digits + `"}`.
const CRC_BYTES: usize = 8 + 8 + 2;

/// A bag's ledger, read by our own rules.
#[derive(Debug, Default)]
pub(super) struct LedgerLines {
    /// Outcomes by task and round, in the order of their lines.
    outcomes: BTreeMap<(u32, u32), Vec<Value>>,
    /// The highest round of each task.
    rounds: BTreeMap<u32, u32>,
}

impl LedgerLines {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let mut lines = Self::default();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            // A line that is damaged says nothing.
            lines.take(line);
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

    /// The tasks whose outputs are in one object with that of a task, that one included.
    pub(super) fn together(&self, index: u32) -> BTreeSet<u32> {
        let Some(object) = self.outcome(index).and_then(object_of) else { return [index].into() };
        let same = |other: &u32| self.outcome(*other).and_then(object_of) == Some(object);
        self.done().into_iter().filter(same).collect()
    }

    /// Outcomes that were counted more than once.
    pub(super) fn doubled(&self) -> u64 {
        self.outcomes.values().map(|lines| lines.len() as u64 - 1).sum()
    }
}

/// The bucket and the name of a task's object, or of the tar that has it.
pub(super) fn object_of(outcome: &Value) -> Option<(&str, &str)> {
    let place = &outcome["done"]["place"];
    let object = place.get("object").or_else(|| place.get("tar"))?;
    Some((object["bucket"].as_str()?, object["object"].as_str()?))
}

/// What of its object is a task's output: all of it, or its part of a tar.
pub(super) fn part_of(outcome: &Value, object: Vec<u8>) -> Option<Vec<u8>> {
    let done = &outcome["done"];
    let Some(tar) = done["place"].get("tar") else { return Some(object) };
    let at = usize::try_from(tar["at"].as_u64()?).ok()?;
    let end = at.checked_add(usize::try_from(done["output_bytes"].as_u64()?).ok()?)?;
    object.get(at..end).map(<[u8]>::to_vec)
}
