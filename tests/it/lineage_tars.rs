//! The tars of packs are made again as other objects are: by the task of their pack, of the inputs that its bag kept.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use bagpress_broker::ids::{BagId, Execution, TaskId};
use bagpress_broker::testing::NatsServer;
use bagpress_broker::{Broker, Role, Service, ServiceStats};
use bagpress_codec::Digest;
use bagpress_objstore::object_ref::{Bucket, Reference};
use bagpress_producer::object::{Answer, To, Why};
use rustix::process::Signal;
use serde_json::Value;

use crate::control::{bag_of, context};
use crate::death::DELIVERIES;
use crate::files::write;
use crate::harness::Place;
use crate::lineage::Fault::{Corrupt, Delete, Forget, Free, Lose, Replace};
use crate::lineage::{break_it, get};
use crate::objects::{about, answers, at};
use crate::packs::forget_what_waits;
use crate::packs_of_objects::flip;
use crate::restore_packed::{expect_same, forget, tree};

const RUN: &str = "run in --pack 4 --keep-inputs --results objects --name t -q";

/// As many files as fill so many tars.
fn files(place: &Place, tars: usize) {
    for number in 0..tars * 4 {
        let text = format!("file {number} ").repeat(1 + number * 11);
        write(&place.path(&format!("in/{}/f{number:02}", number % 3)), text.as_bytes());
    }
}

fn tar(bag: &str, number: usize) -> Reference {
    format!("obj://bag-{bag}/out_{}.tar", number * 4).parse().unwrap()
}

/// Fetches a tar, and looks that it is the very one.
async fn get_whole(place: &Place, broker: &Broker, of: &Reference, digest: Digest) -> Answer {
    let file = place.path(&format!("got-{}", Execution::random()));
    let answer = get(broker, of, To::File(file.clone())).await;
    assert!(answer.ok, "{of}: {answer:?}");
    assert_eq!(Digest::of(&fs::read(&file).unwrap()), digest, "{of}");
    answer
}

async fn digest_of(place: &Place, server: &NatsServer, of: &Reference) -> Digest {
    let info = format!("object info {of} --json {}", at(server));
    let answer = &answers(&place.run(&info).await.with_code(0))[0];
    answer["digest"].as_str().unwrap().parse().unwrap()
}

/// What is committed of the task that begins a pack, by rounds.
async fn committed(broker: &Broker, bag: &str, first: u32, rounds: u32) -> Vec<bool> {
    let bag: BagId = bag.parse().unwrap();
    let mut done = Vec::new();
    for round in 0..rounds {
        let id = TaskId { bag: bag.clone(), index: first, round };
        let result = broker.committed(&id).await.unwrap();
        done.push(result.is_some_and(|result| result.done().is_some()));
    }
    done
}

#[tokio::test]
async fn a_tar_comes_back_whatever_became_of_it_when_its_producer_is_gone() {
    for delivery in DELIVERIES {
        let (place, server) = Place::with_server().await;
        let (at, _worker) = (at(&server), place.worker(&server));
        files(&place, 6);
        place.run(&format!("{RUN} --delivery {delivery} {at}")).await.with_code(0);
        let (_, bag) = forget(&place);
        let (theirs, broker) = (context(&server).await, server.broker(Role::Producer).await);
        for (number, fault) in [Lose, Forget, Delete, Corrupt, Replace].into_iter().enumerate() {
            let of = tar(&bag, number);
            let digest = digest_of(&place, &server, &of).await;
            place.run(&format!("object pin {of} {at}")).await.with_code(0);
            // Once more: each time is a round.
            for again in 1..=2 {
                break_it(&theirs, &broker, &of, fault).await;
                let answer = get_whole(&place, &broker, &of, digest).await;
                assert_eq!(answer.reconstructed, Some(1), "{fault:?}, {again}, by {delivery}");
                let answer = get_whole(&place, &broker, &of, digest).await;
                assert_eq!(answer.reconstructed, None, "{fault:?}, {again}, by {delivery}");
                // What another client wrote has no pins, nor what is not there.
                let pins = usize::from(matches!(fault, Lose | Corrupt));
                assert_eq!(answer.pins.len(), pins, "{fault:?}");
            }
        }
        // What is freed stays freed, and nothing is left of the objects that were beside.
        let freed = tar(&bag, 5);
        break_it(&theirs, &broker, &freed, Free).await;
        let answer = get(&broker, &freed, To::File(place.path("freed"))).await;
        assert_eq!((answer.ok, answer.not_reconstructed), (false, None), "{answer:?}");
        let listed = place.run(&format!("object ls bag-{bag} --json {at}")).await.with_code(0);
        let listed = answers(&listed);
        assert!(listed.iter().all(|of| !of["reference"].as_str().unwrap().contains('~')));
    }
}

