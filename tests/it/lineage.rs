//! What was lost is made again from what it was made of, without the producers of the bags that made it.

use std::fs;
use std::time::Duration;

use async_nats::jetstream::Context;
use bagpress_broker::testing::NatsServer;
use bagpress_broker::{Broker, Role};
use bagpress_codec::Digest;
use bagpress_objstore::object_ref::Reference;
use bagpress_producer::object::{self, Answer, Get, Reconstruct, To};
use rustix::process::Signal;
use serde_json::Value;

use crate::both_paths::{bucket_of, server_of};
use crate::control::{bag_of, context};
use crate::death::DELIVERIES;
use crate::files::write;
use crate::harness::Place;
use crate::objects::{about, answers, at, put};

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its chunks are purged, as by a disk that lost them.
    Lose,
    /// So is its metadata; in a bucket whose time is bounded, that is what time leaves.
    Forget,
    /// Another client deletes it.
    Delete,
    /// Its chunks get other bytes.
    Corrupt,
    /// Another client puts other bytes under its name, with their digest.
    Replace,
    /// It is freed.
    Free,
}

use Fault::{Corrupt, Delete, Forget, Free, Lose, Replace};

/// Breaks an object.
pub(crate) async fn break_it(theirs: &Context, broker: &Broker, of: &Reference, fault: Fault) {
    let (bucket, name) = (of.bucket(), of.object());
    let store = theirs.get_object_store(bucket).await.unwrap();
    let info = store.info(name).await.unwrap();
    let stream = theirs.get_stream(format!("OBJ_{bucket}")).await.unwrap();
    let chunks = format!("$O.{bucket}.C.{}", info.nuid);
    match fault {
        Lose => drop(stream.purge().filter(chunks).await.unwrap()),
        Forget => {
            let name = data_encoding::BASE64URL.encode(name.as_bytes());
            stream.purge().filter(chunks).await.unwrap();
            stream.purge().filter(format!("$O.{bucket}.M.{name}")).await.unwrap();
        }
        Delete => store.delete(name).await.unwrap(),
        Corrupt => {
            assert_eq!(info.chunks, 1, "{of}");
            stream.purge().filter(chunks.clone()).await.unwrap();
            let other = vec![b'x'; info.size];
            theirs.publish(chunks, other.into()).await.unwrap().await.unwrap();
        }
        Replace => drop(store.put(name, &mut &b"other bytes"[..]).await.unwrap()),
        Free => {
            let one = [of.clone()];
            assert_eq!(object::free(broker, &one, |_| Ok(())).await.unwrap().done, 1);
        }
    }
}

/// Outputs of a bag, with their digests.
pub(crate) type Outputs = Vec<(Reference, Digest)>;

/// The outputs of a bag by their numbers in the first bag, with their digests; the list of them is a file, too.
pub(crate) async fn outputs(
    place: &Place,
    at: &str,
    run: &str,
    before: Option<&[(Reference, Digest)]>,
) -> Outputs {
    let listed = format!("object ls bag-{} {at} --json", bag_of(place, run));
    let listed = place.run(&listed).await.with_code(0);
    let name = run.split('/').next().unwrap();
    fs::write(place.path(name), &listed.stdout).unwrap();
    let number = |answer: &Value| match before {
        None => {
            let reference = answer["reference"].as_str().unwrap();
            let (_, name) = reference.rsplit_once("/out_").unwrap();
            name.split('.').next().unwrap().parse().unwrap()
        }
        Some(before) => {
            let input: Reference = answer["input"].as_str().unwrap().parse().unwrap();
            before.iter().position(|(reference, _)| *reference == input).unwrap()
        }
    };
    let found = answers(&listed);
    let mut found: Vec<_> = found
        .iter()
        .map(|answer| {
            let digest = answer["digest"].as_str().unwrap().parse().unwrap();
            (number(answer), (answer["reference"].as_str().unwrap().parse().unwrap(), digest))
        })
        .collect();
    found.sort_unstable_by_key(|(number, _)| *number);
    found.into_iter().map(|(_, of)| of).collect()
}

