//! A bag has one gatherer; a second one is told which, and takes over when it is dead.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::death::{BAG, TASKS, middle};
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, outcomes};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            // Part files come and go meanwhile.
            fs::copy(entry.path(), target).ok();
        }
    }
}

#[tokio::test]
async fn a_gatherer_on_a_copy_of_the_run_folder_is_told_who_holds_the_bag() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let _worker = place.worker(&server);
    let folder = place.folder("t/staged");
    let first = place.spawn(&format!("run {BAG} -q {at}"));
    middle(&place, &folder).await;
    copy(&folder, &place.path("copy/staged"));
    let refused = place.run(&format!("gather copy/staged -q {at}")).await.with_code(2);
    let holder = format!("is being gathered by process {} on host ", first.pid());
    assert!(refused.stderr.contains(&holder), "{refused:?}");
    assert!(refused.stderr.contains("since 20"), "{refused:?}");
    first.ended(&place).await.with_code(0);
    expect_each_done_once(&folder, TASKS);
}

#[tokio::test]
async fn the_bag_of_a_dead_gatherer_is_taken_over_elsewhere() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let _workers = [place.worker(&server), place.worker(&server)];
    let folder = place.folder("t/staged");
    let first = place.spawn(&format!("run {BAG} -q {at}"));
    middle(&place, &folder).await;
    first.signal(Signal::STOP);
    copy(&folder, &place.path("copy/staged"));
    // It is as good as dead: it does not renew.
    place.run(&format!("gather copy/staged -q {at}")).await.with_code(0);
    expect_each_done_once(&place.path("copy/staged"), TASKS);
    // Back again, it learns that the bag is no longer its own, and counts nothing more.
    let before = outcomes(&folder).len();
    first.signal(Signal::CONT);
    let ended = first.ended(&place).await;
    assert!(ended.code == Some(2) || ended.code == Some(0), "{ended:?}");
    let after = outcomes(&folder);
    assert!(after.len() >= before);
    let mut indices: Vec<_> = after.iter().map(|o| o["index"].as_u64().unwrap()).collect();
    indices.sort_unstable();
    indices.dedup();
    assert_eq!(indices.len(), after.len(), "a task was counted twice");
    place.run("verify copy/staged").await.with_code(0);
}

#[tokio::test]
async fn a_gatherer_that_died_on_the_same_folder_is_not_waited_for() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let _worker = place.worker(&server);
    let folder = place.folder("t/staged");
    let first = place.spawn(&format!("run {BAG} -q {at}"));
    middle(&place, &folder).await;
    first.signal(Signal::KILL);
    first.ended(&place).await;
    place.run(&format!("gather runs/t/staged -q {at}")).await.with_code(0);
    expect_each_done_once(&folder, TASKS);
    let log = fs::read_to_string(folder.join("logs/producer.log")).unwrap();
    assert!(!log.contains("waiting to see whether the lease is renewed"), "{log}");
}
