//! Full is not failed: a bag pauses, says so, and continues by itself; no attempt is spent, and nothing
//! grows meanwhile.

use std::path::Path;

use async_nats::jetstream;
use bagpress_broker::ids::Execution;
use bagpress_broker::testing::{NatsServer, eventually};
use bagpress_codec::DataKind;
use bagpress_objstore::object_ref::Bucket;

use crate::control::{bag_of, until_there};
use crate::death::DELIVERIES;
use crate::harness::{Place, Running, SOON};
use crate::ledger::{expect_each_done_once, generated, outcomes};
use crate::process;
use crate::small_disk::OnSmallDisk;

const MIB: u64 = 1024 * 1024;
/// Outputs of 24 MiB: the data is random.
const BAG: &str = "run --tasks 24 --bytes 1MiB --codec zlib:1 --name t -q";
const TASKS: u64 = 24;

fn expect_no_attempt_spent(folder: &Path) {
    for outcome in outcomes(folder) {
        assert_eq!(outcome["attempt"], 1, "{outcome}");
    }
}

async fn context(server: &NatsServer) -> jetstream::Context {
    jetstream::new(async_nats::connect(server.url()).await.unwrap())
}

/// Waits until workers were turned away so often.
async fn turned_away(server: &NatsServer, times: u64) {
    let context = context(server).await;
    eventually(&format!("workers were turned away {times} times"), SOON, async || {
        let attempts = context.get_stream("BAG_ATTEMPTS").await.ok()?;
        (attempts.cached_info().state.messages >= times).then_some(())
    })
    .await;
}

/// Waits until workers were turned away so often for this reason.
pub(crate) async fn turned_away_for(server: &NatsServer, reason: &str, times: usize) {
    let context = context(server).await;
    eventually(&format!("workers were turned away {times} times for {reason}"), SOON, async || {
        let attempts = context.get_stream("BAG_ATTEMPTS").await.ok()?;
        let mut found = 0;
        for sequence in 1..=attempts.cached_info().state.last_sequence {
            // Of each task the last ones are kept.
            let Ok(message) = attempts.get_raw_message(sequence).await else { continue };
            found += usize::from(String::from_utf8_lossy(&message.payload).contains(reason));
        }
        (found >= times).then_some(())
    })
    .await;
}

/// Fails if processes get larger as long as workers are turned away. A busy machine starts a thread
/// later than an idle one, which shows as a step: what grows with each turn is larger in every window.
async fn expect_memory_comes_to_rest<const N: usize>(server: &NatsServer, pids: [u32; N]) {
    const WINDOW: u64 = 2 * TASKS;
    let mut seen = Vec::new();
    for window in 1..=5 {
        turned_away(server, window * WINDOW).await;
        let now = pids.map(process::peak_bytes);
        assert!(now.iter().all(|peak| *peak < 96 * MIB), "{now:?}");
        let grew = |before: &[u64; N]| now.iter().zip(before).any(|(n, b)| *n >= b + 4 * MIB);
        if seen.last().is_some_and(|before| !grew(before)) {
            return;
        }
        seen.push(now);
    }
    panic!("peaks grow all the time: {seen:?}");
}

/// Waits until a bag says why it stands still.
async fn said(place: &Place, run: &Running, words: &str) {
    place.until(&format!("it says {words:?}"), || run.stderr().contains(words).then_some(())).await;
}

