//! What a bag made, `rm` removes, and nothing else; `rm --orphans` sweeps what no bag owns.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::ids::{BagId, Execution, Pool, TaskId};
use bagpress_broker::result::Place as Stored;
use bagpress_broker::testing::eventually;
use bagpress_broker::{BagLine, BagState, Gatherer, samples};
use rustix::process::Signal;
use serde_json::Value;
use walkdir::WalkDir;

use crate::control::{all_there_is, bag_of, broker, context};
use crate::death::{BAG, middle};
use crate::harness::{Place, SOON};

#[tokio::test]
async fn rm_leaves_nothing_of_a_bag_and_touches_no_other() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let _worker = place.worker(&server);
    let bag = format!("run --tasks 4 --bytes 64KiB -q {at}");
    place.run(&format!("{bag} --name stays --results objects")).await.with_code(0);
    place.run(&format!("{bag} --name stays --results staged")).await.with_code(0);
    let (before, files) = (all_there_is(&server).await, files(&place));
    for results in ["staged", "objects"] {
        place.run(&format!("{bag} --name goes --results {results}")).await.with_code(0);
        // Who dies while it writes the summary leaves this.
        fs::write(place.folder(&format!("goes/{results}")).join("summary.part"), "{").unwrap();
        assert_ne!(all_there_is(&server).await, before);
        let unnamed = place.run(&format!("rm runs/goes/{results}")).await.with_code(2);
        assert!(unnamed.stderr.contains(&format!("give --server {}", server.url())), "{unnamed:?}");
        let removed = place.run(&format!("rm runs/goes/{results} --json {at}")).await.with_code(0);
        let removed: Value = serde_json::from_str(&removed.stdout).unwrap();
        assert_eq!(removed["messages"], 5, "four results and a line: {removed}");
        // The consumers of gatherers that are gone go by themselves; streams and messages are as before.
        assert_eq!(all_there_is(&server).await, before);
        assert!(!place.path("runs/goes").exists());
    }
    assert_eq!(self::files(&place), files);
    let id = bag_of(&place, "stays/objects");
    place.run(&format!("rm {id} {at}")).await.with_code(0);
    assert!(!all_there_is(&server).await.iter().any(|name| name.contains(&id)));
    assert!(
        place.folder("stays/objects/bag.json").is_file(),
        "by its id, only the broker's part goes"
    );
    let again = place.run(&format!("rm {id} {at}")).await.with_code(2);
    assert!(again.stderr.contains("knows no bag"), "{again:?}");
}

fn files(place: &Place) -> Vec<String> {
    let entries = WalkDir::new(place.path("runs")).sort_by_file_name().into_iter();
    let paths = entries.map(|entry| entry.unwrap().into_path().display().to_string());
    paths.filter(|path| path.contains("stays")).collect()
}

#[tokio::test]
async fn a_bag_that_is_gathered_is_removed_only_by_force() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let before = all_there_is(&server).await;
    let _worker = place.worker(&server);
    let run = place.spawn(&format!("run {BAG} -q {at}"));
    middle(&place, &place.folder("t/staged")).await;
    let id = bag_of(&place, "t/staged");
    for words in [format!("rm {id}"), "rm runs/t/staged".to_owned()] {
        let refused = place.run(&format!("{words} {at}")).await.with_code(2);
        assert!(refused.stderr.contains("is being gathered by process"), "{refused:?}");
    }
    place.run(&format!("rm runs/t/staged --force {at}")).await.with_code(0);
    run.ended(&place).await.with_code(1);
    assert!(!place.path("runs/t").exists());
    assert_eq!(all_there_is(&server).await, before);
}

/// It hears of its removal when all of it is over, and is in the middle of whatever it did.
#[tokio::test]
async fn a_gatherer_that_was_stopped_while_its_bag_was_removed_ends_and_makes_nothing_again() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let before = all_there_is(&server).await;
    let worker = place.worker(&server);
    let run = place.spawn(&format!("run {BAG} --results objects -q {at}"));
    middle(&place, &place.folder("t/objects")).await;
    let id = bag_of(&place, "t/objects");
    // With nobody at work and nothing heard for so long, the first that it does is to look what is missing.
    worker.signal(Signal::TERM);
    worker.ended(&place).await.with_code(0);
    run.signal(Signal::STOP);
    place.run(&format!("rm {id} --force {at}")).await.with_code(0);
    assert_eq!(all_there_is(&server).await, before);
    run.signal(Signal::CONT);
    let ended = run.ended(&place).await.with_code(1);
    assert!(ended.stderr.contains("cancelled"), "{ended:?}");
    assert_eq!(all_there_is(&server).await, before);
}

