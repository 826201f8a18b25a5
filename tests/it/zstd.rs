//! A bag by zstd: every output is one frame or a row of them, by every way, and what cannot have one is refused.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use async_nats::jetstream;
use bagpress_broker::testing::eventually;
use bagpress_broker::{Address, Broker, Role, Service, ServiceStats};
use bagpress_codec::{Codec, DataKind, decompress_all};
use serde_json::Value;

use crate::control::{bag_of, until_status};
use crate::death::DELIVERIES;
use crate::files::write;
use crate::harness::{Place, SOON};
use crate::ledger::{expect_each_done_once, failure, generated};
use crate::taken::run_of;

const MIB: usize = 1024 * 1024;

fn ways() -> impl Iterator<Item = String> {
    DELIVERIES.into_iter().flat_map(|delivery| {
        ["--transfer auto", "--transfer wire", "--results objects"]
            .map(|how| format!("--delivery {delivery} {how}"))
    })
}

fn decoded(output: &Path) -> Vec<u8> {
    let codec: Codec = "zstd".parse().unwrap();
    let bytes = fs::read(output).unwrap_or_else(|e| panic!("{}: {e}", output.display()));
    assert_eq!(bytes[..4], [0x28, 0xb5, 0x2f, 0xfd], "{}", output.display());
    decompress_all(&codec, &bytes).unwrap()
}

/// Files of every length that matters where they are read, and packed.
fn files(place: &Place) -> Vec<(String, Vec<u8>)> {
    let lengths = [0, 1, 5000, 256 * 1024, 300_000, 440 * 1024, 512 * 1024, 2 * MIB + 7];
    let kinds = [DataKind::Text, DataKind::Random].into_iter().cycle();
    let files: Vec<_> = (0_u32..)
        .zip(kinds.zip(lengths))
        .map(|(index, (kind, bytes))| (format!("f{index}"), generated(kind, index, bytes)))
        .collect();
    for (name, bytes) in &files {
        write(&place.path("in").join(name), bytes);
    }
    files
}

#[tokio::test]
async fn every_output_is_a_zst_file_of_its_input_by_every_way() {
    for how in ways() {
        let place = Place::new().await;
        let files = files(&place);
        let run = format!("run in --out out --name t -q --codec zstd:3 --workers 2 {how}");
        place.run(&run).await.with_code(0);
        expect_each_done_once(&place.path(&run_of("t", &how)), files.len() as u64);
        for (name, bytes) in &files {
            let output = place.path(&format!("out/in/{name}.zst"));
            assert!(decoded(&output) == *bytes, "{how} {name}");
        }
        place.run(&format!("verify {} --inputs", run_of("t", &how))).await.with_code(0);
    }
}

#[tokio::test]
async fn a_file_in_blocks_is_a_row_of_frames_with_a_table() {
    for how in ways() {
        let place = Place::new().await;
        let bytes = generated(DataKind::Text, 0, 5 * MIB + 1);
        write(&place.path("in/large"), &bytes);
        let run =
            format!("run in --out out --name t -q --codec zstd:3 --block 1MiB --workers 2 {how}");
        place.run(&run).await.with_code(0);
        let output = place.path("out/in/large.zst");
        assert!(decoded(&output) == bytes, "{how}");
        let file = fs::read(&output).unwrap();
        let footer = &file[file.len() - 9..];
        assert_eq!(footer, [6, 0, 0, 0, 0x80, 0xb1, 0xea, 0x92, 0x8f], "{how}");
        place.run(&format!("verify {} --inputs", run_of("t", &how))).await.with_code(0);
        // The output of a changed file is replaced, for it begins as one of this codec.
        write(&place.path("in/large"), b"another one");
        let again = "run in --out out --name u -q --codec zstd:3 --update --workers 1";
        place.run(again).await.with_code(0);
        assert_eq!(decoded(&output), b"another one");
    }
}

#[tokio::test]
async fn a_block_that_no_table_can_hold_is_refused_before_any_work() {
    let place = Place::new().await;
    write(&place.path("in/one"), b"one");
    let refused =
        place.run("run in --out out --codec zstd:3 --block 2GiB --name t").await.with_code(2);
    assert!(refused.stderr.contains("with zstd they have at most 1 GiB"), "{refused:?}");
    assert!(refused.stderr.contains("hint: choose a smaller --block"), "{refused:?}");
    place.run("run in --out out --codec gzip:1 --block 2GiB --name t -q").await.with_code(0);
}

