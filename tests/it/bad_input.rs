//! What cannot work is refused in one line, with what to do instead, before anything is begun.

use std::fs;

use walkdir::WalkDir;

use crate::harness::{Ended, Place};

/// Fails unless it was refused in one line that says all of `words`, with a next step.
pub(crate) fn expect_refusal(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:#?}");
    let errors: Vec<_> = ended.stderr.lines().filter(|l| l.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{ended:#?}");
    let next_step = |line: &str| line.starts_with("hint: ") || line.contains("try '--help'");
    assert!(ended.stderr.lines().any(next_step), "{ended:#?}");
    for word in words {
        assert!(ended.stderr.contains(word), "{word} is not said: {ended:#?}");
    }
    assert_eq!(ended.stdout, "");
}

/// Fails if a server was started, or a bag written.
pub(crate) fn expect_nothing_begun(place: &Place) {
    for entry in WalkDir::new(place.path("")).into_iter().map(Result::unwrap) {
        let name = entry.file_name().to_string_lossy();
        let begun = ["server.conf", "server.log", "manifest.jsonl", "out_0.bin"];
        assert!(!begun.contains(&&*name), "{}", entry.path().display());
    }
}

async fn refused(words: &str, says: &[&str]) {
    let place = Place::new().await;
    expect_refusal(&place.run(words).await, 2, says);
    expect_nothing_begun(&place);
    assert!(!place.path("runs").exists(), "{words}: a run folder is left behind");
}

#[tokio::test]
async fn an_unknown_codec_is_refused() {
    refused("run --tasks 4 --codec lzw", &["lzw", "zlib", "gzip"]).await;
}

#[tokio::test]
async fn a_level_out_of_range_is_refused() {
    refused("run --tasks 4 --codec zlib:10", &["10", "0 to 9"]).await;
}

#[tokio::test]
async fn a_bag_of_nothing_is_refused() {
    refused("run --tasks 0", &["0 tasks", "--tasks"]).await;
    refused("run", &["nothing to compress"]).await;
}

#[tokio::test]
async fn a_task_over_the_limit_is_refused() {
    refused("run --tasks 1 --bytes 2TiB", &["2199023255552", "1099511627776", "--bytes"]).await;
}

#[tokio::test]
async fn an_input_that_is_not_there_is_refused() {
    refused("run nowhere --out out", &["nowhere", "No such file"]).await;
}

#[tokio::test]
async fn two_sources_of_tasks_are_refused() {
    refused("run nowhere --tasks 4", &["not both"]).await;
}

#[tokio::test]
async fn files_without_a_place_for_outputs_are_refused() {
    refused("run nowhere", &["--out"]).await;
}

#[tokio::test]
async fn what_is_no_run_folder_is_refused() {
    for verb in ["gather", "verify"] {
        refused(&format!("{verb} nowhere"), &["nowhere", "bag.json"]).await;
    }
}

#[tokio::test]
async fn a_verb_that_needs_a_server_says_so() {
    for words in ["submit --tasks 4", "worker"] {
        refused(words, &["no server was named", "--server"]).await;
    }
}

#[tokio::test]
async fn a_name_of_another_bag_is_refused() {
    let place = Place::new().await;
    place.run("run --tasks 2 --bytes 1KiB --workers 1 --name t -q").await.with_code(0);
    let ledger = place.folder("t/staged/manifest.jsonl");
    let before = fs::read(&ledger).unwrap();
    let other = place.run("run --tasks 3 --bytes 1KiB --name t").await;
    expect_refusal(&other, 2, &["the name t is taken by another bag", "--name"]);
    assert!(fs::read(&ledger).unwrap() == before);
    assert!(!place.folder("t/staged/.broker").exists());
}

#[tokio::test]
async fn a_run_folder_that_cannot_be_made_is_refused() {
    let place = Place::new().await;
    fs::write(place.path("runs"), b"a file in the way").unwrap();
    let ended = place.run("run --tasks 2 --name t").await;
    expect_refusal(&ended, 2, &["runs/t/staged", "--runs"]);
    expect_nothing_begun(&place);
}

#[tokio::test]
async fn an_output_folder_that_cannot_be_made_is_refused() {
    let place = Place::new().await;
    fs::write(place.path("in"), b"input").unwrap();
    fs::write(place.path("out"), b"a file in the way").unwrap();
    let ended = place.run("run in --out out --name t").await;
    expect_refusal(&ended, 2, &["output folder out", "--out"]);
    expect_nothing_begun(&place);
}
