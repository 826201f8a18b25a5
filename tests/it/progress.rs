//! How far a bag is, while its tasks take long.

use std::process::Command;

use bagpress_broker::testing::NatsServer;
use bagpress_codec::DataKind;
use rustix::process::Signal;

use crate::blocks::in_time;
use crate::control::{ENDLESS, bag_of, status, until_status, until_there};
use crate::files::write;
use crate::harness::{Place, Running};
use crate::ledger::{expect_each_done_once, generated};

const MIB: usize = 1024 * 1024;
const MEMBERS: usize = 40;

/// One file of many members of gzip; what it gives.
fn large_gzip(place: &Place) -> Vec<u8> {
    let one = generated(DataKind::Text, 1, 8 * MIB);
    write(&place.path("one"), &one);
    let packed = Command::new("gzip").args(["-1", "-c"]).arg(place.path("one")).output().unwrap();
    assert!(packed.status.success());
    write(&place.path("in/large.gz"), &packed.stdout.repeat(MEMBERS));
    one.repeat(MEMBERS)
}

/// The figure behind `0/1 tasks` in the last progress line, if it is not zero.
fn moved(stderr: &str) -> Option<String> {
    let line = stderr.lines().rfind(|line| line.starts_with("0/1 tasks  "))?;
    let figure = line.strip_prefix("0/1 tasks  ")?.split(" of ").next()?;
    (figure != "0 B").then(|| figure.to_owned())
}

/// A file that is being restored by a worker that was stopped within it.
struct Stopped {
    place: Place,
    server: NatsServer,
    restore: Running,
    worker: Running,
    bytes: Vec<u8>,
    /// How much of it was seen to be read.
    read: u64,
}

/// None if the worker had read all of it before it could be stopped.
async fn stopped() -> Option<Stopped> {
    let (place, server) = Place::with_server().await;
    let bytes = large_gzip(&place);
    let at = format!("--server {}", server.url());
    let worker = place.spawn(&format!("worker --slots 1 --allow / {at}"));
    let restore = place.spawn(&format!("restore in --out back --name r {at}"));
    until_there(&place, "r/staged").await;
    let folder = format!("runs/r/staged {at}");
    let read = until_status(&place, "some of it is read", &folder, |bag| {
        bag["progress_bytes"].as_u64().filter(|read| *read > 0)
    })
    .await;
    worker.signal(Signal::STOP);
    let bag = status(&place, &folder).await.unwrap();
    let is_within = bag["progress_bytes"].as_u64() < bag["total_bytes"].as_u64();
    if bag["done"] == 0 {
        assert_eq!(bag["input_bytes"], 0, "{bag}");
    }
    is_within.then_some(Stopped { place, server, restore, worker, bytes, read })
}

#[tokio::test]
async fn a_large_file_that_is_restored_moves_and_takes_nothing_back_when_its_worker_dies() {
    let Stopped { place, server, restore, worker, bytes, read } = in_time(stopped).await;
    let at = format!("--server {}", server.url());
    let (folder, id) = (format!("runs/r/staged {at}"), bag_of(&place, "r/staged"));
    place.until("a line of progress", || moved(&restore.stderr())).await;
    let by_id = status(&place, &format!("{id} {at}")).await.unwrap();
    let (stopped, total) = (&by_id["progress_bytes"], by_id["total_bytes"].as_u64().unwrap());
    let stopped = stopped.as_u64().unwrap();
    assert!(read <= stopped && stopped <= total, "{by_id}");
    assert!(by_id["eta_s"].as_u64().is_some() && by_id["bytes_per_s"] != 0, "{by_id}");

    worker.signal(Signal::KILL);
    let _another = place.spawn(&format!("worker --slots 1 --allow / {at}"));
    let mut last = stopped;
    loop {
        let bag = status(&place, &folder).await.unwrap();
        let now = bag["progress_bytes"].as_u64().unwrap();
        assert!((last..=total).contains(&now), "{last}: {bag}");
        last = now;
        if bag["state"] == "finished" {
            break;
        }
    }
    assert_eq!(last, total);
    restore.ended(&place).await.with_code(0);
    expect_each_done_once(&place.folder("r/staged"), 1);
    assert!(std::fs::read(place.path("back/in/large")).unwrap() == bytes);
}

#[tokio::test]
async fn a_long_task_is_seen_to_move_by_both_deliveries() {
    for delivery in ["jetstream", "queue-group"] {
        let (place, server) = Place::with_server().await;
        let at = format!("--server {}", server.url());
        let _worker = place.spawn(&format!("worker --slots 1 {at}"));
        let run = place.spawn(&format!("run {ENDLESS} --delivery {delivery} {at}"));
        until_there(&place, "t/staged").await;
        let bag = bag_of(&place, "t/staged");
        let mut last = 0;
        for _ in 0..2 {
            last = until_status(&place, "it moves", &format!("{bag} {at}"), |bag| {
                assert_eq!((&bag["done"], &bag["why"]), (&0.into(), &serde_json::Value::Null));
                bag["progress_bytes"].as_u64().filter(|read| *read > last)
            })
            .await;
        }
        place.run(&format!("cancel {bag} {at}")).await.with_code(0);
        run.ended(&place).await;
    }
}
