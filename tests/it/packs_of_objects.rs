//! Packs of objects: one tar of inputs, one of outputs, which stock tools read; each file is found, lost and made again by itself.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use async_nats::jetstream::object_store::ObjectStore;
use bagpress_broker::testing::{NatsServer, eventually};
use futures::StreamExt;
use serde_json::Value;
use tokio::io::AsyncReadExt;

use crate::control::{bag_of, context};
use crate::files::write;
use crate::harness::{Place, SOON};
use crate::ledger::{expect_each_done_once, outcomes};
use crate::packs::some_files;

const RUN: &str = "run in --results objects --pack 8 --name t -q";

async fn bucket(place: &Place, server: &NatsServer, what: &str) -> ObjectStore {
    let name = format!("bag-{}{what}", bag_of(place, "t/objects"));
    context(server).await.get_object_store(&name).await.unwrap()
}

/// The names of outputs: all but that of what says how their files are called.
async fn names(bucket: &ObjectStore) -> Vec<String> {
    let list = bucket.list().await.unwrap();
    let mut names: Vec<_> = list.map(|info| info.unwrap().name).collect().await;
    names.retain(|name| name != bagpress_broker::subjects::TREE);
    names.sort();
    names
}

async fn object(bucket: &ObjectStore, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    bucket.get(name).await.unwrap().read_to_end(&mut bytes).await.unwrap();
    bytes
}

/// Runs a program of the system below `folder`.
fn stock(folder: &Path, program: &str, words: &[&std::ffi::OsStr]) -> Output {
    let ran = Command::new(program).args(words).current_dir(folder).output().unwrap();
    assert!(ran.status.success() && ran.stderr.is_empty(), "{program} {words:?}: {ran:?}");
    ran
}

/// Writes a tar into `folder`, and extracts it there.
fn extract(folder: &Path, tar: &[u8]) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("a.tar"), tar).unwrap();
    stock(folder, "tar", &["-xf".as_ref(), "a.tar".as_ref()]);
    fs::remove_file(folder.join("a.tar")).unwrap();
}

/// The last outcome of each file, in order.
pub(crate) fn last(place: &Place) -> Vec<Value> {
    let mut last = std::collections::BTreeMap::new();
    for outcome in outcomes(&place.folder("t/objects")) {
        last.insert(outcome["index"].as_u64().unwrap(), outcome);
    }
    last.into_values().collect()
}

fn rounds(place: &Place) -> Vec<u64> {
    last(place).iter().map(|outcome| outcome["round"].as_u64().unwrap()).collect()
}

fn object_of(outcome: &Value) -> &str {
    let place = &outcome["outcome"]["done"]["place"];
    place["tar"]["object"].as_str().or_else(|| place["object"]["object"].as_str()).unwrap()
}

#[tokio::test]
async fn a_pack_is_one_tar_that_stock_tools_read_to_the_last_file() {
    let (place, server) = Place::with_server().await;
    let mut files = some_files(&place, 20);
    let odd = [
        place.path("in").join("n".repeat(200)).join("n".repeat(200)),
        place.path("in").join(std::ffi::OsStr::from_bytes(b"caf\xe9")),
        place.path("in/-rf"),
        place.path("in/\u{e4}\n\u{1f5dc}"),
    ];
    for (number, path) in odd.iter().enumerate() {
        write(path, &[u8::try_from(number).unwrap(); 700]);
    }
    files.retain(|(_, bytes)| bytes.len() < 500 * 1024);
    let at = format!("--server {}", server.url());
    let _worker = place.worker(&server);
    place.run(&format!("{RUN} {at} --keep-inputs")).await.with_code(0);
    expect_each_done_once(&place.folder("t/objects"), 24);
    place.run(&format!("verify runs/t/objects --inputs {at}")).await.with_code(0);
    let outputs = bucket(&place, &server, "").await;
    let (there, unpacked) = (names(&outputs).await, place.path("unpacked"));
    assert!((3..=5).contains(&there.len()), "{there:?}");
    for name in there.iter().filter(|name| name.contains(".tar")) {
        extract(&unpacked, &object(&outputs, name).await);
    }
    let sources = files.iter().map(|(name, _)| place.path(name)).chain(odd);
    for source in sources {
        let mut output: PathBuf = unpacked.join(source.strip_prefix(place.path("")).unwrap());
        output.as_mut_os_string().push(".gz");
        stock(&unpacked, "gzip", &["-t".as_ref(), "--".as_ref(), output.as_os_str()]);
        let plain = stock(&unpacked, "gzip", &["-dc".as_ref(), "--".as_ref(), output.as_os_str()]);
        assert_eq!(plain.stdout, fs::read(&source).unwrap(), "{source:?}");
        let (source, output) = (fs::metadata(source).unwrap(), fs::metadata(output).unwrap());
        assert_eq!((source.mtime(), source.mode()), (output.mtime(), output.mode()));
    }
    // The inputs, which were to be kept, are there as they were.
    let inputs = bucket(&place, &server, "-in").await;
    for name in names(&inputs).await.iter().filter(|name| name.contains(".tar")) {
        extract(&place.path("inputs"), &object(&inputs, name).await);
    }
    for (name, bytes) in &files {
        assert_eq!(fs::read(place.path("inputs").join(name)).unwrap(), *bytes, "{name}");
    }
    place.run(&format!("rm runs/t/objects {at}")).await.with_code(0);
    let mut streams = context(&server).await.stream_names();
    while let Some(stream) = streams.next().await {
        assert!(!stream.unwrap().starts_with("OBJ_"));
    }
}

