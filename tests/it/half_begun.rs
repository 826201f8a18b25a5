//! A gatherer that died between a new round's line in its ledger and anything else: the next one
//! finishes what was begun, by whatever it is asked to do.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use bagpress_producer::read_back::begun_line;

use crate::control::{bag_of, context};
use crate::death::DELIVERIES;
use crate::harness::Place;
use crate::ledger::{failure, outcomes};

/// What a gatherer leaves that dies right behind the line of a task's first new round.
fn begin_round(folder: &Path, index: u32) {
    let mut ledger = OpenOptions::new().append(true).open(folder.join("manifest.jsonl")).unwrap();
    ledger.write_all(&begun_line(index, 1)).unwrap();
}

/// Fails unless the new round of this task alone has an outcome, and it is *done*.
fn expect_done_anew(folder: &Path, index: u64) {
    let anew: Vec<_> = outcomes(folder).into_iter().filter(|o| o["round"] != 0).collect();
    assert_eq!(anew.len(), 1, "{anew:?}");
    assert_eq!((&anew[0]["index"], &anew[0]["round"]), (&index.into(), &1.into()));
    assert!(anew[0]["outcome"].get("done").is_some(), "{anew:?}");
}

async fn a_half_begun_retry(delivery: &str) {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    fs::create_dir(place.path("in")).unwrap();
    for name in ["a", "b", "c"] {
        fs::write(place.path("in").join(name), name.repeat(100_000)).unwrap();
    }
    let files = format!("in --out out --codec gzip:6 --name t --delivery {delivery}");
    place.run(&format!("submit {files} {at}")).await.with_code(0);
    fs::rename(place.path("in/b"), place.path("b.away")).unwrap();
    let _worker = place.worker(&server);
    let folder = place.folder("t/staged");
    place.run(&format!("gather runs/t/staged -q {at}")).await.with_code(1);
    assert_eq!(failure(&folder, 1).0, "input-missing");

    fs::rename(place.path("b.away"), place.path("in/b")).unwrap();
    begin_round(&folder, 1);
    place.run(&format!("gather runs/t/staged -q {at}")).await.with_code(0);
    expect_done_anew(&folder, 1);
    assert!(place.path("out/in/b.gz").is_file());
    place.run("verify runs/t/staged").await.with_code(0);
}

#[tokio::test]
async fn a_retry_that_was_half_begun_is_finished() {
    for delivery in DELIVERIES {
        a_half_begun_retry(delivery).await;
    }
}

/// A finished bag of four, and the words that name its server.
async fn finished(
    delivery: &str,
    results: &str,
) -> (Place, bagpress_broker::testing::NatsServer, String) {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let worker = place.worker(&server);
    let how = format!("--results {results} --delivery {delivery}");
    let bag = format!("run --tasks 4 --bytes 64KiB --name t -q {how} {at}");
    place.run(&bag).await.with_code(0);
    drop(worker);
    (place, server, at)
}

#[tokio::test]
async fn a_repair_that_was_half_begun_is_finished_with_files() {
    for delivery in DELIVERIES {
        let (place, server, at) = finished(delivery, "staged").await;
        let folder = place.folder("t/staged");
        fs::write(folder.join("results/out_2.bin"), b"bad").unwrap();
        begin_round(&folder, 2);
        let _worker = place.worker(&server);
        place.run(&format!("gather runs/t/staged -q {at}")).await.with_code(0);
        expect_done_anew(&folder, 2);
        place.run("verify runs/t/staged").await.with_code(0);
    }
}

/// The broken object of the old round is still there, under the name that the new one needs.
#[tokio::test]
async fn a_repair_that_was_half_begun_is_finished_with_objects() {
    for delivery in DELIVERIES {
        let (place, server, at) = finished(delivery, "objects").await;
        let folder = place.folder("t/objects");
        let bag = bag_of(&place, "t/objects");
        let execution = outcomes(&folder).into_iter().find(|o| o["index"] == 2).unwrap();
        let execution = execution["execution"].as_str().unwrap().to_owned();
        let bucket = context(&server).await.get_stream(format!("OBJ_bag-{bag}")).await.unwrap();
        let chunks = format!("$O.bag-{bag}.C.2-{execution}");
        assert_eq!(bucket.purge().filter(chunks).await.unwrap().purged, 1);
        begin_round(&folder, 2);
        let _worker = place.worker(&server);
        place.run(&format!("gather runs/t/objects -q {at}")).await.with_code(0);
        expect_done_anew(&folder, 2);
        place.run(&format!("verify runs/t/objects {at}")).await.with_code(0);
    }
}
