//! Objects by their references: put, fetched, waited for, listed and kept, by the program and by another client.

use std::fs;
use std::process::Command;

use async_nats::jetstream::object_store;
use bagpress_broker::testing::NatsServer;
use serde_json::Value;

use crate::control::{bag_of, context};
use crate::harness::{Ended, Place};

/// Lines of JSON, as they came.
pub(crate) fn answers(ended: &Ended) -> Vec<Value> {
    ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What is answered about a reference.
pub(crate) fn about<'a>(answers: &'a [Value], reference: &str) -> &'a Value {
    let of = answers.iter().find(|answer| answer["reference"] == reference);
    of.unwrap_or_else(|| panic!("nothing about {reference} in {answers:?}"))
}

/// Puts a file of these bytes under a name.
pub(crate) async fn put(place: &Place, at: &str, name: &str, bytes: &[u8]) -> Ended {
    fs::write(place.path("put.tmp"), bytes).unwrap();
    place.run(&format!("object put put.tmp --name {name} {at} --json")).await
}

pub(crate) fn at(server: &NatsServer) -> String {
    format!("--server {}", server.url())
}

#[tokio::test]
async fn what_was_put_is_fetched_and_another_client_reads_it() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    let large = [b"0123456789".repeat(200_000), vec![7]].concat();
    fs::write(place.path("a.txt"), b"hello\n").unwrap();
    fs::write(place.path("large"), &large).unwrap();
    fs::write(place.path("empty"), b"").unwrap();
    let ended = place.run(&format!("object put a.txt large empty {at} --json")).await.with_code(0);
    let found = answers(&ended);
    assert_eq!(about(&found, "obj://objects/large")["bytes"], large.len());
    // The list of what was put is a list of references.
    fs::write(place.path("list"), &ended.stdout).unwrap();
    place.run(&format!("object get --refs list --out got {at}")).await.with_code(0);
    assert_eq!(fs::read(place.path("got/large")).unwrap(), large);
    assert_eq!(fs::read(place.path("got/a.txt")).unwrap(), b"hello\n");
    assert_eq!(fs::read(place.path("got/empty")).unwrap(), b"");
    let names: Vec<_> = fs::read_dir(place.path("got")).unwrap().collect();
    assert_eq!(names.len(), 3, "{names:?}");
    let one = place.run(&format!("object get obj://objects/a.txt --out - {at}")).await.with_code(0);
    assert_eq!(one.stdout, "hello\n");
    let theirs = context(&server).await.get_object_store("objects").await.unwrap();
    assert_eq!(theirs.info("large").await.unwrap().size, large.len());
    // An object of another client is one too, and so is its bucket.
    let config = object_store::Config { bucket: "theirs".to_owned(), ..Default::default() };
    let theirs = context(&server).await.create_object_store(config).await.unwrap();
    theirs.put("a/b c", &mut &b"by another"[..]).await.unwrap();
    let listed = place.run(&format!("object ls theirs {at} --json")).await.with_code(0);
    assert_eq!(about(&answers(&listed), "obj://theirs/a/b c")["bytes"], 10);
    fs::write(place.path("list"), "obj://theirs/a/b c\n").unwrap();
    place.run(&format!("object get --refs list --out got {at}")).await;
    place.run(&format!("object get --refs list --out deep/ {at}")).await.with_code(0);
    assert_eq!(fs::read(place.path("deep/a/b c")).unwrap(), b"by another");
    let buckets = place.run(&format!("object ls {at}")).await.with_code(0).stdout;
    assert!(buckets.contains("objects ") && buckets.contains("theirs "), "{buckets}");
}

