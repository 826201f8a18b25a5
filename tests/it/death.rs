//! Whatever process dies during a bag, each task is done, and counted once.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use bagpress_broker::limits::{LEASE, LEASE_RENEWAL};
use rustix::process::Signal;
use walkdir::WalkDir;

use crate::harness::{Place, Running};
use crate::ledger::{expect_each_done_once, longest_pause, outcomes};
use crate::process::{self, Child};

/// A bag that takes a while.
pub(crate) const BAG: &str = "--tasks 24 --bytes 1MiB --data text --codec zlib:9 --name t";
pub(crate) const TASKS: u64 = 24;

/// Both ways by which tasks reach workers.
pub(crate) const DELIVERIES: [&str; 2] = ["jetstream", "queue-group"];

/// The lease of a dead worker lasts at least as long: it was renewed not longer ago than that.
pub(crate) const LEAST_LEASE: Duration = LEASE.saturating_sub(LEASE_RENEWAL);

/// Fails if a bag stood still until a lease was over. However busy the machine is, the tasks of the
/// living go on; once they are done, a task that waits for its lease leaves a pause behind.
pub(crate) fn expect_no_lease_was_waited_for(folder: &Path) {
    let pause = longest_pause(folder);
    assert!(pause < LEAST_LEASE / 2, "no outcome for {pause:?}");
}

/// Waits until a bag is in its middle.
pub(crate) async fn middle(place: &Place, folder: &Path) {
    place.until("the bag is in its middle", || (outcomes(folder).len() >= 4).then_some(())).await;
}

pub(crate) fn expect_unfinished(folder: &Path) {
    assert!(outcomes(folder).len() < usize::try_from(TASKS).unwrap(), "it came too late");
}

async fn children(place: &Place, run: &Running, workers: usize) -> Vec<Child> {
    place
        .until(&format!("a server and {workers} workers are there"), || {
            let children = process::children(run.pid());
            let there = children.iter().filter(|child| child.is_worker()).count() == workers
                && children.iter().any(Child::is_server);
            there.then_some(children)
        })
        .await
}

async fn a_local_worker_that_is_killed(delivery: &str) {
    let place = Place::new().await;
    let folder = place.folder("t/staged");
    // Long enough that the worker that is started again has something to do.
    let (bag, tasks) = (BAG.replace("--tasks 24", "--tasks 72"), 72);
    let run = place.spawn(&format!("run {bag} --workers 4 -q --delivery {delivery}"));
    let children = children(&place, &run, 4).await;
    middle(&place, &folder).await;
    let victim = children.iter().find(|child| child.is_worker()).unwrap();
    process::signal(victim.pid, Signal::KILL);
    expect_unfinished(&folder);
    let ended = run.ended(&place).await.with_code(0);
    expect_no_lease_was_waited_for(&folder);
    assert!(ended.stderr.contains("ended (signal: 9"), "{ended:?}");
    expect_each_done_once(&folder, tasks);
    place.run("verify runs/t/staged").await.with_code(0);
    let starts = |log: &Path| fs::read_to_string(log).unwrap().matches("worker started").count();
    let logs = (0..4).map(|n| folder.join(format!("logs/worker_{n}.log")));
    assert_eq!(logs.map(|log| starts(&log)).sum::<usize>(), 5, "one is started again");
}

#[tokio::test]
async fn a_local_worker_that_is_killed_costs_nothing() {
    a_local_worker_that_is_killed("jetstream").await;
}

#[tokio::test]
async fn a_local_member_that_is_killed_costs_nothing() {
    a_local_worker_that_is_killed("queue-group").await;
}

async fn a_far_worker_that_is_killed(delivery: &str) {
    let (place, server) = Place::with_server().await;
    let folder = place.folder("t/staged");
    let (victim, _other) = (place.worker(&server), place.worker(&server));
    let run = format!("run {BAG} -q --delivery {delivery} --server {}", server.url());
    let run = place.spawn(&run);
    middle(&place, &folder).await;
    victim.signal(Signal::KILL);
    expect_unfinished(&folder);
    run.ended(&place).await.with_code(0);
    expect_no_lease_was_waited_for(&folder);
    expect_each_done_once(&folder, TASKS);
    place.run("verify runs/t/staged").await.with_code(0);
}

#[tokio::test]
async fn a_far_worker_that_is_killed_costs_no_lease() {
    a_far_worker_that_is_killed("jetstream").await;
}

#[tokio::test]
async fn a_far_member_that_is_killed_costs_no_lease() {
    a_far_worker_that_is_killed("queue-group").await;
}

