//! Small files that are delivered together: each has its own outcome, whatever becomes of the others.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bagpress_broker::testing::NatsServer;
use futures::StreamExt;
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::timeout;

use crate::control::{bag_of, context};
use crate::death::DELIVERIES;
use crate::files::write;
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, failure, outcomes};
use crate::process::{self, Child};
use crate::taken::{content, run_of};

const SECOND: Duration = Duration::from_secs(1);
const TRANSFERS: [&str; 2] = ["auto", "wire"];

/// By path, over the wire, and as objects that are fetched, by both deliveries.
fn ways() -> impl Iterator<Item = String> {
    DELIVERIES.into_iter().flat_map(|delivery| {
        let staged =
            TRANSFERS.map(|transfer| format!("--delivery {delivery} --transfer {transfer}"));
        staged.into_iter().chain([format!("--delivery {delivery} --results objects")])
    })
}

/// The run's folder, by how it was run.
pub(crate) fn folder(place: &Place, how: &str) -> PathBuf {
    place.path(&run_of("t", how))
}

/// Files of `in/`, with what is in each: some are empty, and one is too large for a pack.
pub(crate) fn some_files(place: &Place, files: usize) -> Vec<(String, Vec<u8>)> {
    let bytes = |number: usize| match number % 10 {
        0 => Vec::new(),
        7 if number == 17 => vec![7; 600 * 1024],
        _ => format!("file {number} ").repeat(number * 7).into_bytes(),
    };
    let all = (0..files).map(|number| (format!("in/{}/f {number:04}", number % 3), bytes(number)));
    let all: Vec<_> = all.collect();
    for (name, bytes) in &all {
        write(&place.path(name), bytes);
    }
    all
}

pub(crate) fn expect_all(place: &Place, files: &[(String, Vec<u8>)]) {
    for (name, bytes) in files {
        assert_eq!(&content(&place.path(&format!("out/{name}.gz"))), bytes, "{name}");
    }
}

/// How many executions the outcomes of a run are of.
pub(crate) fn executions(folder: &Path) -> usize {
    outcomes(folder)
        .iter()
        .map(|o| o["execution"].as_str().unwrap().to_owned())
        .collect::<BTreeSet<_>>()
        .len()
}

#[tokio::test]
async fn every_file_of_a_pack_is_done_once_by_every_way() {
    for how in ways() {
        let place = Place::new().await;
        let files = some_files(&place, 60);
        let run = format!("run in --out out --name t -q --pack 8 --workers 2 {how}");
        place.run(&run).await.with_code(0);
        let folder = folder(&place, &how);
        expect_each_done_once(&folder, 60);
        expect_all(&place, &files);
        // Eight at a time, but for the large one.
        assert!((8..=12).contains(&executions(&folder)), "{how}: {}", executions(&folder));
        place.run(&format!("verify {}", run_of("t", &how))).await.with_code(0);
    }
}

#[tokio::test]
async fn a_file_of_a_pack_that_changed_or_is_gone_fails_alone_and_runs_again_alone() {
    for how in ways() {
        let (place, server) = Place::with_server().await;
        some_files(&place, 24);
        let (folder, run) = (folder(&place, &how), run_of("t", &how));
        let at = format!("--server {}", server.url());
        place.run(&format!("submit in --out out --name t --pack 8 {how} {at}")).await.with_code(0);
        let is_objects = how.contains("objects");
        if is_objects {
            // So that the files are read once more, when they are as below.
            forget_what_waits(&server).await;
        }
        let list = fs::read_to_string(folder.join("inputs.jsonl")).unwrap();
        let paths = list.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let paths: Vec<_> = paths.map(|line| line["path"].as_str().unwrap().to_owned()).collect();
        let before = fs::read(&paths[3]).unwrap();
        fs::remove_file(&paths[3]).unwrap();
        fs::write(&paths[12], "it is another one now").unwrap();
        let _worker = place.spawn(&format!("worker --slots 1 --allow / {at}"));
        place.run(&format!("gather {run} -q {at}")).await.with_code(1);
        assert_eq!(failure(&folder, 3).0, "input-missing", "{how}");
        assert_eq!(failure(&folder, 12).0, "input-changed", "{how}");
        let done = outcomes(&folder).iter().filter(|o| o["outcome"].get("done").is_some()).count();
        assert_eq!(done, 22, "{how}");
        fs::write(&paths[3], before).unwrap();
        place.run(&format!("gather {run} -q --retry-failed {at}")).await.with_code(0);
        // What is not in the tar of its pack fails alone, in a round of its own.
        let round = if is_objects { 2 } else { 1 };
        let again: Vec<_> = outcomes(&folder).into_iter().filter(|o| o["round"] == round).collect();
        assert_eq!(again.len(), 2, "{how}");
        assert_eq!(again.iter().map(|o| o["execution"].as_str()).collect::<BTreeSet<_>>().len(), 2);
        // That of the summary, of the files themselves.
        place.run(&format!("verify {run}")).await.with_code(0);
    }
}

