//! No name of a file, and no text from a stranger, forges a line or moves the reader's cursor.

use std::fs;
use std::process::Command;

use bagpress_broker::ids::{Execution, TaskId};
use bagpress_broker::result::{Cause, Failed, Outcome, Place as Stored};
use bagpress_broker::samples;
use serde_json::Value;

use crate::control::{bag_of, broker};
use crate::harness::{Ended, Place};

const FORGED: &str = "error: 0 of 4 tasks failed";
/// What names hold that nobody wants on a terminal.
const EVIL: [&str; 2] = ["\nerror: 0 of 4 tasks failed", "\u{1b}[31m"];
/// How these are shown.
const QUOTED: [&str; 2] = [r"\nerror: 0 of 4 tasks failed'", r"\x1B[31m'"];
/// Where the runs are.
const RUNS: &str = "runs\nerror: 0 of 4 tasks failed";

/// Fails if a line was forged, or the cursor moved.
fn expect_harmless(ended: &Ended) {
    for text in [&ended.stdout, &ended.stderr] {
        assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{ended:#?}");
        assert!(!text.lines().any(|line| line.starts_with(FORGED)), "{ended:#?}");
    }
}

/// Fails unless both kinds of names of these files are shown, and harmless.
fn expect_quoted(ended: &Ended, kind: &str) {
    expect_harmless(ended);
    let said = format!("{}{}", ended.stdout, ended.stderr);
    for quoted in QUOTED {
        let shown = said.lines().any(|line| line.contains(kind) && line.contains(quoted));
        assert!(shown, "{kind} … {quoted}: {ended:#?}");
    }
}

fn folder(place: &Place) -> String {
    place.path(RUNS).join("t/staged").display().to_string()
}

/// The program on the run's folder.
fn on_run(place: &Place, verb: &str, words: &str) -> Command {
    let mut command = place.bagpress(verb);
    command.arg(folder(place)).args(words.split_whitespace());
    command
}

/// A bag of two files of each kind, of which the bad ones are gone before a worker asks for them.
async fn bag_with_evil_names(place: &Place, delivery: &str, at: &str) -> Ended {
    fs::create_dir(place.path("in")).unwrap();
    for evil in EVIL {
        for kind in ["good", "bad"] {
            fs::write(place.path("in").join(format!("{kind}{evil}")), kind).unwrap();
        }
    }
    let words = format!("run in --name t --delivery {delivery} {at}");
    let mut run = place.bagpress(&words);
    run.args(["--out", &format!("out{}", EVIL[0]), "--runs", RUNS]);
    let run = place.start(run);
    let line = place.path(RUNS).join("t/staged/manifest.jsonl");
    place.until("the bag is gathered", || line.is_file().then_some(())).await;
    for evil in EVIL {
        fs::remove_file(place.path("in").join(format!("bad{evil}"))).unwrap();
    }
    let _worker = place.spawn(&format!("worker --slots 1 {at}"));
    run.ended(place).await.with_code(1)
}

async fn names_forge_nothing(delivery: &str) {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    expect_quoted(&bag_with_evil_names(&place, delivery, &at).await, "bad");
    let _worker = place.spawn(&format!("worker --slots 1 {at}"));
    let failed = fs::read_to_string(place.path(RUNS).join("t/staged/failed.txt")).unwrap();
    let summary = fs::read_to_string(place.path(RUNS).join("t/staged/summary.txt")).unwrap();
    for text in [failed, summary] {
        let ended = Ended { code: None, stdout: text, stderr: String::new() };
        expect_quoted(&ended, "bad");
    }

    let again = on_run(&place, "gather", &format!("--retry-failed {at}"));
    expect_quoted(&place.finish(again).await.with_code(1), "bad");
    // For scripts names are what they are.
    let json = on_run(&place, "gather", &format!("--retry-failed --json -q {at}"));
    let summary: Value =
        serde_json::from_str(&place.finish(json).await.with_code(1).stdout).unwrap();
    let mut paths: Vec<_> = summary["failures"].as_array().unwrap().iter().collect();
    paths.sort_by_key(|failure| failure["path"].as_str().map(str::to_owned));
    assert_eq!(summary["folder"], folder(&place));
    for (failure, evil) in paths.iter().zip(EVIL) {
        assert!(failure["path"].as_str().unwrap().ends_with(&format!("in/bad{evil}")), "{failure}");
    }

    let status = place.finish(on_run(&place, "status", "")).await.with_code(0);
    expect_harmless(&status);
    assert!(status.stdout.contains(r"$'"), "{status:?}");
    expect_quoted(&place.finish(on_run(&place, "status", "--failed")).await.with_code(0), "bad");
    expect_harmless(&place.finish(on_run(&place, "status", "0")).await.with_code(0));
    let verified = place.finish(on_run(&place, "verify", "")).await.with_code(1);
    expect_harmless(&verified);
    // Nothing is bad: what failed is run again, not repaired.
    assert!(verified.stderr.contains("--retry-failed"), "{verified:?}");
    assert!(!verified.stderr.contains("--repair"), "{verified:?}");
    let out = place.path(&format!("out{}", EVIL[0])).join("in");
    for evil in EVIL {
        fs::write(out.join(format!("good{evil}.gz")), "changed").unwrap();
    }
    let verified = place.finish(on_run(&place, "verify", "")).await.with_code(1);
    expect_harmless(&verified);
    for quoted in [r"good\nerror: 0 of 4 tasks failed.gz'", r"good\x1B[31m.gz'"] {
        assert!(verified.stdout.contains(quoted), "{verified:#?}");
    }
    assert!(verified.stderr.contains("--repair"), "{verified:?}");
    for words in ["--outputs --dry-run", "--outputs"] {
        let removed =
            place.finish(on_run(&place, "rm", &format!("{words} {at}"))).await.with_code(0);
        expect_harmless(&removed);
        assert!(removed.stderr.contains(r"good\x1B[31m.gz': it was changed"), "{removed:#?}");
    }
    expect_harmless(&place.finish(on_run(&place, "rm", &at)).await.with_code(2));
}

#[tokio::test]
async fn names_of_files_forge_nothing() {
    names_forge_nothing("jetstream").await;
}

#[tokio::test]
async fn names_of_offered_files_forge_nothing() {
    names_forge_nothing("queue-group").await;
}

#[tokio::test]
async fn an_input_that_is_not_there_forges_nothing() {
    let place = Place::new().await;
    for evil in EVIL {
        let mut run = place.bagpress("run --out out --name t");
        run.arg(format!("no{evil}"));
        expect_harmless(&place.finish(run).await.with_code(2));
        for verb in ["gather", "status", "cancel", "rm", "verify"] {
            let mut command = place.bagpress(verb);
            command.arg(format!("./no{evil}"));
            expect_harmless(&place.finish(command).await.with_code(2));
        }
    }
}

#[tokio::test]
async fn words_of_a_worker_forge_nothing() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let submit = "submit --tasks 2 --bytes 1KiB --results objects --name t";
    place.run(&format!("{submit} {at}")).await.with_code(0);
    let id = bag_of(&place, "t/objects");
    let broker = broker(&server).await;
    for (index, evil) in (0..).zip(EVIL) {
        let task = TaskId { bag: id.parse().unwrap(), index, round: 0 };
        let mut result = samples::done(&task, &Execution::random(), b"output", Stored::Staged);
        result.outcome = Outcome::Failed(Failed::new(Cause::CodecError, format!("broken{evil}")));
        (result.worker, result.host) = (format!("worker{evil}"), format!("host{evil}"));
        broker.commit(&result).await.unwrap();
    }
    let gathered = place.run(&format!("gather runs/t/objects {at}")).await.with_code(1);
    expect_harmless(&gathered);
    assert!(gathered.stdout.contains(r"broken\nerror: 0 of 4 tasks failed"), "{gathered:?}");
    assert!(gathered.stdout.contains(r"broken\u{1b}[31m"), "{gathered:?}");
    expect_harmless(&place.run("status runs/t/objects --failed").await.with_code(0));
    for words in ["runs/t/objects", "runs/t/objects 0", &id] {
        expect_harmless(&place.run(&format!("status {words} {at}")).await.with_code(0));
    }
    let failed = place.run(&format!("status {id} --failed {at}")).await.with_code(0);
    expect_harmless(&failed);
    assert!(failed.stdout.contains(r"worker\u{1b}[31m on host\u{1b}[31m"), "{failed:?}");
}

#[tokio::test]
async fn a_column_ends_before_its_value_begins() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    place.run(&format!("submit --tasks 2 --bytes 1KiB --name t {at}")).await.with_code(0);
    let status = place.run(&format!("status runs/t/staged {at}")).await.with_code(0);
    assert!(status.stdout.contains("\nwhy it waits  it has no gatherer"), "{status:?}");
}
