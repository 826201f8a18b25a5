//! A large file is many tasks, and one output that every tool reads whole, whatever happens to its blocks.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bagpress_codec::DataKind;
use rustix::process::Signal;
use serde_json::Value;

use crate::control::context;
use crate::death::DELIVERIES;
use crate::files::write;
use crate::harness::{Place, Running};
use crate::ledger::{failure, generated, outcomes};
use crate::process;
use crate::taken::{content, run_of};

const MIB: usize = 1024 * 1024;

/// By path, over the wire, and as objects that are fetched, by both deliveries.
fn ways() -> impl Iterator<Item = String> {
    DELIVERIES.into_iter().flat_map(|delivery| {
        ["--transfer auto", "--transfer wire", "--results objects"]
            .map(|how| format!("--delivery {delivery} {how}"))
    })
}

/// The run's folder, by how it was run.
fn folder(place: &Place, how: &str) -> PathBuf {
    place.path(&run_of("t", how))
}

/// Files of `in/`, most of which are cut by `--block 1MiB`.
fn files(place: &Place) -> Vec<(&'static str, Vec<u8>)> {
    let text = |bytes| generated(DataKind::Text, 0, bytes);
    let mut mixed = text(2 * MIB);
    mixed.extend(generated(DataKind::Random, 0, 2 * MIB + 77));
    let files = vec![
        ("small", b"small\n".to_vec()),
        ("text", text(5 * MIB + 1)),
        ("one block", text(MIB)),
        ("more than one", text(MIB + 1)),
        ("noise", generated(DataKind::Random, 1, 3 * MIB)),
        ("mixed", mixed),
        ("zeros", vec![0; 4 * MIB]),
    ];
    for (name, bytes) in &files {
        write(&place.path("in").join(name), bytes);
    }
    files
}

/// Outcomes of files, by index; fails if one has two in a round.
pub(crate) fn of_files(folder: &Path, files: usize) -> BTreeMap<u64, Value> {
    let mut found = BTreeMap::new();
    for outcome in outcomes(folder) {
        let (index, round) = (outcome["index"].as_u64().unwrap(), &outcome["round"]);
        if index < files as u64 {
            let before = found.insert(index, outcome.clone());
            assert!(before.is_none_or(|before| before["round"] != *round), "{index} twice");
        }
    }
    found
}

/// Fails unless each file is done once, and each block at most once a round; `files` of them.
pub(crate) fn expect_done(folder: &Path, files: usize) {
    let done = of_files(folder, files);
    assert_eq!(done.len(), files);
    assert!(done.values().all(|outcome| outcome["round"] == 0), "{done:?}");
    assert!(done.values().all(|outcome| outcome["outcome"].get("done").is_some()), "{done:?}");
    let keys = |o: &Value| (o["index"].as_u64().unwrap(), o["round"].as_u64().unwrap());
    let mut keys: Vec<_> = outcomes(folder).iter().map(keys).collect();
    keys.sort_unstable();
    assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "{keys:?}");
}

fn blocks(folder: &Path, files: usize) -> usize {
    outcomes(folder).iter().filter(|o| o["index"].as_u64().unwrap() >= files as u64).count()
}