#[tokio::test]
async fn a_packed_bag_comes_back_by_its_id_whatever_became_of_its_tars() {
    for delivery in DELIVERIES {
        let (place, server) = Place::with_server().await;
        let (at, _worker) = (at(&server), place.worker(&server));
        files(&place, 6);
        place.run(&format!("{RUN} --delivery {delivery} {at}")).await.with_code(0);
        // One bit of a file's output.
        flip(&place, &server, "out_20.tar", 512 + 12).await;
        let (files, bag) = forget(&place);
        let (theirs, broker) = (context(&server).await, server.broker(Role::Producer).await);
        for (number, fault) in [Lose, Forget, Delete, Replace].into_iter().enumerate() {
            break_it(&theirs, &broker, &tar(&bag, number), fault).await;
        }
        let restore = format!("restore {bag} --out back --name r --delivery {delivery} -q {at}");
        place.run(&restore).await.with_code(0);
        expect_same(&tree(&place.path("back/in")), &files);
        // Many files of a tar are wanted at once, and its pack is run once.
        for first in [0, 4, 8, 12, 20] {
            let done = committed(&broker, &bag, first, 3).await;
            assert_eq!(done, [true, true, false], "{first} by {delivery}");
        }
        // Without the tree, what the files are called is in the tar of the inputs.
        break_it(&theirs, &broker, &tar(&bag, 0), Delete).await;
        flip_again(&theirs, &bag, "out_4.tar").await;
        let bucket = theirs.get_object_store(format!("bag-{bag}")).await.unwrap();
        bucket.delete(bagpress_broker::subjects::TREE).await.unwrap();
        place.run(&format!("restore {bag} --out more --name m -q {at}")).await.with_code(0);
        expect_same(&tree(&place.path("more/in")), &files);
        // And so is one tar by its reference.
        break_it(&theirs, &broker, &tar(&bag, 2), Lose).await;
        let one = format!("restore {} --out one --name o -q {at}", tar(&bag, 2));
        place.run(&one).await.with_code(0);
        assert_eq!(tree(&place.path("one")).len(), 4);
    }
}

/// Flips a bit of the first file of a tar of a bag whose folder is gone.
async fn flip_again(theirs: &async_nats::jetstream::Context, bag: &str, name: &str) {
    let store = theirs.get_object_store(format!("bag-{bag}")).await.unwrap();
    let info = store.info(name).await.unwrap();
    let (stream, chunks) = (format!("OBJ_bag-{bag}"), format!("$O.bag-{bag}.C.{}", info.nuid));
    let stream = theirs.get_stream(stream).await.unwrap();
    let chunk = stream.get_last_raw_message_by_subject(&chunks).await.unwrap();
    let mut payload = chunk.payload.to_vec();
    payload[512 + 12] ^= 1;
    stream.delete_message(chunk.sequence).await.unwrap();
    theirs.publish(chunks, payload.into()).await.unwrap().await.unwrap();
}

