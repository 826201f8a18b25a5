//! Files of equal content are compressed once: the others get that output, whatever happens meanwhile, and never another's.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bagpress_codec::DataKind;
use rustix::process::Signal;
use serde_json::Value;

use crate::death::DELIVERIES;
use crate::files::write;
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, failure, generated};
use crate::taken::{content, run_of};

const KIB: usize = 1024;

fn at(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    File::open(path).unwrap().set_modified(time).unwrap();
}

pub(crate) fn summary(place: &Place, run: &str) -> Value {
    serde_json::from_slice(&fs::read(place.path(run).join("summary.json")).unwrap()).unwrap()
}

/// Two contents of one size that differ by a byte which no sample has.
fn contents() -> [Vec<u8>; 2] {
    let one = generated(DataKind::Text, 1, 200 * KIB);
    let mut other = one.clone();
    other[50 * KIB] ^= 1;
    [one, other]
}

/// `a`, `b` and `c` have one content, `c` at another time; `d` only seems to; `e` is too small to be looked at.
pub(crate) fn files(place: &Place) -> Vec<(&'static str, Vec<u8>)> {
    let [one, other] = contents();
    let small = vec![7; 10];
    let files =
        [("a", &one), ("b", &one), ("c", &one), ("d", &other), ("e", &small), ("f", &small)];
    for (name, bytes) in files {
        write(&place.path("in").join(name), bytes);
        at(&place.path("in").join(name), if name == "c" { 2_000_000 } else { 1_000_000 });
    }
    files.map(|(name, bytes)| (name, bytes.clone())).into()
}

fn expect_outputs(place: &Place, files: &[(&str, Vec<u8>)], how: &str) {
    for (name, bytes) in files {
        let output = place.path(&format!("out/in/{name}.gz"));
        assert!(content(&output) == *bytes, "{how} {name}");
        let source = fs::metadata(place.path("in").join(name)).unwrap();
        let made = fs::metadata(&output).unwrap();
        assert_eq!((made.mode(), made.mtime()), (source.mode(), source.mtime()), "{how} {name}");
    }
}

#[tokio::test]
async fn a_file_with_the_content_of_another_gets_its_output_by_every_way() {
    let ways = DELIVERIES.into_iter().flat_map(|delivery| {
        ["--transfer auto", "--transfer wire", "--results objects", "--pack 4"]
            .map(|how| format!("--delivery {delivery} {how}"))
    });
    for how in ways {
        let place = Place::new().await;
        let files = files(&place);
        place.run(&format!("run in --out out --name t -q --workers 2 {how}")).await.with_code(0);
        let run = run_of("t", &how);
        expect_each_done_once(&place.path(&run), files.len() as u64);
        expect_outputs(&place, &files, &how);
        let sum = summary(&place, &run);
        assert_eq!((&sum["twins"], &sum["twin_bytes"]), (&2.into(), &409_600.into()), "{how}");
        let text = fs::read_to_string(place.path(&run).join("summary.txt")).unwrap();
        let row = "not made again  2 of them have the output of another, with the same input";
        assert!(text.contains(row), "{how} {text}");
        let status = place.run(&format!("status {run} in/b")).await.with_code(0);
        assert!(status.stdout.contains("its output is that of task 0"), "{status:?}");
        place.run(&format!("verify {run} --inputs")).await.with_code(0);
        place.run(&format!("restore {run} --out back -q")).await.with_code(0);
        for (name, bytes) in &files {
            assert!(fs::read(place.path(&format!("back/in/{name}"))).unwrap() == *bytes, "{name}");
        }
        // Whatever became of the files, each output is removed by its name.
        place.run(&format!("rm {run} --outputs")).await.with_code(0);
        assert!(!place.path("out/in/a.gz").exists() && !place.path("out/in/b.gz").exists());
    }
}

#[tokio::test]
async fn outputs_share_their_bytes_on_disk_where_they_are_alike() {
    let place = Place::new().await;
    files(&place);
    place.run("run in --out out --name t -q --workers 1").await.with_code(0);
    let inode = |name: &str| fs::metadata(place.path(&format!("out/in/{name}.gz"))).unwrap().ino();
    // Not so where blocks are shared instead, as btrfs and xfs do.
    let shares_blocks = fs::metadata(place.path("out/in/a.gz")).unwrap().nlink() == 1;
    assert!(shares_blocks || inode("a") == inode("b"));
    assert_ne!(inode("a"), inode("c"), "they have other times");
    // What a later run puts there replaces one of the names only.
    write(&place.path("in/a"), b"another content");
    place.run("run in --out out --name u -q --workers 1 --update").await.with_code(0);
    assert_eq!(content(&place.path("out/in/a.gz")), b"another content");
    assert!(content(&place.path("out/in/b.gz")) == contents()[0]);
}

#[tokio::test]
async fn every_file_is_compressed_where_that_is_asked_for() {
    let place = Place::new().await;
    let files = files(&place);
    let run = "run in --out out --name t -q --workers 1 --no-dedup";
    place.run(run).await.with_code(0);
    expect_outputs(&place, &files, "");
    assert_eq!(summary(&place, "runs/t/staged")["twins"], 0);
    assert!(!place.path("runs/t/staged/twins.jsonl").exists());
    let run = "run in --results objects --name o -q --workers 1 --no-dedup";
    place.run(run).await.with_code(0);
    assert_eq!(summary(&place, "runs/o/objects")["twins"], 0);
}