#[tokio::test]
async fn a_lost_tar_costs_its_files_an_execution_each_and_no_other_file() {
    let (place, server) = Place::with_server().await;
    some_files(&place, 16);
    let at = format!("--server {}", server.url());
    let _worker = place.worker(&server);
    place.run(&format!("{RUN} {at}")).await.with_code(0);
    let outputs = bucket(&place, &server, "").await;
    let before = last(&place);
    assert_eq!(names(&outputs).await, ["out_0.tar", "out_8.tar"]);
    outputs.delete("out_8.tar").await.unwrap();
    let verified = place.run(&format!("verify runs/t/objects {at}")).await.with_code(1);
    assert_eq!(verified.stdout.matches("out_8.tar/").count(), 8, "{verified:?}");
    assert!(!verified.stdout.contains("out_0.tar"), "{verified:?}");
    place.run(&format!("gather runs/t/objects --repair -q {at}")).await.with_code(0);
    place.run(&format!("verify runs/t/objects --inputs {at}")).await.with_code(0);
    assert_eq!(rounds(&place), [[0; 8], [1; 8]].concat());
    let after = last(&place);
    for (before, after) in before.iter().zip(&after) {
        let digest = |outcome: &Value| outcome["outcome"]["done"]["output_digest"].clone();
        assert_eq!(digest(before), digest(after), "how a file was packed changes no byte of it");
    }
    let own: Vec<_> = (8..16).map(|index| format!("out_{index}.bin")).collect();
    assert_eq!(after[8..].iter().map(object_of).collect::<Vec<_>>(), own);
    assert!(names(&outputs).await.contains(&"out_0.tar".to_owned()));
}

/// Changes a byte of a tar where it is stored.
pub(crate) async fn flip(place: &Place, server: &NatsServer, name: &str, at: usize) {
    let outputs = bucket(place, server, "").await;
    let info = outputs.info(name).await.unwrap();
    let bucket = format!("bag-{}", bag_of(place, "t/objects"));
    let (context, subject) = (context(server).await, format!("$O.{bucket}.C.{}", info.nuid));
    let stream = context.get_stream(format!("OBJ_{bucket}")).await.unwrap();
    let chunk = stream.get_last_raw_message_by_subject(&subject).await.unwrap();
    let mut payload = chunk.payload.to_vec();
    payload[at] ^= 1;
    stream.delete_message(chunk.sequence).await.unwrap();
    context.publish(subject, payload.into()).await.unwrap().await.unwrap();
}

