//! What `restore` refuses before it begins, what it never overwrites, who may die while it works, and what fills a disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use bagpress_broker::descriptor::{Decode, Input, ResultPath, TaskDescriptor};
use bagpress_broker::ids::{BagId, Execution, TaskId};
use bagpress_broker::result::{Place as Stored, TaskResult};
use bagpress_broker::samples;
use bagpress_codec::DataKind;
use rustix::process::Signal;
use serde_json::Value;

use crate::control::{bag_of, broker};
use crate::death::DELIVERIES;
use crate::files::write;
use crate::harness::{Ended, Place};
use crate::ledger::{expect_each_done_once, failure, generated, outcomes};
use crate::process::{self, Child};
use crate::small_disk::OnSmallDisk;

fn expect_refused(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "{word} is not in: {ended:?}");
    }
}

/// A run of `in/`, with outputs in `out/`.
async fn a_run(place: &Place, files: u32, how: &str) {
    for number in 0..files {
        let bytes = generated(DataKind::Text, number, 60_000 + number as usize);
        write(&place.path(&format!("in/f{number:03}")), &bytes);
    }
    place.run(&format!("run in --name t -q --workers 2 {how}")).await.with_code(0);
}

fn expect_files(place: &Place, files: u32) {
    for number in 0..files {
        let name = format!("in/f{number:03}");
        let back = fs::read(place.path("back").join(&name)).unwrap();
        assert!(back == fs::read(place.path(&name)).unwrap(), "{name}");
    }
}

#[tokio::test]
async fn what_cannot_be_restored_is_refused_by_name_before_anything_begins() {
    let place = Place::new().await;
    a_run(&place, 2, "--out out").await;
    write(&place.path("notes.txt"), b"never compressed");
    write(&place.path("hollow/notes.txt"), b"never compressed");
    fs::create_dir(place.path("bare")).unwrap();
    let restore = async |words: &str| place.run(&format!("restore {words}")).await;
    let refused = restore("notes.txt --out back").await;
    expect_refused(&refused, &["notes.txt is not known to be compressed", ".gz", "run folder"]);
    expect_refused(&restore("gone.gz --out back").await, &["no such input: gone.gz"]);
    expect_refused(&restore("out/in/f000.gz").await, &["--out"]);
    expect_refused(&restore("--out back").await, &["BAG|FILE"]);
    let two = restore("runs/t/staged out/in/f000.gz --out back").await;
    expect_refused(&two, &["runs/t/staged is the folder of a run", "by itself"]);
    expect_refused(&restore("out/in --out out/in").await, &["also the folder of the outputs"]);
    let twice = restore("out/in/f000.gz out/in/f000.gz --out back").await;
    expect_refused(&twice, &["would have the same output"]);
    let idle = restore("out --out back --workers 2 --server nats://127.0.0.1:1").await;
    expect_refused(&idle, &["--workers does nothing with --server"]);
    let idle = restore("out --out back --creds f").await;
    expect_refused(&idle, &["--creds does nothing without --server"]);
    for flag in ["--codec gzip", "--update", "--results objects", "--block 8MiB", "--tasks 3"] {
        let unknown = restore(&format!("out --out back {flag}")).await;
        expect_refused(&unknown, &["unexpected argument"]);
    }
    expect_refused(&restore("out --out back --pack 65").await, &["packs of that many files"]);
    assert!(!place.path("back").exists());
    let runs: Vec<_> = fs::read_dir(place.path("runs")).unwrap().collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
    place.run("restore out --out back --name r -q --workers 1").await.with_code(0);
    let restored = restore("runs/r/staged --out more").await;
    expect_refused(&restored, &["is a run that restored"]);
    // Nothing was compressed in it: as `run` does, it is made as it is.
    expect_refused(&restore("bare/none --out back").await, &["no such input"]);
}

#[tokio::test]
async fn a_run_without_output_files_is_refused_with_what_helps() {
    let place = Place::new().await;
    a_run(&place, 2, "--results objects").await;
    let objects = place.run("restore runs/t/objects --out back").await;
    expect_refused(&objects, &["are objects, and no files", "--get"]);
    place.run("run --tasks 2 --codec noop --name n -q --workers 1").await.with_code(0);
    let nothing = place.run("restore runs/n --out back").await;
    expect_refused(&nothing, &["stored nothing", "noop"]);
    place.run("run in --out out --name m -q --workers 1").await.with_code(0);
    fs::rename(place.path("out"), place.path("moved")).unwrap();
    let moved = place.run("restore runs/m/staged --out back").await;
    expect_refused(&moved, &["the outputs of runs/m/staged are not there", "bring the folder"]);
    assert!(!place.path("back").exists());
}