#[tokio::test]
async fn twins_of_a_file_that_fails_or_changes_are_compressed() {
    for (what, cause) in [("gone", "input-missing"), ("changed", "input-changed")] {
        let (place, server) = Place::with_server().await;
        let at_server = format!("--server {}", server.url());
        let files = files(&place);
        let submit = format!("submit in --out out --name t {at_server}");
        place.run(&submit).await.with_code(0);
        match what {
            "gone" => fs::remove_file(place.path("in/a")).unwrap(),
            _ => write(&place.path("in/a"), b"another one"),
        }
        let _worker = place.worker(&server);
        place.run(&format!("gather runs/t/staged -q {at_server}")).await.with_code(1);
        assert_eq!(failure(&place.folder("t/staged"), 0).0, cause);
        for (name, bytes) in &files[1..] {
            assert!(content(&place.path(&format!("out/in/{name}.gz"))) == *bytes, "{what} {name}");
        }
    }
}

#[tokio::test]
async fn a_twin_that_changes_meanwhile_gets_no_output_of_another() {
    let (place, server) = Place::with_server().await;
    let at_server = format!("--server {}", server.url());
    let files = files(&place);
    place.run(&format!("submit in --out out --name t {at_server}")).await.with_code(0);
    let changed = &files[3].1;
    write(&place.path("in/b"), changed);
    let _worker = place.worker(&server);
    place.run(&format!("gather runs/t/staged -q {at_server}")).await.with_code(1);
    assert_eq!(failure(&place.folder("t/staged"), 1).0, "input-changed");
    assert!(!place.path("out/in/b.gz").exists());
    let again = format!("gather runs/t/staged -q --retry-failed {at_server}");
    place.run(&again).await.with_code(0);
    assert!(content(&place.path("out/in/b.gz")) == *changed);
}

#[tokio::test]
async fn a_large_file_in_blocks_is_cut_and_joined_once() {
    for how in ["--transfer auto", "--results objects"] {
        let place = Place::new().await;
        let bytes = generated(DataKind::Text, 1, 3 * 1024 * KIB + 7);
        for name in ["a", "b"] {
            write(&place.path("in").join(name), &bytes);
        }
        let run = format!("run in --out out --name t -q --block 1MiB --workers 2 {how}");
        place.run(&run).await.with_code(0);
        for name in ["a", "b"] {
            assert!(content(&place.path(&format!("out/in/{name}.gz"))) == bytes, "{how} {name}");
        }
        let sum = summary(&place, &run_of("t", how));
        assert_eq!((&sum["twins"], &sum["completed"]), (&1.into(), &2.into()), "{how}");
    }
}

#[tokio::test]
async fn a_run_that_is_killed_among_many_twins_goes_on_with_them() {
    let place = Place::new().await;
    let contents: Vec<_> =
        (0..40).map(|index| generated(DataKind::Text, index, 300 * KIB)).collect();
    for copy in 0..6 {
        for (index, bytes) in contents.iter().enumerate() {
            write(&place.path(&format!("in/{copy}/{index}")), bytes);
        }
    }
    let running = place.spawn("run in --out out --name t -q --codec gzip:9 --workers 1");
    let folder = place.folder("t/staged");
    place
        .until("some are done, twins among them", || {
            let lines = fs::read_to_string(folder.join("manifest.jsonl")).ok()?;
            (lines.lines().count() > 20 && lines.contains("twin_of")).then_some(())
        })
        .await;
    running.signal(Signal::KILL);
    running.ended(&place).await;
    place.run("gather runs/t/staged -q --workers 2").await.with_code(0);
    expect_each_done_once(&folder, 240);
    for copy in 0..6 {
        for (index, bytes) in contents.iter().enumerate() {
            let output = place.path(&format!("out/in/{copy}/{index}.gz"));
            assert!(content(&output) == *bytes, "{copy} {index}");
        }
    }
    assert_eq!(summary(&place, "runs/t/staged")["twins"], 200);
}

/// A twin may be delivered before its first one: to run it is never wrong.
#[tokio::test]
async fn a_list_of_twins_that_is_damaged_costs_nothing_but_time() {
    for junk in ["junk\n", "{\"index\":3,\"first\":0}\n{\"index\":1,\"first\":1}\n", ""] {
        let (place, server) = Place::with_server().await;
        let at_server = format!("--server {}", server.url());
        let files = files(&place);
        place.run(&format!("submit in --out out --name t {at_server}")).await.with_code(0);
        fs::write(place.path("runs/t/staged/twins.jsonl"), junk).unwrap();
        let _worker = place.worker(&server);
        place.run(&format!("gather runs/t/staged -q {at_server}")).await.with_code(0);
        expect_each_done_once(&place.folder("t/staged"), files.len() as u64);
        expect_outputs(&place, &files, junk);
    }
}