#[tokio::test]
async fn a_name_stands_for_the_same_bytes_for_good() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    put(&place, &at, "n", b"first").await.with_code(0);
    put(&place, &at, "n", b"first").await.with_code(0);
    let refused = answers(&put(&place, &at, "n", b"other").await.with_code(1));
    let why = refused[0]["why"].as_str().unwrap();
    assert!(why.contains("stands for other bytes") && why.contains("--name"), "{why}");
    place.run(&format!("object free obj://objects/n {at}")).await.with_code(0);
    put(&place, &at, "n", b"other").await.with_code(1);
    put(&place, &at, "n", b"first").await.with_code(0);
    let got = place.run(&format!("object get obj://objects/n --out - {at}")).await.with_code(0);
    assert_eq!(got.stdout, "first");
    // Nothing is left of what was refused.
    let facts = place.run(&format!("object ls {at} --json")).await.with_code(0);
    assert!(answers(&facts)[0]["bytes"].as_u64() < Some(2_000), "{facts:?}");
    let bag = place.run(&format!("object put put.tmp --bucket bag-x-abcdefgh {at}")).await;
    bag.with_code(2);
}

#[tokio::test]
async fn a_file_that_is_there_is_left_alone_and_nothing_unfinished_stays() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    put(&place, &at, "n", b"object").await.with_code(0);
    fs::create_dir(place.path("out")).unwrap();
    fs::write(place.path("out/n"), b"mine").unwrap();
    let get = format!("object get obj://objects/n --out out {at} --json");
    let refused = place.run(&get).await.with_code(1);
    assert!(answers(&refused)[0]["why"].as_str().unwrap().contains("another file"), "{refused:?}");
    assert_eq!(fs::read(place.path("out/n")).unwrap(), b"mine");
    fs::write(place.path("out/n"), b"object").unwrap();
    place.run(&get).await.with_code(0);
    // Bytes that are not the object's get no name.
    let theirs = context(&server).await;
    let token = {
        let store = theirs.get_object_store("objects").await.unwrap();
        store.info("n").await.unwrap().nuid
    };
    let subject = format!("$O.objects.C.{token}");
    let stream = theirs.get_stream("OBJ_objects").await.unwrap();
    stream.purge().filter(subject.clone()).await.unwrap();
    theirs.publish(subject, "planet".into()).await.unwrap().await.unwrap();
    fs::remove_file(place.path("out/n")).unwrap();
    let corrupt = place.run(&get).await.with_code(1);
    assert_eq!(answers(&corrupt)[0]["state"], "corrupt");
    assert_eq!(fs::read_dir(place.path("out")).unwrap().count(), 0);
    let info = format!("object info obj://objects/n {at} --json");
    assert_eq!(answers(&place.run(&info).await.with_code(0))[0]["state"], "there");
    let compared = place.run(&format!("{info} --digest")).await.with_code(1);
    assert_eq!(answers(&compared)[0]["state"], "corrupt");
    // The very bytes make it whole.
    put(&place, &at, "n", b"object").await.with_code(0);
    place.run(&get).await.with_code(0);
}

#[tokio::test]
async fn wait_prints_what_is_ready_and_what_is_pending() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    put(&place, &at, "a", b"a").await.with_code(0);
    let both = format!("object wait obj://objects/a obj://objects/b {at}");
    let late = place.run(&format!("{both} --timeout 500ms --json")).await.with_code(124);
    let found = answers(&late);
    assert_eq!(about(&found, "obj://objects/a")["wait"], "ready");
    assert_eq!(about(&found, "obj://objects/b")["wait"], "pending");
    assert!(late.stderr.contains("1 of 2 objects were not there in time"), "{late:?}");
    let one = place.run(&format!("{both} --num 1 --timeout 30s")).await.with_code(0);
    assert_eq!(one.stdout, "ready obj://objects/a\npending obj://objects/b\n");
    // What comes meanwhile is waited for.
    let waiting = place.spawn(&format!("{both} --timeout 60s"));
    let getting =
        place.spawn(&format!("object get obj://objects/b --out late.txt --deadline 60s {at}"));
    put(&place, &at, "b", b"b").await.with_code(0);
    let waited = waiting.ended(&place).await.with_code(0);
    assert_eq!(waited.stdout.matches("ready ").count(), 2, "{waited:?}");
    getting.ended(&place).await.with_code(0);
    assert_eq!(fs::read(place.path("late.txt")).unwrap(), b"b");
    let never = format!("object get obj://objects/c --out c.txt --deadline 500ms {at}");
    place.run(&never).await.with_code(124);
    assert!(!place.path("c.txt").exists());
    place.run(&format!("object get obj://objects/c --out c.txt {at}")).await.with_code(1);
    // What was freed never comes: enough others may be there.
    place.run(&format!("object free obj://objects/b {at}")).await.with_code(0);
    let gone = place.run(&format!("{both} --timeout 60s")).await.with_code(1);
    assert!(gone.stdout.contains("gone freed obj://objects/b"), "{gone:?}");
    place.run(&format!("{both} --num 1")).await.with_code(0);
    place.run(&format!("{both} --num 3")).await.with_code(2);
}

