//! Tasks with the same input have the same object, where outputs stay objects; whatever becomes of one name, the other has its bytes.

use std::fs;

use bagpress_broker::testing::NatsServer;
use bagpress_codec::DataKind;
use rustix::process::Signal;
use serde_json::Value;

use crate::control::{bag_of, context};
use crate::death::DELIVERIES;
use crate::files::write;
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, failure, generated, outcomes};
use crate::objects::{answers, at, put};
use crate::twins::{files, summary};

const KIB: usize = 1024;

/// Under which token the chunks of each object are, by a client that is not ours.
async fn tokens(place: &Place, server: &NatsServer, indices: &[u32]) -> Vec<String> {
    let bucket = format!("bag-{}", bag_of(place, "t/objects"));
    let store = context(server).await.get_object_store(&bucket).await.unwrap();
    let mut tokens = Vec::new();
    for index in indices {
        tokens.push(store.info(format!("out_{index}.bin")).await.unwrap().nuid);
    }
    tokens
}

/// Messages that are chunks, of all objects of the bag.
async fn chunks(place: &Place, server: &NatsServer) -> u64 {
    let bucket = format!("OBJ_bag-{}", bag_of(place, "t/objects"));
    let context = context(server).await;
    let mut stream = context.get_stream(&bucket).await.unwrap();
    let all = stream.info().await.unwrap().state.messages;
    let mut metadata = 0;
    let store = context.get_object_store(bucket.trim_start_matches("OBJ_")).await.unwrap();
    let mut list = store.list().await.unwrap();
    while let Some(info) = futures::StreamExt::next(&mut list).await {
        info.unwrap();
        metadata += 1;
    }
    all - metadata
}

#[tokio::test]
async fn tasks_with_one_input_have_one_object_by_every_way() {
    let ways = DELIVERIES.into_iter().flat_map(|delivery| {
        ["--pack 1", "--pack 4", "--pack 1 --codec zstd:3"]
            .map(|how| format!("--delivery {delivery} {how}"))
    });
    for how in ways {
        let (place, server) = Place::with_server().await;
        let (at, _worker) = (at(&server), place.worker(&server));
        let files = files(&place);
        place.run(&format!("run in --results objects --name t -q {how} {at}")).await.with_code(0);
        expect_each_done_once(&place.folder("t/objects"), files.len() as u64);
        let sum = summary(&place, "runs/t/objects");
        assert_eq!((&sum["twins"], &sum["twin_bytes"]), (&2.into(), &409_600.into()), "{how}");
        let verify = format!("verify runs/t/objects --inputs {at}");
        place.run(&verify).await.with_code(0);
        let tokens = if how.contains("--pack 1") {
            tokens(&place, &server, &[0, 1, 2, 3]).await
        } else {
            // What is in a tar has no chunks of its own.
            tokens(&place, &server, &[1, 2]).await
        };
        assert_eq!(tokens[0] == tokens[1], how.contains("--pack 1"), "{how} {tokens:?}");
        let get = format!("object get out_1.bin out_2.bin --run runs/t/objects --out got {at}");
        place.run(&get).await.with_code(0);
        let [b, c] = [1, 2].map(|n| fs::read(place.path(&format!("got/out_{n}.bin"))).unwrap());
        assert!(b == c && !b.is_empty(), "{how}");
        // Who knows nothing of it but what the broker has comes to the same.
        fs::remove_file(place.path("runs/t/objects/manifest.jsonl")).unwrap();
        fs::remove_file(place.path("runs/t/objects/summary.json")).unwrap();
        place.run(&format!("gather runs/t/objects -q {at}")).await.with_code(0);
        place.run(&verify).await.with_code(0);
    }
}

#[tokio::test]
async fn freeing_an_object_leaves_its_bytes_to_the_other_names() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    files(&place);
    place.run(&format!("run in --results objects --pack 1 --name t -q {at}")).await.with_code(0);
    let bucket = format!("bag-{}", bag_of(&place, "t/objects"));
    let free = |n: u32| format!("object free obj://{bucket}/out_{n}.bin {at} --json");
    let (before, verify) = (chunks(&place, &server).await, format!("verify runs/t/objects {at}"));
    for n in [0, 2] {
        let freed = answers(&place.run(&free(n)).await.with_code(0));
        assert_eq!(freed[0]["state"], "freed");
        let bad = place.run(&verify).await.with_code(1);
        assert!(format!("{bad:?}").contains(&format!("out_{n}.bin")), "{bad:?}");
        place.run(&free(n)).await.with_code(0);
    }
    let get = format!("object get out_1.bin --run runs/t/objects --out got.gz {at}");
    place.run(&get).await.with_code(0);
    assert!(crate::taken::content(&place.path("got.gz")) == fs::read(place.path("in/b")).unwrap());
    assert_eq!(chunks(&place, &server).await, before + 2, "two tombstones");
    // What is made again is there besides.
    place.run(&format!("gather runs/t/objects -q --repair {at}")).await.with_code(0);
    place.run(&verify).await.with_code(0);
    let tokens = tokens(&place, &server, &[0, 1, 2]).await;
    assert!(tokens[0] != tokens[1] && tokens[1] != tokens[2], "{tokens:?}");
    for n in 0..6 {
        place.run(&free(n)).await.with_code(0);
    }
    place.run(&format!("object free obj://{bucket}/tree.jsonl.gz {at}")).await.with_code(0);
    assert_eq!(chunks(&place, &server).await, 7, "nothing but tombstones");
}