#[tokio::test]
async fn a_tar_whose_inputs_were_not_kept_or_are_others_says_so_and_what_to_do() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    files(&place, 3);
    place.run(&format!("{RUN} {at}")).await.with_code(0);
    let kept = bag_of(&place, "t/objects");
    let gone = RUN.replace("--keep-inputs ", "").replace("--name t", "--name gone");
    place.run(&format!("{gone} {at}")).await.with_code(0);
    let gone = bag_of(&place, "gone/objects");
    let (theirs, broker) = (context(&server).await, server.broker(Role::Producer).await);
    let inputs = |number: usize| -> Reference {
        format!("obj://bag-{kept}-in/in_{}.tar", number * 4).parse().unwrap()
    };
    break_it(&theirs, &broker, &inputs(0), Replace).await;
    break_it(&theirs, &broker, &inputs(1), Lose).await;
    let all = [tar(&gone, 0), tar(&kept, 0), tar(&kept, 1), tar(&kept, 2)];
    for of in &all {
        break_it(&theirs, &broker, of, Delete).await;
    }
    let named = all.each_ref().map(ToString::to_string);
    let get = format!("object get {} --out got {at} --json", named.join(" "));
    let found = answers(&place.run(&get).await.with_code(1));
    for (of, why, text) in [
        (&named[0], "input-freed", "--keep-inputs"),
        (&named[0], "input-freed", "bagpress gather runs/gone/objects --repair"),
        (&named[1], "other-bytes", "in_0.tar has other bytes now"),
        (&named[2], "no-lineage", "in_4.tar is lost, and bag t-"),
    ] {
        let answer: &Value = about(&found, of);
        assert_eq!(
            (&answer["state"], &answer["not_reconstructed"]),
            (&"deleted".into(), &why.into())
        );
        assert!(answer["why"].as_str().unwrap().contains(text), "{answer}");
    }
    assert_eq!(about(&found, &named[3])["reconstructed"], 1);
    let restore = format!("restore {gone} --out back --name r -q {at}");
    place.run(&restore).await.with_code(1);
    let failed = fs::read_to_string(place.folder("r/staged").join("failed.txt")).unwrap();
    assert_eq!(failed.matches("out_0.tar: deleted").count(), 4, "{failed}");
    assert_eq!(failed.matches("--keep-inputs").count(), 4, "{failed}");
    // Where the files are, the bag is repaired: each of them runs alone.
    place.run(&format!("gather runs/gone/objects --repair -q {at}")).await.with_code(0);
    place.run(&format!("verify runs/gone/objects {at}")).await.with_code(0);
}

#[tokio::test]
async fn a_tar_has_the_files_that_it_had_and_no_more_and_lies_under_other_bags_too() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    files(&place, 2);
    place
        .run(&format!("submit in --pack 4 --keep-inputs --results objects --name t {at}"))
        .await
        .with_code(0);
    // The files are read once more when the gatherer puts them: one is gone by then.
    forget_what_waits(&server).await;
    fs::remove_file(place.path("in/1/f01")).unwrap();
    let worker = place.worker(&server);
    place.run(&format!("gather runs/t/objects -q {at}")).await.with_code(1);
    let bag = bag_of(&place, "t/objects");
    let (of, digest) = (tar(&bag, 0), digest_of(&place, &server, &tar(&bag, 0)).await);
    let (theirs, broker) = (context(&server).await, server.broker(Role::Producer).await);

    // Another bag compresses the tars as the objects that they are.
    let run = format!("run {of} {} --results objects --name u -q {at}", tar(&bag, 1));
    place.run(&run).await.with_code(0);
    let second: Reference =
        format!("obj://bag-{}/out_0.bin", bag_of(&place, "u/objects")).parse().unwrap();
    let whole = digest_of(&place, &server, &second).await;
    fs::remove_dir_all(place.path("runs")).unwrap();
    for of in [&of, &second] {
        break_it(&theirs, &broker, of, Lose).await;
    }
    let answer = get_whole(&place, &broker, &second, whole).await;
    assert_eq!(answer.reconstructed, Some(2), "{answer:?}");
    assert_eq!(get_whole(&place, &broker, &of, digest).await.reconstructed, None);
    // A bag that reads a lost tar has it made again first.
    break_it(&theirs, &broker, &of, Delete).await;
    place.run(&format!("run {of} --codec store --out copy --name c -q {at}")).await.with_code(0);
    let copy = walkdir::WalkDir::new(place.path("copy")).into_iter().map(Result::unwrap);
    let copy = copy.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path);
    let copies: Vec<_> = copy.map(|path| Digest::of(&fs::read(path).unwrap())).collect();
    assert_eq!(copies, [digest]);
    drop(worker);
}