#[tokio::test]
async fn a_file_that_says_nothing_fails_alone_in_its_folder() {
    let place = Place::new().await;
    a_run(&place, 2, "--out out").await;
    write(&place.path("out/in/notes.txt"), b"never compressed");
    let ended = place.run("restore out --out back --name r -q --workers 1").await.with_code(1);
    assert!(ended.stdout.contains("notes.txt"), "{ended:?}");
    let (cause, why) = failure(&place.folder("r/staged"), 2);
    assert_eq!(cause, "input-unreadable");
    assert!(why.contains("ends in none of .zz, .gz"), "{why}");
    assert!(!place.path("back/out/in/notes.txt").exists());
    assert!(place.path("back/out/in/f001").exists());
    // To try it again helps nothing, and does no harm.
    let again = "gather runs/r/staged --retry-failed -q --workers 1";
    place.run(again).await.with_code(1);
    assert!(!place.path("back/out/in/notes.txt").exists());
}

#[tokio::test]
async fn files_that_would_come_back_by_one_name_are_refused() {
    let place = Place::new().await;
    for (codec, name) in [("gzip", "g"), ("zstd", "z")] {
        write(&place.path("in/same"), codec.as_bytes());
        let run = format!("run in --out both --codec {codec} --name {name} -q --workers 1");
        place.run(&run).await.with_code(0);
    }
    let named = place.run("restore both/in/same.gz both/in/same.zst --out back").await;
    expect_refused(&named, &["same.gz", "same.zst", "would have the same output"]);
    let ended = place.run("restore both --out back --name r -q --workers 1").await.with_code(1);
    assert!(ended.stdout.contains("same.zst would come back by the same name"), "{ended:?}");
    for index in [0, 1] {
        assert_eq!(failure(&place.folder("r/staged"), index).0, "output-exists");
    }
    assert!(!place.path("back/both/in/same").exists());
}

/// Somebody else may be writing it.
#[tokio::test]
async fn the_ledger_of_the_run_that_is_restored_is_only_read() {
    let place = Place::new().await;
    a_run(&place, 3, "--out out").await;
    let manifest = place.folder("t/staged").join("manifest.jsonl");
    let mut lines = fs::read(&manifest).unwrap();
    lines.extend_from_slice(b"{\"half");
    fs::write(&manifest, &lines).unwrap();
    place.run("restore runs/t/staged --out back --dry-run").await.with_code(0);
    place.run("restore runs/t/staged --out back --name r -q --workers 1").await.with_code(0);
    place.run("verify runs/t/staged").await.with_code(0);
    assert_eq!(fs::read(&manifest).unwrap(), lines);
}

#[tokio::test]
async fn what_a_run_has_no_output_of_is_said_by_name() {
    let place = Place::new().await;
    for name in ["a", "b", "c"] {
        write(&place.path("in").join(name), name.repeat(1000).as_bytes());
    }
    write(&place.path("out/in/b.gz"), b"somebody's");
    let refused = place.run("run in --out out --name t -q --workers 1").await;
    expect_refused(&refused, &["already exists"]);
    fs::remove_file(place.path("out/in/b.gz")).unwrap();
    let (server_place, server) = Place::with_server().await;
    drop(server_place);
    let at = format!("--server {}", server.url());
    place.run(&format!("submit in --out out --name t {at}")).await.with_code(0);
    fs::remove_file(place.path("in/b")).unwrap();
    let restore = "restore runs/t/staged --out early --name early -q --workers 1";
    let early = place.run(restore).await;
    // There is no output at all yet.
    assert!(early.code == Some(1) || early.code == Some(2), "{early:?}");
    let _worker = place.spawn(&format!("worker --slots 1 {at}"));
    place.run(&format!("gather runs/t/staged -q {at}")).await.with_code(1);
    let ended = place.run("restore runs/t/staged --out back --name r -q --workers 1").await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let (cause, why) = failure(&place.folder("r/staged"), 1);
    assert_eq!(cause, "input-missing");
    assert!(why.contains("b.gz") && why.contains("no output of it: input-missing"), "{why}");
    assert_eq!(fs::read(place.path("back/in/c")).unwrap(), "c".repeat(1000).as_bytes());
}