#[tokio::test]
async fn bytes_that_two_names_have_lost_are_found_missing_and_made_again_for_both() {
    for how in ["lost", "corrupt"] {
        let (place, server) = Place::with_server().await;
        let (at, _worker) = (at(&server), place.worker(&server));
        files(&place);
        let run = format!("run in --results objects --pack 1 --name t -q {at}");
        place.run(&run).await.with_code(0);
        let token = tokens(&place, &server, &[1]).await.remove(0);
        let bucket = format!("bag-{}", bag_of(&place, "t/objects"));
        let context = context(&server).await;
        let stream = context.get_stream(format!("OBJ_{bucket}")).await.unwrap();
        let subject = format!("$O.{bucket}.C.{token}");
        stream.purge().filter(subject.clone()).await.unwrap();
        if how == "corrupt" {
            context.publish(subject, "junk".into()).await.unwrap().await.unwrap();
        }
        let verify = format!("verify runs/t/objects {at}");
        let bad = format!("{:?}", place.run(&verify).await.with_code(1));
        let names = ["out_0.bin", "out_1.bin", "out_2.bin"];
        assert!(names.iter().all(|name| bad.contains(name)) && !bad.contains("out_3"), "{bad}");
        place.run(&format!("gather runs/t/objects -q --repair {at}")).await.with_code(0);
        place.run(&format!("{verify} --inputs")).await.with_code(0);
    }
}

#[tokio::test]
async fn a_task_whose_input_changes_meanwhile_gets_no_object_of_another() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    let files = files(&place);
    let submit = format!("submit in --results objects --pack 1 --name t {at}");
    // A submit puts all inputs: what changes is what nobody has put yet.
    place.run(&submit).await.with_code(0);
    write(&place.path("in/b"), &files[3].1);
    let _worker = place.worker(&server);
    place.run(&format!("gather runs/t/objects -q {at}")).await.with_code(1);
    assert_eq!(failure(&place.folder("t/objects"), 1).0, "input-changed");
    place.run(&format!("gather runs/t/objects -q --retry-failed {at}")).await.with_code(0);
    place.run(&format!("verify runs/t/objects --inputs {at}")).await.with_code(0);
    assert_eq!(summary(&place, "runs/t/objects")["twins"], 1);
}

#[tokio::test]
async fn references_to_equal_bytes_are_compressed_once() {
    for how in ["--results objects", "--results objects --out out", "--out out"] {
        let (place, server) = Place::with_server().await;
        let (at, _worker) = (at(&server), place.worker(&server));
        let bytes = [b"one".repeat(1000), b"two".repeat(1000)];
        for (name, which) in [("a", 0), ("b", 1), ("c", 0)] {
            put(&place, &at, name, &bytes[which]).await.with_code(0);
        }
        let run = "run obj://objects/a obj://objects/b obj://objects/c --name t -q";
        place.run(&format!("{run} {how} {at}")).await.with_code(0);
        let kind = if how.contains("objects") { "objects" } else { "staged" };
        let folder = place.folder(&format!("t/{kind}"));
        expect_each_done_once(&folder, 3);
        let digest = |index: u64| {
            let lines = outcomes(&folder);
            let line = lines.iter().find(|line| line["index"] == index).unwrap();
            line["outcome"]["done"]["output_digest"].clone()
        };
        assert!(digest(0) == digest(2) && digest(0) != digest(1), "{how}");
        assert_eq!(summary(&place, &format!("runs/t/{kind}"))["twins"], 1, "{how}");
        place.run(&format!("verify runs/t/{kind} {at}")).await.with_code(0);
        if how == "--results objects" {
            let tokens = tokens(&place, &server, &[0, 1, 2]).await;
            assert!(tokens[0] == tokens[2] && tokens[0] != tokens[1], "{tokens:?}");
        } else {
            assert!(crate::taken::content(&place.path("out/c.gz")) == bytes[0], "{how}");
        }
    }
}