#[cfg(feature = "zfp")]
#[tokio::test]
async fn a_file_that_failed_in_its_pack_is_not_in_the_tar_that_is_made_again() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (64,), }";
    let text = format!("{text:<117}\n");
    let array = [&b"\x93NUMPY\x01\x00\x76\x00"[..], text.as_bytes(), &[0x3f; 256]].concat();
    for (name, bytes) in [("a", &array[..]), ("b", b"no array"), ("c", &array), ("d", &array)] {
        write(&place.path(&format!("in/{name}.npy")), bytes);
    }
    place.run(&format!("{RUN} --codec zfp:reversible {at}")).await.with_code(1);
    let (_, bag) = forget(&place);
    let (of, broker) = (tar(&bag, 0), server.broker(Role::Producer).await);
    let id = TaskId { bag: bag.parse().unwrap(), index: 0, round: 0 };
    let pack = broker.committed(&id).await.unwrap().unwrap();
    let done: Vec<_> =
        (0..4).map(|place| pack.member(place).map(|of| of.done().is_some())).collect();
    assert_eq!(done, [Some(true), Some(false), Some(true), Some(true)]);
    let digest = digest_of(&place, &server, &of).await;
    break_it(&context(&server).await, &broker, &of, Lose).await;
    assert_eq!(get_whole(&place, &broker, &of, digest).await.reconstructed, Some(1));
}

/// What the gatherer counts may be the tar of another execution than the result on the broker names.
#[tokio::test]
async fn a_tar_that_another_execution_made_stays_and_is_no_reason_to_make_one() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    files(&place, 1);
    place.run(&format!("{RUN} {at}")).await.with_code(0);
    let (_, bag) = forget(&place);
    let (of, broker) = (tar(&bag, 0), server.broker(Role::Producer).await);
    let bucket = Bucket::new(broker.client().clone(), broker.jetstream().clone(), of.bucket());
    let bucket = bucket.unwrap();
    let token = format!("0-{}", Execution::random());
    let mut writer = bucket.writer(of.object(), &token).unwrap();
    writer.write(bytes::Bytes::from_static(b"a tar with files that count")).await.unwrap();
    writer.commit_or_adopt().await.unwrap();
    let answer = get(&broker, &of, To::File(place.path("got"))).await;
    assert_eq!(answer.not_reconstructed, Some(Why::OtherBytes), "{answer:?}");
    assert!(answer.why.unwrap().contains("another execution of its pack"));
    let (_, bytes) = bucket.get(of.object(), 1024).await.unwrap();
    assert_eq!(bytes, b"a tar with files that count");
    assert_eq!(committed(&broker, &bag, 0, 2).await, [true, false], "nothing was run");
}

/// The rounds that a ledger says were begun, by their tasks.
fn begun(ledger: &Path) -> Vec<(u64, u64)> {
    let text = fs::read_to_string(ledger).unwrap();
    // The last line may be written at this moment.
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let begun = lines.filter_map(|line| line.get("begun").cloned());
    let begun = begun.map(|of| (of["index"].as_u64().unwrap(), of["round"].as_u64().unwrap()));
    let mut begun: Vec<_> = begun.collect();
    begun.sort_unstable();
    begun
}

/// How many tasks wait or run.
async fn queued(server: &NatsServer) -> u64 {
    let mut stream = context(server).await.get_stream("BAG_TASKS").await.unwrap();
    stream.info().await.unwrap().state.messages
}

#[tokio::test]
async fn a_tar_waits_for_a_worker_that_can_make_it() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    let worker = place.worker(&server);
    files(&place, 2);
    place.run(&format!("{RUN} {at}")).await.with_code(0);
    let (_, bag) = forget(&place);
    let (of, broker) = (tar(&bag, 0), server.broker(Role::Producer).await);
    let digest = digest_of(&place, &server, &of).await;
    worker.signal(Signal::TERM);
    worker.ended(&place).await.with_code(0);
    // To whoever looks, a worker of an earlier version; it would give the task back.
    let by_hand = server.broker(Role::Worker).await;
    let old = ServiceStats { pool: "default".to_owned(), slots: 1, ..ServiceStats::default() };
    let _old = Service::start(&by_hand, HashMap::new(), move || old.clone()).await.unwrap();
    for of in [&of, &tar(&bag, 1)] {
        break_it(&context(&server).await, &broker, of, Lose).await;
        let answer = get(&broker, of, To::File(place.path("got"))).await;
        assert_eq!(answer.not_reconstructed, Some(Why::NoWorkers), "{answer:?}");
        assert!(answer.why.as_deref().unwrap().contains("again/1"), "{answer:?}");
    }
    // Their tasks wait; who frees a tar takes its task along.
    assert_eq!(queued(&server).await, 2);
    place.run(&format!("object free {} {at}", tar(&bag, 1))).await.with_code(0);
    assert_eq!(queued(&server).await, 1);
    let _worker = place.worker(&server);
    get_whole(&place, &broker, &of, digest).await;
    assert_eq!(queued(&server).await, 0);
}