async fn a_full_run_folder(delivery: &str) {
    let (place, server) = Place::with_server().await;
    let how = format!("--transfer wire --delivery {delivery}");
    let words = format!("{BAG} {how} --server {}", server.url());
    let run = OnSmallDisk::start(&place, "runs", 64 * MIB, &words);
    let pid = run.pid(&place).await;
    // Two are kept free: eighteen outputs find room at most, however early the first one comes.
    run.fill(20 * MIB);
    // Only now: it may be done with the whole bag sooner than the disk is full.
    let worker = place.worker(&server);
    let notice = || run.stderr().contains("disk full").then_some(());
    place.until("it says that the disk is full", notice).await;
    let folder = run.disk().join("t/staged");
    let done = outcomes(&folder).len();
    assert!(done < 24, "{done} tasks are done on a full disk");

    // Workers ask again and again, and nobody gets any larger by it.
    expect_memory_comes_to_rest(&server, [pid, worker.pid()]).await;

    run.make_room();
    run.ended(&place).await.with_code(0);
    let folder = place.path("runs.kept/t/staged");
    expect_each_done_once(&folder, TASKS);
    expect_no_attempt_spent(&folder);
    place.run("verify runs.kept/t/staged").await.with_code(0);
}

#[tokio::test]
async fn a_full_run_folder_pauses_a_bag_and_costs_no_attempt_and_no_memory() {
    a_full_run_folder("jetstream").await;
}

#[tokio::test]
async fn a_full_run_folder_pauses_an_offered_bag_and_costs_no_attempt_and_no_memory() {
    a_full_run_folder("queue-group").await;
}

/// What each had taken is free again when the gatherer looks.
#[tokio::test]
async fn two_outputs_that_do_not_fit_at_the_same_time_lack_bytes_and_use_up_no_inodes() {
    let place = Place::new().await;
    std::fs::create_dir(place.path("in")).unwrap();
    for (name, seed) in [("a", 0), ("b", 1)] {
        let noise = generated(DataKind::Random, seed, 8 << 20);
        std::fs::write(place.path("in").join(name), noise).unwrap();
    }
    let words = "run in --out disk/out --codec store --workers 2 --name t -q --deadline 10s";
    let run = OnSmallDisk::start(&place, "disk", 12 * MIB, words);
    let ended = run.ended(&place).await.with_code(4);
    assert!(ended.stderr.contains("disk full: ") && ended.stderr.contains(" needed"), "{ended:?}");
    assert!(!ended.stderr.contains("inodes"), "{ended:?}");
}

#[tokio::test]
async fn a_local_run_whose_whole_disk_fills_restarts_its_server_and_goes_on() {
    let place = Place::new().await;
    let words = "run --tasks 48 --bytes 1MiB --data text --codec zlib:9 --workers 2 --name t -q";
    let run = OnSmallDisk::start(&place, "runs", 96 * MIB, words);
    let pid = run.pid(&place).await;
    let folder = run.disk().join("t/staged");
    let begun = || (!outcomes(&folder).is_empty()).then_some(());
    place.until("the bag has begun", begun).await;
    let server = |pid| process::children(pid).into_iter().find(process::Child::is_server);
    let before = server(pid).expect("the server runs").pid;
    run.fill(0);
    let notice = || run.stderr().contains("the broker's disk is full").then_some(());
    place.until("it says that its broker's disk is full", notice).await;
    run.make_room();
    let restarted = || run.stderr().contains("the server was restarted").then_some(());
    place.until("the server is restarted", restarted).await;
    place.until_gone(&[before]).await;
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&place.path("runs.kept/t/staged"), 48);
    place.run("verify runs.kept/t/staged").await.with_code(0);
}

#[tokio::test]
async fn a_full_queue_pauses_submission_and_it_goes_on() {
    let (place, server) = Place::with_server().await;
    let context = context(&server).await;
    let tasks = context.get_stream("BAG_TASKS").await.unwrap();
    let mut config = tasks.cached_info().config.clone();
    config.max_messages = 4;
    context.update_stream(config).await.unwrap();
    let run = place.spawn(&format!("{BAG} --server {}", server.url()));
    said(&place, &run, "BAG_TASKS is full").await;
    let _worker = place.worker(&server);
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&place.folder("t/staged"), TASKS);
    expect_no_attempt_spent(&place.folder("t/staged"));
}

