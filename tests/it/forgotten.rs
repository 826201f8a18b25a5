//! A broker that forgot what it had acknowledged: the bag finds out and runs that again.

use async_nats::jetstream;
use bagpress_broker::limits;
use bagpress_broker::testing::NatsServer;
use rustix::process::Signal;

use crate::control;
use crate::death::{BAG, TASKS, middle};
use crate::harness::{Place, Running};
use crate::ledger::{expect_each_done_once, outcomes};

async fn begun(delivery: &str, results: &str) -> (Place, NatsServer, Running, Running) {
    let (place, server) = Place::with_server().await;
    let worker = place.worker(&server);
    let how = format!("--delivery {delivery} --results {results} --server {}", server.url());
    let words = format!("run {BAG} -q {how}");
    let run = place.spawn(&words);
    middle(&place, &place.folder(&format!("t/{results}"))).await;
    (place, server, worker, run)
}

async fn purge(server: &NatsServer, stream: &str) {
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    context.get_stream(stream).await.unwrap().purge().await.unwrap();
}

#[tokio::test]
async fn waiting_tasks_that_are_gone_are_submitted_again() {
    let (place, server, _worker, run) = begun("jetstream", "staged").await;
    purge(&server, "BAG_TASKS").await;
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&place.folder("t/staged"), TASKS);
}

#[tokio::test]
async fn results_that_are_gone_cost_nothing_that_is_in_the_ledger() {
    let (place, server, _worker, run) = begun("jetstream", "staged").await;
    purge(&server, "BAG_RESULTS").await;
    purge(&server, "BAG_TASKS").await;
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&place.folder("t/staged"), TASKS);
    place.run("verify runs/t/staged").await.with_code(0);
}

async fn a_store_that_is_gone(delivery: &str, results: &str) {
    let (place, mut server, _worker, run) = begun(delivery, results).await;
    // However busy the machine is, the bag does not end before its store is gone.
    run.signal(Signal::STOP);
    let folder = place.folder(&format!("t/{results}"));
    assert!((outcomes(&folder).len() as u64) < TASKS, "nothing was left to do");
    server.forget_and_restart().await;
    run.signal(Signal::CONT);
    let init = format!("broker --init --max-file 2GiB --server {}", server.url());
    place.run(&init).await.with_code(0);
    run.ended(&place).await.with_code(0);
    let verify = format!("verify runs/t/{results} --server {}", server.url());
    place.run(&verify).await.with_code(0);
    let done: std::collections::HashSet<_> =
        outcomes(&folder).iter().map(|outcome| outcome["index"].as_u64()).collect();
    assert_eq!(done.len() as u64, TASKS);
}

#[tokio::test]
async fn a_whole_store_that_is_gone_under_a_staged_bag_costs_nothing_that_is_done() {
    a_store_that_is_gone("jetstream", "staged").await;
}

#[tokio::test]
async fn a_whole_store_that_is_gone_under_an_objects_bag_is_filled_again() {
    a_store_that_is_gone("jetstream", "objects").await;
}

/// The tasks are in no store, and the objects of those that were done are run again nevertheless.
#[tokio::test]
async fn a_whole_store_that_is_gone_under_a_queue_group_bag_of_objects_is_filled_again() {
    a_store_that_is_gone("queue-group", "objects").await;
}

/// Inputs are in a bucket too, and are put again from the files.
async fn inputs_that_are_gone(delivery: &str) {
    const FILES: usize = 800;
    let (place, mut server) = Place::with_server().await;
    std::fs::create_dir(place.path("in")).unwrap();
    for number in 0..FILES {
        let text = format!("file {number}\n").repeat(4_000);
        std::fs::write(place.path("in").join(number.to_string()), text).unwrap();
    }
    let at = format!("--server {}", server.url());
    let _worker = place.worker(&server);
    let how = format!("--delivery {delivery} --results objects {at}");
    let run = place.spawn(&format!("run in --codec gzip:9 --name t -q {how}"));
    let folder = place.folder("t/objects");
    place.until("it has begun", || (outcomes(&folder).len() >= 10).then_some(())).await;
    server.forget_and_restart().await;
    assert!(outcomes(&folder).len() < FILES, "nothing was left to do");
    place.run(&format!("broker --init --max-file 2GiB {at}")).await.with_code(0);
    run.ended(&place).await.with_code(0);
    place.run(&format!("verify runs/t/objects {at}")).await.with_code(0);
}

