//! A broker that is just starting is waited for, with a message.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::bad_input::expect_refusal;
use crate::bad_server::plain_server;
use crate::control::bag_of;
use crate::harness::{Place, Running};

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until a process said something.
async fn says(place: &Place, running: &Running, words: &str) {
    place.until(words, || running.stderr().contains(words).then_some(())).await;
}

/// Everybody is started at the same time, the broker last; its streams come later still.
#[tokio::test]
async fn broker_worker_and_producer_may_be_started_in_any_order() {
    let place = Place::new().await;
    let port = free_port();
    // There is no token yet, and another after each start.
    let at = format!("--server nats://127.0.0.1:{port} --token-file store/token");
    let wait = format!("--connect-timeout 1m {at}");
    let run = place.spawn(&format!("run --tasks 2 --bytes 1KiB --name t -q {wait}"));
    let submit = format!("submit --tasks 2 --bytes 1KiB --results objects --name s {wait}");
    let submit = place.spawn(&submit);
    let status = place.spawn(&format!("status {wait}"));
    let waiting = format!("waiting for a NATS server at nats://127.0.0.1:{port}");
    for running in [&run, &submit, &status] {
        says(&place, running, &waiting).await;
    }
    let _worker = place.spawn(&format!("worker --slots 1 {at}"));
    let broker = place.spawn(&format!("broker --store store --listen 127.0.0.1:{port}"));
    for running in [run, submit, status] {
        let ended = running.ended(&place).await.with_code(0);
        assert_eq!(ended.stderr.matches(&waiting).count(), 1, "{ended:?}");
    }
    // A bag that is there is asked about by a server that is gone for a moment.
    broker.signal(Signal::TERM);
    broker.ended(&place).await.with_code(0);
    let verbs = ["gather runs/s/objects -q", "cancel runs/t/staged", "verify runs/s/objects"];
    let verbs = verbs.map(|verb| place.spawn(&format!("{verb} {wait}")));
    let rm = place.spawn(&format!("rm {} {wait}", bag_of(&place, "t/staged")));
    for running in verbs.iter().chain([&rm]) {
        says(&place, running, &waiting).await;
    }
    let _broker = place.spawn(&format!("broker --store store --listen 127.0.0.1:{port}"));
    let [gather, cancel, verify] = verbs;
    gather.ended(&place).await.with_code(0);
    // Which of the two is first is not promised.
    cancel.ended(&place).await;
    rm.ended(&place).await;
    // Nothing was gathered when it looked.
    verify.ended(&place).await;
}

/// A worker waits without limit; it does not do so silently.
#[tokio::test]
async fn a_worker_without_a_server_soon_says_what_it_waits_for() {
    let place = Place::new().await;
    let began = Instant::now();
    let worker = place.spawn("worker --slots 1 --server nats://no-such.invalid:4222");
    says(&place, &worker, "no server answers, waiting for it").await;
    assert!(began.elapsed() < bagpress_broker::limits::RECONCILE_AFTER, "{}", worker.stderr());
    assert!(worker.stderr().contains("no-such.invalid cannot be resolved"), "{}", worker.stderr());
}

#[tokio::test]
async fn a_host_that_nobody_knows_is_named() {
    let place = Place::new().await;
    let at = "--server nats://no-such.invalid:4222";
    for words in [format!("status --connect-timeout 0s {at}"), format!("broker --init {at}")] {
        let ended = place.run(&words).await;
        expect_refusal(&ended, 3, &["the host no-such.invalid cannot be resolved"]);
    }
}

#[tokio::test]
async fn the_next_command_that_is_named_leads_to_the_same_server() {
    let (place, server) = Place::with_server().await;
    let token = place.path("a token");
    std::fs::write(&token, "0".repeat(64)).unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut submit = place.bagpress("submit --tasks 2 --bytes 1KiB --name t");
    submit.args(["--server", server.url(), "--token-file", "a token"]);
    let submitted = place.finish(submit).await.with_code(0);
    let next = submitted.stderr.lines().find_map(|line| line.strip_prefix("next: bagpress "));
    let next = next.unwrap();
    let flags = format!("--server {} --token-file 'a token'", server.url());
    assert_eq!(next, format!("gather runs/t/staged {flags}"));
    // As somebody types it who has the program on the path.
    let _worker = place.worker(&server);
    let mut shell = place.command(std::path::Path::new("/bin/sh"), "-c");
    shell.arg(format!("{} {next} -q", env!("CARGO_BIN_EXE_bagpress")));
    place.finish(shell).await.with_code(0);
    // What is exported is so for the next command as well.
    let mut submit = place.bagpress("submit --tasks 2 --bytes 1KiB --name e");
    submit.env("BAGPRESS_SERVER", server.url());
    let submitted = place.finish(submit).await.with_code(0);
    assert!(submitted.stderr.contains("next: bagpress gather runs/e/staged\n"), "{submitted:?}");
}

