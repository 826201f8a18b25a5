//! Looks at a bag from outside: each task of its ledger, and each output decompressed against its input.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use bagpress_codec::Digest;

use super::bag::Bag;
use super::ledger::{LedgerLines, object_of};
use super::nats::{At, Nats};

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