/// Three bags, each made of the one before: generated and compressed, and twice compressed again. Nobody gathers them, and their
/// folders are gone.
pub(crate) async fn chain(place: &Place, server: &NatsServer, tasks: u32) -> [Outputs; 3] {
    let first = format!("run --tasks {tasks} --bytes 3000 --data text --codec zlib:6 --name one");
    place.run(&format!("{first} --results objects -q {}", at(server))).await.with_code(0);
    let one = outputs(place, &at(server), "one/objects", None).await;
    chain_of(place, &at(server), one).await
}

/// The same of objects that are there, and listed in the file `one`.
pub(crate) async fn chain_of(place: &Place, at: &str, one: Outputs) -> [Outputs; 3] {
    let objects = format!("--results objects -q {at}");
    let second = "run --refs one --codec zstd:3 --ttl 1h --delivery queue-group --name two";
    place.run(&format!("{second} {objects}")).await.with_code(0);
    let two = outputs(place, at, "two/objects", Some(&one)).await;
    place.run(&format!("run --refs two --codec gzip:9 --name three {objects}")).await.with_code(0);
    let three = outputs(place, at, "three/objects", Some(&two)).await;
    fs::remove_dir_all(place.path("runs")).unwrap();
    [one, two, three]
}

pub(crate) async fn get(broker: &Broker, of: &Reference, to: To) -> Answer {
    let get = Get { to, deadline: None, reconstruct: Reconstruct::default() };
    let (mut found, named) = (None, [of.clone()]);
    let tell = |answer: &Answer| {
        found = Some(answer.clone());
        Ok(())
    };
    object::get(broker, &named, &get, tell).await.unwrap();
    found.unwrap()
}

#[tokio::test]
async fn depth_and_budget_end_the_way_back_and_whoever_is_missing_is_named() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    let worker = place.worker(&server);
    let [one, two, three] = chain(&place, &server, 2).await;
    let (theirs, broker) = (context(&server).await, server.broker(Role::Producer).await);
    for bag in [&one, &two, &three] {
        for (of, _) in bag {
            break_it(&theirs, &broker, of, Lose).await;
        }
    }
    let get = async |more: &str, code: i32| {
        let both = format!("{} {}", three[0].0, three[1].0);
        let ended = place.run(&format!("object get {both} --out got {at} --json {more}")).await;
        let ended = ended.with_code(code);
        (about(&answers(&ended), &three[0].0.to_string()).clone(), ended)
    };
    let why = |answer: &Value| answer["why"].as_str().unwrap_or_default().to_owned();
    let (answer, _) = get("--depth 0", 1).await;
    assert_eq!((&answer["state"], &answer["not_reconstructed"]), (&"lost".into(), &Value::Null));
    let (answer, _) = get("--depth 2", 1).await;
    assert_eq!(answer["not_reconstructed"], "too-deep", "{answer}");
    assert!(why(&answer).contains(&two[0].0.to_string()), "{answer}");
    let (_, ended) = get("--budget 4", 1).await;
    assert!(ended.stdout.contains("over-budget"), "{ended:?}");
    // Whatever those four have made is there: of six, two are left.
    let (answer, _) = get("--budget 2", 0).await;
    assert_eq!(answer["state"], "there");

    // Nobody is there to run the task; it waits for somebody, and the object is there some time.
    worker.signal(Signal::TERM);
    worker.ended(&place).await.with_code(0);
    break_it(&theirs, &broker, &three[0].0, Delete).await;
    fs::remove_dir_all(place.path("got")).unwrap();
    let (answer, _) = get("", 1).await;
    assert_eq!(answer["not_reconstructed"], "no-workers");
    assert!(why(&answer).contains("bagpress worker"), "{answer}");
    let worker_again = place.worker(&server);
    let wait = format!("object wait {} --timeout 30s {at}", three[0].0);
    let wait = async || place.run(&wait).await.code == Some(0);
    let there = async || wait().await.then_some(());
    bagpress_broker::testing::eventually("it is there", crate::harness::SOON, there).await;

    // Whoever gives a time waits that long for a worker, and one that came is there.
    worker_again.signal(Signal::TERM);
    worker_again.ended(&place).await.with_code(0);
    break_it(&theirs, &broker, &three[0].0, Lose).await;
    let late = format!("object get {} --out late --deadline 2s --json {at}", three[0].0);
    let ended = place.run(&late).await.with_code(124);
    assert_eq!(answers(&ended)[0]["state"], "lost", "{ended:?}");
    assert_eq!(answers(&ended)[0]["not_reconstructed"], "too-late", "{ended:?}");
    let waiting = place.spawn(&late.replace("2s", "1m"));
    let _worker = place.worker(&server);
    waiting.ended(&place).await.with_code(0);

    // Workers drop the tasks of a bag that was cancelled.
    let bag = three[0].0.bucket().strip_prefix("bag-").unwrap().parse().unwrap();
    broker.cancel_bag(&bag).await.unwrap().unwrap();
    break_it(&theirs, &broker, &three[0].0, Delete).await;
    let (answer, _) = get("", 1).await;
    assert_eq!(answer["not_reconstructed"], "called-off", "{answer}");
}

