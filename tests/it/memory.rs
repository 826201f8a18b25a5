//! Memory does not grow with the number of tasks.

use std::fs;
use std::time::Duration;

use crate::files::write;
use crate::harness::{Ended, Place, Running};
use crate::ledger::expect_each_done_once;
use crate::process;

const MIB: u64 = 1024 * 1024;
/// Enough for every buffer, queue and thread to be in use that ever is.
const FILES: u64 = 3_000;
/// What `run` may take for itself, however many files there are.
const PRIVATE_BYTES_MAX: u64 = 96 * MIB;
/// What each of its workers may.
const WORKER_BYTES_MAX: u64 = 64 * MIB;

/// Runs to the end, and gives the most private memory that the process and any worker of it had.
async fn peaks(place: &Place, run: Running) -> (Ended, u64, u64) {
    let pid = run.pid();
    let (mut own, mut workers) = (0, 0);
    // Thousands of files are more than any other test has, and this one looks on meanwhile.
    let mut ended = std::pin::pin!(run.ended_within(Duration::from_mins(5), place));
    loop {
        own = process::private_bytes(pid).unwrap_or(0).max(own);
        for child in process::children(pid).iter().filter(|child| child.is_worker()) {
            workers = process::private_bytes(child.pid).unwrap_or(0).max(workers);
        }
        let look_again = Duration::from_millis(100);
        if let Ok(ended) = tokio::time::timeout(look_again, &mut ended).await {
            return (ended, own, workers);
        }
    }
}

async fn many_files(ways: &[&str]) {
    let place = Place::new().await;
    for index in 0..FILES {
        let line = format!("line {index} of an ordinary file\n");
        write(&place.path(&format!("in/{}/{index}", index % 7)), line.repeat(10).as_bytes());
    }
    for (number, way) in ways.iter().enumerate() {
        let words = format!("run in --out out{number} --workers 2 --name t{number} -q {way}");
        let (ended, own, workers) = peaks(&place, place.spawn(&words)).await;
        ended.with_code(0);
        let results = if way.contains("objects") { "objects" } else { "staged" };
        expect_each_done_once(&place.folder(&format!("t{number}/{results}")), FILES);
        assert!(own > MIB && workers > MIB, "not measured: {own}, {workers}");
        assert!(own < PRIVATE_BYTES_MAX, "{way}: {own} bytes");
        assert!(workers < WORKER_BYTES_MAX, "{way}: {workers} bytes of a worker");
        fs::remove_dir_all(place.path(&format!("out{number}"))).unwrap();
    }
}

#[tokio::test]
async fn thousands_of_files_by_path_and_by_wire_take_little_memory() {
    many_files(&["--results staged --transfer auto", "--results staged --transfer wire"]).await;
}

#[tokio::test]
async fn thousands_of_files_as_objects_take_little_memory() {
    many_files(&["--results objects"]).await;
}

#[tokio::test]
async fn thousands_of_files_that_are_offered_take_little_memory() {
    many_files(&["--results staged --delivery queue-group"]).await;
}
