//! What became of an object that is not there is told apart: never there, freed, expired, lost, an input that was freed.

use std::time::Duration;

use crate::control::{bag_of, context};
use crate::files::write;
use crate::harness::Place;
use crate::objects::{about, answers, at, put};

/// What `info` says of an object.
async fn state_of(place: &Place, at: &str, reference: &str) -> (String, String) {
    let ended = place.run(&format!("object info {reference} {at} --json")).await;
    let found = answers(&ended);
    let answer = about(&found, reference);
    assert_eq!(ended.code, Some(i32::from(answer["ok"] == false)), "{ended:?}");
    let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
    (text("state"), text("why"))
}

async fn expect_state(place: &Place, at: &str, reference: &str, state: &str, why: &str) {
    let found = state_of(place, at, reference).await;
    assert!(found.0 == state && found.1.contains(why), "{reference}: {found:?}");
    // The verbs say the same.
    let get = format!("object get {reference} --out got.tmp --depth 0 {at} --json");
    let get = place.run(&get).await;
    assert_eq!(answers(&get.with_code(1))[0]["state"], state);
    let wait = format!("object wait {reference} --timeout 1s {at} --json");
    let code = if state == "never-there" { 124 } else { 1 };
    assert_eq!(answers(&place.run(&wait).await.with_code(code))[0]["state"], state);
}

#[tokio::test]
async fn never_there_freed_deleted_and_lost_are_told_apart() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    expect_state(&place, &at, "obj://objects/n", "never-there", "no bucket").await;
    for name in ["kept", "freed", "deleted", "lost"] {
        put(&place, &at, name, name.as_bytes()).await.with_code(0);
    }
    expect_state(&place, &at, "obj://objects/n", "never-there", "no object").await;
    place.run(&format!("object free obj://objects/freed {at}")).await.with_code(0);
    expect_state(&place, &at, "obj://objects/freed", "freed", "freed by process").await;
    place.run(&format!("object free obj://objects/freed {at}")).await.with_code(0);
    let theirs = context(&server).await;
    let store = theirs.get_object_store("objects").await.unwrap();
    store.delete("deleted").await.unwrap();
    expect_state(&place, &at, "obj://objects/deleted", "deleted", "was deleted").await;
    let token = store.info("lost").await.unwrap().nuid;
    let stream = theirs.get_stream("OBJ_objects").await.unwrap();
    stream.purge().filter(format!("$O.objects.C.{token}")).await.unwrap();
    expect_state(&place, &at, "obj://objects/lost", "lost", "0 of its 1 chunks").await;
    assert_eq!(state_of(&place, &at, "obj://objects/kept").await.0, "there");
}

#[tokio::test]
async fn what_expires_is_gone_in_time_and_is_known_to_have_expired() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    let answer = put(&place, &format!("{at} --ttl 1s"), "n", b"short").await.with_code(0);
    assert!(answers(&answer)[0]["expires"].is_string(), "{answer:?}");
    let since = std::time::Instant::now();
    while state_of(&place, &at, "obj://objects/n").await.0 == "there" {
        assert!(since.elapsed() < Duration::from_secs(30), "it does not expire");
    }
    expect_state(&place, &at, "obj://objects/n", "expired", "it expired 20").await;
    put(&place, &at, "n", b"other").await.with_code(1);
    put(&place, &at, "n", b"short").await.with_code(0);
}

#[tokio::test]
async fn the_objects_of_a_bag_are_known_by_their_bag() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    write(&place.path("in/a"), b"one file");
    write(&place.path("in/b"), b"another");
    let run = format!("run in --results objects --pack 1 --name t -q {at}");
    place.run(&format!("{run} --keep-inputs")).await.with_code(0);
    let bag = bag_of(&place, "t/objects");
    let (output, input) =
        (format!("obj://bag-{bag}/out_0.bin"), format!("obj://bag-{bag}-in/in_0"));
    assert_eq!(state_of(&place, &at, &output).await.0, "there");
    assert_eq!(state_of(&place, &at, &input).await.0, "there");
    let none = format!("obj://bag-{bag}/out_7.bin");
    expect_state(&place, &at, &none, "never-there", "").await;
    // A pin keeps the bag, too.
    place.run(&format!("object pin {output} {at}")).await.with_code(0);
    let kept = place.run(&format!("rm runs/t/objects {at}")).await.with_code(2);
    assert!(kept.stderr.contains(&output) && kept.stderr.contains("--force"), "{kept:?}");
    place.run(&format!("object unpin {output} {at}")).await.with_code(0);
    // Metadata that is gone without a word, though a result names the object.
    let theirs = context(&server).await;
    let stream = theirs.get_stream(format!("OBJ_bag-{bag}")).await.unwrap();
    stream.purge().await.unwrap();
    expect_state(&place, &at, &output, "lost", "has a result").await;
    theirs.delete_stream(format!("OBJ_bag-{bag}")).await.unwrap();
    expect_state(&place, &at, &output, "lost", "bucket is gone").await;
    theirs.delete_stream(format!("OBJ_bag-{bag}-in")).await.unwrap();
    expect_state(&place, &at, &input, "input-freed", "freed them all").await;
    place.run(&format!("rm runs/t/objects {at}")).await.with_code(0);
    expect_state(&place, &at, &output, "freed", "was removed").await;
}

#[tokio::test]
async fn an_input_that_its_bag_freed_says_so() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    let worker = place.worker(&server);
    // One file ends at once, and the other takes longer than this test.
    write(&place.path("in/a"), b"short");
    let long = std::fs::File::create(place.path("in/b")).unwrap();
    long.set_len(200 << 20).unwrap();
    let run = "run in --results objects --pack 1 --block none --codec zlib:9,full --name t -q";
    let running = place.spawn(&format!("{run} {at}"));
    let bag = place
        .until("there is a bag", || {
            place
                .folder("t/objects")
                .join("bag.json")
                .is_file()
                .then(|| bag_of(&place, "t/objects"))
        })
        .await;
    let input = format!("obj://bag-{bag}-in/in_0");
    let since = std::time::Instant::now();
    while state_of(&place, &at, &input).await.0 != "input-freed" {
        assert!(since.elapsed() < Duration::from_mins(1), "{}", running.stderr());
    }
    expect_state(&place, &at, &input, "input-freed", "is done").await;
    drop((running, worker));
}

#[tokio::test]
async fn outputs_of_a_bag_with_a_ttl_say_that_they_expired() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    let run = "run --tasks 2 --bytes 1KiB --results objects --name t -q --ttl";
    place.run(&format!("{run} 10s {at}")).await.with_code(2);
    place.run(&format!("{run} 1h {at}")).await.with_code(0);
    let bag = bag_of(&place, "t/objects");
    let reference = format!("obj://bag-{bag}/out_0.bin");
    let refused = place.run(&format!("object pin {reference} {at}")).await.with_code(1);
    assert!(refused.stdout.contains("nothing longer than 1h"), "{refused:?}");
    // As the server does when the time is over.
    let theirs = context(&server).await;
    let stream = theirs.get_stream(format!("OBJ_bag-{bag}")).await.unwrap();
    assert_eq!(stream.cached_info().config.max_age, Duration::from_hours(1));
    stream.purge().await.unwrap();
    expect_state(&place, &at, &reference, "expired", "stay for 1h").await;
    place.run("run --tasks 2 --ttl 1h --workers 1").await.with_code(2);
}