#[tokio::test]
async fn a_lost_input_is_made_again_for_the_bag_that_reads_it() {
    for delivery in DELIVERIES {
        let (place, server) = Place::with_server().await;
        let (at, _worker) = (at(&server), place.worker(&server));
        let [one, two, _] = chain(&place, &server, 3).await;
        let (theirs, broker) = (context(&server).await, server.broker(Role::Producer).await);
        let more = format!("--delivery {delivery} -q {at}");
        place.run(&format!("restore --refs one --out whole {more}")).await.with_code(0);
        let faults = [
            (&one[0], Corrupt),
            (&one[1], Delete),
            (&one[2], Replace),
            (&two[0], Replace),
            (&two[1], Corrupt),
            (&two[2], Free),
        ];
        for (of, fault) in faults {
            break_it(&theirs, &broker, &of.0, fault).await;
        }
        // What was freed was given up. Damage shows when the bytes are read; all of them are before a second try.
        let run = format!("run --refs two --codec gzip:6 --out out --name four {more}");
        let ended = place.run(&run).await.with_code(1);
        assert!(ended.stdout.contains("completed       2/3"), "{ended:?}");
        assert!(ended.stdout.contains("freed by"), "{ended:?}");
        place.run(&format!("restore --refs one --out back {more}")).await.with_code(0);
        for of in 0..3 {
            let name = format!("out_{of}.bin");
            let [whole, back] = ["whole", "back"].map(|of| fs::read(place.path(of).join(&name)));
            assert!(whole.unwrap() == back.unwrap(), "{name} by {delivery}");
        }
    }
}

#[tokio::test]
async fn a_bag_comes_back_by_its_id_whatever_became_of_its_objects() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    let (theirs, broker) = (context(&server).await, server.broker(Role::Producer).await);
    let names = ["a", "b", "deep/c", "deep/d"];
    for name in names {
        write(&place.path("in").join(name), name.repeat(3_000).as_bytes());
    }
    let run = "run in --pack 1 --keep-inputs --codec zstd:3 --results objects --name t -q";
    place.run(&format!("{run} {at}")).await.with_code(0);
    let bag = bag_of(&place, "t/objects");
    for (of, fault) in [Lose, Delete, Replace, Forget].into_iter().enumerate() {
        let of = format!("obj://bag-{bag}/out_{of}.bin").parse().unwrap();
        break_it(&theirs, &broker, &of, fault).await;
    }
    fs::remove_dir_all(place.path("runs")).unwrap();
    place.run(&format!("restore {bag} --out back -q {at}")).await.with_code(0);
    for name in names {
        let back = fs::read(place.path("back/in").join(name)).unwrap();
        assert!(back == name.repeat(3_000).as_bytes(), "{name}");
    }
}

