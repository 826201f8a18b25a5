//! Outputs in tars that are restored in packs: the parts of one tar are one delivery, and each has its own outcome.

use std::collections::BTreeMap;
use std::fs;

use bagpress_broker::testing::{NatsServer, eventually};
use bagpress_codec::DataKind;
use futures::StreamExt;
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::timeout;

use crate::control::{bag_of, context};
use crate::death::DELIVERIES;
use crate::files::write;
use crate::harness::{Place, Running, SOON};
use crate::ledger::{expect_each_done_once, generated, outcomes};
use crate::objects::at;
use crate::packs::{executions, some_files};
use crate::packs_of_objects::flip;
use crate::restore_packed::{RUN, bytes_of, expect_same, forget, outcomes_of, tree};

/// Files `in/f00` and so on, each with its own text.
fn numbered(place: &Place, files: usize) {
    for number in 0..files {
        write(&place.path(&format!("in/f{number:02}")), format!("file {number}").as_bytes());
    }
}

/// A worker that writes outputs where they will live.
fn by_path(place: &Place, server: &NatsServer) -> Running {
    place.spawn(&format!("worker --slots 1 --allow / --server {}", server.url()))
}

/// Waits until so many deliveries wait for a worker.
async fn waiting(server: &NatsServer, deliveries: u64) {
    eventually("every delivery waits for a worker", SOON, async || {
        let mut stream = context(server).await.get_stream("BAG_TASKS").await.unwrap();
        (stream.info().await.unwrap().state.messages == deliveries).then_some(())
    })
    .await;
}

/// The rounds of the last outcomes of a restoring run, by index.
fn rounds(place: &Place) -> BTreeMap<u64, u64> {
    let lines = outcomes(&place.folder("r/staged"));
    let number = |line: &Value, what: &str| line[what].as_u64().unwrap();
    lines.iter().map(|line| (number(line, "index"), number(line, "round"))).collect()
}

#[tokio::test]
async fn parts_of_one_tar_are_one_delivery_by_every_way() {
    for delivery in DELIVERIES {
        for how in ["", "--transfer wire"] {
            let (place, server) = Place::with_server().await;
            let (at, _worker) = (at(&server), by_path(&place, &server));
            some_files(&place, 60);
            let codec = if how.is_empty() { "zstd:3" } else { "store" };
            let run = format!("{RUN} --pack 8 --codec {codec} --delivery {delivery}");
            place.run(&format!("{run} {at}")).await.with_code(0);
            let (files, bag) = forget(&place);
            for (name, pack, deliveries) in [("r", 8, 8..=12), ("alone", 1, 60..=60)] {
                let out = format!("{name}/back");
                let restore = format!("restore {bag} --out {out} --name {name} --pack {pack}");
                let restore = format!("{restore} --delivery {delivery} {how} -q {at}");
                place.run(&restore).await.with_code(0);
                expect_same(&tree(&place.path(&format!("{out}/in"))), &files);
                let folder = place.folder(&format!("{name}/staged"));
                expect_each_done_once(&folder, 60);
                let found = executions(&folder);
                assert!(deliveries.contains(&found), "{delivery} {how} {pack}: {found}");
                let bag = fs::read_to_string(folder.join("bag.json")).unwrap();
                assert_eq!(bag.contains("packed-parts"), pack > 1, "{bag}");
                place.run(&format!("verify runs/{name}/staged")).await.with_code(0);
            }
        }
    }
}

#[tokio::test]
async fn a_tar_is_asked_for_once_by_the_worker_that_restores_its_parts() {
    let (place, server) = Place::with_server().await;
    let (at, worker) = (at(&server), place.worker(&server));
    numbered(&place, 32);
    place.run(&format!("{RUN} --pack 16 {at}")).await.with_code(0);
    let (files, bag) = forget(&place);
    worker.signal(Signal::TERM);
    worker.ended(&place).await.with_code(0);
    let restoring = place.spawn(&format!("restore {bag} --out back --name r --pack 8 -q {at}"));
    waiting(&server, 4).await;
    let seen = async_nats::connect(server.url()).await.unwrap();
    let mut seen = seen.subscribe("$JS.API.DIRECT.GET.>").await.unwrap();
    let _worker = by_path(&place, &server);
    restoring.ended(&place).await.with_code(0);
    expect_same(&tree(&place.path("back/in")), &files);
    assert_eq!(executions(&place.folder("r/staged")), 4);
    let (mut asked, chunks) = (BTreeMap::<_, usize>::new(), format!("$O.bag-{bag}.C."));
    while let Ok(Some(request)) = timeout(SOON / 30, seen.next()).await {
        let said = String::from_utf8_lossy(&request.payload).into_owned();
        // Chunks, and not what is said of an object.
        if said.contains(&chunks) {
            *asked.entry(said).or_default() += 1;
        }
    }
    assert!(asked.len() == 2 && asked.values().all(|times| *times == 1), "{asked:?}");
}

