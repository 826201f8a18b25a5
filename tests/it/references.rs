//! Bags whose inputs are objects: compressed, compressed again and restored, without a byte through the producer.

use std::fs;
use std::time::Duration;

use async_nats::jetstream::object_store;
use serde_json::Value;

use bagpress_broker::Role;

use crate::control::{bag_of, context, until_status};
use crate::death::DELIVERIES;
use crate::files::write;
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, outcomes};
use crate::lineage::Fault::Corrupt;
use crate::lineage::break_it;
use crate::objects::{about, answers, at, put};
use crate::taken::content;

/// The outputs of a run, as lines of JSON in a file.
async fn list_outputs(place: &Place, at: &str, run: &str, list: &str) -> Vec<Value> {
    let ended = place.run(&format!("object ls bag-{} {at} --json", bag_of(place, run))).await;
    let ended = ended.with_code(0);
    fs::write(place.path(list), &ended.stdout).unwrap();
    answers(&ended)
}

#[tokio::test]
async fn compressed_compressed_again_and_restored_without_a_byte_through_the_producer() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    let files: Vec<_> = (0..5_u8).map(|n| vec![n; 1000 + 200_000 * usize::from(n)]).collect();
    for (number, bytes) in files.iter().enumerate() {
        write(&place.path(&format!("in/f{number}")), bytes);
    }
    let objects = "--results objects -q";
    place.run(&format!("run in {objects} --pack 1 --name one {at}")).await.with_code(0);
    let one = list_outputs(&place, &at, "one/objects", "one").await;
    assert_eq!(one.len(), 5);
    let again = format!("run --refs one --codec zstd:9 {objects} --name two {at}");
    place.run(&again).await.with_code(0);
    expect_each_done_once(&place.folder("two/objects"), 5);
    let line = fs::read_to_string(place.folder("two/objects").join("inputs.jsonl")).unwrap();
    assert!(line.contains("\"reference\":{\"object\":\"obj://bag-one-"), "{line}");
    // No bucket of inputs was made, and those of the first bag are as they were.
    let buckets = place.run(&format!("object ls {at}")).await.with_code(0).stdout;
    assert!(!buckets.contains("-in "), "{buckets}");
    for output in list_outputs(&place, &at, "two/objects", "two").await {
        let input = output["input"].as_str().unwrap();
        assert!(input.starts_with("obj://bag-one-"), "{output}");
    }
    place.run(&format!("restore --refs two --out once {at} -q")).await.with_code(0);
    place.run(&format!("restore --refs one --out twice {at} -q")).await.with_code(0);
    let got = format!("object get --refs one --out first {at}");
    place.run(&got).await.with_code(0);
    for (number, bytes) in files.iter().enumerate() {
        // The tasks of a bag are in the order of its list.
        let (_, name) = one[number]["reference"].as_str().unwrap().rsplit_once('/').unwrap();
        let first = fs::read(place.path("first").join(name)).unwrap();
        let back = fs::read(place.path(&format!("once/out_{number}.bin"))).unwrap();
        assert!(back == first, "{name}");
        let twice = fs::read(place.path(&format!("twice/out_{number}.bin"))).unwrap();
        assert!(twice == *bytes, "{number}");
    }
}

#[tokio::test]
async fn an_object_of_another_client_is_an_input_and_its_output_a_file() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    let config = object_store::Config { bucket: "theirs".to_owned(), ..Default::default() };
    let theirs = context(&server).await.create_object_store(config).await.unwrap();
    theirs.put("deep/a.txt", &mut &b"by another client"[..]).await.unwrap();
    put(&place, &at, "b.txt", b"by put").await.with_code(0);
    let run = "run obj://theirs/deep/a.txt obj://objects/b.txt --out out --name t -q";
    place.run(&format!("{run} {at}")).await.with_code(0);
    assert_eq!(content(&place.path("out/theirs/deep/a.txt.gz")), b"by another client");
    assert_eq!(content(&place.path("out/objects/b.txt.gz")), b"by put");
    place.run("verify runs/t/staged").await.with_code(0);
    place.run(&format!("restore runs/t/staged --out back -q {at}")).await.with_code(0);
    assert_eq!(fs::read(place.path("back/objects/b.txt")).unwrap(), b"by put");
    // The name says which codec made it.
    let gz = fs::read(place.path("out/objects/b.txt.gz")).unwrap();
    put(&place, &at, "b.gz", &gz).await.with_code(0);
    place.run(&format!("restore obj://objects/b.gz --out . -q {at}")).await.with_code(0);
    assert_eq!(fs::read(place.path("b")).unwrap(), b"by put");
    let nobody = place.run(&format!("restore obj://objects/b.txt --out . {at}")).await.with_code(2);
    assert!(nobody.stderr.contains("nobody knows which codec"), "{nobody:?}");
}

