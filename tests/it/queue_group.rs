//! The queue group: the gatherer keeps the tasks, and needs nothing of the broker but its subjects.

use std::fs;

use bagpress_broker::testing::NatsServer;
use futures::{FutureExt, StreamExt};
use rustix::process::Signal;

use crate::bad_server::plain_server;
use crate::control::{all_there_is, bag_of};
use crate::death::{BAG, TASKS, middle};
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, outcomes};
use crate::process;

#[tokio::test]
async fn no_jetstream_is_needed_with_files() {
    let place = Place::new().await;
    let (_server, url) = plain_server(&place).await;
    let workers = [1, 2].map(|_| place.spawn(&format!("worker --slots 1 --server {url}")));
    let folder = place.folder("t/staged");
    let run = format!("run {BAG} -q --transfer wire --delivery queue-group --server {url}");
    let run = place.spawn(&run);
    middle(&place, &folder).await;
    workers[0].signal(Signal::KILL);
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&folder, TASKS);
    place.run("verify runs/t/staged").await.with_code(0);
    // It looks for the streams a while before it says so.
    let said = || workers[1].stderr().contains("queue group only").then_some(());
    place.until("the worker says what it serves", said).await;

    // A bucket is another matter.
    let objects = "run --tasks 2 --results objects --delivery queue-group --server";
    let refused = place.run(&format!("{objects} {url}")).await.with_code(3);
    assert!(refused.stderr.contains("JetStream is off"), "{refused:?}");
}

#[tokio::test]
async fn a_submitted_bag_waits_for_who_offers_it() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let submit = format!("submit --tasks 4 --bytes 64KiB --name t --delivery queue-group {at}");
    let submitted = place.run(&submit).await.with_code(0);
    assert!(submitted.stderr.contains("until this bag is gathered"), "{submitted:?}");
    let _worker = place.worker(&server);
    place.run(&format!("gather runs/t/staged -q {at}")).await.with_code(0);
    expect_each_done_once(&place.folder("t/staged"), 4);
}

#[tokio::test]
async fn what_is_bad_is_offered_in_a_new_round() {
    let place = Place::new().await;
    let bag = "run --tasks 6 --bytes 64KiB --workers 2 --name t -q --delivery queue-group";
    place.run(bag).await.with_code(0);
    let output = place.folder("t/staged/results/out_4.bin");
    let sound = fs::read(&output).unwrap();
    fs::write(&output, b"another").unwrap();
    fs::remove_file(place.folder("t/staged/results/out_2.bin")).unwrap();
    place.run("gather runs/t/staged --repair --workers 2 -q").await.with_code(0);
    assert!(fs::read(&output).unwrap() == sound);
    place.run("verify runs/t/staged").await.with_code(0);
    let rounds = outcomes(&place.folder("t/staged"));
    let again = rounds.iter().filter(|o| o["round"] == 1).map(|o| o["index"].as_u64().unwrap());
    let mut again: Vec<_> = again.collect();
    again.sort_unstable();
    assert_eq!(again, [2, 4]);
}

/// A member that takes offers and never says a word, as one whose answer is lost.
#[tokio::test]
async fn an_offer_that_vanishes_is_made_again() {
    let (place, server) = Place::with_server().await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let group = "workers".to_owned();
    let mut silent = client.queue_subscribe("bag.run.default", group).await.unwrap();
    client.flush().await.unwrap();
    let _worker = place.worker(&server);
    let bag = "run --tasks 12 --bytes 64KiB --name t -q --delivery queue-group --server";
    place.run(&format!("{bag} {}", server.url())).await.with_code(0);
    let vanished = std::iter::from_fn(|| silent.next().now_or_never().flatten()).count();
    assert!(vanished > 0, "nothing vanished");
    expect_each_done_once(&place.folder("t/staged"), 12);
    for outcome in outcomes(&place.folder("t/staged")) {
        assert_eq!(outcome["attempt"], 1, "{outcome}");
    }
}

#[tokio::test]
async fn a_worker_whose_gatherer_died_serves_the_next_one() {
    let (place, server) = Place::with_server().await;
    let at = format!("--delivery queue-group --server {}", server.url());
    let worker = place.worker(&server);
    let run = place.spawn(&format!("run {BAG} -q {at}"));
    middle(&place, &place.folder("t/staged")).await;
    run.signal(Signal::KILL);
    run.ended(&place).await;
    place.run(&format!("run --tasks 3 --bytes 64KiB --name next -q {at}")).await.with_code(0);
    expect_each_done_once(&place.folder("next/staged"), 3);
    let gather = format!("gather runs/t/staged -q --server {}", server.url());
    place.run(&gather).await.with_code(0);
    expect_each_done_once(&place.folder("t/staged"), TASKS);
    assert!(process::is_alive(worker.pid()));
    worker.signal(Signal::TERM);
    worker.ended(&place).await.with_code(0);
}

async fn subjects_of(server: &NatsServer, kind: &str) -> Vec<String> {
    let all = all_there_is(server).await;
    all.into_iter().filter(|line| line.contains(kind)).collect()
}

#[tokio::test]
async fn a_member_that_comes_after_the_end_of_its_bag_leaves_no_chunks_and_is_free() {
    let (place, server) = Place::with_server().await;
    let folder = place.folder("t/objects");
    let stopped = place.worker(&server);
    let at = format!("--server {}", server.url());
    let how = "--results objects --delivery queue-group";
    let run = place.spawn(&format!("run {BAG} -q {how} {at}"));
    middle(&place, &folder).await;
    stopped.signal(Signal::STOP);
    let other = place.worker(&server);
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&folder, TASKS);
    stopped.signal(Signal::CONT);
    other.signal(Signal::TERM);
    other.ended(&place).await.with_code(0);
    // The late one alone is left to do this.
    place.run(&format!("run --tasks 3 --bytes 64KiB --name next -q {how} {at}")).await.with_code(0);
    stopped.signal(Signal::TERM);
    let ended = stopped.ended(&place).await.with_code(0);
    assert!(ended.stderr.contains("left to its lease"), "{}", ended.stderr);
    let bucket = format!("$O.bag-{}.C.", bag_of(&place, "t/objects"));
    let writers = subjects_of(&server, &bucket).await;
    assert_eq!(writers.len() as u64, TASKS, "{writers:?}");
}

#[tokio::test]
async fn a_bag_that_nobody_takes_says_so() {
    let (place, server) = Place::with_server().await;
    let run = format!("run --tasks 2 --name t -q --delivery queue-group --server {}", server.url());
    let run = place.spawn(&run);
    place
        .until("it says why", || run.stderr().contains("no workers are connected").then_some(()))
        .await;
    let _worker = place.worker(&server);
    run.ended(&place).await.with_code(0);
}
