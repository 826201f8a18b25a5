//! Workers and gatherers that are stopped, drained, restarted or come second.

use std::time::Instant;

use async_nats::jetstream;
use rustix::process::Signal;

use crate::death::{
    BAG, DELIVERIES, LEAST_LEASE, TASKS, expect_no_lease_was_waited_for, expect_unfinished, middle,
};
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, outcomes};
use crate::process;

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_loses_nothing() {
    for (results, delivery) in
        ["staged", "objects"].into_iter().flat_map(|r| DELIVERIES.map(|d| (r, d)))
    {
        let (place, mut server) = Place::with_server().await;
        let folder = place.folder(&format!("t/{results}"));
        let _workers = [place.worker(&server), place.worker(&server)];
        let how = format!("--results {results} --delivery {delivery}");
        let run = format!("run {BAG} -q {how} --server {}", server.url());
        let run = place.spawn(&run);
        middle(&place, &folder).await;
        server.kill_and_restart().await;
        run.ended(&place).await.with_code(0);
        expect_each_done_once(&folder, TASKS);
        let verify = format!("verify runs/t/{results} --server {}", server.url());
        place.run(&verify).await.with_code(0);
    }
}

async fn a_worker_that_drains(delivery: &str) {
    let (place, server) = Place::with_server().await;
    let folder = place.folder("t/staged");
    let (leaving, _other) = (place.worker(&server), place.worker(&server));
    let run = format!("run {BAG} -q --delivery {delivery} --server {}", server.url());
    let run = place.spawn(&run);
    middle(&place, &folder).await;
    leaving.signal(Signal::TERM);
    leaving.ended(&place).await.with_code(0);
    run.ended(&place).await.with_code(0);
    expect_no_lease_was_waited_for(&folder);
    expect_each_done_once(&folder, TASKS);
    for outcome in outcomes(&folder) {
        assert_eq!(outcome["attempt"], 1, "{outcome}");
    }
}

#[tokio::test]
async fn a_worker_that_drains_spends_no_attempt_and_no_lease() {
    a_worker_that_drains("jetstream").await;
}

#[tokio::test]
async fn a_member_that_drains_spends_no_attempt_and_no_lease() {
    a_worker_that_drains("queue-group").await;
}

async fn workers_that_all_drain_at_once(delivery: &str) {
    let (place, server) = Place::with_server().await;
    let folder = place.folder("t/staged");
    let leaving = [place.worker(&server), place.worker(&server), place.worker(&server)];
    let run = format!("run {BAG} -q --delivery {delivery} --server {}", server.url());
    let run = place.spawn(&run);
    middle(&place, &folder).await;
    for worker in &leaving {
        worker.signal(Signal::TERM);
    }
    for worker in leaving {
        worker.ended(&place).await.with_code(0);
    }
    expect_unfinished(&folder);
    let _next = place.worker(&server);
    run.ended(&place).await.with_code(0);
    expect_no_lease_was_waited_for(&folder);
    expect_each_done_once(&folder, TASKS);
    for outcome in outcomes(&folder) {
        assert_eq!(outcome["attempt"], 1, "{outcome}");
    }
    let summary = std::fs::read(folder.join("summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
    assert_eq!(summary["workers_lost"], 0, "{summary}");
}

#[tokio::test]
async fn workers_that_all_drain_at_once_are_not_taken_for_dead() {
    workers_that_all_drain_at_once("jetstream").await;
}

#[tokio::test]
async fn members_that_all_drain_at_once_are_not_taken_for_dead() {
    workers_that_all_drain_at_once("queue-group").await;
}

#[tokio::test]
async fn a_second_gatherer_is_told_who_is_the_first() {
    let place = Place::new().await;
    let first = place.spawn(&format!("run {BAG} --workers 2 -q"));
    middle(&place, &place.folder("t/staged")).await;
    let second = place.run("gather runs/t/staged --workers 1 -q").await.with_code(2);
    assert!(second.stderr.contains(&format!("process {}", first.pid())), "{second:?}");
    assert!(second.stderr.contains("hint: "), "{second:?}");
    first.ended(&place).await.with_code(0);
    expect_each_done_once(&place.folder("t/staged"), TASKS);
}

#[tokio::test]
async fn a_second_gatherer_on_a_server_is_told_too() {
    let (place, server) = Place::with_server().await;
    let _worker = place.worker(&server);
    let first = place.spawn(&format!("run {BAG} -q --server {}", server.url()));
    middle(&place, &place.folder("t/staged")).await;
    let second = format!("gather runs/t/staged -q --server {}", server.url());
    let second = place.run(&second).await.with_code(2);
    assert!(second.stderr.contains(&format!("process {}", first.pid())), "{second:?}");
    assert!(second.stderr.contains("hint: "), "{second:?}");
    first.ended(&place).await.with_code(0);
    expect_each_done_once(&place.folder("t/staged"), TASKS);
}

async fn a_worker_that_was_stopped_past_its_lease(delivery: &str) {
    let (place, server) = Place::with_server().await;
    let folder = place.folder("t/staged");
    let stopped = place.worker(&server);
    let at = format!("--server {}", server.url());
    let run = place.spawn(&format!("run {BAG} -q --delivery {delivery} {at}"));
    middle(&place, &folder).await;
    // It is the only one, so it has something in hand.
    stopped.signal(Signal::STOP);
    let since = Instant::now();
    let other = place.worker(&server);
    run.ended(&place).await.with_code(0);
    assert!(since.elapsed() > LEAST_LEASE, "its lease was cut short: {:?}", since.elapsed());
    expect_each_done_once(&folder, TASKS);

    // Back again, it brings its late outcome and goes on with another bag.
    stopped.signal(Signal::CONT);
    other.signal(Signal::TERM);
    other.ended(&place).await.with_code(0);
    let next = format!("run --tasks 3 --bytes 64KiB --name next -q --delivery {delivery}");
    place.run(&format!("{next} {at}")).await.with_code(0);
    expect_each_done_once(&place.folder("next/staged"), 3);
    assert!(process::is_alive(stopped.pid()));
    expect_each_done_once(&folder, TASKS);
    place.run("verify runs/t/staged").await.with_code(0);
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let mut results = context.get_stream("BAG_RESULTS").await.unwrap();
    let committed = if delivery == "jetstream" { TASKS + 3 } else { 0 };
    assert_eq!(results.info().await.unwrap().state.messages, committed);
}

#[tokio::test]
async fn a_worker_that_was_stopped_past_its_lease_counts_once() {
    a_worker_that_was_stopped_past_its_lease("jetstream").await;
}

#[tokio::test]
async fn a_member_that_was_stopped_past_its_lease_counts_once() {
    a_worker_that_was_stopped_past_its_lease("queue-group").await;
}