#[tokio::test]
async fn a_flipped_bit_in_a_tar_damages_one_file_in_its_bytes_or_in_its_header() {
    let (place, server) = Place::with_server().await;
    some_files(&place, 16);
    let at = format!("--server {}", server.url());
    let _worker = place.worker(&server);
    place.run(&format!("{RUN} {at}")).await.with_code(0);
    let begins = |index: usize| {
        let at = &last(&place)[index]["outcome"]["done"]["place"]["tar"]["at"];
        usize::try_from(at.as_u64().unwrap()).unwrap()
    };
    // In a content, and in the name that is in a header.
    flip(&place, &server, "out_0.tar", begins(3) + 12).await;
    flip(&place, &server, "out_8.tar", begins(10) - 510).await;
    let verified = place.run(&format!("verify runs/t/objects {at}")).await.with_code(1);
    assert_eq!(verified.stdout.matches(".tar/").count(), 2, "{verified:?}");
    place.run(&format!("gather runs/t/objects --repair -q {at}")).await.with_code(0);
    place.run(&format!("verify runs/t/objects {at}")).await.with_code(0);
    let expected: Vec<_> = (0..16).map(|index| u64::from([3, 10].contains(&index))).collect();
    assert_eq!(rounds(&place), expected);
    let there = names(&bucket(&place, &server, "").await).await;
    assert_eq!(there, ["out_0.tar", "out_10.bin", "out_3.bin", "out_8.tar"]);
}

#[tokio::test]
async fn a_tar_that_was_planted_gives_way_to_that_of_the_committed_result() {
    for delivery in crate::death::DELIVERIES {
        let (place, server) = Place::with_server().await;
        some_files(&place, 16);
        let at = format!("--server {}", server.url());
        let submit = RUN.replacen("run", "submit", 1).replace(" -q", "");
        place.run(&format!("{submit} --delivery {delivery} {at}")).await.with_code(0);
        let gather = place.spawn(&format!("gather runs/t/objects -q {at}"));
        let made = async || {
            let name = format!("bag-{}", bag_of(&place, "t/objects"));
            context(&server).await.get_object_store(&name).await.ok()
        };
        eventually("the bucket is there", SOON, made).await;
        let outputs = bucket(&place, &server, "").await;
        outputs.put("out_0.tar", &mut &b"somebody else's"[..]).await.unwrap();
        let _worker = place.worker(&server);
        gather.ended(&place).await.with_code(0);
        place.run(&format!("verify runs/t/objects --inputs {at}")).await.with_code(0);
        assert_eq!(names(&outputs).await, ["out_0.tar", "out_8.tar"], "{delivery}");
        assert_eq!(rounds(&place), [0; 16]);
    }
}

#[tokio::test]
async fn what_is_no_tar_of_a_pack_is_not_executed_and_its_files_run_alone() {
    let (place, server) = Place::with_server().await;
    some_files(&place, 16);
    let at = format!("--server {}", server.url());
    let submit = RUN.replacen("run", "submit", 1).replace(" -q", "");
    place.run(&format!("{submit} {at}")).await.with_code(0);
    let inputs = bucket(&place, &server, "-in").await;
    // Files that lead elsewhere, as the tar of the system writes them.
    let evil = place.path("evil");
    write(&evil.join("x/passwd"), b"mine");
    stock(&evil, "tar", &["-cPf".as_ref(), "a.tar".as_ref(), "x/../x/passwd".as_ref()]);
    let tar = fs::read(evil.join("a.tar")).unwrap();
    inputs.put("in_0.tar", &mut &tar[..]).await.unwrap();
    inputs.put("in_8.tar", &mut &b"no tar at all"[..]).await.unwrap();
    let _worker = place.worker(&server);
    place.run(&format!("gather runs/t/objects -q {at}")).await.with_code(0);
    place.run(&format!("verify runs/t/objects --inputs {at}")).await.with_code(0);
    expect_each_done_once(&place.folder("t/objects"), 16);
    assert_eq!(rounds(&place), [1; 16]);
}

/// Takes the line of one file out of the ledger of a bag that is done: it has something left to do.
fn forget_line(place: &Place, index: u32) {
    let manifest = place.folder("t/objects").join("manifest.jsonl");
    let lines = fs::read_to_string(&manifest).unwrap();
    let line = format!("\"index\":{index},");
    let rest = lines.split_inclusive('\n').filter(|other| !other.contains(&line));
    fs::write(&manifest, rest.collect::<String>()).unwrap();
}