#[tokio::test]
async fn a_task_whose_input_is_not_there_yet_waits_and_says_so() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    put(&place, &at, "a", b"it is there").await.with_code(0);
    let refs = "obj://objects/a obj://objects/b obj://objects/c";
    let run = format!("run {refs} --codec zstd --results objects --name t {at}");
    let running = place.spawn(&run);
    // What is there is done meanwhile, and the line of the bag says what is waited for.
    until_status(&place, "the bag says which inputs it waits for", &at, |all| {
        let bag = all["bags"].as_array()?.iter().find(|bag| bag["done"] == 1)?;
        let waits = bag["waits"].as_str()?;
        waits.contains("2 of 3 inputs are not there yet, such as obj://objects/b").then_some(())
    })
    .await;
    assert!(running.stderr().contains("2 of 3 inputs are not there yet"), "{}", running.stderr());
    put(&place, &at, "c", &vec![b'c'; 100_000]).await.with_code(0);
    put(&place, &at, "b", b"it came").await.with_code(0);
    running.ended(&place).await.with_code(0);
    expect_each_done_once(&place.folder("t/objects"), 3);
    place.run(&format!("restore {} --out back -q {at}", outputs(&place, 3))).await.with_code(0);
    assert_eq!(fs::read(place.path("back/out_1.bin")).unwrap(), b"it came");
    assert_eq!(fs::read(place.path("back/out_2.bin")).unwrap(), vec![b'c'; 100_000]);
}

/// The references of the outputs of run `t`.
fn outputs(place: &Place, tasks: u32) -> String {
    let bag = bag_of(place, "t/objects");
    let all = (0..tasks).map(|index| format!("obj://bag-{bag}/out_{index}.bin"));
    all.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_bag_that_was_submitted_is_gathered_when_its_inputs_came() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    let submit = "submit obj://objects/a obj://objects/b --results objects --name t";
    place.run(&format!("{submit} {at}")).await.with_code(0);
    let gather = format!("gather runs/t/objects -q {at}");
    let stalled = place.run(&format!("{gather} --stall-timeout 2s")).await.with_code(4);
    assert!(stalled.stderr.contains("2 of 2 inputs are not there yet"), "{stalled:?}");
    put(&place, &at, "a", b"a").await.with_code(0);
    put(&place, &at, "b", b"b").await.with_code(0);
    place.run(&gather).await.with_code(0);
    expect_each_done_once(&place.folder("t/objects"), 2);
}

#[tokio::test]
async fn what_was_freed_fails_its_task_by_name_and_no_other() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    put(&place, &at, "a", b"a").await.with_code(0);
    put(&place, &at, "b", b"b").await.with_code(0);
    place.run(&format!("object free obj://objects/b {at}")).await.with_code(0);
    let run = format!("run obj://objects/a obj://objects/b --out out --name t -q {at}");
    place.run(&run).await.with_code(1);
    let failed = fs::read_to_string(place.folder("t/staged").join("failed.txt")).unwrap();
    assert!(failed.contains("input-missing") && failed.contains("freed"), "{failed}");
    assert_eq!(content(&place.path("out/a.gz")), b"a");
}

#[tokio::test]
async fn a_running_bag_holds_its_inputs_and_one_that_is_over_does_not() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    put(&place, &at, "a", b"held").await.with_code(0);
    let submit = "submit obj://objects/a --results objects --name t";
    place.run(&format!("{submit} {at}")).await.with_code(0);
    let (free, bag) =
        (format!("object free obj://objects/a {at} --json"), bag_of(&place, "t/objects"));
    // Nobody gathers it, and no worker is there: its line alone says that it is not over.
    let refused = answers(&place.run(&free).await.with_code(1));
    assert!(refused[0]["why"].as_str().unwrap().contains(&bag), "{refused:?}");
    let listed = place.run(&format!("object ls objects --holders {at} --json")).await.with_code(0);
    let found = answers(&listed);
    let holder = &about(&found, "obj://objects/a")["holders"][0];
    assert_eq!(holder["bag"], bag);
    let listed = place.run(&format!("object ls objects --holders {at}")).await.with_code(0);
    assert!(listed.stdout.contains(&format!("an input of bag {bag} (")), "{listed:?}");
    place.run(&format!("cancel runs/t/objects {at}")).await.with_code(0);
    let listed = place.run(&format!("object ls objects --holders {at}")).await.with_code(0);
    assert_eq!(listed.stdout, "", "nobody reads it any more");
    place.run(&free).await.with_code(0);
}