#[tokio::test]
async fn a_whole_store_that_is_gone_under_an_objects_bag_of_files_is_filled_again() {
    inputs_that_are_gone("jetstream").await;
}

#[tokio::test]
async fn a_whole_store_that_is_gone_under_a_queue_group_bag_of_files_is_filled_again() {
    inputs_that_are_gone("queue-group").await;
}

/// The window is full of inputs that are there no more: nobody frees it but who publishes them again.
#[tokio::test]
async fn a_whole_store_that_is_gone_while_inputs_wait_for_room_is_filled_again() {
    let (place, mut server) = Place::with_server().await;
    files(&place, &[limits::INPUT_WINDOW_BYTES / 3; 5]);
    let at = format!("--server {}", server.url());
    let run = place.spawn(&format!("{LARGE_FILES} {at}"));
    until_queued(&place, 2, &at).await;
    server.forget_and_restart().await;
    place.run(&format!("broker --init --max-file 2GiB {at}")).await.with_code(0);
    let _worker = place.worker(&server);
    run.ended(&place).await.with_code(0);
    place.run(&format!("verify runs/t/objects {at}")).await.with_code(0);
}

/// Before them there are more than are put at a time, which are to be run again and find no room.
#[tokio::test]
async fn tasks_that_are_gone_with_their_objects_make_room_for_those_before_them() {
    const SMALL: usize = 17;
    let (place, server) = Place::with_server().await;
    // Four of them leave no room for a small one.
    let (large, small) = (limits::INPUT_WINDOW_BYTES / 4 - (128 << 10), 1 << 20);
    files(&place, &[&[small; SMALL][..], &[large; 6]].concat());
    let at = format!("--server {}", server.url());
    let run = place.spawn(&format!("{LARGE_FILES} {at}"));
    let (folder, worker) = (place.folder("t/objects"), place.worker(&server));
    let small = || (outcomes(&folder).len() >= SMALL).then_some(());
    place.until("the small ones are done", small).await;
    worker.signal(Signal::KILL);
    until_queued(&place, 4, &at).await;
    assert!(outcomes(&folder).len() < SMALL + 2, "the window was never full");
    let bag = control::bag_of(&place, "t/objects");
    for stream in ["BAG_TASKS".to_owned(), format!("OBJ_bag-{bag}"), format!("OBJ_bag-{bag}-in")] {
        purge(&server, &stream).await;
    }
    let _worker = place.worker(&server);
    run.ended(&place).await.with_code(0);
    place.run(&format!("verify runs/t/objects {at}")).await.with_code(0);
}

/// Each is put and compressed, though all have one content.
const LARGE_FILES: &str = "run in --results objects --codec gzip:1 --no-dedup --name t -q";

/// Files of so many bytes, in this order.
fn files(place: &Place, bytes: &[u64]) {
    std::fs::create_dir(place.path("in")).unwrap();
    for (number, bytes) in bytes.iter().enumerate() {
        let file = std::fs::File::create(place.path("in").join(format!("{number:02}"))).unwrap();
        file.set_len(*bytes).unwrap();
    }
}

/// Waits until so many tasks of the bag are in the queue, with workers or not.
async fn until_queued(place: &Place, tasks: u64, at: &str) {
    control::until_status(place, "the window is full", &format!("runs/t/objects {at}"), |bag| {
        let queued = bag["waiting"].as_u64()? + bag["running"].as_u64()?;
        (queued == tasks).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_object_that_is_gone_is_made_again_by_gather() {
    let (place, server) = Place::with_server().await;
    let _worker = place.worker(&server);
    let bag = "run --tasks 4 --bytes 64KiB --results objects --name t -q";
    place.run(&format!("{bag} --server {}", server.url())).await.with_code(0);
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let specification = std::fs::read(place.folder("t/objects/bag.json")).unwrap();
    let specification: serde_json::Value = serde_json::from_slice(&specification).unwrap();
    let stream = format!("OBJ_bag-{}", specification["bag"].as_str().unwrap());
    context.get_stream(stream).await.unwrap().purge().await.unwrap();
    let verify = format!("verify runs/t/objects --server {}", server.url());
    place.run(&verify).await.with_code(1);
    place.run(&format!("gather runs/t/objects -q --server {}", server.url())).await.with_code(0);
    place.run(&verify).await.with_code(0);
}