/// A ledger that lost the line of one file, and a broker that forgot the result: the pack is delivered once more, for that file.
#[tokio::test]
async fn a_pack_that_is_delivered_for_the_rest_of_its_files_takes_no_bytes_from_the_others() {
    for delivery in crate::death::DELIVERIES {
        let (place, server) = Place::with_server().await;
        some_files(&place, 16);
        let at = format!("--server {}", server.url());
        let _worker = place.worker(&server);
        place.run(&format!("{RUN} --delivery {delivery} {at}")).await.with_code(0);
        forget_line(&place, 5);
        let results = context(&server).await.get_stream("BAG_RESULTS").await.unwrap();
        results.purge().await.unwrap();
        place.run(&format!("gather runs/t/objects -q {at}")).await.with_code(0);
        expect_each_done_once(&place.folder("t/objects"), 16);
        place.run(&format!("verify runs/t/objects --inputs {at}")).await.with_code(0);
        let last = last(&place);
        assert_eq!(object_of(&last[4]), "out_0.tar", "{delivery}");
        assert!(object_of(&last[5]).starts_with("out_0.tar~0-"), "{delivery}: {}", last[5]);
        // Which one is lost is known of each file.
        let outputs = bucket(&place, &server, "").await;
        outputs.delete(object_of(&last[5])).await.unwrap();
        let verified = place.run(&format!("verify runs/t/objects {at}")).await.with_code(1);
        assert_eq!(verified.stdout.matches("bad: ").count(), 1, "{verified:?}");
        place.run(&format!("gather runs/t/objects --repair -q {at}")).await.with_code(0);
        place.run(&format!("verify runs/t/objects {at}")).await.with_code(0);
        assert_eq!(rounds(&place).iter().sum::<u64>(), 1, "{delivery}");
    }
}

/// The same, when a bit of another file has flipped meanwhile: the tar that the others are in stays.
#[tokio::test]
async fn a_tar_that_is_damaged_gives_way_to_none_that_has_other_files() {
    let (place, server) = Place::with_server().await;
    some_files(&place, 16);
    let at = format!("--server {}", server.url());
    let _worker = place.worker(&server);
    place.run(&format!("{RUN} {at}")).await.with_code(0);
    let begins = last(&place)[2]["outcome"]["done"]["place"]["tar"]["at"].as_u64().unwrap();
    flip(&place, &server, "out_0.tar", usize::try_from(begins).unwrap() + 12).await;
    forget_line(&place, 5);
    let results = context(&server).await.get_stream("BAG_RESULTS").await.unwrap();
    results.purge().await.unwrap();
    place.run(&format!("gather runs/t/objects -q {at}")).await.with_code(0);
    let verified = place.run(&format!("verify runs/t/objects {at}")).await.with_code(1);
    assert_eq!(verified.stdout.matches("bad: ").count(), 1, "{verified:?}");
    place.run(&format!("gather runs/t/objects --repair -q {at}")).await.with_code(0);
    place.run(&format!("verify runs/t/objects --inputs {at}")).await.with_code(0);
    assert_eq!(rounds(&place).iter().sum::<u64>(), 1, "{:?}", rounds(&place));
}

/// What a broker forgot of a bag that runs is made again, whichever object it was in; so is what was in a tar whose name another
/// has.
#[tokio::test]
async fn objects_that_a_broker_forgot_are_made_again_by_gather() {
    for replaced in [false, true] {
        let (place, server) = Place::with_server().await;
        some_files(&place, 16);
        let at = format!("--server {}", server.url());
        let _worker = place.worker(&server);
        place.run(&format!("{RUN} {at}")).await.with_code(0);
        forget_line(&place, 12);
        if replaced {
            let outputs = bucket(&place, &server, "").await;
            outputs.put("out_0.tar", &mut &b"somebody else's"[..]).await.unwrap();
        } else {
            let name = format!("OBJ_bag-{}", bag_of(&place, "t/objects"));
            let stream = context(&server).await.get_stream(name).await.unwrap();
            stream.purge().await.unwrap();
        }
        place.run(&format!("gather runs/t/objects -q {at}")).await.with_code(0);
        place.run(&format!("verify runs/t/objects --inputs {at}")).await.with_code(0);
        assert!(rounds(&place)[..8].iter().all(|round| *round == 1), "{:?}", rounds(&place));
    }
}
