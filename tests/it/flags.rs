//! No flag is accepted where it does nothing, and no exported variable makes a flag an error.

use bagpress_broker::testing::NatsServer;

use crate::bad_input::{expect_nothing_begun, expect_refusal};
use crate::harness::{Ended, Place};

/// What must be refused, and the flag that would do nothing.
const IDLE: &[(&str, &str)] = &[
    // A server is named, and no local cluster is started.
    ("run --tasks 2 --workers 2 --server nats://h", "--workers"),
    ("run --tasks 2 -j 2 --server nats://h", "--workers"),
    ("run --tasks 2 --workers 2 --context c", "--workers"),
    ("run --tasks 2 --nats-server p --server nats://h", "--nats-server"),
    ("run --tasks 2 --nats-server p --context c", "--nats-server"),
    ("run --tasks 2 --durability always --server nats://h", "--durability"),
    ("run --tasks 2 --durability always --context c", "--durability"),
    ("gather runs/t/staged --workers 2 --server nats://h", "--workers"),
    ("gather runs/t/staged --nats-server p --context c", "--nats-server"),
    ("gather runs/t/staged --durability always --server nats://h", "--durability"),
    ("verify runs/t/staged --nats-server p --server nats://h", "--nats-server"),
    ("verify runs/t/staged --nats-server p --context c", "--nats-server"),
    // No server is named.
    ("run --tasks 2 --creds f", "--creds"),
    ("submit --tasks 2 --creds f", "--creds"),
    ("gather runs/t/staged --creds f", "--creds"),
    ("status runs/t/staged --creds f", "--creds"),
    ("cancel runs/t/staged --creds f", "--creds"),
    ("rm runs/t/staged --creds f", "--creds"),
    ("verify runs/t/staged --creds f", "--creds"),
    ("worker --creds f", "--creds"),
    ("run --tasks 2 --nkey f", "--nkey"),
    ("submit --tasks 2 --user u --password-file f", "--user"),
    ("gather runs/t/staged --token-file f", "--token-file"),
    ("status --tls-ca f", "--tls-ca"),
    ("cancel t-abcdefgh --tls-cert f --tls-key f", "--tls-cert"),
    ("broker --creds f", "--creds"),
    ("broker --tls-ca f", "--tls-ca"),
    // A goal is what one codec chooses by.
    ("run --tasks 2 --codec zstd:3 --goal ratio", "--goal"),
    ("run --tasks 2 --codec auto,speed --goal ratio", "--goal"),
    ("submit --tasks 2 --codec gzip:6 --goal speed --server nats://h", "--goal"),
    // Two kinds of credentials, and halves of pairs.
    ("run --tasks 2 --server nats://h --creds f --nkey f", "--creds and --nkey"),
    ("worker --context c --token-file f --user u --password-file f", "--user and --token-file"),
    ("status --server nats://u:p@h --creds f", "--creds and --server"),
    ("run --tasks 2 --server nats://h --user u", "--user does nothing without --password-file"),
    ("worker --server nats://h --password-file f", "--password-file does nothing without --user"),
    ("status --server nats://h --tls-cert f", "--tls-cert does nothing without --tls-key"),
    ("broker --init --server nats://h --tls-key f", "--tls-key does nothing without --tls-cert"),
    ("run --tasks 2 --connect-timeout 1s", "--connect-timeout"),
    ("gather runs/t/staged --connect-timeout 1s", "--connect-timeout"),
    ("verify runs/t/staged --connect-timeout 1s", "--connect-timeout"),
    ("rm --orphans --connect-timeout 1s", "--connect-timeout"),
    // Two brokers.
    ("run --tasks 2 --server nats://h --context c", "--context"),
    ("worker --server nats://h --context c", "--context"),
    // About objects.
    ("run --tasks 2 --get", "--get"),
    ("run --tasks 2 --get --results staged", "--get"),
    ("run in --out out --keep-inputs", "--keep-inputs"),
    ("run in --results objects --out out --get", "--get"),
    ("run --tasks 2 --results objects --keep-inputs", "--keep-inputs"),
    ("submit --tasks 2 --get --server nats://h", "--get"),
    ("run --tasks 2 --ttl 1h", "--ttl"),
    ("object info obj://b/n --nats-server p --server nats://h", "--nats-server"),
    ("object info obj://b/n --trust-folder --server nats://h", "--trust-folder"),
    ("object info obj://b/n --creds f", "--creds"),
    // About generated bags.
    ("run in --out out --data text", "--data"),
    ("run in --out out --seed 7", "--seed"),
    ("run in --out out --bytes 1KiB", "--bytes"),
    ("submit in --results objects --seed 7 --server nats://h", "--seed"),
    // Removing and sweeping.
    ("rm --orphans --force", "--force"),
    ("rm --orphans --outputs", "--outputs"),
    ("rm --orphans --folder-only", "--folder-only"),
    ("rm --orphans runs/t/staged", "--orphans"),
    ("rm --orphans --older-than 1h", "--older-than"),
    ("rm runs/t/staged --older-than 1h", "--older-than"),
    ("rm runs/t/staged --runs elsewhere", "--runs"),
    ("rm t-abcdefgh --outputs --server nats://h", "--outputs"),
    ("rm t-abcdefgh --folder-only", "--folder-only"),
    ("rm runs/t/staged --folder-only --server nats://h", "--server"),
    ("rm runs/t/staged --folder-only --context c", "--context"),
    ("rm runs/t/staged --folder-only --connect-timeout 1s", "--connect-timeout"),
    // No run folder is read.
    ("run --tasks 2 --dry-run --trust-folder", "--trust-folder"),
    ("status --trust-folder --server nats://h", "--trust-folder"),
    ("cancel t-abcdefgh --trust-folder", "--trust-folder"),
    ("rm t-abcdefgh --trust-folder", "--trust-folder"),
    // A server of our own, or one that runs.
    ("broker --init --server nats://h --store d", "--store"),
    ("broker --init --server nats://h --listen 127.0.0.1:0", "--listen"),
    ("broker --init --server nats://h --nats-server p", "--nats-server"),
    ("broker --init --server nats://h --durability always", "--durability"),
    ("broker --init --server nats://h --keep-token t", "--keep-token"),
    ("broker --init --server nats://h --no-auth", "--no-auth"),
    ("broker --no-auth --keep-token t", "--keep-token"),
    ("broker --init", "--server"),
    ("broker --server nats://h", "--server"),
    ("broker --context c", "--context"),
    ("broker --replicas 3", "--replicas"),
    ("broker --max-file 1GiB", "--init"),
    // One look at a bag, or many.
    ("status --failed", "BAG"),
    ("status runs/t/staged --failed --watch", "--watch"),
    ("status runs/t/staged --failed --server nats://h", "--server"),
    ("status runs/t/staged --failed --context c", "--context"),
    ("status runs/t/staged 7 --failed", "--failed"),
    ("status runs/t/staged 7 --watch", "--watch"),
];