#[tokio::test]
async fn full_results_hold_the_workers_and_cost_no_attempt() {
    let (place, server) = Place::with_server().await;
    let context = context(&server).await;
    let results = context.get_stream("BAG_RESULTS").await.unwrap();
    let mut config = results.cached_info().config.clone();
    config.max_messages = 4;
    context.update_stream(config.clone()).await.unwrap();
    let _worker = place.worker(&server);
    let run = place.spawn(&format!("{BAG} --server {}", server.url()));
    said(&place, &run, "BAG_RESULTS is full").await;
    assert_eq!(outcomes(&place.folder("t/staged")).len(), 4);
    config.max_messages = -1;
    context.update_stream(config).await.unwrap();
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&place.folder("t/staged"), TASKS);
    expect_no_attempt_spent(&place.folder("t/staged"));
}

#[tokio::test]
async fn a_bucket_full_of_what_nobody_names_is_swept_and_the_bag_goes_on() {
    let (place, server) = Place::with_server().await;
    let context = context(&server).await;
    let folder = place.folder("t/objects");
    let run = place.spawn(&format!("{BAG} --results objects --server {}", server.url()));
    let specification =
        place.until("the bag is there", || std::fs::read(folder.join("bag.json")).ok()).await;
    let specification: serde_json::Value = serde_json::from_slice(&specification).unwrap();
    let bag = specification["bag"].as_str().unwrap();
    let stream = bucket_stream(&context, &format!("OBJ_bag-{bag}")).await;
    let mut config = stream.cached_info().config.clone();
    // Space for all outputs, and not for what dead executions left in addition.
    config.max_bytes = 26 << 20;
    context.update_stream(config).await.unwrap();
    for number in 0..16 {
        let subject = format!("$O.bag-{bag}.C.{number}-AAAAAAAAAAAAAAAAAAAA");
        let sent = context.publish(subject, vec![0; 1_000_000].into()).await.unwrap();
        sent.await.unwrap();
    }
    let _worker = place.worker(&server);
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&folder, TASKS);
    expect_no_attempt_spent(&folder);
    place.run(&format!("verify runs/t/objects --server {}", server.url())).await.with_code(0);
}

/// Its worker died between metadata and result, and there is no room for what another one makes.
#[tokio::test]
async fn an_object_that_a_dead_execution_left_is_adopted_where_there_is_no_room_for_another() {
    for delivery in DELIVERIES {
        let (place, server) = Place::with_server().await;
        let context = context(&server).await;
        let folder = place.folder("t/objects");
        let bag = "run --tasks 1 --bytes 1MiB --codec store --name t -q --results objects";
        let at = format!("--server {}", server.url());
        let run = place.spawn(&format!("{bag} --delivery {delivery} {at}"));
        until_there(&place, "t/objects").await;
        let name = format!("bag-{}", bag_of(&place, "t/objects"));
        let mut stream = bucket_stream(&context, &format!("OBJ_{name}")).await;
        let client = async_nats::connect(server.url()).await.unwrap();
        let bucket = Bucket::new(client, context.clone(), &name).unwrap();
        let (output, dead) = (generated(DataKind::Random, 0, 1 << 20), Execution::random());
        bucket.put("out_0.bin", &format!("0-{dead}"), output.into()).await.unwrap();
        let mut config = stream.info().await.unwrap().config.clone();
        let held = stream.info().await.unwrap().state.bytes;
        config.max_bytes = i64::try_from(held + 64 * 1024).unwrap();
        context.update_stream(config).await.unwrap();
        let _worker = place.worker(&server);
        run.ended(&place).await.with_code(0);
        expect_each_done_once(&folder, 1);
        expect_no_attempt_spent(&folder);
        let adopted = bucket.check_present("out_0.bin").await.unwrap();
        assert_eq!(adopted.token, format!("0-{dead}"));
        place.run(&format!("verify runs/t/objects {at}")).await.with_code(0);
    }
}

async fn bucket_stream(context: &jetstream::Context, name: &str) -> jetstream::stream::Stream {
    eventually("the bucket is there", SOON, async || context.get_stream(name).await.ok()).await
}