#[tokio::test]
async fn what_is_generated_alike_is_compressed_once() {
    for results in ["objects", "staged"] {
        for (more, twins) in [("", 4), ("--no-dedup", 0)] {
            let place = Place::new().await;
            let run = "run --tasks 5 --bytes 64KiB --data zeros --name t -q --workers 2";
            place.run(&format!("{run} --results {results} {more}")).await.with_code(0);
            expect_each_done_once(&place.folder(&format!("t/{results}")), 5);
            let sum = summary(&place, &format!("runs/t/{results}"));
            assert_eq!(sum["twins"], twins, "{results} {more}");
            place.run(&format!("verify runs/t/{results} --inputs")).await.with_code(0);
        }
    }
}

#[tokio::test]
async fn a_gatherer_that_is_killed_while_it_shares_objects_goes_on_with_them() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    let contents: Vec<_> =
        (0..20).map(|index| generated(DataKind::Text, index, 100 * KIB)).collect();
    for copy in 0..6 {
        for (index, bytes) in contents.iter().enumerate() {
            write(&place.path(&format!("in/{copy}/{index}")), bytes);
        }
    }
    let run = format!("run in --results objects --name t -q --codec gzip:9 --pack 1 {at}");
    let running = place.spawn(&run);
    let folder = place.folder("t/objects");
    place
        .until("some are done, twins among them", || {
            let lines = fs::read_to_string(folder.join("manifest.jsonl")).ok()?;
            (lines.lines().count() > 10 && lines.contains("twin_of")).then_some(())
        })
        .await;
    running.signal(Signal::KILL);
    running.ended(&place).await;
    place.run(&format!("gather runs/t/objects -q {at}")).await.with_code(0);
    expect_each_done_once(&folder, 120);
    place.run(&format!("verify runs/t/objects --inputs {at}")).await.with_code(0);
    let twins = &summary(&place, "runs/t/objects")["twins"];
    assert_eq!(*twins, Value::from(100));
}

/// The broker has no result of a task that got the content of another's object.
#[tokio::test]
async fn names_that_lost_their_bytes_are_made_again_from_the_one_input_that_was_kept() {
    for delivery in DELIVERIES {
        let (place, server) = Place::with_server().await;
        let (at, _worker) = (at(&server), place.worker(&server));
        files(&place);
        let how = format!("--results objects --pack 1 --keep-inputs --delivery {delivery}");
        place.run(&format!("run in {how} --name t -q {at}")).await.with_code(0);
        let bag = bag_of(&place, "t/objects");
        fs::remove_dir_all(place.path("runs/t")).unwrap();
        // A client that is not ours takes the bytes of all names with those of one.
        let store = context(&server).await.get_object_store(format!("bag-{bag}")).await.unwrap();
        store.delete("out_1.bin").await.unwrap();
        // Whoever makes outputs again is a worker that takes them from the queue.
        let _other = place.worker(&server);
        let get = format!("object get obj://bag-{bag}/out_2.bin --out got {at}");
        place.run(&get).await.with_code(0);
        place.run(&format!("restore {bag} --out back --name r -q {at}")).await.with_code(0);
        for name in ["a", "b", "c"] {
            let back = fs::read(place.path("back/in").join(name)).unwrap();
            assert!(back == fs::read(place.path("in").join(name)).unwrap(), "{name} {delivery}");
        }
    }
}

#[tokio::test]
async fn a_bag_with_twins_comes_back_by_its_id_and_nothing_in_the_place_of_one() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    files(&place);
    let run = format!("run in --results objects --pack 4 --name t -q {at}");
    place.run(&run).await.with_code(0);
    let bag = bag_of(&place, "t/objects");
    fs::remove_dir_all(place.path("runs/t")).unwrap();
    let restore = |out: &str| format!("restore {bag} --out {out} --name {out} -q {at}");
    place.run(&restore("back")).await.with_code(0);
    let same = |out: &str, name: &str| {
        let back = fs::read(place.path(out).join("in").join(name)).unwrap();
        back == fs::read(place.path("in").join(name)).unwrap()
    };
    assert!(["a", "b", "c"].iter().all(|name| same("back", name)));
    let bucket = context(&server).await.get_object_store(format!("bag-{bag}")).await.unwrap();
    // A whole gzip file of nothing: only what the bag made is what it restores.
    let other = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bucket.put("out_2.bin", &mut &other[..]).await.unwrap();
    let ended = place.run(&restore("again")).await.with_code(1);
    assert!(ended.stdout.contains("no result of the bag says what it was made of"), "{ended:?}");
    assert!(same("again", "a") && same("again", "b") && !place.path("again/in/c").exists());
}
