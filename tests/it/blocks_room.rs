//! Blocks and what they are joined into share the room that there is, and take none from others.

use std::fs;

use bagpress_codec::DataKind;

use crate::blocks::{expect_done, of_files};
use crate::death::DELIVERIES;
use crate::files::write;
use crate::harness::Place;
use crate::ledger::{failure, generated, outcomes};
use crate::small_disk::OnSmallDisk;
use crate::taken::content;

const MIB: usize = 1024 * 1024;

/// The blocks and what they are joined into have room one after the other, not both.
#[tokio::test]
async fn a_join_that_fills_the_disk_makes_room_for_itself() {
    let place = Place::new().await;
    let bytes = generated(DataKind::Random, 3, 24 * MIB);
    write(&place.path("in/large"), &bytes);
    let words = "run in --out disk/out --codec store --block 1MiB --workers 2 --name t -q";
    let run = OnSmallDisk::start(&place, "disk", 32 << 20, words);
    run.ended(&place).await.with_code(0);
    assert_eq!(fs::read(place.path("disk.kept/out/in/large")).unwrap(), bytes);
}

/// What is joined is on the disk already, and needs no room to be counted.
#[tokio::test]
async fn objects_that_are_joined_need_the_room_of_their_file_once() {
    let place = Place::new().await;
    let bytes = generated(DataKind::Random, 3, 20 * MIB);
    write(&place.path("in/large"), &bytes);
    let words = "run in --out disk/out --codec store --block 2MiB --workers 2 --name t -q \
                 --results objects";
    let run = OnSmallDisk::start(&place, "disk", 32 << 20, words);
    run.ended(&place).await.with_code(0);
    assert_eq!(fs::read(place.path("disk.kept/out/in/large")).unwrap(), bytes);
}

/// Their inputs would take the space of those behind them for ever.
#[tokio::test]
async fn inputs_of_blocks_for_which_nobody_waits_keep_no_other_file_waiting() {
    for delivery in DELIVERIES {
        let (place, server) = Place::with_server().await;
        let folder = place.path("runs/t/objects");
        // More than the window of inputs has.
        let sparse = |name: &str, mib: u64| {
            fs::create_dir_all(place.path("in")).unwrap();
            fs::File::create(place.path("in").join(name)).unwrap().set_len(mib << 20).unwrap();
        };
        sparse("a", 320);
        sparse("b", 24);
        let at = format!("--server {}", server.url());
        let run = place.spawn(&format!(
            "run in --out out --name t -q --block 8MiB --codec gzip:1 --results objects \
             --delivery {delivery} {at}"
        ));
        // Nobody takes a block before the window is full.
        place.until("inputs wait", || run.stderr().contains("no outcome for").then_some(())).await;
        sparse("a", 321);
        let _worker = place.worker(&server);
        run.ended(&place).await.with_code(1);
        assert_eq!(failure(&folder, 0).0, "input-changed", "{delivery}");
        assert!(of_files(&folder, 2)[&1]["outcome"].get("done").is_some(), "{delivery}");
    }
}

#[tokio::test]
async fn blocks_and_packs_of_one_bag_of_objects_are_each_executed_once() {
    let place = Place::new().await;
    let large = generated(DataKind::Text, 3, 5 * MIB);
    write(&place.path("in/large"), &large);
    for number in 0..40 {
        write(&place.path(&format!("in/small {number}")), format!("{number}").as_bytes());
    }
    let run = "run in --out out --name t -q --block 1MiB --pack 8 --workers 2 --results objects";
    place.run(run).await.with_code(0);
    let folder = place.path("runs/t/objects");
    expect_done(&folder, 41);
    assert!(outcomes(&folder).iter().all(|outcome| outcome["round"] == 0));
    assert_eq!(content(&place.path("out/in/large.gz")), large);
}
