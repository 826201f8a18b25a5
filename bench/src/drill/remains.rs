//! What should not be there any more: on disk, at the server, among the processes.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::bag::{Bag, PARTS};
use super::nats::{At, Nats};
use crate::program::Bagpress;
use crate::retry::Retry;

/// The server forgets a decided task within this time, once everything is quiet.
const QUIET: Retry = Retry { every: Duration::from_millis(50), within: Duration::from_secs(90) };
/// For a look at a server that may be away.
pub(super) const LOOK: Retry =
    Retry { every: Duration::from_millis(500), within: Duration::from_mins(3) };

/// Files of a bag: part files, and more files set aside than were damaged.
pub(super) fn files(bag: &Bag, damaged: usize) -> Vec<String> {
    let names = |folder: &str| {
        let entries = fs::read_dir(bag.root().join(folder)).into_iter().flatten();
        entries.flatten().map(|entry| entry.file_name().display().to_string()).collect::<Vec<_>>()
    };
    let mut left = names(PARTS);
    let set_aside = names(".bad");
    if set_aside.len() > damaged {
        left.extend(set_aside);
    }
    left
}

/// Streams of a bag that was removed.
pub(super) fn streams(server: &At, id: &str) -> Result<Vec<String>> {
    let streams = LOOK.run(|| Nats::connect(server)?.streams())?;
    let of_bag = streams.into_iter().filter(|name| name.contains(id));
    Ok(of_bag.map(|name| format!("stream {name}")).collect())
}

/// What the server still holds when every bag is over and was removed, and what a late worker wrote of
/// them was swept.
pub(super) fn at_server(bagpress: &Bagpress, runs: &Path, at: &At) -> Result<Vec<String>> {
    let url = format!("nats://127.0.0.1:{}", at.port);
    let look = || -> Result<Vec<String>> {
        let mut sweep = bagpress.command("rm");
        sweep.args(["--orphans", "--older-than", "0s", "--runs"]).arg(runs);
        let swept = sweep.args(["--server", &url]).stdin(Stdio::null()).output();
        let swept = swept.context("sweep")?;
        ensure!(swept.status.success(), "{}", String::from_utf8_lossy(&swept.stderr));
        let mut nats = Nats::connect(at)?;
        let mut left = listed(bagpress, &url)?;
        for stream in nats.streams()? {
            let messages = nats.messages(&stream)?;
            if stream.starts_with("OBJ_") || (stream.starts_with("BAG_") && messages > 0) {
                left.push(format!("stream {stream} with {messages} messages"));
            }
        }
        Ok(left)
    };
    QUIET.until(look, Vec::is_empty)
}

/// Bags that the server still has a line of.
fn listed(bagpress: &Bagpress, url: &str) -> Result<Vec<String>> {
    let mut status = bagpress.command("status");
    let status = status.args(["--json", "--server", url]).stdin(Stdio::null()).output();
    let status = status.context("list the bags")?;
    ensure!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    let overview: serde_json::Value = serde_json::from_slice(&status.stdout)?;
    let bags = overview["bags"].as_array().context("status lists no bags")?;
    Ok(bags.iter().map(|line| format!("line of bag {}", line["bag"])).collect())
}
