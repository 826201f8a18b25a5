//! The tree of a bag of objects: kept, looked at, mended; and what comes of objects that a repair removed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use async_nats::jetstream::object_store::ObjectStore;
use bagpress_broker::testing::NatsServer;

use crate::control::{bag_of, context, until_status};
use crate::files::write;
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, outcomes};
use crate::objects::{about, answers, at};
use crate::proxy::{Link, Proxy};

const TREE: &str = "tree.jsonl.gz";

async fn store_of(server: &NatsServer, bag: &str) -> ObjectStore {
    context(server).await.get_object_store(format!("bag-{bag}")).await.unwrap()
}

async fn purge_chunks(server: &NatsServer, bag: &str, object: &str) {
    let token = store_of(server, bag).await.info(object).await.unwrap().nuid;
    let stream = context(server).await.get_stream(format!("OBJ_bag-{bag}")).await.unwrap();
    stream.purge().filter(format!("$O.bag-{bag}.C.{token}")).await.unwrap();
}

/// A finished bag of objects of two files, one of which has a mode of its own; its id.
async fn bag_of_two(place: &Place, at: &str) -> String {
    write(&place.path("in/a"), b"content");
    write(&place.path("in/b"), b"another");
    fs::set_permissions(place.path("in/a"), fs::Permissions::from_mode(0o640)).unwrap();
    let run = format!("run in --results objects --pack 1 --name t -q {at}");
    place.run(&run).await.with_code(0);
    bag_of(place, "t/objects")
}

#[tokio::test]
async fn a_tree_that_is_lost_or_damaged_is_named_and_a_repair_puts_it_again() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    let bag = bag_of_two(&place, &at).await;
    let verify = format!("verify runs/t/objects {at}");
    place.run(&verify).await.with_code(0);
    for damage in ["deleted", "of its 1 chunks", "its digest is"] {
        match damage {
            "deleted" => store_of(&server, &bag).await.delete(TREE).await.unwrap(),
            "its digest is" => {
                let other = &mut &b"of another"[..];
                store_of(&server, &bag).await.put(TREE, other).await.unwrap();
            }
            _ => purge_chunks(&server, &bag, TREE).await,
        }
        let bad = place.run(&verify).await.with_code(1);
        let named = format!("bad tree: obj://bag-{bag}/{TREE}: ");
        let line = bad.stdout.lines().find(|line| line.starts_with(&named));
        assert!(line.is_some_and(|line| line.contains(damage)), "{damage}: {bad:?}");
        assert!(bad.stdout.contains("2 good, 0 bad"), "{bad:?}");
        assert!(bad.stderr.contains("hint: bagpress gather runs/t/objects --repair"), "{bad:?}");
        place.run(&format!("gather runs/t/objects --repair -q {at}")).await.with_code(0);
        place.run(&verify).await.with_code(0);
    }
    expect_each_done_once(&place.folder("t/objects"), 2);
    place.run(&format!("restore {bag} --out back --name r -q {at}")).await.with_code(0);
    let mode = fs::metadata(place.path("back/in/a")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
}

/// Whether the bag ended while its tree was held up: otherwise the tree was there before.
async fn held_up(place: &Place, server: &NatsServer, name: &str) -> bool {
    let proxy = Proxy::to(server.url()).await;
    let (folder, behind) = (place.folder(&format!("{name}/objects")), proxy.url());
    let how = format!("--results objects --pack 1 --stall-timeout 15s --name {name} -q");
    let run = place.spawn(&format!("run in {how} --server {behind}"));
    let at = at(server);
    crate::control::until_there(place, &format!("{name}/objects")).await;
    let bag = bag_of(place, &format!("{name}/objects"));
    until_status(place, "its tasks wait", &format!("{bag} {at}"), |bag| {
        (bag["waiting"].as_u64()? == 2).then_some(())
    })
    .await;
    proxy.set(Link::Slow(Duration::from_millis(300)));
    let worker = place.worker(server);
    place.until("every outcome counts", || (outcomes(&folder).len() == 2).then_some(())).await;
    // What the gatherer still asks about the last outcome fails when its requests time out, which is within the stall timeout.
    proxy.set(Link::Still);
    let is_there = store_of(server, &bag).await.info(TREE).await.is_ok();
    let since = Instant::now();
    let longer = Duration::from_secs(30);
    place.until("it is held up for longer", || (since.elapsed() > longer).then_some(())).await;
    proxy.set(Link::Up);
    run.ended(place).await.with_code(0);
    expect_each_done_once(&folder, 2);
    let line = place.run(&format!("status {bag} {at} --json")).await.with_code(0);
    assert!(line.stdout.contains("\"state\": \"finished\""), "{line:?}");
    drop(worker);
    place.run(&format!("restore {bag} --out back-{name} --dry-run {at}")).await.with_code(0);
    !is_there
}

