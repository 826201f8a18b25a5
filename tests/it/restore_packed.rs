//! A bag of objects whose outputs are together in tars is restored by its id: each file from its part of a tar.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use async_nats::jetstream::object_store::ObjectStore;
use bagpress_broker::subjects::TREE;
use bagpress_broker::testing::{NatsServer, eventually};
use bagpress_codec::DataKind;
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::AsyncReadExt;

use crate::control::{bag_of, context};
use crate::death::DELIVERIES;
use crate::files::write;
use crate::harness::{Ended, Place, Running, SOON};
use crate::ledger::{expect_each_done_once, generated};
use crate::objects::at;
use crate::packs::{forget_what_waits, some_files};
use crate::packs_of_objects::flip;

pub(crate) const RUN: &str = "run in --results objects --name t -q";

/// The files below a folder, with what is in each.
pub(crate) fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_file());
    let below = |path: &Path| path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
    files.map(|entry| (below(entry.path()), fs::read(entry.path()).unwrap())).collect()
}

/// Expects that both have the same files, byte by byte.
pub(crate) fn expect_same(found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>) {
    assert!(found.keys().eq(expected.keys()), "{:?} {:?}", found.keys(), expected.keys());
    for (name, bytes) in expected {
        assert!(found[name] == *bytes, "{name}");
    }
}

/// Everything but the bag on its broker is gone: what was in the files, and the bag's id.
pub(crate) fn forget(place: &Place) -> (BTreeMap<String, Vec<u8>>, String) {
    let (files, bag) = (tree(&place.path("in")), bag_of(place, "t/objects"));
    for gone in ["in", "runs/t"] {
        fs::remove_dir_all(place.path(gone)).unwrap();
    }
    (files, bag)
}

async fn tars(server: &NatsServer, bag: &str) -> usize {
    let bucket = context(server).await.get_object_store(format!("bag-{bag}")).await.unwrap();
    let list = bucket.list().await.unwrap();
    let names = futures::StreamExt::map(list, |info| info.unwrap().name);
    let names: Vec<_> = futures::StreamExt::collect(names).await;
    names.iter().filter(|name| name.contains(".tar")).count()
}

pub(crate) async fn bytes_of(bucket: &ObjectStore, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    bucket.get(name).await.unwrap().read_to_end(&mut bytes).await.unwrap();
    bytes
}

/// The lines of the list of a run, of those that are whole objects and of those that are parts.
fn inputs(place: &Place, run: &str) -> (usize, usize) {
    let list = fs::read_to_string(place.folder(run).join("inputs.jsonl")).unwrap();
    let lines = list.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let lines: Vec<_> = lines.collect();
    // Each is compared with what its result says that it was made of.
    assert!(lines.iter().all(|line| line["stream"]["original"]["digest"].is_string()), "{list}");
    let parts = lines.iter().filter(|line| line["reference"]["part"]["at"].is_u64()).count();
    (lines.len() - parts, parts)
}

#[tokio::test]
async fn a_bag_as_it_is_by_default_comes_back_byte_by_byte_when_all_else_is_gone() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    for number in 0..600 {
        let name = format!("in/{}/deep {}/f{number:03}", number % 5, number % 3);
        // Some are empty, and some have the content of others.
        let text = format!("file {} ", number % 500).repeat(number % 50);
        write(&place.path(&name), text.as_bytes());
    }
    for (name, bytes) in [("in/large", 700_000), ("in/4/larger", 1_500_000)] {
        write(&place.path(name), &generated(DataKind::Text, 1, bytes));
    }
    place.run(&format!("{RUN} {at}")).await.with_code(0);
    let (files, bag) = forget(&place);
    assert!(tars(&server, &bag).await > 100);
    place.run(&format!("restore {bag} --out back --name r -q {at}")).await.with_code(0);
    expect_same(&tree(&place.path("back/in")), &files);
    expect_each_done_once(&place.folder("r/staged"), 602);
    let (whole, parts) = inputs(&place, "r/staged");
    assert!(whole >= 2 && parts > 300, "{whole} {parts}");
    place.run("verify runs/r/staged").await.with_code(0);
}

#[tokio::test]
async fn files_in_tars_come_back_by_every_way() {
    for delivery in DELIVERIES {
        for how in ["", "--transfer wire"] {
            let (place, server) = Place::with_server().await;
            let (at, _worker) = (at(&server), place.worker(&server));
            some_files(&place, 30);
            let codec = if how.is_empty() { "zstd:3" } else { "store" };
            let run = format!("{RUN} --pack 8 --codec {codec} --delivery {delivery}");
            place.run(&format!("{run} {at}")).await.with_code(0);
            let (files, bag) = forget(&place);
            let restore = format!("restore {bag} --out back --name r --delivery {delivery} {how}");
            let dry = place.run(&format!("{restore} --dry-run {at}")).await.with_code(0);
            assert!(dry.stdout.contains("back/in/2/f 0002"), "{dry:?}");
            place.run(&format!("{restore} -q {at}")).await.with_code(0);
            expect_same(&tree(&place.path("back/in")), &files);
        }
    }
}