#[tokio::test]
async fn a_pin_keeps_an_object_until_each_is_taken_away() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    put(&place, &at, "n", b"n").await.with_code(0);
    let of = |verb: &str| format!("object {verb} obj://objects/n {at} --json");
    place.run(&of("pin")).await.with_code(0);
    place.run(&of("pin --as nightly")).await.with_code(0);
    let refused = place.run(&of("free")).await.with_code(1);
    let why = answers(&refused)[0]["why"].as_str().unwrap().to_owned();
    assert!(why.contains("nightly") && why.contains("user"), "{why}");
    let listed = place.run(&format!("object ls objects --holders {at}")).await.with_code(0).stdout;
    assert!(listed.contains("2 pins: nightly, user"), "{listed}");
    place.run(&of("unpin")).await.with_code(0);
    place.run(&of("free")).await.with_code(1);
    place.run(&of("unpin --as nightly")).await.with_code(0);
    let listed = place.run(&format!("object ls objects --holders {at}")).await.with_code(0).stdout;
    assert_eq!(listed, "");
    place.run(&of("free")).await.with_code(0);
    place.run(&of("pin --as a/b")).await.with_code(2);
    // No pin keeps what expires.
    put(&place, &format!("{at} --ttl 1h"), "short", b"s").await.with_code(0);
    let refused = place.run(&format!("object pin obj://objects/short {at}")).await.with_code(1);
    assert!(refused.stdout.contains("it expires"), "{refused:?}");
}

#[tokio::test]
async fn the_objects_of_a_local_run_are_fetched_from_its_own_store() {
    let place = Place::new().await;
    let run = "run --tasks 3 --bytes 2KiB --results objects --workers 1 --name t -q";
    place.run(run).await.with_code(0);
    let listed = place.run("object ls runs/t/objects --json").await.with_code(0);
    let bucket = format!("bag-{}", bag_of(&place, "t/objects"));
    let found = answers(&listed);
    assert_eq!(found.len(), 3);
    assert_eq!(about(&found, &format!("obj://{bucket}/out_1.bin"))["codec"], "zlib:6");
    let get = "object get out_0.bin out_2.bin --run runs/t/objects --out got";
    place.run(get).await.with_code(0);
    // A list that stats_N.json is.
    let stats = "object get --refs runs/t/objects/results/stats_1.json --run runs/t/objects";
    place.run(&format!("{stats} --out got/")).await.with_code(0);
    assert_eq!(fs::read_dir(place.path("got")).unwrap().count(), 3);
    let staged = place.run("run --tasks 1 --bytes 1KiB --workers 1 --name s -q").await;
    staged.with_code(0);
    let none = place.run("object ls runs/s/staged").await.with_code(2);
    assert!(none.stderr.contains("--results objects"), "{none:?}");
    place.run("object info obj://b/n").await.with_code(2);
}

#[tokio::test]
async fn a_list_comes_from_stdin_too() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    put(&place, &at, "n", b"n").await.with_code(0);
    let program = env!("CARGO_BIN_EXE_bagpress");
    let script = format!("echo obj://objects/n | {program} object info --refs - {at}");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).env_remove("BAGPRESS_SERVER");
    let ended = place.finish(command).await.with_code(0);
    assert!(ended.stdout.starts_with("there obj://objects/n 1 bytes"), "{ended:?}");
    place.run(&format!("object info {at}")).await.with_code(2);
    place.run(&format!("object info nonsense {at}")).await.with_code(2);
}