#[tokio::test]
async fn a_file_that_is_there_is_replaced_only_if_somebody_says_so() {
    let place = Place::new().await;
    a_run(&place, 2, "--out out").await;
    write(&place.path("back/in/f001"), b"mine");
    let restore = "restore runs/t/staged --out back -q --workers 1";
    let refused = place.run(restore).await;
    expect_refused(&refused, &["back/in/f001 already exists", "--overwrite replaces all"]);
    assert!(!refused.stderr.contains("--update"), "{refused:?}");
    assert_eq!(fs::read(place.path("back/in/f001")).unwrap(), b"mine");
    assert!(!place.path("back/in/f000").exists());
    place.run(&format!("{restore} --overwrite")).await.with_code(0);
    expect_files(&place, 2);
    // One that comes while it works stays.
    let (other, server) = Place::with_server().await;
    drop(other);
    let at = format!("--server {}", server.url());
    let late = place.spawn(&format!("restore runs/t/staged --out late --name r -q {at}"));
    place.until("it began", || place.path("late/.bagpress-part").exists().then_some(())).await;
    write(&place.path("late/in/f000"), b"came later");
    let _worker = place.worker(&server);
    late.ended(&place).await.with_code(1);
    assert_eq!(failure(&place.folder("r/staged"), 0).0, "output-exists");
    assert_eq!(fs::read(place.path("late/in/f000")).unwrap(), b"came later");
    assert!(place.path("late/in/f001").exists());
}

#[tokio::test]
async fn what_came_of_a_closed_folder_is_no_more_open_when_it_comes_back() {
    let place = Place::new().await;
    a_run(&place, 1, "--out out").await;
    let mode = |path: &str| fs::metadata(place.path(path)).unwrap().permissions().mode() & 0o777;
    let close = |mode| fs::set_permissions(place.path("out"), fs::Permissions::from_mode(mode));
    // The folders of tests are their owner's alone.
    fs::set_permissions(place.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    for (closed, is) in [(0o700, 0o700), (0o755, 0o755)] {
        close(closed).unwrap();
        let back = format!("back{closed:o}");
        let restore = format!("restore runs/t/staged --out {back} -q --workers 1");
        place.run(&restore).await.with_code(0);
        let above = place
            .path("")
            .ancestors()
            .all(|folder| fs::metadata(folder).unwrap().permissions().mode() & 0o001 != 0);
        assert_eq!(mode(&back), if above { is } else { 0o700 }, "{back}");
    }
}

#[tokio::test]
async fn a_dry_run_says_what_would_come_back_and_writes_nothing() {
    let place = Place::new().await;
    a_run(&place, 2, "--out out").await;
    let dry = place.run("restore runs/t/staged --out back --dry-run").await.with_code(0);
    assert!(dry.stdout.contains("f001.gz -> back/in/f001\n"), "{dry:?}");
    assert!(dry.stderr.contains("would restore 2 files"), "{dry:?}");
    fs::remove_file(place.path("out/in/f001.gz")).unwrap();
    let dry = place.run("restore runs/t/staged --out back --dry-run").await.with_code(1);
    assert!(dry.stdout.contains("f001.gz fails: input-missing"), "{dry:?}");
    assert!(!place.path("back").exists() && !place.path("runs/r").exists());
}

async fn a_worker_that_is_killed(delivery: &str) {
    let place = Place::new().await;
    a_run(&place, 120, "--out out").await;
    let restore = format!(
        "restore runs/t/staged --out back --name r -q --workers 2 --transfer wire --delivery {delivery}"
    );
    let run = place.spawn(&restore);
    let folder = place.folder("r/staged");
    place.until("it is under way", || (!outcomes(&folder).is_empty()).then_some(())).await;
    let workers: Vec<_> =
        process::children(run.pid()).into_iter().filter(Child::is_worker).collect();
    if let Some(victim) = workers.first() {
        process::signal(victim.pid, Signal::KILL);
    }
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&folder, 120);
    expect_files(&place, 120);
}

#[tokio::test]
async fn a_worker_that_is_killed_while_it_restores_costs_nothing() {
    for delivery in DELIVERIES {
        a_worker_that_is_killed(delivery).await;
    }
}

async fn a_restore_that_is_killed(delivery: &str) {
    let place = Place::new().await;
    a_run(&place, 120, "--out out").await;
    let restore = format!(
        "restore runs/t/staged --out back --name r -q --workers 2 --transfer wire --delivery {delivery}"
    );
    let run = place.spawn(&restore);
    let folder = place.folder("r/staged");
    place.until("it is under way", || (!outcomes(&folder).is_empty()).then_some(())).await;
    let children = process::pids(&process::children(run.pid()));
    run.signal(Signal::KILL);
    drop(run);
    place.until_gone(&children).await;
    place.run("gather runs/r/staged -q --workers 2").await.with_code(0);
    expect_each_done_once(&folder, 120);
    expect_files(&place, 120);
    assert!(!place.path("back/.bagpress-part").exists());
    // And by its own command, where it was not over: then its name is taken.
    expect_refused(&place.run(&restore).await, &["r is taken by a finished bag"]);
}

