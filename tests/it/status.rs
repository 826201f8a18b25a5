//! `status` shows a bag's progress, its workers, and why it waits.

use std::fs;

use futures::StreamExt;
use rustix::process::Signal;
use serde_json::Value;

use crate::control::{ENDLESS, bag_of, context, status, until_running, until_status, until_there};
use crate::death::{BAG, TASKS};
use crate::harness::{Place, SOON};
use crate::ledger::{expect_each_done_once, failure};

#[tokio::test]
async fn bags_and_workers_of_a_server_are_listed() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let _worker = place.worker(&server);
    place.run(&format!("run --tasks 3 --bytes 64KiB --name one -q {at}")).await.with_code(0);
    let overview = status(&place, &at).await.unwrap();
    assert_eq!(overview["bags"][0]["bag"], bag_of(&place, "one/staged"));
    assert_eq!(overview["bags"][0]["state"], "finished");
    assert_eq!(overview["workers"][0]["done"], 3);
    let text = place.run(&format!("status {at}")).await.with_code(0).stdout;
    assert!(text.contains("finished  3/3 done, 0 failed"), "{text}");
    assert!(text.contains("0 of 1 slots busy"), "{text}");

    let bag = bag_of(&place, "one/staged");
    let by_id = status(&place, &format!("{bag} {at}")).await.unwrap();
    let figures = ["done", "failed", "waiting", "running", "duplicates"];
    let figures = figures.map(|name| by_id[name].as_u64().unwrap());
    assert_eq!(figures, [3, 0, 0, 0, 0]);
    assert_eq!(by_id["why"], Value::Null);
    let unknown = place.run(&format!("status no-abcdefgh {at}")).await.with_code(2);
    assert!(unknown.stderr.contains("hint: list the bags"), "{unknown:?}");
}

#[tokio::test]
async fn a_bag_without_workers_says_so() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let run = place.spawn(&format!("run {BAG} -q {at}"));
    until_there(&place, "t/staged").await;
    let why = until_status(&place, "it says why", &format!("runs/t/staged {at}"), |bag| {
        (bag["waiting"].as_u64() == Some(TASKS))
            .then(|| bag["why"].as_str().unwrap_or_default().to_owned())
    })
    .await;
    assert!(why.contains("no workers are connected to pool default"), "{why}");
    let _worker = place.worker(&server);
    run.ended(&place).await.with_code(0);
    // Finished: the ledger alone tells it, with nobody to ask.
    let alone = status(&place, "runs/t/staged").await.unwrap();
    assert_eq!((&alone["state"], &alone["done"]), (&"finished".into(), &TASKS.into()));
}

#[tokio::test]
async fn a_local_run_is_asked_where_it_runs() {
    let place = Place::new().await;
    let run = place.spawn(&format!("run {BAG} --workers 2 -q"));
    until_there(&place, "t/staged").await;
    until_running(&place, "runs/t/staged").await;
    let watched = place.run("status runs/t/staged --watch --json").await.with_code(0);
    let states: Vec<Value> =
        watched.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(states.last().unwrap()["tasks"], TASKS);
    run.ended(&place).await.with_code(0);
    let after = place.run("status runs/t/staged").await.with_code(0);
    assert!(after.stdout.contains("24/24 done, 0 failed"), "{after:?}");
    assert!(after.stderr.contains("the run's server is not running"), "{after:?}");
    assert!(!place.folder("t/staged/.broker").exists(), "it started something");
}

async fn a_lost_worker_is_in_the_history(delivery: &str) {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let folder = place.folder("t/staged");
    // Alone, and each task takes long: it certainly dies with one.
    let victim = place.worker(&server);
    let bag = "--tasks 4 --bytes 8MiB --data text --codec zlib:9 --name t";
    let run = place.spawn(&format!("run {bag} -q {at} --json --delivery {delivery}"));
    until_there(&place, "t/staged").await;
    until_running(&place, &format!("runs/t/staged {at}")).await;
    victim.signal(Signal::KILL);
    let _other = place.worker(&server);
    let summary: Value =
        serde_json::from_str(&run.ended(&place).await.with_code(0).stdout).unwrap();
    expect_each_done_once(&folder, 4);
    assert_eq!((&summary["workers_lost"], &summary["failed"]), (&1.into(), &0.into()));
    assert!(summary["given_back"]["worker-lost"].as_u64() >= Some(1), "{summary}");
    // From the run folder alone, as if its server were gone.
    let text = fs::read_to_string(folder.join("attempts.jsonl")).unwrap();
    let lost: Value = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|record| record["cause"] == "worker-lost")
        .unwrap();
    let task = lost["index"].as_u64().unwrap();
    let told = status(&place, &format!("runs/t/staged {task}")).await.unwrap();
    assert_eq!(told["state"], "done");
    let attempts = told["attempts"].as_array().unwrap().as_slice();
    let (end, before) = attempts.split_last().unwrap();
    assert_eq!(end["cause"], Value::Null);
    assert!(before.iter().all(|attempt| attempt["cause"] == "worker-lost"), "{told}");
    assert_eq!(before[0]["message"], "the worker died");
    let bag = bag_of(&place, "t/staged");
    let by_id = status(&place, &format!("{bag} {task} {at}")).await.unwrap();
    // The outcome of a task that was offered is in the manifest, and nowhere else.
    let known = if delivery == "jetstream" { attempts } else { before };
    assert_eq!(by_id["attempts"].as_array().map(Vec::as_slice), Some(known));
}