/// The part files that a run has left.
fn parts(place: &Place) -> usize {
    let entries = WalkDir::new(place.path("runs")).into_iter().map(Result::unwrap);
    entries.filter(|e| e.path().components().any(|c| c.as_os_str() == ".bagpress-part")).count()
}

async fn a_producer_that_is_killed(results: &str, delivery: &str) {
    let place = Place::new().await;
    let folder = place.folder(&format!("t/{results}"));
    let run =
        place.spawn(&format!("run {BAG} --workers 2 -q --results {results} --delivery {delivery}"));
    let children = children(&place, &run, 2).await;
    middle(&place, &folder).await;
    run.signal(Signal::KILL);
    assert_eq!(run.ended(&place).await.code, None);
    expect_unfinished(&folder);
    place.until_gone(&process::pids(&children)).await;

    let gather = format!("gather runs/t/{results} --workers 2 -q");
    place.run(&gather).await.with_code(0);
    expect_each_done_once(&folder, TASKS);
    place.run(&format!("verify runs/t/{results}")).await.with_code(0);
    assert_eq!(parts(&place), 0);
}

#[tokio::test]
async fn a_producer_of_files_that_is_killed_takes_all_with_it_and_goes_on() {
    a_producer_that_is_killed("staged", "jetstream").await;
}

#[tokio::test]
async fn a_producer_of_objects_that_is_killed_takes_all_with_it_and_goes_on() {
    a_producer_that_is_killed("objects", "jetstream").await;
}

#[tokio::test]
async fn a_producer_that_offers_files_and_is_killed_goes_on() {
    a_producer_that_is_killed("staged", "queue-group").await;
}

#[tokio::test]
async fn a_producer_that_offers_objects_and_is_killed_goes_on() {
    a_producer_that_is_killed("objects", "queue-group").await;
}

async fn a_run_that_is_stopped(signal: Signal, code: i32, delivery: &str) {
    let place = Place::new().await;
    let folder = place.folder("t/staged");
    let run = place.spawn(&format!("run {BAG} --workers 2 -q --delivery {delivery}"));
    let children = children(&place, &run, 2).await;
    let server = children.iter().find(|child| child.is_server()).unwrap();
    let ports = folder.join(format!(".broker/nats-server_{}.ports", server.pid));
    let text = fs::read(&ports).unwrap();
    let listening: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let port = listening["nats"][0].as_str().unwrap().trim_start_matches("nats://").to_owned();
    TcpStream::connect(&port).unwrap();

    middle(&place, &folder).await;
    run.signal(signal);
    let stopped = run.ended(&place).await.with_code(code);
    expect_unfinished(&folder);
    assert!(stopped.stderr.contains("bagpress gather runs/t/staged"), "{stopped:?}");
    let alive: Vec<_> = children.iter().filter(|child| process::is_alive(child.pid)).collect();
    assert!(alive.is_empty(), "{alive:?}");
    assert!(TcpStream::connect(&port).is_err(), "somebody listens on {port}");
    assert!(!ports.exists() && !folder.join(".broker/server.conf").exists());

    place.run("gather runs/t/staged --workers 2 -q").await.with_code(0);
    expect_each_done_once(&folder, TASKS);
    assert_eq!(parts(&place), 0);
    assert!(!folder.join(".broker").exists(), "a finished staged run needs no store");
    place.run("verify runs/t/staged").await.with_code(0);
}

#[tokio::test]
async fn a_run_that_is_terminated_leaves_nothing_and_goes_on() {
    a_run_that_is_stopped(Signal::TERM, 143, "jetstream").await;
}

#[tokio::test]
async fn a_run_that_offers_and_is_terminated_leaves_nothing_and_goes_on() {
    a_run_that_is_stopped(Signal::TERM, 143, "queue-group").await;
}

#[tokio::test]
async fn a_run_that_is_interrupted_leaves_nothing_and_goes_on() {
    a_run_that_is_stopped(Signal::INT, 130, "jetstream").await;
}

#[tokio::test]
async fn an_unfinished_run_goes_on_by_its_own_command() {
    let place = Place::new().await;
    let run = place.spawn(&format!("run {BAG} --workers 2 -q"));
    middle(&place, &place.folder("t/staged")).await;
    run.signal(Signal::TERM);
    run.ended(&place).await.with_code(143);
    let again = place.run(&format!("run {BAG} --workers 2 -q")).await.with_code(0);
    assert!(again.stderr.contains("continues the unfinished run"), "{again:?}");
    expect_each_done_once(&place.folder("t/staged"), TASKS);
}