#[tokio::test]
async fn streams_that_are_just_made_are_waited_for() {
    let (place, server) = Place::with_bare_server().await;
    let at = format!("--server {}", server.url());
    let wait = format!("--connect-timeout 1m {at}");
    let run = place.spawn(&format!("run --tasks 2 --bytes 1KiB --name t -q {wait}"));
    let status = place.spawn(&format!("status {wait}"));
    let waiting = format!("waiting for the streams at {}: ", server.url());
    for running in [&run, &status] {
        says(&place, running, &waiting).await;
    }
    place.run(&format!("broker --init --max-file 1GiB {at}")).await.with_code(0);
    let _worker = place.worker(&server);
    for running in [run, status] {
        let ended = running.ended(&place).await.with_code(0);
        assert_eq!(ended.stderr.matches(&waiting).count(), 1, "{ended:?}");
    }
}

#[tokio::test]
async fn the_time_that_was_waited_is_said() {
    let place = Place::new().await;
    let at = format!("--server nats://127.0.0.1:{}", free_port());
    for (wait, least) in [("0s", 0), ("1s", 1)] {
        let began = Instant::now();
        let ended = place.run(&format!("status --connect-timeout {wait} {at}")).await;
        expect_refusal(&ended, 3, &["no NATS server answered", "within"]);
        assert!(began.elapsed() >= Duration::from_secs(least), "{ended:?}");
        let (_, within) = ended.stderr.split_once("within ").unwrap();
        let (within, _) = within.split_once(": ").unwrap();
        let seconds = !within.ends_with("ms") && !within.ends_with("µs");
        assert_eq!(seconds, least > 0, "{within}");
        assert_eq!(ended.stderr.contains("waiting for"), least > 0, "{ended:?}");
    }
}

/// A server that will never have them must not be waited for.
#[tokio::test]
async fn a_bag_that_needs_no_streams_waits_for_none() {
    let place = Place::new().await;
    let (_plain, plain) = plain_server(&place).await;
    let bare = bagpress_broker::testing::NatsServer::start().await;
    for (name, url) in [("plain", &*plain), ("bare", bare.url())] {
        let _worker = place.spawn(&format!("worker --slots 1 --server {url}"));
        let at = format!("--connect-timeout 1h --server {url}");
        let bag =
            format!("run --tasks 2 --bytes 1KiB --delivery queue-group --name {name} -q {at}");
        let ended = place.run(&bag).await.with_code(0);
        assert!(!ended.stderr.contains("waiting for the streams"), "{ended:?}");
    }
}

#[tokio::test]
async fn who_is_refused_does_not_wait() {
    let place = Place::new().await;
    let (_server, url) = plain_server(&place).await;
    let ended = place.run(&format!("run --tasks 2 --connect-timeout 1h --server {url}")).await;
    expect_refusal(&ended, 3, &["JetStream is off"]);
}

#[tokio::test]
async fn a_signal_ends_the_waiting_at_once() {
    let place = Place::new().await;
    let at = format!("--connect-timeout 1h --server nats://127.0.0.1:{}", free_port());
    place.run("run --tasks 1 --bytes 1KiB --workers 1 --name t -q").await.with_code(0);
    for verb in [
        "run --tasks 2 -q",
        "submit --tasks 2",
        "gather runs/t/staged -q",
        "status",
        "cancel runs/t/staged",
        "rm runs/t/staged",
    ] {
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
            let running = place.spawn(&format!("{verb} {at}"));
            says(&place, &running, "waiting for a NATS server").await;
            let began = Instant::now();
            running.signal(signal);
            let ended = running.ended(&place).await.with_code(code);
            assert!(began.elapsed() < Duration::from_secs(2), "{ended:?}");
        }
    }
    assert!(place.folder("t/staged/bag.json").is_file());
}

/// A process that listens and says nothing is not a server yet.
#[tokio::test]
async fn a_server_that_does_not_answer_is_said_to_be_waited_for() {
    let place = Place::new().await;
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", silent.local_addr().unwrap());
    let status = place.spawn(&format!("status --connect-timeout 2s --server {url}"));
    says(&place, &status, &format!("waiting for a NATS server at {url}")).await;
    let ended = status.ended(&place).await;
    expect_refusal(&ended, 3, &["no NATS server answered", "no answer"]);
}

/// A closed port refuses at once: whoever waits for a server there says so, and not only that nobody answers.
#[tokio::test]
async fn whoever_waits_for_a_server_says_that_it_was_refused() {
    let place = Place::new().await;
    let url = format!("nats://127.0.0.1:{}", free_port());
    let worker = place.spawn(&format!("worker --slots 1 --server {url}"));
    let run = format!("run --tasks 1 --bytes 1KiB --name t --connect-timeout 3s --server {url}");
    for words in [&run, &format!("status --connect-timeout 3s --server {url}")] {
        let ended = place.run(words).await.with_code(3);
        for told in [format!("waiting for a NATS server at {url}: "), "error: ".to_owned()] {
            let line = ended.stderr.lines().find(|line| line.starts_with(&told));
            assert!(line.is_some_and(|line| line.contains("Connection refused")), "{ended:?}");
        }
    }
    says(&place, &worker, "Connection refused").await;
}