#[tokio::test]
async fn what_was_run_again_alone_and_what_is_in_tars_come_back_together() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    some_files(&place, 32);
    place.run(&format!("{RUN} --pack 8 {at}")).await.with_code(0);
    let bag = bag_of(&place, "t/objects");
    let bucket = context(&server).await.get_object_store(format!("bag-{bag}")).await.unwrap();
    bucket.delete("out_8.tar").await.unwrap();
    place.run(&format!("gather runs/t/objects --repair -q {at}")).await.with_code(0);
    // A file is in a tar, and another program has put an object by the name that it would have alone.
    bucket.put("out_1.bin", &mut &b"none of the bag's"[..]).await.unwrap();
    // A tar may have a second name, as when its pack was executed twice.
    let (first, second) = ("out_0.tar", "out_0.tar~0-0a");
    let tar = bytes_of(&bucket, first).await;
    bucket.put(second, &mut &tar[..]).await.unwrap();
    bucket.delete(first).await.unwrap();
    let (files, bag) = forget(&place);
    place.run(&format!("restore {bag} --out back --name r -q {at}")).await.with_code(0);
    expect_same(&tree(&place.path("back/in")), &files);
    let (whole, parts) = inputs(&place, "r/staged");
    assert!(whole >= 8 && parts >= 16, "{whole} {parts}");
}

#[tokio::test]
async fn a_tar_that_is_gone_or_another_costs_its_files_by_name_and_no_other_file() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    for number in 0..32 {
        write(&place.path(&format!("in/f{number:02}")), format!("file {number}").as_bytes());
    }
    place.run(&format!("submit in --results objects --name t --pack 8 {at}")).await.with_code(0);
    // So that the files are read once more: one that is gone by then is not in the tar of its pack, and fails alone.
    forget_what_waits(&server).await;
    fs::remove_file(place.path("in/f30")).unwrap();
    let _worker = place.worker(&server);
    place.run(&format!("gather runs/t/objects -q {at}")).await.with_code(1);
    let bag = bag_of(&place, "t/objects");
    let bucket = context(&server).await.get_object_store(format!("bag-{bag}")).await.unwrap();
    let other = bytes_of(&bucket, "out_0.tar").await;
    bucket.delete("out_8.tar").await.unwrap();
    bucket.put("out_16.tar", &mut &other[..]).await.unwrap();
    let get = format!("object get obj://bag-{bag}/out_16.tar --out got --depth 0 {at}");
    let got = place.run(&get).await.with_code(1);
    assert!(got.stdout.contains("corrupt") && got.stdout.contains("its bag made"), "{got:?}");
    // A byte of what gzip made of the first file of the last tar.
    flip(&place, &server, "out_24.tar", 512 + 12).await;
    let (files, bag) = forget(&place);
    let restore = format!("restore {bag} --out back --name r -q {at}");
    let ended = place.run(&restore).await.with_code(1);
    assert!(ended.stderr.contains("will fail: obj://bag-"), "{ended:?}");
    let kept: BTreeMap<_, _> = files
        .into_iter()
        .filter(|(name, _)| name.as_str() < "f08" || name.as_str() > "f24")
        .collect();
    expect_same(&tree(&place.path("back/in")), &kept);
    let text = fs::read_to_string(place.folder("r/staged").join("failed.txt")).unwrap();
    assert_eq!(text.lines().count(), 8 + 8 + 1 + 1, "{text}");
    assert_eq!(text.matches("out_8.tar: deleted").count(), 8, "{text}");
    assert!(
        text.contains("in/f08") && text.contains("in/f30"),
        "the files that are missing: {text}"
    );
    assert!(ended.stderr.contains("restore"), "{ended:?}");
    assert_eq!(text.matches("and its bag made").count(), 8, "{text}");
    assert_eq!(text.matches("out_24.tar/in/f24: corrupt: its digest is").count(), 1, "{text}");
    assert_eq!(text.matches("the bag has no output of it").count(), 1, "{text}");
}

