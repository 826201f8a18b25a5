//! `rm --dry-run` says what every form of `rm` would remove, and removes and cancels nothing.

use std::fs;

use bagpress_broker::testing::NatsServer;
use serde_json::Value;
use walkdir::WalkDir;

use crate::control::{all_there_is, bag_of, broker, until_status};
use crate::death::{BAG, middle};
use crate::harness::{Ended, Place};

/// Every file of a place but what its processes print, with its size.
fn files(place: &Place) -> Vec<String> {
    let entries = WalkDir::new(place.path("")).sort_by_file_name().into_iter();
    let files = entries.map(Result::unwrap).filter(|entry| entry.file_type().is_file());
    files
        .filter(|entry| !entry.file_name().to_string_lossy().ends_with(".log"))
        // What names the holder of a lock is emptied when it is given back.
        .filter(|entry| entry.file_name() != ".lock")
        .map(|entry| format!("{} {}", entry.path().display(), entry.metadata().unwrap().len()))
        .collect()
}

fn object(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap()
}

/// What does not depend on whether it was done.
fn found(ended: &Ended) -> Value {
    let mut found = object(ended);
    found.as_object_mut().unwrap().remove("removed");
    found
}

/// Fails unless `rm` with these words and `--dry-run` says what `rm` does then, and does nothing.
async fn says_it_first(place: &Place, server: Option<&NatsServer>, words: &str) -> Value {
    let there = async || match server {
        Some(server) => all_there_is(server).await,
        None => Vec::new(),
    };
    let (before, on_broker) = (files(place), there().await);
    let text = place.run(&format!("rm {words} --dry-run")).await.with_code(0);
    assert!(text.stdout.starts_with("would remove "), "{text:?}");
    let dry = place.run(&format!("rm {words} --dry-run --json")).await.with_code(0);
    assert_eq!(object(&dry)["removed"], false);
    assert_eq!(files(place), before, "{words}");
    assert_eq!(there().await, on_broker, "{words}");
    let done = place.run(&format!("rm {words} --json")).await.with_code(0);
    assert_eq!(object(&done)["removed"], true);
    assert_eq!(found(&dry), found(&done), "{words}");
    found(&done)
}

/// A bag of three files, of which one output was changed and somebody's own file is beside the others.
async fn bag_of_files(place: &Place, words: &str) {
    fs::create_dir_all(place.path("in/deep")).unwrap();
    for name in ["a", "deep/b", "deep/c"] {
        fs::write(place.path("in").join(name), name.repeat(1000)).unwrap();
    }
    place.run(&format!("run in --out out --name t -q {words}")).await.with_code(0);
    fs::write(place.path("out/in/a.gz"), "changed").unwrap();
    fs::write(place.path("out/other"), "mine").unwrap();
}

#[tokio::test]
async fn looking_at_a_local_run_removes_nothing() {
    let place = Place::new().await;
    place.run("run --tasks 4 --bytes 1KiB --workers 1 --name t -q").await.with_code(0);
    fs::write(place.folder("t/staged/notes.txt"), "mine").unwrap();
    let found = says_it_first(&place, None, "runs/t/staged").await;
    assert!(found["files"].as_u64() > Some(8), "{found}");
    assert!(found["kept"][0].as_str().unwrap().contains("no run made"), "{found}");
}

#[tokio::test]
async fn looking_at_outputs_removes_none() {
    let place = Place::new().await;
    bag_of_files(&place, "--workers 1").await;
    let found = says_it_first(&place, None, "runs/t/staged --outputs").await;
    assert_eq!(found["outputs"], 2, "{found}");
    assert!(found["kept"][0].as_str().unwrap().contains("a.gz: it was changed"), "{found}");
    assert!(!place.path("out/in/deep").exists() && place.path("out/other").is_file());
}

#[tokio::test]
async fn looking_at_a_run_on_a_server_removes_nothing() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let _worker = place.worker(&server);
    bag_of_files(&place, &format!("--results objects {at}")).await;
    let found = says_it_first(&place, Some(&server), &format!("runs/t/objects {at}")).await;
    assert_eq!(found["messages"], 4, "{found}");
    assert!(!found["buckets"].as_array().unwrap().is_empty(), "{found}");
    assert!(found["kept"][0].as_str().unwrap().contains("your outputs"), "{found}");
}

#[tokio::test]
async fn looking_at_a_folder_only_removes_nothing() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let _worker = place.worker(&server);
    bag_of_files(&place, &format!("--results objects {at}")).await;
    let before = all_there_is(&server).await;
    let found = says_it_first(&place, Some(&server), "runs/t/objects --folder-only").await;
    assert_eq!(found["messages"], 0, "{found}");
    assert_eq!(all_there_is(&server).await, before);
}

#[tokio::test]
async fn looking_at_a_bag_by_its_id_removes_nothing() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    // Nobody works on it: its tasks are still in the queue.
    let submit = format!("submit --tasks 3 --bytes 1KiB --results objects --name t {at}");
    place.run(&submit).await.with_code(0);
    let id = bag_of(&place, "t/objects");
    let found = says_it_first(&place, Some(&server), &format!("{id} {at}")).await;
    assert_eq!(found["messages"], 4, "three tasks and a line: {found}");
    assert!(place.folder("t/objects/bag.json").is_file());
}

#[tokio::test]
async fn a_bag_that_is_gathered_is_not_cancelled_by_looking() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let _worker = place.worker(&server);
    let run = place.spawn(&format!("run {BAG} -q {at}"));
    middle(&place, &place.folder("t/staged")).await;
    let id = bag_of(&place, "t/staged");
    for words in [id.as_str(), "runs/t/staged"] {
        // As it is without --dry-run.
        let refused = place.run(&format!("rm {words} --dry-run {at}")).await.with_code(2);
        assert!(refused.stderr.contains("is being gathered by process"), "{refused:?}");
        let dry = place.run(&format!("rm {words} --force --dry-run {at}")).await.with_code(0);
        assert!(dry.stdout.starts_with("would remove t-"), "{dry:?}");
    }
    let line = broker(&server).await.find_bag(&id.parse().unwrap()).await.unwrap().line.unwrap();
    assert_eq!(line.state.to_string(), "running");
    run.ended(&place).await.with_code(0);
    until_status(&place, "it is finished", &format!("runs/t/staged {at}"), |bag| {
        (bag["state"] == "finished").then_some(())
    })
    .await;
}

#[tokio::test]
async fn looking_at_orphans_removes_none() {
    let place = Place::new().await;
    place.run("run --tasks 2 --bytes 1KiB --workers 1 --name t -q").await.with_code(0);
    fs::write(place.folder("t/staged/summary.part"), "left").unwrap();
    let before = files(&place);
    let dry = place.run("rm --orphans --dry-run").await.with_code(0);
    assert!(dry.stdout.contains("would remove runs/t/staged/summary.part"), "{dry:?}");
    assert_eq!(files(&place), before);
}