/// Whatever of a submitted bag waits at its server.
pub(crate) async fn forget_what_waits(server: &NatsServer) {
    let context = context(server).await;
    context.get_stream("BAG_TASKS").await.unwrap().purge().await.unwrap();
    let mut names = context.stream_names();
    while let Some(name) = names.next().await {
        let name = name.unwrap();
        if name.ends_with("-in") {
            context.delete_stream(name).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_name_that_is_taken_fails_one_file_of_its_pack() {
    for how in ways() {
        let (place, server) = Place::with_server().await;
        let files = some_files(&place, 24);
        let at = format!("--server {}", server.url());
        place.run(&format!("submit in --out out --name t --pack 8 {how} {at}")).await.with_code(0);
        let taken = place.path(&format!("out/{}.gz", files[5].0));
        write(&taken, b"somebody else's");
        let _worker = place.spawn(&format!("worker --slots 1 --allow / {at}"));
        place.run(&format!("gather {} -q {at}", run_of("t", &how))).await.with_code(1);
        let failed = outcomes(&folder(&place, &how))
            .into_iter()
            .filter(|o| o["outcome"].get("failed").is_some());
        let causes: Vec<_> = failed.map(|o| o["outcome"]["failed"]["cause"].clone()).collect();
        assert_eq!(causes, ["output-exists"], "{how}");
        assert_eq!(fs::read(&taken).unwrap(), b"somebody else's");
        for (name, bytes) in
            files.iter().enumerate().filter(|(at, _)| *at != 5).map(|(_, file)| file)
        {
            assert_eq!(&content(&place.path(&format!("out/{name}.gz"))), bytes, "{how}: {name}");
        }
    }
}

#[tokio::test]
async fn whoever_dies_in_the_middle_of_packs_loses_none_of_their_files() {
    for how in ways() {
        let place = Place::new().await;
        let files = some_files(&place, 1200);
        let folder = folder(&place, &how);
        let words = format!("in --out out --name t -q --pack 16 --workers 2 {how}");
        let run = place.spawn(&format!("run {words}"));
        place.until("it is in its middle", || (outcomes(&folder).len() >= 32).then_some(())).await;
        let children = process::children(run.pid());
        let worker = children.iter().find(|child| Child::is_worker(child)).unwrap();
        process::signal(worker.pid, Signal::KILL);
        run.ended(&place).await.with_code(0);
        expect_each_done_once(&folder, 1200);
        expect_all(&place, &files);
    }
}

#[tokio::test]
async fn a_gatherer_that_dies_in_the_middle_of_packs_is_continued() {
    for how in ways() {
        let (place, server) = Place::with_server().await;
        let files = some_files(&place, 1200);
        let folder = folder(&place, &how);
        let at = format!("--server {}", server.url());
        let _worker = place.spawn(&format!("worker --slots 1 --allow / {at}"));
        let run = place.spawn(&format!("run in --out out --name t -q --pack 16 {how} {at}"));
        place.until("it is in its middle", || (outcomes(&folder).len() >= 32).then_some(())).await;
        run.signal(Signal::KILL);
        drop(run);
        place.run(&format!("gather {} -q {at}", run_of("t", &how))).await.with_code(0);
        expect_each_done_once(&folder, 1200);
        expect_all(&place, &files);
    }
}

#[tokio::test]
async fn over_the_wire_the_inputs_of_a_pack_come_with_one_request() {
    let (place, server) = Place::with_server().await;
    let files = some_files(&place, 60);
    let asked = async_nats::connect(server.url()).await.unwrap();
    let mut asked = asked.subscribe("bag.up.*.input").await.unwrap();
    let at = format!("--server {}", server.url());
    let _worker = place.spawn(&format!("worker --slots 1 {at}"));
    let run = format!("run in --out out --name t -q --pack 8 --transfer wire {at}");
    place.run(&run).await.with_code(0);
    expect_all(&place, &files);
    let (mut packs, mut alone) = (BTreeSet::new(), BTreeSet::new());
    while let Ok(Some(request)) = timeout(SECOND, asked.next()).await {
        let request: Value = serde_json::from_slice(&request.payload).unwrap();
        let of = if request.get("pack").is_some() { &mut packs } else { &mut alone };
        of.insert(request["index"].as_u64());
    }
    // The large one is in no pack.
    assert!((8..=11).contains(&packs.len()) && alone.len() == 1, "{packs:?} {alone:?}");
}

/// A file that says that it is empty, and has megabytes.
#[tokio::test]
async fn a_file_without_a_size_that_is_too_long_for_its_pack_runs_alone() {
    for how in ways() {
        let place = Place::new().await;
        let files = some_files(&place, 12);
        let endless = "/proc/kallsyms";
        let list = files.iter().map(|(name, _)| name.as_str()).chain([endless]);
        write(&place.path("list"), list.collect::<Vec<_>>().join("\n").as_bytes());
        let run =
            format!("run --files-from list --out out --name t -q --pack 64 --workers 1 {how}");
        place.run(&run).await.with_code(0);
        expect_each_done_once(&folder(&place, &how), 13);
        expect_all(&place, &files);
        let there = content(&place.path(&format!("out/{endless}.gz")));
        assert_eq!(there, fs::read(endless).unwrap(), "{how}");
    }
}

#[tokio::test]
async fn status_of_a_bags_id_finds_each_file_of_a_pack() {
    for results in ["staged", "objects"] {
        let (place, server) = Place::with_server().await;
        some_files(&place, 24);
        let at = format!("--server {}", server.url());
        let _worker = place.spawn(&format!("worker --slots 1 --allow / {at}"));
        let run = format!("run in --out out --name t -q --pack 8 --results {results} {at}");
        place.run(&run).await.with_code(0);
        let folder = place.folder(&format!("t/{results}"));
        let bag = bag_of(&place, &format!("t/{results}"));
        for outcome in outcomes(&folder) {
            let index = &outcome["index"];
            let told = place.run(&format!("status {bag} {index} --json {at}")).await.with_code(0);
            let told: Value = serde_json::from_str(&told.stdout).unwrap();
            assert_eq!((&told["index"], &told["state"]), (index, &"done".into()), "{told}");
            let digest = |of: &Value| of["done"]["output_digest"].clone();
            assert_eq!(digest(&told["outcome"]), digest(&outcome["outcome"]), "{told}");
            assert_eq!(told["attempts"][0]["execution"], outcome["execution"], "{told}");
        }
    }
}

#[tokio::test]
async fn a_run_is_continued_with_the_packs_that_it_began_with() {
    let (place, server) = Place::with_server().await;
    let files = some_files(&place, 24);
    let bag = format!("in --out out --name t --server {}", server.url());
    place.run(&format!("submit {bag} --pack 1")).await.with_code(0);
    let _worker = place.spawn(&format!("worker --slots 1 --allow / --server {}", server.url()));
    let ended = place.run(&format!("run {bag} -q --pack 8")).await.with_code(0);
    assert!(ended.stderr.contains("continues the unfinished run"), "{ended:?}");
    expect_all(&place, &files);
    assert_eq!(executions(&place.folder("t/staged")), 24);
}

#[tokio::test]
async fn packs_are_of_files_and_of_at_most_64() {
    let place = Place::new().await;
    write(&place.path("in/a"), b"a");
    for (words, says) in [
        ("run in --out out --pack 65", "1 to 64 are possible"),
        ("run in --out out --pack 0", "1 to 64 are possible"),
        ("run --tasks 8 --bytes 1KiB --pack 4", "packs are made of files"),
        ("run in --out out --codec noop --pack 4", "packs are made of files"),
    ] {
        let ended = place.run(words).await.with_code(2);
        assert!(ended.stderr.contains(says), "{words}: {ended:?}");
    }
    place.run("run in --out out --name t -q --pack 1 --workers 1").await.with_code(0);
    let bag = fs::read_to_string(place.folder("t/staged/bag.json")).unwrap();
    assert!(!bag.contains("\"pack\""), "{bag}");
}
