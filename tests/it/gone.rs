//! A gatherer that was killed: `status` says that it is gone, what is left, and how the bag goes on.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::control::{bag_of, context};
use crate::death::{BAG, middle};
use crate::harness::Place;

#[tokio::test]
async fn a_gatherer_that_was_killed_here_is_gone_and_the_next_command_is_given() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let _worker = place.worker(&server);
    let run = place.spawn(&format!("run {BAG} -q {at}"));
    middle(&place, &place.folder("t/staged")).await;
    let pid = run.pid();
    run.signal(Signal::KILL);
    run.ended(&place).await;
    let id = bag_of(&place, "t/staged");
    for words in ["status", "status runs/t/staged", &format!("status {id}")] {
        let told = place.run(&format!("{words} {at}")).await.with_code(0).stdout;
        assert!(told.contains("gathered by nobody"), "{words}: {told}");
    }
    let told = place.run(&format!("status runs/t/staged {at}")).await.with_code(0).stdout;
    let command = format!("gather runs/t/staged {at}");
    let next = format!(" has ended; `bagpress {command}` continues it");
    assert!(told.contains(&format!("process {pid} on host ")) && told.contains(&next), "{told}");
    let told = place.run(&format!("status runs/t/staged --json {at}")).await.with_code(0).stdout;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["gatherer"], Value::Null, "{told}");
    // The command, as it was printed.
    place.run(&command).await.with_code(0);
}

/// As if another process had the id of the killed one by now: the lock of the run folder is nobody's.
#[tokio::test]
async fn a_gatherer_whose_id_another_process_has_is_known_to_be_gone_by_its_lock() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let _worker = place.worker(&server);
    let run = place.spawn(&format!("run {BAG} -q {at}"));
    middle(&place, &place.folder("t/staged")).await;
    run.signal(Signal::KILL);
    run.ended(&place).await;
    let broker = crate::control::broker(&server).await;
    let id = bag_of(&place, "t/staged").parse().unwrap();
    let found = broker.find_bag(&id).await.unwrap();
    let mut line = found.line.unwrap();
    line.gatherer.as_mut().unwrap().pid = std::process::id();
    broker.write_bag(&line, found.revision).await.unwrap().unwrap();
    let told = place.run(&format!("status runs/t/staged {at}")).await.with_code(0).stdout;
    assert!(told.contains("gathered by nobody") && told.contains(" has ended; "), "{told}");
}

#[tokio::test]
async fn files_that_are_not_in_the_queue_are_told_apart_from_those_that_wait() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    fs::create_dir(place.path("in")).unwrap();
    for number in 0..10 {
        fs::write(place.path("in").join(number.to_string()), "a file").unwrap();
    }
    for (name, pack) in [("packed", 4), ("alone", 1)] {
        let submit = format!("submit in --out {name} --pack {pack} --name {name} {at}");
        place.run(&submit).await.with_code(0);
    }
    let status = async |name: &str, not_queued: u64| {
        let words = format!("status runs/{name}/staged {at}");
        let told = place.run(&format!("{words} --json")).await.with_code(0).stdout;
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["not_queued"], not_queued, "{told}");
        place.run(&words).await.with_code(0).stdout
    };
    for name in ["packed", "alone"] {
        let told = status(name, 0).await;
        assert!(!told.contains("not submitted"), "{told}");
    }
    // As if their producers had been killed before they had submitted everything. Of one bag the last task is left.
    let tasks = context(&server).await.get_stream("BAG_TASKS").await.unwrap();
    tasks.purge().keep(1).await.unwrap();
    let told = status("alone", 9).await;
    assert!(told.contains("1 waiting, 9 not submitted or not gathered"), "{told}");
    let told = status("packed", 10).await;
    assert!(told.contains("0 waiting, 10 not submitted or not gathered"), "{told}");
}