/// Its size is made up when it is read, and is more than what is read to find out.
#[tokio::test]
async fn a_long_file_without_a_size_fails_with_a_hint_and_a_short_one_does_not() {
    let kallsyms = Path::new("/proc/kallsyms");
    assert!(fs::read(kallsyms).unwrap().len() > MIB, "it is a long one");
    for transfer in ["auto", "wire"] {
        let place = Place::new().await;
        let words = format!(
            "run /proc/kallsyms /proc/version --out out --name t -q --codec zstd:3 --transfer {transfer}"
        );
        place.run(&words).await.with_code(1);
        let (cause, why) = failure(&place.folder("t/staged"), 0);
        assert_eq!(cause, "input-unreadable", "{transfer}");
        assert!(why.ends_with("gzip needs none"), "{transfer}: {why}");
        let version = decoded(&place.path("out/version.zst"));
        assert_eq!(version, fs::read("/proc/version").unwrap(), "{transfer}");
    }
}

#[tokio::test]
async fn a_bag_is_refused_while_a_worker_is_connected_that_would_fail_its_tasks() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let by_hand = Broker::connect(&Address::plain(server.url()), Role::Worker).await.unwrap();
    let stats = || ServiceStats {
        pool: "default".to_owned(),
        codecs: vec!["zlib=zlib-rs/0.6.8+2".to_owned(), "gzip=zlib-rs/0.6.8+2".to_owned()],
        version: "0.0.9".to_owned(),
        ..ServiceStats::default()
    };
    let earlier = Service::start(&by_hand, HashMap::new(), stats).await.unwrap();
    let _worker = place.worker(&server);
    let bag = "--tasks 3 --bytes 64KiB --codec zstd:3";
    fs::write(place.path("file.zst"), b"looked at by a worker only").unwrap();
    let words = [
        format!("submit {bag} --name s"),
        format!("run {bag} --name r"),
        "restore file.zst --out back --name b".to_owned(),
        "run --from-jsonl list --out out --name l".to_owned(),
    ];
    fs::write(place.path("list"), r#"{"file":"file.zst","codec":"zstd:9"}"#).unwrap();
    for words in words {
        let refused = place.run(&format!("{words} {at}")).await.with_code(2);
        assert!(refused.stderr.contains("do not know the codec zstd"), "{refused:?}");
        assert!(refused.stderr.contains("of version 0.0.9"), "{refused:?}");
        assert!(refused.stderr.contains("hint: update these workers"), "{refused:?}");
    }
    drop(earlier);
    // Without it the bag that was refused goes on.
    let gather = format!("gather runs/r/staged -q {at}");
    let ended = eventually("the worker is known to be gone", SOON, async || {
        let ended = place.run(&gather).await;
        (ended.code != Some(2)).then_some(ended)
    });
    ended.await.with_code(0);
    expect_each_done_once(&place.folder("r/staged"), 3);
}

/// As a worker of this version does when it meets a codec that it does not know.
#[tokio::test]
async fn a_task_by_a_codec_of_a_later_version_is_given_back_and_not_failed() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let submit = format!("submit --tasks 2 --bytes 64KiB --codec zlib:6 --name t {at}");
    place.run(&submit).await.with_code(0);
    let client = async_nats::connect(server.url()).await.unwrap();
    let context = jetstream::new(client.clone());
    let tasks = context.get_stream("BAG_TASKS").await.unwrap();
    let subject = format!("bag.task.default.{}.0.0", bag_of(&place, "t/staged"));
    let own = tasks.get_last_raw_message_by_subject(&subject).await.unwrap();
    assert!(tasks.delete_message(own.sequence).await.unwrap());
    let later = String::from_utf8(own.payload.to_vec()).unwrap().replace("zlib:6", "later:6");
    let published = context.publish(subject.clone(), later.clone().into()).await.unwrap();
    let sequence = published.await.unwrap().sequence;
    let _worker = place.worker(&server);
    let gather = place.spawn(&format!("gather runs/t/staged -q {at}"));
    until_status(&place, "it was given back", &format!("runs/t/staged {at}"), |bag| {
        (bag["given_back"]["codec-version"].as_u64() >= Some(1)).then_some(())
    })
    .await;
    // Offered by a queue group it is not failed either.
    let answer = eventually("a slot is idle", SOON, async || {
        client.request("bag.run.default", later.clone().into()).await.ok()
    });
    let answer = answer.await;
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(answer["refused"]["cause"], "codec-version", "{answer}");
    let why = answer["refused"]["message"].as_str().unwrap();
    assert!(why.starts_with("unknown codec `later`: known are zlib, gzip, zstd"), "{why}");
    assert!(tasks.delete_message(sequence).await.unwrap());
    context.publish(subject, own.payload).await.unwrap().await.unwrap();
    gather.ended(&place).await.with_code(0);
    expect_each_done_once(&place.folder("t/staged"), 2);
}