#[tokio::test]
async fn a_bag_whose_tree_is_held_up_for_longer_than_its_stall_timeout_is_finished() {
    let (place, server) = Place::with_server().await;
    write(&place.path("in/a"), b"content");
    write(&place.path("in/b"), b"another");
    for name in ["one", "two", "three"] {
        if held_up(&place, &server, name).await {
            return;
        }
    }
    panic!("the tree was there before the link could be held up");
}

#[tokio::test]
async fn an_object_that_a_repair_removed_says_so() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    let bag = bag_of_two(&place, &at).await;
    purge_chunks(&server, &bag, "out_0.bin").await;
    fs::remove_file(place.path("in/a")).unwrap();
    place.run(&format!("gather runs/t/objects --repair -q {at}")).await.with_code(1);
    let reference = format!("obj://bag-{bag}/out_0.bin");
    let info = place.run(&format!("object info {reference} {at} --json")).await.with_code(1);
    let answer = about(&answers(&info), &reference).clone();
    assert_eq!(answer["state"], "deleted", "{answer}");
    let why = answer["why"].as_str().unwrap();
    assert!(why.contains("removed by process") && why.contains("a gatherer of its bag"), "{why}");
}

#[tokio::test]
async fn what_was_restored_from_objects_is_replaced_if_somebody_says_so_and_verified_in_one_line() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    let bag = bag_of_two(&place, &at).await;
    let restore = format!("restore {bag} --out back -q {at}");
    place.run(&format!("{restore} --name r")).await.with_code(0);
    let verified = place.run("verify runs/r/staged --inputs").await.with_code(1);
    let lines: Vec<_> = verified.stdout.lines().collect();
    let why = "not compared: 2 outputs: their inputs are objects, which are not read again";
    assert_eq!(lines[0], why, "{verified:?}");
    assert!(lines.len() == 2 && lines[1].ends_with("2 not compared"), "{verified:?}");

    write(&place.path("back/in/a"), b"changed");
    fs::remove_file(place.path("back/in/b")).unwrap();
    let refused = place.run(&restore).await.with_code(2);
    assert!(refused.stderr.contains("back/in/a already exists"), "{refused:?}");
    assert!(refused.stderr.contains("--overwrite replaces all"), "{refused:?}");
    assert!(!place.path("back/in/b").exists(), "nothing began");
    let dry = place.run(&format!("{restore} --overwrite --dry-run")).await.with_code(0);
    assert!(dry.stdout.contains("back/in/a (replaced)"), "{dry:?}");
    place.run(&format!("{restore} --overwrite")).await.with_code(0);
    assert_eq!(fs::read(place.path("back/in/a")).unwrap(), b"content");
    assert_eq!(fs::read(place.path("back/in/b")).unwrap(), b"another");
    // What has the name of an output and is no file stays, and its task fails by name.
    fs::remove_file(place.path("back/in/a")).unwrap();
    fs::create_dir(place.path("back/in/a")).unwrap();
    let kept = place.run(&format!("{restore} --overwrite --name s")).await.with_code(1);
    assert!(kept.stderr.contains("a folder has the output's name"), "{kept:?}");
    assert!(place.path("back/in/a").is_dir());
}