#[tokio::test]
async fn what_was_put_or_freed_with_its_task_has_no_way_back_and_says_so() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    let (theirs, broker) = (context(&server).await, server.broker(Role::Producer).await);
    put(&place, &at, "n", b"put by hand").await.with_code(0);
    write(&place.path("in/a"), b"one file");
    write(&place.path("in/b"), b"another one");
    let objects = format!("--results objects -q {at}");
    place.run(&format!("run in --pack 1 --name gone {objects}")).await.with_code(0);
    place.run(&format!("run in --pack 1 --keep-inputs --name kept {objects}")).await.with_code(0);
    place.run(&format!("run in --pack 2 --name packed {objects}")).await.with_code(0);
    let output = |run: &str| format!("obj://bag-{}/out_0.bin", bag_of(&place, run));
    let (gone, kept) = (output("gone/objects"), output("kept/objects"));
    let packed = format!("obj://bag-{}/out_0.tar", bag_of(&place, "packed/objects"));
    for of in ["obj://objects/n", &gone, &kept, &packed] {
        break_it(&theirs, &broker, &of.parse().unwrap(), Lose).await;
    }
    let get = format!("object get obj://objects/n {gone} {kept} {packed} --out got {at} --json");
    let found = answers(&place.run(&get).await.with_code(1));
    for (of, why, text) in [
        ("obj://objects/n", "no-lineage", "it was put"),
        (&gone, "input-freed", "bagpress gather runs/gone/objects --repair"),
        (&gone, "input-freed", "--keep-inputs"),
        (&packed, "input-freed", "gather runs/packed/objects --repair"),
    ] {
        let answer = about(&found, of);
        assert_eq!((&answer["state"], &answer["not_reconstructed"]), (&"lost".into(), &why.into()));
        assert!(answer["why"].as_str().unwrap().contains(text), "{answer}");
    }
    // An input that was kept is as good as one that is made.
    assert_eq!(about(&found, &kept)["reconstructed"], 1);
    // Where the files are, the whole bag can be repaired.
    place.run(&format!("gather runs/gone/objects --repair -q {at}")).await.with_code(0);
    place.run(&format!("verify runs/gone/objects {at}")).await.with_code(0);
}

/// The rounds that reconstruction takes are rounds like those of a repair.
#[tokio::test]
async fn a_bag_whose_objects_were_made_again_is_repaired_and_verified_as_ever() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    let (theirs, broker) = (context(&server).await, server.broker(Role::Producer).await);
    let run = "run --tasks 3 --bytes 3000 --codec zlib:6 --results objects --name t -q";
    place.run(&format!("{run} {at}")).await.with_code(0);
    let of: Vec<Reference> = (0..3)
        .map(|of| format!("obj://bag-{}/out_{of}.bin", bag_of(&place, "t/objects")))
        .map(|of| of.parse().unwrap())
        .collect();
    for (of, fault) in [(&of[0], Lose), (&of[1], Delete)] {
        break_it(&theirs, &broker, of, fault).await;
        let answer = get(&broker, of, To::Folder(place.path("got"))).await;
        assert_eq!(answer.reconstructed, Some(1), "{answer:?}");
    }
    place.run(&format!("verify runs/t/objects {at}")).await.with_code(0);
    place.run(&format!("gather runs/t/objects -q {at}")).await.with_code(0);
    // Lost once more: the first round that the gatherer begins has a result already.
    for of in &of {
        break_it(&theirs, &broker, of, Lose).await;
    }
    place.run(&format!("verify runs/t/objects {at}")).await.with_code(1);
    place.run(&format!("gather runs/t/objects --repair -q {at}")).await.with_code(0);
    place.run(&format!("verify runs/t/objects {at}")).await.with_code(0);
    // It begins above the rounds that were taken: what they made is lost, and would be waited for.
    let ledger = fs::read_to_string(place.folder("t/objects").join("manifest.jsonl")).unwrap();
    let lines = ledger.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let begun: Vec<_> = lines.filter_map(|line| line.get("begun").cloned()).collect();
    let rounds: Vec<_> = (0..3)
        .flat_map(|of| begun.iter().filter(move |begun| begun["index"] == of))
        .map(|begun| begun["round"].as_u64().unwrap())
        .collect();
    assert_eq!(rounds, [2, 2, 1], "{begun:?}");
    // And reconstruction comes after that, too.
    break_it(&theirs, &broker, &of[0], Corrupt).await;
    let again = get(&broker, &of[0], To::Folder(place.path("again"))).await;
    assert_eq!(again.reconstructed, Some(1), "{again:?}");
}