#[tokio::test]
async fn a_tar_that_goes_while_its_files_wait_fails_them_until_it_is_back() {
    for delivery in DELIVERIES {
        let (place, server) = Place::with_server().await;
        let at = at(&server);
        let worker: Running = place.worker(&server);
        some_files(&place, 16);
        place.run(&format!("{RUN} --pack 8 {at}")).await.with_code(0);
        let (files, bag) = forget(&place);
        worker.signal(Signal::TERM);
        worker.ended(&place).await.with_code(0);
        let restore = format!("restore {bag} --out back --name r --delivery {delivery} -q {at}");
        let restoring = place.spawn(&restore);
        let list = place.folder("r/staged").join("inputs.jsonl");
        place.until("the list of what is restored", || Some(()).filter(|()| list.is_file())).await;
        let bucket = context(&server).await.get_object_store(format!("bag-{bag}")).await.unwrap();
        let tar = bytes_of(&bucket, "out_8.tar").await;
        bucket.delete("out_8.tar").await.unwrap();
        let _worker = place.worker(&server);
        restoring.ended(&place).await.with_code(1);
        let text = fs::read_to_string(place.folder("r/staged").join("failed.txt")).unwrap();
        let found = tree(&place.path("back/in"));
        assert_eq!(text.lines().count(), files.len() - found.len(), "{text}");
        assert_eq!(text.matches("input-missing").count(), text.lines().count(), "{text}");
        assert!(found.len() >= 8 && found.len() < 16, "{found:?}");
        // The same bytes, by whoever has them.
        bucket.put("out_8.tar", &mut &tar[..]).await.unwrap();
        let again = format!("gather runs/r/staged --retry-failed -q {at}");
        place.run(&again).await.with_code(0);
        expect_same(&tree(&place.path("back/in")), &files);
    }
}

#[tokio::test]
async fn what_becomes_of_tars_after_they_were_looked_up_is_seen_by_whoever_reads_them() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    let worker: Running = place.worker(&server);
    for number in 0..24 {
        write(&place.path(&format!("in/f{number:02}")), format!("file {number}").as_bytes());
    }
    place.run(&format!("{RUN} --pack 8 {at}")).await.with_code(0);
    let (mut files, bag) = (tree(&place.path("in")), bag_of(&place, "t/objects"));
    worker.signal(Signal::TERM);
    worker.ended(&place).await.with_code(0);
    let restoring = place.spawn(&format!("restore {bag} --out back --name r -q {at}"));
    eventually("every task waits for a worker", SOON, async || {
        let mut stream = context(&server).await.get_stream("BAG_TASKS").await.unwrap();
        (stream.info().await.unwrap().state.messages == 24).then_some(())
    })
    .await;
    let bucket = context(&server).await.get_object_store(format!("bag-{bag}")).await.unwrap();
    let (mine, other) =
        (bytes_of(&bucket, "out_0.tar").await, bytes_of(&bucket, "out_16.tar").await);
    bucket.put("out_0.tar", &mut &other[..]).await.unwrap();
    flip(&place, &server, "out_8.tar", 512 + 12).await;
    let _worker = place.worker(&server);
    restoring.ended(&place).await.with_code(1);
    let text = fs::read_to_string(place.folder("r/staged").join("failed.txt")).unwrap();
    assert_eq!(text.lines().count(), 8 + 1, "{text}");
    assert_eq!(text.matches("out_0.tar/").count(), 8, "{text}");
    assert!(text.contains("out_8.tar/in/f08") && text.contains("its digest is"), "{text}");
    bucket.put("out_0.tar", &mut &mine[..]).await.unwrap();
    let again = format!("gather runs/r/staged --retry-failed -q {at}");
    place.run(&again).await.with_code(1);
    files.remove("f08").unwrap();
    expect_same(&tree(&place.path("back/in")), &files);
}

#[tokio::test]
async fn a_bag_whose_tree_is_gone_or_hostile_comes_back_by_what_its_outputs_say() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    some_files(&place, 16);
    let large = generated(DataKind::Text, 1, 900_000);
    write(&place.path("in/2/large"), &large);
    place.run(&format!("{RUN} --pack 8 {at}")).await.with_code(0);
    let listed = place.run(&format!("object ls bag-{} {at}", bag_of(&place, "t/objects"))).await;
    assert!(listed.stdout.contains("out_0.tar") && !listed.stdout.contains("tree"), "{listed:?}");
    let (mut files, bag) = forget(&place);
    // What is in a tar says its place below the outputs, and what is not the path of its file.
    assert!(files.remove("2/large").is_some());
    let bucket = context(&server).await.get_object_store(format!("bag-{bag}")).await.unwrap();
    let hostile = &br#"{"target":"../outside"}"#[..];
    for (out, tree_now) in [("gone", None), ("hostile", Some(hostile))] {
        match tree_now {
            None => bucket.delete(TREE).await.unwrap(),
            Some(mut bytes) => drop(bucket.put(TREE, &mut bytes).await.unwrap()),
        }
        let restore = format!("restore {bag} --out {out}/back --name {out} -q {at}");
        let ended = place.run(&restore).await.with_code(0);
        assert!(ended.stderr.contains("modes, times and empty folders do not"), "{ended:?}");
        expect_same(&tree(&place.path(&format!("{out}/back/in"))), &files);
        assert!(fs::read(place.path(&format!("{out}/back/large"))).unwrap() == large, "{out}");
        assert_eq!(fs::read_dir(place.path(out)).unwrap().count(), 1, "{out}");
    }
}