#[tokio::test]
async fn a_flag_that_would_do_nothing_is_refused_by_name() {
    let place = Place::new().await;
    for (words, flag) in IDLE {
        let ended = place.run(words).await;
        expect_refusal(&ended, 2, &[flag]);
    }
    expect_nothing_begun(&place);
    assert!(!place.path("runs").exists() && !place.path("out").exists());
}

#[tokio::test]
async fn a_server_for_objects_is_not_taken_where_outputs_are_files() {
    let place = Place::new().await;
    place.run("run --tasks 1 --bytes 1KiB --workers 1 --name t -q").await.with_code(0);
    let ended = place.run("verify runs/t/staged --nats-server nowhere").await;
    expect_refusal(&ended, 2, &["--nats-server", "files"]);
}

/// Runs the program with these variables.
async fn exported(place: &Place, words: &str, variables: &[(&str, &str)]) -> Ended {
    let mut command = place.bagpress(words);
    command.envs(variables.iter().copied());
    place.finish(command).await
}

#[tokio::test]
async fn what_is_exported_makes_no_flag_an_error() {
    let place = Place::new().await;
    let server = NatsServer::start().await;
    let (url, nowhere) = (server.url(), "nats://127.0.0.1:1");
    let at = format!("--server {url}");
    place.run(&format!("broker --init --max-file 1GiB {at}")).await.with_code(0);
    let _worker = place.worker(&server);
    let all = [
        ("BAGPRESS_CONTEXT", "none"),
        ("BAGPRESS_CREDS", ""),
        ("BAGPRESS_WORKERS", "2"),
        ("BAGPRESS_SERVER", nowhere),
    ];
    let run = format!("run --tasks 1 --bytes 1KiB --name t -q {at}");
    let ended = exported(&place, &run, &all).await.with_code(0);
    assert!(ended.stderr.contains(&format!("broker: {url} (from --server)")), "{ended:?}");
    let server_only = [("BAGPRESS_SERVER", url)];
    exported(&place, "run --tasks 1 --bytes 1KiB -q --workers 1", &server_only).await.with_code(0);
    exported(&place, "verify runs/t/staged", &all[..3]).await.with_code(0);
    exported(&place, "rm --orphans --older-than 1h", &server_only).await.with_code(0);
    // What the server has stays.
    let alone = exported(&place, "rm runs/t/staged --folder-only", &server_only).await.with_code(0);
    assert!(alone.stdout.contains("0 messages"), "{alone:?}");
    assert!(!alone.stderr.contains(url), "{alone:?}");
    // Two that are exported are none that was chosen.
    let both = [("BAGPRESS_SERVER", nowhere), ("BAGPRESS_CONTEXT", "none")];
    let ended = exported(&place, "status", &both).await;
    expect_refusal(&ended, 2, &["BAGPRESS_SERVER", "BAGPRESS_CONTEXT"]);
}