fn expect_outputs(place: &Place, files: &[(&str, Vec<u8>)]) {
    for (name, bytes) in files {
        let output = place.path(&format!("out/in/{name}.gz"));
        assert_eq!(&content(&output), bytes, "{name}");
        expect_stock_tools_read(&output, bytes);
    }
    let left = walkdir::WalkDir::new(place.path("out")).into_iter().map(Result::unwrap);
    let left: Vec<_> = left.filter(|e| e.path().to_string_lossy().contains(".bagpress")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// To its end, and with one member: what stands behind a first member some readers never see.
fn expect_stock_tools_read(output: &Path, bytes: &[u8]) {
    let gzip = Command::new("gzip").arg("-dc").arg(output).output().unwrap();
    assert!(gzip.status.success() && gzip.stdout == bytes, "{}", output.display());
    let one = "import sys, zlib; d = zlib.decompressobj(31); d.decompress(open(sys.argv[1], 'rb').read()); \
               sys.exit(0 if d.eof and not d.unused_data else 1)";
    let whole = "import gzip, sys; print(len(gzip.open(sys.argv[1]).read()))";
    let python =
        |program: &str| Command::new("python3").arg("-c").arg(program).arg(output).output();
    assert!(python(one).unwrap().status.success(), "{} is one member", output.display());
    let length = python(whole).unwrap().stdout;
    assert_eq!(String::from_utf8_lossy(&length).trim(), bytes.len().to_string());
}

#[tokio::test]
async fn a_large_file_is_many_tasks_and_one_output_by_every_way() {
    for how in ways() {
        let place = Place::new().await;
        let files = files(&place);
        let run = format!("run in --out out --name t -q --block 1MiB --workers 2 {how}");
        let ended = place.run(&run).await.with_code(0);
        let folder = folder(&place, &how);
        expect_done(&folder, files.len());
        assert_eq!(blocks(&folder, files.len()), 6 + 2 + 3 + 5 + 4, "{how}");
        expect_outputs(&place, &files);
        assert!(
            ended.stdout.contains("7/7, failed: 0"),
            "files are counted, and no blocks: {ended:?}"
        );
        place.run(&format!("verify {} --inputs", run_of("t", &how))).await.with_code(0);
        // Mode and time are those of the source.
        let times = ["in/text", "out/in/text.gz"].map(|path| {
            let metadata = fs::metadata(place.path(path)).unwrap();
            (metadata.permissions(), metadata.modified().unwrap())
        });
        assert_eq!(times[0], times[1]);
    }
}

#[tokio::test]
async fn every_codec_that_stores_joins_its_blocks() {
    for codec in ["zlib:1", "zlib:9,full", "gzip:1", "zstd:3", "zstd:1,long", "store"] {
        let place = Place::new().await;
        let files = files(&place);
        let run = format!("run in --out out --name t -q --block 1MiB --workers 2 --codec {codec}");
        place.run(&run).await.with_code(0);
        expect_done(&place.folder("t/staged"), files.len());
        place.run("verify runs/t/staged --inputs").await.with_code(0);
    }
}

/// A bag of one file of so many blocks, which take a while.
pub(crate) const RUN: &str = "--out out --name t -q --block 1MiB --codec gzip:9,full";

pub(crate) fn large_of(place: &Place, blocks: usize) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = generated(DataKind::Text, 3, (blocks - 1) * MIB + 5);
    write(&place.path("in/large"), &bytes);
    vec![("large", bytes)]
}

fn large(place: &Place) -> Vec<(&'static str, Vec<u8>)> {
    large_of(place, 13)
}

pub(crate) async fn some_blocks(place: &Place, folder: &Path, at_least: usize) {
    place
        .until("some blocks are counted", || (outcomes(folder).len() >= at_least).then_some(()))
        .await;
}

#[tokio::test]
async fn a_worker_that_dies_within_blocks_costs_the_file_nothing() {
    for delivery in DELIVERIES {
        let place = Place::new().await;
        let (files, folder) = (large(&place), place.folder("t/staged"));
        let run = place.spawn(&format!("run in {RUN} --workers 2 --delivery {delivery}"));
        some_blocks(&place, &folder, 3).await;
        let children = process::children(run.pid());
        let victim = children.iter().find(|child| child.is_worker()).unwrap();
        process::signal(victim.pid, Signal::KILL);
        run.ended(&place).await.with_code(0);
        expect_done(&folder, 1);
        expect_outputs(&place, &files);
    }
}

/// Kills a run of [`large_of`], with all that it started, once its middle is reached; whether its file was not done by then.
pub(crate) async fn killed_in(place: &Place, run: Running, middle: impl Fn() -> bool) -> bool {
    let output = place.path("out/in/large.gz");
    place.until("a run is in its middle", || (middle() || output.exists()).then_some(())).await;
    let workers = process::children(run.pid());
    run.signal(Signal::KILL);
    let ended = run.ended(place).await;
    place.until_gone(&process::pids(&workers)).await;
    ended.code.is_none() && !output.exists()
}

/// What a try gave in time: where a machine has other work, all blocks may be counted at once, and joined before anybody sees it.
pub(crate) async fn in_time<T>(mut one_try: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..10 {
        if let Some(given) = one_try().await {
            return given;
        }
    }
    panic!("all of it was always done");
}

#[tokio::test]
async fn a_run_that_is_killed_within_a_join_goes_on_and_executes_no_block_twice() {
    for how in ways() {
        let run = format!("run in {RUN} --workers 2 {how}");
        let (place, files) = in_time(async || {
            let place = Place::new().await;
            let (files, folder) = (large_of(&place, 24), folder(&place, &how));
            for counted in [2, 6, 10] {
                let middle = || outcomes(&folder).len() >= counted;
                if !killed_in(&place, place.spawn(&run), middle).await {
                    return None;
                }
            }
            Some((place, files))
        })
        .await;
        let folder = folder(&place, &how);
        place.run(&run).await.with_code(0);
        expect_done(&folder, 1);
        let rounds: Vec<_> =
            outcomes(&folder).iter().map(|o| o["round"].as_u64().unwrap()).collect();
        assert_eq!(rounds, [0; 25], "{how}: what was counted is joined");
        expect_outputs(&place, &files);
    }
}

pub(crate) fn part_files(place: &Place) -> Vec<PathBuf> {
    let parts = walkdir::WalkDir::new(place.path("out/.bagpress-part")).into_iter();
    let parts = parts.filter_map(Result::ok).filter(|entry| entry.file_type().is_file());
    parts.map(walkdir::DirEntry::into_path).collect()
}

#[tokio::test]
async fn a_block_that_was_counted_and_whose_bytes_are_gone_is_run_again() {
    for delivery in DELIVERIES {
        let run = format!("run in {RUN} --workers 2 --delivery {delivery}");
        let (place, files) = in_time(async || {
            let place = Place::new().await;
            let (files, folder) = (large_of(&place, 24), place.folder("t/staged"));
            let middle = || outcomes(&folder).len() >= 4;
            killed_in(&place, place.spawn(&run), middle).await.then_some((place, files))
        })
        .await;
        let folder = place.folder("t/staged");
        for part in part_files(&place) {
            fs::remove_file(part).unwrap();
        }
        place.run(&run).await.with_code(0);
        let again = outcomes(&folder).iter().filter(|o| o["round"] == 1).count();
        assert!(again >= 4, "{again} by {delivery}");
        expect_done(&folder, 1);
        expect_outputs(&place, &files);
        place.run("verify runs/t/staged --inputs").await.with_code(0);
    }
}

#[tokio::test]
async fn a_file_that_changes_between_two_blocks_fails_once_and_is_run_again_whole() {
    // As an object it was read before.
    for how in ways().filter(|how| !how.contains("objects")) {
        let (place, server) = Place::with_server().await;
        let (at, folder) = (format!("--server {}", server.url()), folder(&place, &how));
        large(&place);
        write(&place.path("in/other"), b"another file");
        let worker = place.spawn(&format!("worker --slots 1 --allow / {at}"));
        let run = place.spawn(&format!("run in {RUN} {how} {at}"));
        some_blocks(&place, &folder, 3).await;
        let changed = generated(DataKind::Text, 4, 3 * MIB);
        write(&place.path("in/large"), &changed);
        run.ended(&place).await.with_code(1);
        assert_eq!(failure(&folder, 0).0, "input-changed", "{how}");
        let tasks = context(&server).await.get_stream("BAG_TASKS").await.unwrap();
        assert_eq!(tasks.cached_info().state.messages, 0, "none of its blocks waits: {how}");
        let again = format!("gather {} -q --retry-failed {at}", run_of("t", &how));
        place.run(&again).await.with_code(0);
        drop(worker);
        let again = &of_files(&folder, 2)[&0];
        assert_eq!((&again["round"], again["worker"] == "producer"), (&1.into(), false), "{how}");
        expect_outputs(&place, &[("large", changed), ("other", b"another file".to_vec())]);
    }
}

#[tokio::test]
async fn an_output_that_was_joined_and_is_damaged_is_found_and_made_again() {
    let place = Place::new().await;
    let files = large(&place);
    place.run(&format!("run in {RUN} --workers 2")).await.with_code(0);
    let output = place.path("out/in/large.gz");
    let mut bytes = fs::read(&output).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&output, bytes).unwrap();
    place.run("verify runs/t/staged").await.with_code(1);
    place.run("gather runs/t/staged -q --repair --workers 2").await.with_code(0);
    place.run("verify runs/t/staged --inputs").await.with_code(0);
    assert_eq!(content(&output), files[0].1);
}