#[tokio::test]
async fn rm_spares_outputs_that_another_bag_reads() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    let worker = place.worker(&server);
    let run = "run --tasks 2 --bytes 1KiB --results objects --name t -q";
    place.run(&format!("{run} {at}")).await.with_code(0);
    drop(worker);
    let refs = outputs(&place, 2);
    let submit = format!("submit {refs} --codec zstd --results objects --name reads {at}");
    place.run(&submit).await.with_code(0);
    let kept = place.run(&format!("rm runs/t/objects {at}")).await.with_code(2);
    assert!(kept.stderr.contains("2 objects of bag") && kept.stderr.contains("reads-"), "{kept:?}");
    let _worker = place.worker(&server);
    place.run(&format!("gather runs/reads/objects -q {at}")).await.with_code(0);
    place.run(&format!("rm runs/t/objects {at}")).await.with_code(0);
}

#[tokio::test]
async fn bytes_that_another_program_put_under_a_reference_are_not_compressed() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    put(&place, &at, "a", b"as it was").await.with_code(0);
    let submit = "submit obj://objects/a --results objects --name t";
    place.run(&format!("{submit} {at}")).await.with_code(0);
    let theirs = context(&server).await.get_object_store("objects").await.unwrap();
    theirs.put("a", &mut &b"other bytes"[..]).await.unwrap();
    let _worker = place.worker(&server);
    let ended = place.run(&format!("gather runs/t/objects -q {at}")).await.with_code(1);
    assert!(ended.stderr.contains("bagpress object info"), "{ended:?}");
    assert!(!ended.stderr.contains("--retry-failed"), "to try again does not help: {ended:?}");
    let outcome = &outcomes(&place.folder("t/objects"))[0]["outcome"]["failed"];
    assert_eq!(outcome["cause"], "input-changed", "{outcome}");
}

#[tokio::test]
async fn what_references_cannot_be_combined_with_is_refused_before_anything_begins() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    for (words, why) in [
        ("run obj://b/a in --out out", "either references or files"),
        ("run obj://b/a --out out --pack 8", "packs are made of files"),
        ("run obj://b/a --out out --block 8MiB", "blocks are made of files"),
        ("run obj://b/a --out out --overwrite", "does nothing for references"),
        ("run obj://b/../../x --out out", "leads out"),
        ("run obj://b --out out", "obj://BUCKET/NAME"),
        ("run obj://b/a", "a folder for its outputs"),
        ("run --refs none --out out", "cannot be read"),
    ] {
        let refused = place.run(&format!("{words} {at}")).await.with_code(2);
        assert!(refused.stderr.contains(why), "{words}: {refused:?}");
    }
    let local = place.run("run obj://b/a --out out").await.with_code(2);
    assert!(
        local.stderr.contains("none was named") && local.stderr.contains("--store"),
        "{local:?}"
    );
    let runs = fs::read_dir(place.path("runs")).map_or(0, Iterator::count);
    assert!(runs == 0 && !place.path("out").exists());
    let deadline = tokio::time::timeout(Duration::from_mins(1), async {
        place.run(&format!("run obj://b/a --out out --dry-run {at}")).await
    });
    let dry = deadline.await.unwrap().with_code(0);
    assert!(dry.stdout.contains("obj://b/a"), "{dry:?}");
}

#[tokio::test]
async fn a_damaged_input_is_named_while_another_one_is_waited_for() {
    for delivery in DELIVERIES {
        let (place, server) = Place::with_server().await;
        let (at, _worker) = (at(&server), place.worker(&server));
        put(&place, &at, "damaged", b"an object that was put").await.with_code(0);
        let (theirs, broker) = (context(&server).await, server.broker(Role::Producer).await);
        break_it(&theirs, &broker, &"obj://objects/damaged".parse().unwrap(), Corrupt).await;
        let refs = "obj://objects/damaged obj://objects/later";
        let run = format!("run {refs} --out out --name t -q --delivery {delivery} {at}");
        let running = place.spawn(&run);
        // It is told before the other one comes.
        let folder = place.folder("t/staged");
        place.until("it has failed", || (outcomes(&folder).len() == 1).then_some(())).await;
        put(&place, &at, "later", b"another").await.with_code(0);
        let ended = running.ended(&place).await.with_code(1);
        assert!(
            ended.stdout.contains("corrupt") && ended.stdout.contains("it was put"),
            "{ended:?}"
        );
        assert_eq!(content(&place.path("out/later.gz")), b"another");
    }
}