#[tokio::test]
async fn a_lost_worker_is_in_the_history_of_its_task_and_no_failure() {
    a_lost_worker_is_in_the_history("jetstream").await;
}

#[tokio::test]
async fn a_lost_member_is_in_the_history_of_its_task_and_no_failure() {
    a_lost_worker_is_in_the_history("queue-group").await;
}

#[tokio::test]
async fn a_task_whose_input_vanished_fails_and_is_retried_when_it_is_back() {
    let (place, server) = Place::with_server().await;
    fs::create_dir(place.path("in")).unwrap();
    for name in ["a", "b", "c"] {
        fs::write(place.path("in").join(name), vec![b'x'; 100_000]).unwrap();
    }
    let at = format!("--server {}", server.url());
    let files = "in --out out --codec gzip:6 --name t";
    place.run(&format!("submit {files} {at}")).await.with_code(0);
    let times = filetime_of(&place.path("in/b"));
    fs::rename(place.path("in/b"), place.path("b.away")).unwrap();
    let _worker = place.worker(&server);
    let folder = place.folder("t/staged");
    place.run(&format!("gather runs/t/staged -q {at}")).await.with_code(1);
    assert_eq!(failure(&folder, 1).0, "input-missing");
    let failed = place.run("status runs/t/staged --failed").await.with_code(0).stdout;
    assert!(failed.contains("task 1 of bag"), "{failed}");
    assert!(failed.contains("input-missing"), "{failed}");
    let by_id = format!("status {} --failed --json {at}", bag_of(&place, "t/staged"));
    let by_id: Value = serde_json::from_str(&place.run(&by_id).await.with_code(0).stdout).unwrap();
    let attempts = by_id[0]["attempts"].as_array().unwrap();
    assert_eq!(attempts.last().unwrap()["cause"], "input-missing");

    fs::rename(place.path("b.away"), place.path("in/b")).unwrap();
    assert_eq!(filetime_of(&place.path("in/b")), times);
    place.run(&format!("gather runs/t/staged --retry-failed -q {at}")).await.with_code(0);
    assert!(place.path("out/in/b.gz").is_file());
    let told = status(&place, "runs/t/staged 1").await.unwrap();
    assert_eq!(told["state"], "done");
    assert_eq!(place.run("status runs/t/staged --failed").await.with_code(0).stdout, "");
    let beyond = place.run("status runs/t/staged 3").await.with_code(2);
    assert!(beyond.stderr.contains("has no task 3"), "{beyond:?}");
}

fn filetime_of(path: &std::path::Path) -> std::time::SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

#[tokio::test]
async fn the_service_answers_raw_requests() {
    let (place, server) = Place::with_server().await;
    let _worker = place.worker(&server);
    let client = async_nats::connect(server.url()).await.unwrap();
    let at = format!("--server {}", server.url());
    place.run(&format!("run --tasks 3 --bytes 64KiB --name t -q {at}")).await.with_code(0);
    let ask = async |subject: &str| -> Value {
        let answer = client.request(subject.to_owned(), "".into()).await.unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    };
    let ping = ask("$SRV.PING.bag-worker").await;
    let id = ping["id"].as_str().unwrap().to_owned();
    assert_eq!(ping["type"], "io.nats.micro.v1.ping_response");
    let info = ask(&format!("$SRV.INFO.bag-worker.{id}")).await;
    assert_eq!(info["metadata"]["slots"], "1");
    assert_eq!(info["endpoints"][0]["queue_group"], "workers");
    let stats = ask(&format!("$SRV.STATS.bag-worker.{id}")).await;
    let data = &stats["endpoints"][0]["data"];
    for (name, expected) in [("slots", 1), ("running", 0), ("done", 3), ("failed", 0)] {
        assert_eq!(data[name], expected, "{name} in {data}");
    }
    assert_eq!(data["input_bytes"], 3 * 65_536);
    assert!(data["output_bytes"].as_u64().unwrap() > 0);
    assert_eq!(data["held"], serde_json::json!({}));
    let codecs = data["codecs"].as_array().unwrap();
    assert!(codecs.iter().any(|c| c.as_str().unwrap().starts_with("zlib=zlib-rs/")), "{codecs:?}");
    assert_eq!(data["version"], env!("CARGO_PKG_VERSION"));
    // Its own subject tells the same.
    let own = ask(&format!("bag.worker.{id}.status")).await;
    assert_eq!(own["done"], 3);
}

