//! Looks at a bag from outside: each task of its ledger, and each output decompressed against its input.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result};
use bagpress_codec::Digest;

use super::bag::Bag;
use super::ledger::{LedgerLines, object_of, part_of};
use super::nats::{At, Nats};
use super::victim::Damages;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// Tasks without an outcome, or whose output is not there.
    pub(super) lost: BTreeMap<u32, String>,
    /// Tasks whose output does not give its input again.
    pub(super) unreadable: BTreeMap<u32, String>,
    /// Tasks that the product calls failed, with its words.
    pub(super) failed: BTreeMap<u32, String>,
    /// Tasks that failed because of a file with the name of their output.
    pub(super) names_taken: BTreeSet<u32>,
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

    /// Takes out the tasks that rightly fail: of these, the product has to leave the file with the output's name as it is.
    pub(super) fn take_disowned(&mut self, damages: &Damages) -> BTreeSet<u32> {
        let taken = std::mem::take(&mut self.names_taken);
        let disowned: BTreeSet<_> =
            taken.into_iter().filter(|index| damages.disown(*index)).collect();
        self.failed.retain(|index, _| !disowned.contains(index));
        disowned
    }
}

/// Checks every task of a bag. `server` is asked for objects.
///
/// # Errors
///
/// If the server does not answer now.
pub(super) fn check(bag: &Bag, server: &At) -> Result<Checked> {
    let lines = LedgerLines::read(&bag.ledger())?;
    let mut checked = Checked { doubled: lines.doubled(), ..Checked::default() };
    let mut nats = None;
    for index in 0..bag.shape.tasks() {
        let Some(outcome) = lines.outcome(index) else {
            checked.lost.insert(index, "no line of the ledger".to_owned());
            continue;
        };
        if outcome.get("done").is_none() {
            checked.failed.insert(index, outcome["failed"].to_string());
            if outcome["failed"]["cause"] == "output-exists" {
                checked.names_taken.insert(index);
            }
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
            let part = found.and_then(|found| part_of(outcome, found));
            part.ok_or_else(|| format!("obj://{bucket}/{object} is not there"))
        };
        match output {
            Err(why) => {
                checked.lost.insert(index, why);
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_task_that_was_damaged_in_its_output_and_its_line_may_find_its_name_taken() {
        let failed = [1, 2, 3, 4].map(|index| (index, "failed".to_owned())).into();
        let mut checked = Checked { failed, names_taken: [1, 2, 3].into(), ..Checked::default() };
        let damages = Damages {
            outputs: [1, 2, 4].into(),
            ledger_flips: 2,
            forgotten: [1, 3, 4].into(),
            ..Damages::default()
        };
        assert_eq!(checked.take_disowned(&damages), [1].into());
        assert_eq!(checked.failed.into_keys().collect::<Vec<_>>(), [2, 3, 4]);
    }
}