#[tokio::test]
async fn a_restore_that_is_killed_is_continued_by_gather() {
    for delivery in DELIVERIES {
        a_restore_that_is_killed(delivery).await;
    }
}

#[tokio::test]
async fn what_was_restored_is_removed_with_its_run_and_what_it_came_of_stays() {
    let place = Place::new().await;
    a_run(&place, 3, "--out out").await;
    place.run("restore runs/t/staged --out back --name r -q --workers 1").await.with_code(0);
    let status = place.run("status runs/r/staged").await.with_code(0);
    assert!(status.stdout.contains("3/3"), "{status:?}");
    place.run("rm runs/r/staged --outputs").await.with_code(0);
    let left = |path: &str| place.path(path).exists();
    assert!(!left("back/in/f000") && !left("runs/r/staged"));
    assert!(
        left("out/in/f000.gz")
            && left("runs/t/staged")
            && Path::new(&place.path("in/f000")).exists()
    );
}

#[tokio::test]
async fn a_stream_that_gives_more_than_a_disk_has_pauses_the_bag_until_there_is_room() {
    const MIB: u64 = 1024 * 1024;
    let (place, server) = Place::with_server().await;
    let large = usize::try_from(40 * MIB).unwrap();
    write(&place.path("in/large"), &vec![0; large]);
    write(&place.path("in/small"), b"a few bytes");
    assert!(Command::new("gzip").arg("-r").arg(place.path("in")).status().unwrap().success());
    assert!(fs::metadata(place.path("in/large.gz")).unwrap().len() < 64 * 1024);
    let at = format!("--server {}", server.url());
    let words = format!("restore in --out disk/back --name r -q --transfer wire {at}");
    let run = OnSmallDisk::start(&place, "disk", 64 * MIB, &words);
    run.pid(&place).await;
    run.fill(20 * MIB);
    let _worker = place.worker(&server);
    let said = || run.stderr().contains("disk full").then_some(());
    place.until("it says that the disk is full", said).await;
    let back = run.disk().join("back/in");
    place.until("the small one is there", || back.join("small").exists().then_some(())).await;
    assert!(!back.join("large").exists());
    run.make_room();
    run.ended(&place).await.with_code(0);
    let folder = place.folder("r/staged");
    expect_each_done_once(&folder, 2);
    assert!(outcomes(&folder).iter().all(|outcome| outcome["attempt"] == 1));
    assert!(fs::read(place.path("disk.kept/back/in/large")).unwrap() == vec![0; large]);
}

/// A worker of an earlier version, told to take tasks of any version, would have compressed.
#[tokio::test]
async fn an_outcome_of_a_worker_that_did_not_restore_is_not_counted_nor_are_other_bytes() {
    let (place, server) = Place::with_server().await;
    a_run(&place, 3, "--out out").await;
    let at = format!("--server {}", server.url());
    let run = place.spawn(&format!("restore runs/t/staged --out back --name r -q {at}"));
    let is_there = || place.folder("r/staged/bag.json").exists().then_some(());
    place.until("the bag is there", is_there).await;
    let bag = bag_of(&place, "r/staged").parse::<BagId>().unwrap();
    let lie = |index| {
        let id = TaskId { bag: bag.clone(), index, round: 0 };
        samples::done(&id, &Execution::random(), b"other bytes", Stored::Staged)
    };
    let task = samples::task(&bag, 1, ResultPath::Staged);
    let input = Input::File { name: "f001.gz".to_owned(), bytes: 100 };
    let decode = Some(Decode { original: None });
    let knows = Some(Box::new(TaskDescriptor { input, decode, ..task }));
    let broker = broker(&server).await;
    broker.commit(&lie(0)).await.unwrap();
    broker.commit(&TaskResult { descriptor: knows, ..lie(1) }).await.unwrap();
    let folder = place.folder("r/staged");
    let decided = || (!outcomes(&folder).is_empty()).then_some(());
    place.until("one of them has its outcome", decided).await;
    let _worker = place.worker(&server);
    run.ended(&place).await.with_code(1);
    let (cause, why) = failure(&folder, 1);
    assert_eq!(cause, "original-differs");
    assert!(why.contains("it gives 11 bytes"), "{why}");
    let rounds: Vec<_> = [0, 2]
        .map(|index| {
            let of = |outcome: &Value| outcome["index"] == index;
            outcomes(&folder).iter().find(|outcome| of(outcome)).unwrap()["round"].clone()
        })
        .into();
    assert_eq!(rounds, [1, 0]);
    assert!(!place.path("back/in/f001").exists());
    assert!(place.path("back/in/f000").exists() && place.path("back/in/f002").exists());
}