#[tokio::test]
async fn a_worker_of_another_codec_version_is_named_as_the_reason() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    place
        .run(&format!("submit --tasks 3 --bytes 64KiB --codec zlib:6 --name t {at}"))
        .await
        .with_code(0);
    // As if an update of the codec had come between: what waits goes, the specification is a newer one.
    let tasks = context(&server).await.get_stream("BAG_TASKS").await.unwrap();
    tasks.purge().await.unwrap();
    let path = place.folder("t/staged/bag.json");
    let mut specification: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    specification["library"] = "zlib-rs/99.0.0+1".into();
    fs::write(&path, specification.to_string()).unwrap();

    let old = place.worker(&server);
    let gather = place.spawn(&format!("gather runs/t/staged -q {at} --json"));
    // One look may see that nobody gathers yet, and a moment later what was given back.
    until_status(&place, "it says why", &format!("runs/t/staged {at}"), |bag| {
        let named = bag["why"].as_str()?.contains("none has zlib-rs/99.0.0+1 for zlib");
        let given_back = bag["given_back"]["codec-version"].as_u64()?;
        (named && given_back >= 3).then_some(())
    })
    .await;
    old.signal(Signal::TERM);
    old.ended(&place).await.with_code(0);
    let any = format!("worker --slots 1 --any-codec-version {at}");
    let _any = place.spawn(&any);
    let summary = gather.ended(&place).await.with_code(0);
    let summary: Value = serde_json::from_str(&summary.stdout).unwrap();
    expect_each_done_once(&place.folder("t/staged"), 3);
    // No attempt was spent on it.
    assert_eq!(summary["retried"], 0, "{summary}");
}

/// Its state is how its last gatherer left it, and moves no more.
#[tokio::test]
async fn a_bag_that_was_given_up_is_gathered_by_nobody() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    place.run(&format!("run --tasks 2 --name t -q --deadline 1s {at}")).await.with_code(4);
    for words in
        ["status", "status runs/t/staged", &format!("status {}", bag_of(&place, "t/staged"))]
    {
        let told = place.run(&format!("{words} {at}")).await.with_code(0).stdout;
        assert!(told.contains("running, gathered by nobody"), "{words}: {told}");
    }
    let _worker = place.worker(&server);
    place.run(&format!("gather runs/t/staged -q {at}")).await.with_code(0);
    let told = place.run(&format!("status {at}")).await.with_code(0).stdout;
    assert!(told.contains("finished") && !told.contains("by nobody"), "{told}");
}

#[tokio::test]
async fn a_duplicate_is_counted_also_when_it_comes_after_the_end() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let late = place.worker(&server);
    let bag = "run --tasks 2 --bytes 48MiB --data text --codec zlib:9 --name t -q";
    let run = place.spawn(&format!("{bag} {at}"));
    until_there(&place, "t/staged").await;
    until_running(&place, &format!("runs/t/staged {at}")).await;
    late.signal(Signal::STOP);
    let _other = place.worker(&server);
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&place.folder("t/staged"), 2);
    late.signal(Signal::CONT);
    let words = format!("runs/t/staged {at}");
    let duplicates = until_status(&place, "it is counted", &words, |bag| {
        bag["duplicates"].as_u64().filter(|n| *n > 0)
    })
    .await;
    assert_eq!(duplicates, 1);
    let mut events =
        async_nats::connect(server.url()).await.unwrap().subscribe("bag.>").await.unwrap();
    late.signal(Signal::TERM);
    late.ended(&place).await.with_code(0);
    // Nothing of the bag was committed a second time.
    while let Some(event) = tokio::time::timeout(SOON / 600, events.next()).await.ok().flatten() {
        assert!(!event.subject.starts_with("bag.result."), "{event:?}");
    }
    expect_each_done_once(&place.folder("t/staged"), 2);
}