#[tokio::test]
async fn a_task_that_comes_back_of_a_removed_bag_is_dropped() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let before = all_there_is(&server).await;
    place.run(&format!("submit --tasks 2 --bytes 64KiB --name t {at}")).await.with_code(0);
    let broker = broker(&server).await;
    let bag = broker.bags().await.unwrap().remove(0).bag;
    place.run(&format!("rm {bag} {at}")).await.with_code(0);
    // As a server does that is killed before it wrote down what it has dropped.
    let task = samples::task(&bag, 0, ResultPath::Staged);
    broker.submit(&Pool::default(), &task, false).await.unwrap().await.unwrap();
    assert_ne!(all_there_is(&server).await, before);
    let _worker = place.worker(&server);
    let gone = async || (all_there_is(&server).await == before).then_some(());
    eventually("the task is dropped", SOON, gone).await;
}

#[tokio::test]
async fn rm_waits_for_no_lease_of_a_gatherer_whose_process_has_ended_here() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let _worker = place.worker(&server);
    let run = place.spawn(&format!("run {BAG} -q {at}"));
    middle(&place, &place.folder("t/staged")).await;
    let id: BagId = bag_of(&place, "t/staged").parse().unwrap();
    run.signal(Signal::KILL);
    run.ended(&place).await;
    let broker = broker(&server).await;
    let gatherer = broker.find_bag(&id).await.unwrap().line.unwrap().gatherer.unwrap();
    assert!(gatherer.is_dead(), "{gatherer:?}");
    let elsewhere = Gatherer { processes: "another machine".to_owned(), ..gatherer };
    assert!(!elsewhere.is_dead(), "only its lease tells");
    let mut command = place.bagpress(&format!("rm {id} {at}"));
    command.env("BAGPRESS_LOG", "info");
    let removed = place.finish(command).await.with_code(0);
    assert!(removed.stderr.contains("its process has ended"), "{removed:?}");
    assert!(!removed.stderr.contains("waiting to see whether the lease is renewed"), "{removed:?}");
}