#[tokio::test]
async fn an_empty_variable_names_no_server() {
    let place = Place::new().await;
    let empty = [("BAGPRESS_SERVER", ""), ("BAGPRESS_CONTEXT", "")];
    let run = "run --tasks 1 --bytes 1KiB --workers 1 --name t -q";
    let ended = exported(&place, run, &empty).await.with_code(0);
    assert!(ended.stderr.starts_with("broker: local"), "{ended:?}");
}

#[tokio::test]
async fn what_is_no_address_of_a_server_is_refused_before_anything_is_begun() {
    let place = Place::new().await;
    let bad = [
        "http://h:4222",
        "wss://h",
        "nats://h:99999",
        "nats://h:port",
        "nats://",
        "nats://h,,nats://i",
    ];
    let verbs = [
        "run --tasks 2 --name t",
        "submit --tasks 2 --name t",
        "gather runs/t/staged",
        "status",
        "cancel t-abcdefgh",
        "rm t-abcdefgh",
        "verify runs/t/staged",
        "worker",
        "broker --init",
    ];
    for verb in verbs {
        for url in bad {
            let ended = place.run(&format!("{verb} --server {url}")).await;
            expect_refusal(&ended, 2, &["--server", url, "nats://127.0.0.1:4222"]);
        }
        let mut command = place.bagpress(verb);
        command.args(["--server", ""]);
        expect_refusal(&place.finish(command).await, 2, &["--server", "nats://127.0.0.1:4222"]);
        let variable = [("BAGPRESS_SERVER", "http://h:4222")];
        let ended = exported(&place, verb, &variable).await;
        expect_refusal(&ended, 2, &["BAGPRESS_SERVER", "http://h:4222"]);
    }
    expect_nothing_begun(&place);
    assert!(!place.path("runs").exists());
}

#[tokio::test]
async fn several_servers_may_be_named() {
    let place = Place::new().await;
    let server = NatsServer::start().await;
    let urls = format!("nats://127.0.0.1:1,{}", server.url());
    place.run(&format!("broker --init --max-file 1GiB --server {urls}")).await.with_code(0);
    place.run(&format!("status --server {urls}")).await.with_code(0);
}