/// As a ledger that is damaged, whose blocks are gone.
#[tokio::test]
async fn the_line_of_a_joined_file_that_is_lost_is_written_again_from_its_output() {
    let place = Place::new().await;
    let (files, folder) = (large(&place), place.folder("t/staged"));
    let run = format!("run in {RUN} --workers 2");
    place.run(&run).await.with_code(0);
    let ledger = folder.join("manifest.jsonl");
    let lines = fs::read_to_string(&ledger).unwrap();
    let of_blocks: Vec<_> = lines.lines().filter(|line| !line.contains(r#""index":0,"#)).collect();
    assert_eq!(of_blocks.len(), 13);
    fs::write(&ledger, of_blocks.join("\n") + "\n").unwrap();
    for summary in ["summary.txt", "summary.json"] {
        fs::remove_file(folder.join(summary)).unwrap();
    }
    place.run("gather runs/t/staged -q --repair --workers 2").await.with_code(0);
    expect_done(&folder, 1);
    let rounds = outcomes(&folder).iter().filter(|outcome| outcome["round"] != 0).count();
    assert_eq!(rounds, 0, "its output proves it");
    expect_outputs(&place, &files);
}

#[tokio::test]
async fn a_bag_that_is_cancelled_within_blocks_goes_on_when_it_is_resumed() {
    let (place, server) = Place::with_server().await;
    let (files, folder) = (large(&place), place.folder("t/staged"));
    let at = format!("--server {}", server.url());
    let _worker = place.spawn(&format!("worker --slots 1 --allow / {at}"));
    let run = place.spawn(&format!("run in {RUN} {at}"));
    some_blocks(&place, &folder, 3).await;
    place.run(&format!("cancel runs/t/staged {at}")).await.with_code(0);
    run.ended(&place).await.with_code(1);
    place.run(&format!("gather runs/t/staged -q --resume {at}")).await.with_code(0);
    expect_done(&folder, 1);
    expect_outputs(&place, &files);
}

#[tokio::test]
async fn blocks_of_no_size_or_of_what_is_no_file_are_refused_before_anything_begins() {
    let place = Place::new().await;
    write(&place.path("in/file"), b"bytes");
    for (words, why) in [
        ("in --out out --block 1KiB", "blocks of 1024 bytes"),
        ("in --out out --block large", "is no size of blocks"),
        ("in --results objects --block 8MiB", "joined to files"),
        ("--tasks 2 --bytes 2MiB --block 8MiB", "blocks are made of files"),
        ("in --out out --codec noop --block 8MiB", "with a codec that stores them"),
    ] {
        let ended = place.run(&format!("run {words} --name t")).await.with_code(2);
        assert!(ended.stderr.contains(why), "{words}: {ended:?}");
        assert!(!place.path("runs/t").exists());
    }
}

#[tokio::test]
async fn no_file_is_cut_of_up_to_64_mib_or_where_nobody_wants_it() {
    for (bytes, how, cut) in
        [(64 * MIB, "", false), (64 * MIB + 1, "", true), (65 * MIB, "--block none", false)]
    {
        let place = Place::new().await;
        write(&place.path("in/zeros"), &vec![0; bytes]);
        let run = format!("run in --out out --name t -q --workers 2 --codec gzip:1 {how}");
        place.run(&run).await.with_code(0);
        assert_eq!(blocks(&place.folder("t/staged"), 1) > 0, cut, "{bytes} {how}");
        place.run("verify runs/t/staged").await.with_code(0);
    }
}