async fn a_task_that_kills_its_workers(delivery: &str) {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let poison = ENDLESS.replace("--tasks 3", "--tasks 1").replace("16GiB", "1GiB");
    let run =
        place.spawn(&format!("run {poison} --attempts 2 -q --json --delivery {delivery} {at}"));
    until_there(&place, "t/staged").await;
    for _ in 0..2 {
        let victim = place.worker(&server);
        until_running(&place, &format!("runs/t/staged {at}")).await;
        victim.signal(Signal::KILL);
        victim.ended(&place).await;
    }
    let _last = place.worker(&server);
    let ended = run.ended(&place).await.with_code(1);
    let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&summary["workers_lost"], &summary["failed"]), (&2.into(), &1.into()));
    assert_eq!(failure(&place.folder("t/staged"), 0).0, "crash-limit");
    let failed = status(&place, "runs/t/staged --failed").await.unwrap();
    let attempts = failed[0]["attempts"].as_array().unwrap();
    let causes: Vec<_> = attempts.iter().map(|a| a["cause"].as_str().unwrap()).collect();
    assert_eq!(causes, ["worker-lost", "worker-lost", "crash-limit"]);
    assert_ne!(attempts[0]["worker"], attempts[1]["worker"]);
}

#[tokio::test]
async fn a_task_that_kills_its_workers_fails_after_its_attempts_with_all_of_them_told() {
    a_task_that_kills_its_workers("jetstream").await;
}

#[tokio::test]
async fn a_task_that_kills_its_members_fails_after_its_attempts_with_all_of_them_told() {
    a_task_that_kills_its_workers("queue-group").await;
}

#[tokio::test]
async fn a_task_that_kills_its_members_gets_no_attempt_more_of_the_next_gatherer() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let folder = place.folder("t/staged");
    let poison = ENDLESS.replace("--tasks 3", "--tasks 1").replace("16GiB", "1GiB");
    let run = format!("run {poison} --attempts 2 -q --delivery queue-group {at}");
    let mut gatherer = place.spawn(&run);
    until_there(&place, "t/staged").await;
    for lost in 1..=2 {
        let victim = place.worker(&server);
        until_running(&place, &format!("runs/t/staged {at}")).await;
        victim.signal(Signal::KILL);
        victim.ended(&place).await;
        let noted = || fs::read_to_string(folder.join("attempts.jsonl")).unwrap_or_default();
        place
            .until("the loss is noted", || {
                (noted().lines().filter(|line| line.contains("worker-lost")).count() == lost)
                    .then_some(())
            })
            .await;
        gatherer.signal(Signal::KILL);
        gatherer.ended(&place).await;
        gatherer = place.spawn(&format!("gather runs/t/staged -q --json {at}"));
    }
    // Nobody is there to have it once more, and nobody is wanted.
    let ended = gatherer.ended(&place).await.with_code(1);
    let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(summary["given_back"], serde_json::json!({"worker-lost": 2}));
    assert_eq!(failure(&folder, 0).0, "crash-limit");
}

async fn one_loss(delivery: &str) {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let folder = place.folder("t/staged");
    let poison = ENDLESS.replace("--tasks 3", "--tasks 1").replace("16GiB", "1GiB");
    let run = place.spawn(&format!("run {poison} -q --delivery {delivery} {at}"));
    until_there(&place, "t/staged").await;
    let victim = place.worker(&server);
    until_running(&place, &format!("runs/t/staged {at}")).await;
    victim.signal(Signal::KILL);
    victim.ended(&place).await;
    // Nobody takes it for a while, in which it is looked for more than once.
    place
        .until("it says why", || run.stderr().contains("no workers are connected").then_some(()))
        .await;
    run.signal(Signal::TERM);
    run.ended(&place).await.with_code(143);
    let text = fs::read_to_string(folder.join("attempts.jsonl")).unwrap();
    let lost: Vec<_> = text.lines().filter(|line| line.contains("worker-lost")).collect();
    assert_eq!(lost.len(), 1, "{lost:#?}");
}

#[tokio::test]
async fn a_worker_that_is_lost_is_one_record_of_its_task() {
    one_loss("jetstream").await;
}

#[tokio::test]
async fn a_member_that_is_lost_is_one_record_of_its_task() {
    one_loss("queue-group").await;
}

#[tokio::test]
async fn a_bag_with_too_many_failures_is_given_up() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    fs::create_dir(place.path("in")).unwrap();
    for name in ["a", "b", "c", "d"] {
        fs::write(place.path("in").join(name), name.repeat(1000)).unwrap();
    }
    place.run(&format!("submit in --out out --name t {at}")).await.with_code(0);
    for name in ["a", "b"] {
        fs::remove_file(place.path("in").join(name)).unwrap();
    }
    let _worker = place.worker(&server);
    let one = place.run(&format!("gather runs/t/staged --max-fails 1 -q {at}")).await.with_code(4);
    assert!(one.stderr.contains("2 tasks failed, more than --max-fails 1"), "{one:?}");
    place.run(&format!("gather runs/t/staged --max-fails 2 -q {at}")).await.with_code(1);
    let told = status(&place, "runs/t/staged").await.unwrap();
    assert_eq!(told["failed_by_cause"], serde_json::json!({"input-missing": 2}));
    assert_eq!(told["done"], 2);
}
