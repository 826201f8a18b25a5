//! What the system grants to a process: how many files it may have open, how large they may be.

use std::path::Path;

use bagpress_codec::DataKind;

use crate::death::DELIVERIES;
use crate::files::write;
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, failure, generated, outcomes};
use crate::process;

const FILES: u64 = 400;
/// Largest file that the worker may write: the output of one task is larger.
const FILE_BYTES_MAX: usize = 64 * 1024;

#[tokio::test]
async fn a_low_soft_limit_of_open_files_is_raised() {
    let place = Place::new().await;
    for index in 0..FILES {
        write(&place.path(&format!("in/{index}")), index.to_string().as_bytes());
    }
    for transfer in ["auto", "wire"] {
        // What would not do: the runtime, the connection, the children's pipes and a few files take more.
        let mut command = place.command(Path::new("prlimit"), "--nofile=24:4096 --");
        command.arg(env!("CARGO_BIN_EXE_bagpress"));
        let words = format!("run in --out out-{transfer} --workers 2 --name {transfer} -q");
        command.args(words.split_whitespace()).args(["--transfer", transfer]);
        place.finish(command).await.with_code(0);
        expect_each_done_once(&place.folder(&format!("{transfer}/staged")), FILES);
    }
    place.expect_no_warnings(&[]);
}

async fn an_output_that_is_too_large(delivery: &str) {
    let (place, server) = Place::with_server().await;
    for index in 0..12 {
        let bytes = if index == 5 { 8 * FILE_BYTES_MAX } else { 1_000 };
        let name = format!("in/{index:02}");
        write(&place.path(&name), &generated(DataKind::Random, index, bytes));
    }
    let mut command = place.command(Path::new("prlimit"), "");
    command.arg(format!("--fsize={FILE_BYTES_MAX}")).arg(env!("CARGO_BIN_EXE_bagpress"));
    command.args(["worker", "--slots", "2", "--allow", "/", "--server", server.url()]);
    let worker = place.start(command);

    let words = "run in --out out --transfer auto --name t -q --attempts 2 --deadline 50s";
    let words = format!("{words} --delivery {delivery} --server {}", server.url());
    let ran = place.run(&words).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let folder = place.folder("t/staged");
    assert_eq!(outcomes(&folder).len(), 12);
    let (cause, message) = failure(&folder, 5);
    assert!(message.contains("File too large"), "{cause}: {message}");
    assert!(ran.stderr.contains("1 of 12 tasks failed"), "{ran:?}");
    assert!(process::is_alive(worker.pid()), "{}", worker.stderr());
}

#[tokio::test]
async fn an_output_larger_than_a_worker_may_write_fails_alone_and_the_worker_lives() {
    for delivery in DELIVERIES {
        an_output_that_is_too_large(delivery).await;
    }
}