#[tokio::test]
async fn a_pin_outlives_the_loss_and_a_bucket_that_is_gone_is_made_again() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    let (theirs, broker) = (context(&server).await, server.broker(Role::Producer).await);
    let run = "run --tasks 2 --bytes 3000 --codec zlib:6 --results objects --name t -q";
    place.run(&format!("{run} {at}")).await.with_code(0);
    let bucket = format!("bag-{}", bag_of(&place, "t/objects"));
    let of: Reference = format!("obj://{bucket}/out_0.bin").parse().unwrap();
    place.run(&format!("object pin {of} {at}")).await.with_code(0);
    break_it(&theirs, &broker, &of, Lose).await;
    let answer = get(&broker, &of, To::Folder(place.path("got"))).await;
    assert_eq!(answer.pins.len(), 1, "{answer:?}");
    theirs.delete_stream(format!("OBJ_{bucket}")).await.unwrap();
    let answer = get(&broker, &of, To::Folder(place.path("again"))).await;
    assert_eq!((answer.ok, answer.reconstructed), (true, Some(1)), "{answer:?}");
    let facts = theirs.get_stream(format!("OBJ_{bucket}")).await.unwrap();
    assert!(facts.cached_info().config.max_bytes > 0, "its disk is bounded");
    assert_eq!(facts.cached_info().config.max_age, Duration::ZERO);
}

#[tokio::test]
async fn a_bucket_that_is_made_again_keeps_the_time_of_its_bag_and_the_bag_goes_on_in_it() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    let (theirs, broker) = (context(&server).await, server.broker(Role::Producer).await);
    let run = "run --tasks 3 --bytes 3000 --codec zlib:6 --results objects --ttl 2h --name t -q";
    place.run(&format!("{run} {at}")).await.with_code(0);
    let bucket = format!("bag-{}", bag_of(&place, "t/objects"));
    theirs.delete_stream(format!("OBJ_{bucket}")).await.unwrap();
    let of = format!("obj://{bucket}/out_0.bin").parse().unwrap();
    let answer = get(&broker, &of, To::Folder(place.path("got"))).await;
    assert_eq!((answer.ok, answer.reconstructed), (true, Some(1)), "{answer:?}");
    let facts = theirs.get_stream(format!("OBJ_{bucket}")).await.unwrap();
    assert_eq!(facts.cached_info().config.max_age, Duration::from_hours(2));
    // The others are made again by the bag, in the same bucket.
    place.run(&format!("gather runs/t/objects --repair -q {at}")).await.with_code(0);
    place.run(&format!("verify runs/t/objects {at}")).await.with_code(0);
}

#[tokio::test]
async fn a_lost_object_of_a_local_run_is_made_again_by_a_worker_of_its_own() {
    let place = Place::new().await;
    let run =
        "run --tasks 2 --bytes 64KiB --codec zlib:6 --workers 1 --results objects --name t -q";
    place.run(run).await.with_code(0);
    let get = "object get out_1.bin --run runs/t/objects --out";
    place.run(&format!("{get} first --depth 0")).await.with_code(0);
    let (server, url) = server_of(&place, "t/objects").await;
    bucket_of(&place, "t/objects", &url).await.delete("out_1.bin").await.unwrap();
    server.signal(Signal::TERM);
    server.ended(&place).await.with_code(0);
    let gone = place.run(&format!("{get} got --depth 0")).await.with_code(1);
    assert!(gone.stdout.contains("deleted obj://bag-t-"), "{gone:?}");
    let made = place.run(&format!("{get} got")).await.with_code(0);
    assert!(made.stdout.contains("made again by 1 task"), "{made:?}");
    assert_eq!(fs::read(place.path("got")).unwrap(), fs::read(place.path("first")).unwrap());
}