#[tokio::test]
async fn a_line_with_nothing_behind_it_is_swept_and_others_stay() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    place.run(&format!("submit --tasks 2 --bytes 64KiB --name waits {at}")).await.with_code(0);
    let broker = broker(&server).await;
    let waits = broker.bags().await.unwrap().remove(0);
    let bag = samples::bag();
    let bare = |state| BagLine { bag: bag.clone(), state, ..waits.clone() };
    broker.write_bag(&bare(BagState::Running), 0).await.unwrap().unwrap();
    let sweep = "rm --orphans --older-than 0s";
    let what = format!("line of bag {bag}");
    let young = place.run(&format!("rm --orphans --dry-run {at}")).await.with_code(0);
    assert!(!young.stdout.contains(&what), "{young:?}");
    let dry = place.run(&format!("{sweep} --dry-run {at}")).await.with_code(0);
    assert!(dry.stdout.contains(&format!("would remove {what}")), "{dry:?}");
    assert_eq!(broker.bags().await.unwrap().len(), 2);
    place.run(&format!("{sweep} {at}")).await.with_code(0);
    assert_eq!(broker.bags().await.unwrap(), std::slice::from_ref(&waits));
    // What is over is told by its line alone.
    let revision = broker.find_bag(&bag).await.unwrap().revision;
    broker.write_bag(&bare(BagState::Finished), revision).await.unwrap().unwrap();
    place.run(&format!("{sweep} {at}")).await.with_code(0);
    assert_eq!(broker.bags().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_local_run_is_removed_with_its_store() {
    let place = Place::new().await;
    let bag = "run --tasks 3 --bytes 64KiB --name t --results objects --workers 1 -q";
    place.run(bag).await.with_code(0);
    assert!(place.folder("t/objects/.broker").is_dir());
    fs::write(place.folder("t/objects/notes.txt"), "mine").unwrap();
    let removed = place.run("rm runs/t/objects").await.with_code(0);
    assert!(removed.stderr.contains("holds files that no run made"), "{removed:?}");
    let left: Vec<_> = fs::read_dir(place.folder("t/objects")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test]
async fn outputs_in_a_folder_of_the_users_stay_unless_they_say_so() {
    let place = Place::new().await;
    fs::create_dir_all(place.path("in/deep")).unwrap();
    for name in ["a", "deep/b", "deep/c"] {
        fs::write(place.path("in").join(name), name.repeat(1000)).unwrap();
    }
    let run = async |name: &str| {
        place.run(&format!("run in --out out --name {name} --workers 1 -q")).await.with_code(0);
    };
    run("one").await;
    let kept = place.run("rm runs/one/staged").await.with_code(0);
    assert!(kept.stderr.contains("your outputs"), "{kept:?}");
    assert!(place.path("out/in/deep/c.gz").is_file() && !place.path("runs/one").exists());
    fs::remove_dir_all(place.path("out")).unwrap();
    run("two").await;
    fs::write(place.path("out/in/a.gz"), "changed").unwrap();
    fs::write(place.path("out/other"), "mine").unwrap();
    let removed = place.run("rm runs/two/staged --outputs").await.with_code(0);
    assert!(removed.stderr.contains("a.gz: it was changed"), "{removed:?}");
    let left = WalkDir::new(place.path("out")).sort_by_file_name().into_iter();
    let left = left.filter_map(Result::ok).filter(|e| e.file_type().is_file());
    let left: Vec<_> = left.map(|e| e.file_name().to_owned()).collect();
    assert_eq!(left, ["a.gz", "other"]);
    assert!(!place.path("out/in/deep").exists());
}

#[tokio::test]
async fn orphans_are_named_first_and_owned_things_stay() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let worker = place.worker(&server);
    let bag = format!("run --tasks 2 --bytes 64KiB --name t --results objects -q {at}");
    place.run(&bag).await.with_code(0);
    worker.signal(Signal::TERM);
    worker.ended(&place).await.with_code(0);
    let before = all_there_is(&server).await;
    // Chunks that no object names, and the result of a bag that nobody knows.
    let id = bag_of(&place, "t/objects");
    let context = context(&server).await;
    let token = format!("1-{}", Execution::random());
    let chunk = context.publish(format!("$O.bag-{id}.C.{token}"), "left".into()).await.unwrap();
    chunk.await.unwrap();
    let lost = TaskId { bag: samples::bag(), index: 0, round: 0 };
    let broker = broker(&server).await;
    let result = samples::done(&lost, &Execution::random(), b"output", Stored::Staged);
    broker.commit(&result).await.unwrap();
    let littered = all_there_is(&server).await;

    let sweep = "rm --orphans --older-than 0s";
    let dry = place.run(&format!("{sweep} --dry-run {at}")).await.with_code(0);
    assert!(dry.stdout.contains(&format!("would remove 1 chunks {token}")), "{dry:?}");
    assert!(dry.stdout.contains(&format!("would remove bag {}: 1 messages", lost.bag)), "{dry:?}");
    assert_eq!(all_there_is(&server).await, littered);
    // What was written just now may belong to somebody.
    let young = place.run(&format!("rm --orphans --dry-run {at}")).await.with_code(0);
    assert!(!young.stdout.contains(lost.bag.as_str()), "{young:?}");
    place.run(&format!("{sweep} {at}")).await.with_code(0);
    assert_eq!(all_there_is(&server).await, before);
    place.run(&format!("verify runs/t/objects {at}")).await.with_code(0);
    let clean = place.run(&format!("{sweep} {at}")).await.with_code(0);
    assert!(clean.stderr.contains("nothing to sweep"), "{clean:?}");
}

#[tokio::test]
async fn what_killed_runs_left_is_swept_and_unfinished_bags_stay() {
    let place = Place::new().await;
    place.run("run --tasks 2 --bytes 64KiB --name done --workers 1 -q").await.with_code(0);
    let done = place.folder("done/staged");
    let left = done.join("results/.bagpress-part").join(bag_of(&place, "done/staged"));
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("0.0-x"), "left").unwrap();
    fs::create_dir_all(done.join(".broker/jetstream")).unwrap();
    fs::set_permissions(done.join(".broker"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(done.join("summary.part"), "left").unwrap();
    let run = place.spawn(&format!("run {BAG} --workers 2 -q"));
    let unfinished = place.folder("t/staged");
    middle(&place, &unfinished).await;
    let busy = place.run("rm --orphans --dry-run").await.with_code(0);
    assert!(!busy.stdout.contains("runs/t/"), "a run that goes on is left alone: {busy:?}");
    run.signal(Signal::KILL);
    run.ended(&place).await;
    let ports = || {
        let entries = fs::read_dir(unfinished.join(".broker")).unwrap().map(Result::unwrap);
        entries.filter(|e| e.path().extension().is_some_and(|e| e == "ports")).count()
    };
    place
        .until("its server is dead", || {
            let running = bagpress_broker::server::running(&unfinished.join(".broker")).unwrap();
            running.is_none().then_some(())
        })
        .await;
    assert_eq!(ports(), 1, "a killed server leaves its ports file");
    let swept = place.run("rm --orphans").await.with_code(0);
    for what in ["done/staged/.broker", "done/staged/results/.bagpress-part", "summary.part"] {
        assert!(swept.stdout.contains(what), "{what}: {swept:?}");
    }
    assert_eq!(ports(), 0);
    assert!(!done.join(".broker").exists() && done.join("results/out_1.bin").is_file());
    place.run("gather runs/t/staged --workers 2 -q").await.with_code(0);
}