/// The gatherer begins the round for the file that begins the pack, in which the pack waits already.
#[tokio::test]
async fn a_repair_that_meets_a_pack_that_waits_for_its_tar_has_every_file() {
    for delivery in DELIVERIES {
        let (place, server) = Place::with_server().await;
        let at = at(&server);
        let worker = place.worker(&server);
        files(&place, 2);
        place.run(&format!("{RUN} --delivery {delivery} {at}")).await.with_code(0);
        let (bag, broker) = (bag_of(&place, "t/objects"), server.broker(Role::Producer).await);
        worker.signal(Signal::TERM);
        worker.ended(&place).await.with_code(0);
        break_it(&context(&server).await, &broker, &tar(&bag, 0), Delete).await;
        let answer = get(&broker, &tar(&bag, 0), To::File(place.path("got"))).await;
        assert_eq!(answer.not_reconstructed, Some(Why::NoWorkers), "{answer:?}");
        assert_eq!(queued(&server).await, 1);
        let repairing = place.spawn(&format!("gather runs/t/objects --repair -q {at}"));
        let ledger = place.folder("t/objects").join("manifest.jsonl");
        let first = || begun(&ledger).contains(&(0, 1)).then_some(());
        place.until("the first file's round has begun", first).await;
        let _worker = place.worker(&server);
        repairing.ended(&place).await.with_code(0);
        place.run(&format!("verify runs/t/objects {at}")).await.with_code(0);
        let (files, bag) = forget(&place);
        place.run(&format!("restore {bag} --out back --name r -q {at}")).await.with_code(0);
        expect_same(&tree(&place.path("back/in")), &files);
    }
}

/// The rounds that tars take are rounds like those of a repair.
#[tokio::test]
async fn a_bag_whose_tars_were_made_again_is_verified_and_repaired_as_ever() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    files(&place, 3);
    place.run(&format!("{RUN} {at}")).await.with_code(0);
    let bag = bag_of(&place, "t/objects");
    let (theirs, broker) = (context(&server).await, server.broker(Role::Producer).await);
    for number in 0..2 {
        let (of, digest) =
            (tar(&bag, number), digest_of(&place, &server, &tar(&bag, number)).await);
        break_it(&theirs, &broker, &of, Lose).await;
        assert_eq!(get_whole(&place, &broker, &of, digest).await.reconstructed, Some(1));
    }
    place.run(&format!("verify runs/t/objects {at}")).await.with_code(0);
    place.run(&format!("gather runs/t/objects -q {at}")).await.with_code(0);
    // Lost once more, its files run alone: the first of them in a round that has no result yet.
    break_it(&theirs, &broker, &tar(&bag, 0), Delete).await;
    place.run(&format!("gather runs/t/objects --repair -q {at}")).await.with_code(0);
    place.run(&format!("verify runs/t/objects {at}")).await.with_code(0);
    let ledger = place.folder("t/objects").join("manifest.jsonl");
    assert_eq!(begun(&ledger), [(0, 2), (1, 1), (2, 1), (3, 1)]);
    // What ran alone is an object of its own, with its own lineage, whatever rounds the tar took.
    let alone: Reference = format!("obj://bag-{bag}/out_0.bin").parse().unwrap();
    let digest = digest_of(&place, &server, &alone).await;
    break_it(&theirs, &broker, &alone, Replace).await;
    assert_eq!(get_whole(&place, &broker, &alone, digest).await.reconstructed, Some(1));
    // The bag as a whole comes back by its id: some files in tars, some alone.
    let (files, bag) = forget(&place);
    break_it(&theirs, &broker, &tar(&bag, 1), Delete).await;
    place.run(&format!("restore {bag} --out back --name r -q {at}")).await.with_code(0);
    expect_same(&tree(&place.path("back/in")), &files);
}