#[tokio::test]
async fn one_part_that_is_damaged_fails_alone_and_keeps_no_other_of_its_pack() {
    for delivery in DELIVERIES {
        let (place, server) = Place::with_server().await;
        let (at, _worker) = (at(&server), by_path(&place, &server));
        numbered(&place, 24);
        place.run(&format!("{RUN} --pack 8 {at}")).await.with_code(0);
        // A byte of what gzip made of the first file of the second tar.
        flip(&place, &server, "out_8.tar", 512 + 12).await;
        let (mut files, bag) = forget(&place);
        let restore = format!("restore {bag} --out back --name r --pack 8 --delivery {delivery}");
        place.run(&format!("{restore} -q {at}")).await.with_code(1);
        files.remove("f08").unwrap();
        expect_same(&tree(&place.path("back/in")), &files);
        let text = fs::read_to_string(place.folder("r/staged").join("failed.txt")).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("out_8.tar/in/f08") && text.contains("its digest is"), "{text}");
        // It was tried once more by itself, and nobody else was.
        let again: Vec<_> = rounds(&place).into_iter().filter(|(_, round)| *round > 0).collect();
        assert_eq!(again, [(8, 1)], "{delivery}");
        let retry = format!("gather runs/r/staged --retry-failed -q {at}");
        place.run(&retry).await.with_code(1);
        expect_same(&tree(&place.path("back/in")), &files);
    }
}

#[tokio::test]
async fn packs_whose_tars_go_or_change_while_they_wait_fail_file_by_file_until_they_are_back() {
    for delivery in DELIVERIES {
        let (place, server) = Place::with_server().await;
        let at = at(&server);
        let worker: Running = place.worker(&server);
        numbered(&place, 32);
        place.run(&format!("{RUN} --pack 8 {at}")).await.with_code(0);
        let (files, bag) = forget(&place);
        worker.signal(Signal::TERM);
        worker.ended(&place).await.with_code(0);
        let restore = format!("restore {bag} --out back --name r --pack 8 --delivery {delivery}");
        let restoring = place.spawn(&format!("{restore} -q {at}"));
        let list = place.folder("r/staged").join("inputs.jsonl");
        place.until("the list of what is restored", || Some(()).filter(|()| list.is_file())).await;
        if delivery == "jetstream" {
            waiting(&server, 4).await;
        }
        let bucket = context(&server).await.get_object_store(format!("bag-{bag}")).await.unwrap();
        let (gone, mine) =
            (bytes_of(&bucket, "out_8.tar").await, bytes_of(&bucket, "out_16.tar").await);
        bucket.delete("out_8.tar").await.unwrap();
        bucket.put("out_16.tar", &mut &gone[..]).await.unwrap();
        let _worker = place.worker(&server);
        restoring.ended(&place).await.with_code(1);
        let text = fs::read_to_string(place.folder("r/staged").join("failed.txt")).unwrap();
        assert_eq!(text.lines().count(), 16, "{text}");
        assert_eq!(text.matches("input-missing").count(), 16, "{text}");
        assert_eq!(text.matches(": deleted: object").count(), 8, "{text}");
        assert_eq!(text.matches("and its bag made").count(), 8, "{text}");
        let rest = files.clone().into_iter();
        let rest = rest.filter(|(name, _)| !("f08".."f24").contains(&name.as_str())).collect();
        expect_same(&tree(&place.path("back/in")), &rest);
        bucket.put("out_8.tar", &mut &gone[..]).await.unwrap();
        bucket.put("out_16.tar", &mut &mine[..]).await.unwrap();
        place.run(&format!("gather runs/r/staged --retry-failed -q {at}")).await.with_code(0);
        expect_same(&tree(&place.path("back/in")), &files);
    }
}