#[tokio::test]
async fn a_file_that_was_compressed_in_blocks_does_not_keep_the_rest_from_coming_back() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    some_files(&place, 12);
    write(&place.path("in/large"), &generated(DataKind::Text, 1, 3 << 20));
    let run = format!("{RUN} --out out --pack 4 --block 1MiB {at}");
    place.run(&run).await.with_code(0);
    let (mut files, bag) = forget(&place);
    let restore = format!("restore {bag} --out back --name r -q {at}");
    let ended = place.run(&restore).await.with_code(1);
    assert!(ended.stderr.contains("it was compressed in blocks"), "{ended:?}");
    files.remove("large").unwrap();
    expect_same(&tree(&place.path("back/in")), &files);
}

#[tokio::test]
async fn restoring_from_tars_goes_on_when_worker_and_gatherer_were_killed() {
    for delivery in DELIVERIES {
        let (place, server) = Place::with_server().await;
        let at = at(&server);
        let worker = place.worker(&server);
        for number in 0..300 {
            let name = format!("in/{}/f{number:03}", number % 7);
            write(&place.path(&name), &generated(DataKind::Text, number, 6_000));
        }
        place.run(&format!("{RUN} --pack 32 {at}")).await.with_code(0);
        let (files, bag) = forget(&place);
        let restore = format!("restore {bag} --out back --name r --delivery {delivery} -q {at}");
        let restoring = place.spawn(&restore);
        let ledger = place.folder("r/staged").join("manifest.jsonl");
        let begun = || Some(()).filter(|()| ledger.is_file() && !outcomes_of(&ledger).is_empty());
        place.until("the first outcome", begun).await;
        worker.signal(Signal::KILL);
        restoring.signal(Signal::KILL);
        restoring.ended(&place).await;
        let before = outcomes_of(&ledger).len();
        assert!(before < 300, "{delivery}: it had ended");
        let _worker = place.worker(&server);
        place.run(&format!("gather runs/r/staged -q {at}")).await.with_code(0);
        expect_each_done_once(&place.folder("r/staged"), 300);
        expect_same(&tree(&place.path("back/in")), &files);
    }
}

/// The lines of a ledger.
pub(crate) fn outcomes_of(ledger: &Path) -> Vec<String> {
    fs::read_to_string(ledger).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_tar_is_restored_by_its_reference_and_compressed_as_the_object_it_is() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    for number in 0..16 {
        write(&place.path(&format!("in/f{number:02}")), format!("file {number}").as_bytes());
    }
    place.run(&format!("{RUN} --pack 8 {at}")).await.with_code(0);
    // What only its run knows is restored by what the broker has.
    let ended = place.run("restore runs/t/objects --out back").await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("bagpress restore BAG --server URL"), "{ended:?}");
    let (files, bag) = forget(&place);
    let tar = format!("obj://bag-{bag}/out_8.tar");
    place.run(&format!("restore {tar} --out back --name r -q {at}")).await.with_code(0);
    let half = files.iter().filter(|(name, _)| name.as_str() >= "f08");
    let half = half.map(|(name, bytes)| (name.clone(), bytes.clone())).collect();
    expect_same(&tree(&place.path("back/in")), &half);
    place.run(&format!("run {tar} --out packed --name c -q {at}")).await.with_code(0);
    let compressed = fs::read(place.path("packed/out_8.tar.gz")).unwrap();
    assert!(compressed.starts_with(&[0x1f, 0x8b]));
    // Without its results nobody knows what is in it.
    context(&server).await.get_stream("BAG_RESULTS").await.unwrap().purge().await.unwrap();
    let refused = |ended: Ended, said: &str| {
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(said) && ended.stderr.contains("unpack"), "{ended:?}");
    };
    let one = place.run(&format!("restore {tar} --out more {at}")).await;
    refused(one, "has the outputs of several files");
    refused(place.run(&format!("restore {bag} --out more {at}")).await, "in 2 tars");
    assert!(!place.path("more").exists());
}
