//! Both result paths give the same bytes, which anybody's tools can read.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use async_nats::jetstream::{self, object_store::ObjectStore};
use bagpress_codec::DataKind;
use rustix::process::Signal;
use tokio::io::AsyncReadExt;

use crate::harness::{Place, Running};
use crate::ledger::{digests, expect_each_done_once, generated, generated_digest};

const BYTES: usize = 64 * 1024;

/// Digests of what Python's zlib makes of the outputs.
async fn digests_by_python(place: &Place, results: &Path) -> BTreeMap<u64, String> {
    let program = "import glob, hashlib, re, sys, zlib\n\
        for path in glob.glob(sys.argv[1] + '/out_*.bin'):\n    \
            data = zlib.decompress(open(path, 'rb').read())\n    \
            print(re.search('out_([0-9]+)', path)[1], hashlib.sha256(data).hexdigest())";
    let mut python = place.command(Path::new("python3"), "");
    python.arg("-c").arg(program).arg(results);
    let ended = place.finish(python).await.with_code(0);
    let parse = |line: &str| {
        let (index, digest) = line.split_once(' ').unwrap();
        (index.parse().unwrap(), format!("sha256:{digest}"))
    };
    ended.stdout.lines().map(parse).collect()
}

async fn same_bytes(kind: DataKind) {
    let place = Place::new().await;
    let bag = format!("run --tasks 24 --bytes 64KiB --data {kind} --codec zlib:6 --workers 2 -q");
    place.run(&format!("{bag} --name t --results staged")).await.with_code(0);
    place.run(&format!("{bag} --name t --results objects")).await.with_code(0);
    place.run(&format!("{bag} --name wire --transfer wire")).await.with_code(0);
    for results in ["staged", "objects"] {
        let offered = format!("{bag} --name offered --results {results} --delivery queue-group");
        place.run(&offered).await.with_code(0);
    }

    let staged = digests(&place.folder("t/staged"));
    assert_eq!(staged, digests(&place.folder("t/objects")));
    assert_eq!(staged, digests(&place.folder("wire/staged")));
    assert_eq!(staged, digests(&place.folder("offered/staged")));
    assert_eq!(staged, digests(&place.folder("offered/objects")));
    for folder in ["t/staged", "t/objects", "wire/staged", "offered/staged", "offered/objects"] {
        expect_each_done_once(&place.folder(folder), 24);
        place.run(&format!("verify runs/{folder}")).await.with_code(0);
    }
    let by_python = digests_by_python(&place, &place.folder("t/staged/results")).await;
    assert_eq!(by_python.len(), 24);
    for index in 0..24 {
        let expected = generated_digest(kind, index, BYTES);
        assert_eq!(staged[&u64::from(index)].0, expected);
        assert_eq!(by_python[&u64::from(index)], expected);
    }
    place.expect_no_warnings(&[]);
}

#[tokio::test]
async fn random_bytes_come_back_alike_by_every_way() {
    same_bytes(DataKind::Random).await;
}

#[tokio::test]
async fn text_comes_back_alike_by_every_way() {
    same_bytes(DataKind::Text).await;
}

#[tokio::test]
async fn a_flipped_byte_is_named_and_repaired() {
    let place = Place::new().await;
    let bag = "run --tasks 6 --bytes 64KiB --codec zlib:6 --workers 2 --name t -q";
    place.run(bag).await.with_code(0);
    let output = place.folder("t/staged/results/out_4.bin");
    let sound = fs::read(&output).unwrap();
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    fs::write(&output, flipped).unwrap();

    let verified = place.run("verify runs/t/staged").await.with_code(1);
    assert!(verified.stdout.contains("out_4.bin"), "{verified:?}");
    assert!(!verified.stdout.contains("out_3.bin"), "{verified:?}");
    assert!(verified.stderr.contains("--repair"), "{verified:?}");
    // One that is gone was made: its task is done, and its output is not good.
    fs::remove_file(&output).unwrap();
    let verified = place.run("verify runs/t/staged").await.with_code(1);
    assert!(verified.stdout.contains("out_4.bin: it is gone\n"), "{verified:?}");
    assert!(verified.stdout.contains(" good, 1 bad, 0 not done, 0 failed"), "{verified:?}");

    place.run("gather runs/t/staged --repair --workers 2 -q").await.with_code(0);
    assert!(fs::read(&output).unwrap() == sound);
    place.run("verify runs/t/staged").await.with_code(0);
}

/// Starts a server on a run's store.
pub(crate) async fn server_of(place: &Place, run: &str) -> (Running, String) {
    let words = format!("broker --store runs/{run}/.broker --listen 127.0.0.1:-1");
    let broker = place.spawn(&words);
    let url = place
        .until("the broker says where it listens", || {
            let stderr = broker.stderr();
            let (_, rest) = stderr.split_once("broker: ")?;
            Some(rest.split_once(" (store")?.0.to_owned())
        })
        .await;
    (broker, url)
}

pub(crate) async fn bucket_of(place: &Place, run: &str, url: &str) -> ObjectStore {
    let text = fs::read(place.folder(run).join("bag.json")).unwrap();
    let specification: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let token = fs::read_to_string(place.folder(run).join(".broker/token")).unwrap();
    let options = async_nats::ConnectOptions::with_token(token.trim_end().to_owned());
    let context = jetstream::new(options.connect(url).await.unwrap());
    let bucket = format!("bag-{}", specification["bag"].as_str().unwrap());
    context.get_object_store(&bucket).await.unwrap()
}

#[tokio::test]
async fn objects_open_with_the_clients_own_object_store() {
    let place = Place::new().await;
    let bag = "run --tasks 5 --bytes 1500KiB --codec zlib:1 --workers 2 --name t -q";
    place.run(&format!("{bag} --results objects")).await.with_code(0);
    let (broker, url) = server_of(&place, "t/objects").await;
    let bucket = bucket_of(&place, "t/objects", &url).await;
    for index in 0..5 {
        let mut stored = Vec::new();
        let mut object = bucket.get(format!("out_{index}.bin")).await.unwrap();
        object.read_to_end(&mut stored).await.unwrap();
        let mut data = Vec::new();
        flate2::read::ZlibDecoder::new(&stored[..]).read_to_end(&mut data).unwrap();
        assert!(data == generated(DataKind::Random, index, 1_536_000));
    }
    broker.signal(Signal::TERM);
    broker.ended(&place).await.with_code(0);
}

#[tokio::test]
async fn a_lost_object_is_named_and_made_again() {
    let place = Place::new().await;
    let bag = "run --tasks 4 --bytes 64KiB --codec zlib:6 --workers 2 --name t -q";
    place.run(&format!("{bag} --results objects")).await.with_code(0);
    let before = digests(&place.folder("t/objects"));
    let (broker, url) = server_of(&place, "t/objects").await;
    bucket_of(&place, "t/objects", &url).await.delete("out_2.bin").await.unwrap();
    broker.signal(Signal::TERM);
    broker.ended(&place).await.with_code(0);

    let verified = place.run("verify runs/t/objects").await.with_code(1);
    assert!(verified.stdout.contains("out_2.bin"), "{verified:?}");
    place.run("gather runs/t/objects --repair --workers 2 -q").await.with_code(0);
    place.run("verify runs/t/objects").await.with_code(0);
    assert_eq!(digests(&place.folder("t/objects")), before);
}