#[tokio::test]
async fn objects_of_their_own_and_second_names_of_tars_come_back_beside_packs() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    some_files(&place, 32);
    // Two with one content, large enough to be looked for.
    for name in ["in/0/twin", "in/2/twin"] {
        write(&place.path(name), &generated(DataKind::Text, 5, 20_000));
    }
    place.run(&format!("{RUN} --pack 8 {at}")).await.with_code(0);
    let bag = bag_of(&place, "t/objects");
    let bucket = context(&server).await.get_object_store(format!("bag-{bag}")).await.unwrap();
    bucket.delete("out_8.tar").await.unwrap();
    place.run(&format!("gather runs/t/objects --repair -q {at}")).await.with_code(0);
    let (first, second) = ("out_0.tar", "out_0.tar~0-0a");
    let tar = bytes_of(&bucket, first).await;
    bucket.put(second, &mut &tar[..]).await.unwrap();
    bucket.delete(first).await.unwrap();
    let (files, bag) = forget(&place);
    let restore = format!("restore {bag} --out back --name r --pack 8 -q {at}");
    place.run(&restore).await.with_code(0);
    expect_same(&tree(&place.path("back/in")), &files);
    expect_each_done_once(&place.folder("r/staged"), 34);
    let found = executions(&place.folder("r/staged"));
    assert!((8 + 3..30).contains(&found), "{found}");
}

#[tokio::test]
async fn packs_of_parts_lose_nothing_when_worker_and_gatherer_are_killed_again_and_again() {
    for delivery in DELIVERIES {
        let (place, server) = Place::with_server().await;
        let at = at(&server);
        let mut worker = by_path(&place, &server);
        for number in 0..1600 {
            let name = format!("in/{}/f{number:03}", number % 7);
            write(&place.path(&name), &generated(DataKind::Text, number, 4_000));
        }
        place.run(&format!("{RUN} --pack 32 {at}")).await.with_code(0);
        let (files, bag) = forget(&place);
        let how = format!("--pack 8 --delivery {delivery}");
        let mut gathering =
            place.spawn(&format!("restore {bag} --out back --name r {how} -q {at}"));
        let ledger = place.folder("r/staged").join("manifest.jsonl");
        let lines = || if ledger.is_file() { outcomes_of(&ledger).len() } else { 0 };
        for kills in 0..3 {
            let before = lines();
            place.until("more outcomes", || (lines() > before).then_some(())).await;
            worker.signal(Signal::KILL);
            if kills != 1 {
                gathering.signal(Signal::KILL);
                gathering.ended(&place).await;
                gathering = place.spawn(&format!("gather runs/r/staged -q {at}"));
            }
            worker.ended(&place).await;
            assert!(lines() < 1600, "{delivery}: it had ended");
            worker = by_path(&place, &server);
        }
        gathering.ended(&place).await.with_code(0);
        expect_each_done_once(&place.folder("r/staged"), 1600);
        expect_same(&tree(&place.path("back/in")), &files);
        assert!(executions(&place.folder("r/staged")) < 800, "{delivery}");
    }
}

#[tokio::test]
async fn a_cancelled_restore_in_packs_ends_and_its_tasks_are_files() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    let worker: Running = place.worker(&server);
    numbered(&place, 32);
    place.run(&format!("{RUN} --pack 8 {at}")).await.with_code(0);
    let (_, bag) = forget(&place);
    worker.signal(Signal::TERM);
    worker.ended(&place).await.with_code(0);
    let restoring = place.spawn(&format!("restore {bag} --out back --name r --pack 8 -q {at}"));
    waiting(&server, 4).await;
    let told = place.run(&format!("status runs/r/staged --json {at}")).await.with_code(0);
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told["tasks"], 32, "{told}");
    place.run(&format!("cancel runs/r/staged {at}")).await.with_code(0);
    assert_ne!(restoring.ended(&place).await.code, Some(0));
    waiting(&server, 0).await;
}

#[tokio::test]
async fn only_what_is_in_tars_is_restored_in_packs() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    numbered(&place, 4);
    place.run(&format!("{RUN} --pack 1 {at}")).await.with_code(0);
    let (_, bag) = forget(&place);
    let ended = place.run(&format!("restore {bag} --out back --pack 4 {at}")).await.with_code(2);
    assert!(ended.stderr.contains("packs are made of files"), "{ended:?}");
}
