//! What `bagpress object` prints: a line for each object, for a person or as JSON.

use std::fmt::Write as _;

use anyhow::Result;
use bagpress_broker::quote::name;
use bagpress_producer::object::{Answer, BucketAnswer, State};
use serde::Serialize;

use crate::terminal::{print, print_json_line};

/// An answer, as soon as it is known.
pub(super) fn show(answer: &Answer, json: bool) -> Result<()> {
    if json { print_json_line(answer) } else { print(&format!("{}\n", line(answer))) }
}

/// What is waited for: whether it is there, may come, or is gone for good.
pub(super) fn show_waited(answer: &Answer, json: bool) -> Result<()> {
    #[derive(Serialize)]
    struct Waited<'a> {
        wait: &'static str,
        #[serde(flatten)]
        answer: &'a Answer,
    }
    let wait = match answer.state {
        State::There => "ready",
        State::NeverThere => "pending",
        _ => "gone",
    };
    if json {
        return print_json_line(&Waited { wait, answer });
    }
    match wait {
        "gone" => print(&format!("gone {}\n", line(answer))),
        _ => print(&format!("{wait} {}\n", answer.reference)),
    }
}

pub(super) fn show_bucket(bucket: &BucketAnswer, json: bool) -> Result<()> {
    if json {
        return print_json_line(bucket);
    }
    let mut line = format!("{} {} bytes", bucket.bucket, bucket.bytes);
    if let Some(bag) = &bucket.bag {
        write!(line, ", of bag {bag}").ok();
    }
    if let Some(ttl) = bucket.ttl_s {
        write!(line, ", nothing stays longer than {ttl} s").ok();
    }
    print(&format!("{line}\n"))
}

/// An answer for a person.
pub(super) fn line(answer: &Answer) -> String {
    let word =
        if answer.ok || answer.state != State::There { answer.state.as_str() } else { "refused" };
    let mut line = format!("{word} {}", answer.reference);
    if let Some(why) = answer.why.as_ref().filter(|_| !answer.ok) {
        return format!("{line}: {why}");
    }
    if let Some(bytes) = answer.bytes {
        write!(line, " {bytes} bytes").ok();
    }
    if let Some(digest) = &answer.digest {
        write!(line, " {digest}").ok();
    }
    if let Some(tasks) = answer.reconstructed {
        let s = if tasks == 1 { "" } else { "s" };
        write!(line, ", made again by {tasks} task{s}").ok();
    }
    if let Some(expires) = &answer.expires {
        write!(line, ", expires {expires}").ok();
    }
    if !answer.pins.is_empty() {
        let pins: Vec<_> = answer.pins.iter().map(|pin| pin.name.as_str()).collect();
        write!(line, ", {} pins: {}", pins.len(), pins.join(", ")).ok();
    }
    if !answer.holders.is_empty() {
        let bags = answer.holders.iter().map(|held| format!("{} ({})", held.bag, held.is));
        let bags: Vec<_> = bags.collect();
        write!(line, ", an input of bag {}", bags.join(", ")).ok();
    }
    if let Some(file) = &answer.file {
        write!(line, ", {}", name(file)).ok();
    }
    line
}
