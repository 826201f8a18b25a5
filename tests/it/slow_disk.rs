//! A disk that is slow, or hangs for a while, is waited for: nothing fails, and it is said.

use std::time::{Duration, Instant};

use bagpress_broker::limits::REQUEST_TIMEOUT;

use crate::control::until_status;
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, outcomes};
use crate::process;
use crate::small_disk::OnSmallDisk;

const MIB: u64 = 1024 * 1024;
const TASKS: u64 = 32;
/// Longer than anybody waits for one answer.
const HANGS_FOR: Duration = REQUEST_TIMEOUT.saturating_add(Duration::from_secs(1));

async fn a_disk_that_hangs(delivery: &str, bytes: &str) {
    let (place, server) = Place::with_server().await;
    let workers = [place.worker(&server), place.worker(&server)];
    let at = format!("--server {}", server.url());
    let bag = format!("run --tasks {TASKS} --bytes {bytes} --codec zlib:1 --name t -q");
    let words = format!("{bag} --transfer wire --delivery {delivery} {at}");
    let run = OnSmallDisk::start_on_disk(&place, "runs", 160 * MIB, &words);
    let pid = run.pid(&place).await;
    let folder = run.disk().join("t/staged");
    place.until("it has begun", || (outcomes(&folder).len() >= 2).then_some(())).await;

    let frozen = run.freeze();
    let since = Instant::now();
    let says = || run.stderr().contains("has not answered for").then_some(());
    place.until("it says that the disk hangs", says).await;
    until_status(&place, "status says it", &at, |all| {
        all["bags"][0]["waits"].as_str()?.contains("has not answered for").then_some(())
    })
    .await;
    // By now everything that may be in flight is, and no process grows any more.
    let everybody = [pid, workers[0].pid(), workers[1].pid()];
    assert!(everybody.iter().all(|pid| process::is_alive(*pid)), "{everybody:?}: {}", run.stderr());
    let before = everybody.map(process::peak_bytes);
    place.until("it hung long enough", || (since.elapsed() >= HANGS_FOR).then_some(())).await;
    assert!((outcomes(&folder).len() as u64) < TASKS, "nothing was left to wait for");
    for (pid, before) in everybody.into_iter().zip(before) {
        let now = process::peak_bytes(pid);
        assert!(now < before + 8 * MIB && now < 96 * MIB, "{before} bytes, then {now}");
    }
    drop(frozen);

    run.ended(&place).await.with_code(0);
    let folder = place.path("runs.kept/t/staged");
    expect_each_done_once(&folder, TASKS);
    let history = std::fs::read_to_string(folder.join("attempts.jsonl")).unwrap_or_default();
    for outcome in outcomes(&folder) {
        assert_eq!(outcome["attempt"], 1, "{outcome}\n{history}");
    }
    place.run("verify runs.kept/t/staged").await.with_code(0);
}

/// Outputs of several chunks.
#[ignore = "needs root and a loop device: make test-disk"]
#[tokio::test]
async fn a_disk_that_hangs_is_waited_for_and_costs_no_attempt_and_no_memory() {
    a_disk_that_hangs("jetstream", "2MiB").await;
}

/// Outputs of one chunk, that travel with their CLOSE.
#[ignore = "needs root and a loop device: make test-disk"]
#[tokio::test]
async fn a_disk_that_hangs_is_waited_for_by_members_and_costs_no_attempt_and_no_memory() {
    a_disk_that_hangs("queue-group", "256KiB").await;
}
