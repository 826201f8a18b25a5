//! What the supervised server promises, with a real nats-server.
//!
//! The guard's hidden verb is the command line's, and tested there; here a script stands in for it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper of a test may fail the test, and says why"
)]

mod program;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use async_nats::jetstream;
use bagpress_broker::server::{Access, Durability, Guard, Options, Server, find_program, running};
use bagpress_broker::testing::eventually;
use bagpress_broker::{Address, Broker, Error, Login, Role};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;
use tokio::time::timeout;

/// Nothing here takes this long on a machine that is busy with something else.
const SOON: Duration = Duration::from_secs(30);

/// A folder with a guard in it, and with room for stores.
struct Place {
    folder: TempDir,
    guard: Guard,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::with_prefix("bagpress-server-").unwrap();
        let guard = Guard { executable: folder.path().join("guard") };
        // __guard PARENT PROGRAM ARG…
        script(&guard.executable, "shift 2; exec \"$@\"");
        Self { folder, guard }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a folder of this mode, whatever the mask is.
    fn make(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn options(&self, store: &str) -> Options {
        Options {
            program: find_program(None).unwrap(),
            store: self.path(store),
            listen: "127.0.0.1:-1".to_owned(),
            durability: Durability::Default,
            access: Access::NewToken,
            memory: None,
            guard: self.guard.clone(),
        }
    }

    async fn start(&self, store: &str) -> Result<Server, Error> {
        start(self.options(store)).await
    }
}

async fn start(options: Options) -> Result<Server, Error> {
    timeout(SOON, Server::start(options)).await.expect("a server, or an error")
}

/// Writes an executable script. Another process does it: a program that is open for writing, even in a
/// child that some other test has just forked, cannot be executed.
fn script(path: &Path, lines: &str) {
    let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$2\" && chmod +x \"$2\"";
    let written = Command::new("sh").args(["-c", write, "sh", lines]).arg(path).status();
    assert!(written.unwrap().success());
}

async fn context(server: &Server) -> jetstream::Context {
    let token = fs::read_to_string(server.token_file().unwrap()).unwrap();
    let options = async_nats::ConnectOptions::with_token(token.trim().to_owned());
    jetstream::new(options.connect(server.url()).await.unwrap())
}

async fn make_stream(server: &Server) -> jetstream::stream::Stream {
    let config = jetstream::stream::Config { name: "S".to_owned(), ..Default::default() };
    context(server).await.create_stream(config).await.unwrap()
}

fn pid(server: &Server) -> Pid {
    Pid::from_raw(server.pid().cast_signed()).unwrap()
}

fn ports_files(store: &Path) -> usize {
    let names = fs::read_dir(store).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".ports")).count()
}

#[tokio::test]
async fn a_server_that_was_started_answers_at_its_url() {
    let place = Place::new();
    let server = place.start("store").await.unwrap();
    assert!(server.url().starts_with("nats://127.0.0.1:"), "{}", server.url());
    assert_eq!(server.store(), place.path("store"));
    context(&server).await.query_account().await.unwrap();
    assert!(fs::read_to_string(server.log_path()).unwrap().contains("Server is ready"));
    server.stop().await;
}

#[tokio::test]
async fn a_server_is_told_how_much_memory_it_may_take() {
    let place = Place::new();
    let memory = Some(128 << 20);
    let server = start(Options { memory, ..place.options("store") }).await.unwrap();
    let environment = fs::read(format!("/proc/{}/environ", server.pid())).unwrap();
    let told = environment.split(|byte| *byte == 0).any(|of| of == b"GOMEMLIMIT=134217728");
    assert!(told || std::env::var_os("GOMEMLIMIT").is_some(), "what is exported counts");
    server.stop().await;
}

#[tokio::test]
async fn a_path_may_hold_blanks_quotes_and_what_else_is_special() {
    let place = Place::new();
    let store = "a \"b\" 'c' \\d $HOME #e {f} é\ng";
    let server = place.start(store).await.unwrap();
    make_stream(&server).await;
    assert!(place.path(store).join("jetstream/$G/streams/S").is_dir());
    server.stop().await;
}

#[tokio::test]
async fn a_second_server_on_a_store_is_refused_and_told_who_has_it() {
    let place = Place::new();
    let server = place.start("store").await.unwrap();
    match place.start("store").await {
        Err(Error::StoreInUse { path, holder }) => {
            assert_eq!(path, place.path("store"));
            assert_eq!(holder, std::process::id().to_string());
        }
        other => panic!("{other:?}"),
    }
    context(&server).await.query_account().await.expect("the first is not disturbed");
    server.stop().await;
    place.start("store").await.unwrap().stop().await;
}

#[tokio::test]
async fn the_server_itself_holds_the_lock_so_that_it_outlives_us() {
    let place = Place::new();
    let server = place.start("store").await.unwrap();
    // Its input is our open lock: the kernel frees that when both of us are gone.
    let input = fs::read_link(format!("/proc/{}/fd/0", server.pid())).unwrap();
    assert_eq!(input, place.path("store/lock").canonicalize().unwrap());
    server.stop().await;
}

#[tokio::test]
async fn a_store_can_be_used_again_as_soon_as_its_server_was_dropped() {
    let place = Place::new();
    for _ in 0..3 {
        drop(place.start("store").await.unwrap());
    }
    place.start("store").await.unwrap().stop().await;
}

#[tokio::test]
async fn stopping_leaves_the_store_and_the_log_and_nothing_that_runs() {
    let place = Place::new();
    let server = place.start("store").await.unwrap();
    let pid = pid(&server);
    make_stream(&server).await;
    assert_eq!(ports_files(&place.path("store")), 1);
    timeout(SOON, server.stop()).await.expect("it stops");
    assert!(test_kill_process(pid).is_err(), "the process is gone");
    assert_eq!(ports_files(&place.path("store")), 0);
    assert!(!place.path("store/server.conf").exists());

    let server = place.start("store").await.unwrap();
    context(&server).await.get_stream("S").await.expect("what was stored is there");
    let log = fs::read_to_string(server.log_path()).unwrap();
    assert_eq!(log.matches("Server is ready").count(), 2, "the log is appended to");
    server.stop().await;
}

#[tokio::test]
async fn killing_leaves_what_was_acknowledged_and_nothing_that_runs() {
    let place = Place::new();
    let server = place.start("store").await.unwrap();
    let pid = pid(&server);
    make_stream(&server).await;
    let publisher = context(&server).await;
    for number in 0..100 {
        let sent = publisher.publish("S", format!("{number}").into()).await.unwrap();
        sent.await.unwrap();
    }
    timeout(SOON, server.kill()).await.expect("it ends");
    assert!(test_kill_process(pid).is_err(), "the process is gone");
    assert_eq!(ports_files(&place.path("store")), 0);
    assert!(!place.path("store/server.conf").exists() && !place.path("store/token").exists());

    let server = place.start("store").await.unwrap();
    let mut stream = context(&server).await.get_stream("S").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 100);
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_was_killed_is_started_again_on_its_store_and_port() {
    let place = Place::new();
    let mut server = place.start("store").await.unwrap();
    make_stream(&server).await;
    kill_process(pid(&server), Signal::KILL).unwrap();
    let error = timeout(SOON, server.ended()).await.expect("it ends").to_string();
    assert!(error.contains("signal: 9"), "{error}");
    assert!(error.contains("Server is ready"), "the log's end is in the message: {error}");
    assert_eq!(ports_files(&place.path("store")), 1, "nobody has tidied up");
    let url = server.url().to_owned();
    server.stop().await;

    let mut options = place.options("store");
    options.listen = url.trim_start_matches("nats://").to_owned();
    let server = start(options).await.unwrap();
    assert_eq!(server.url(), url);
    context(&server).await.get_stream("S").await.expect("what was stored is there");
    server.stop().await;
}

#[tokio::test]
async fn without_its_token_nobody_is_let_in_and_each_start_has_another() {
    let place = Place::new();
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let server = place.start("store").await.unwrap();
        for attempt in [None, Some("0".repeat(64))] {
            let options = async_nats::ConnectOptions::new();
            let options = attempt.into_iter().fold(options, async_nats::ConnectOptions::token);
            let refused = options.connect(server.url()).await.map(drop).unwrap_err();
            assert!(refused.to_string().contains("authorization violation"), "{refused}");
        }
        let running = running(server.store()).unwrap().expect("it runs");
        assert_eq!((running.url(), running.login()), (server.url(), server.address().login()));
        Broker::connect(&running, Role::Admin).await.expect("its owner gets in");
        tokens.push(fs::read_to_string(server.token_file().unwrap()).unwrap());
        server.stop().await;
        assert!(running_at(&place).is_none() && !place.path("store/token").exists());
    }
    assert!(tokens.iter().all(|token| token.trim().len() == 64), "256 bits");
    assert_ne!(tokens[0], tokens[1]);
}

async fn connects_again(broker: &Broker) {
    eventually("it gets in again", SOON, async || (broker.connects() > 1).then_some(())).await;
}

fn running_at(place: &Place) -> Option<Address> {
    running(&place.path("store")).unwrap()
}

#[tokio::test]
async fn a_restart_after_a_full_disk_keeps_the_token_and_its_clients() {
    let place = Place::new();
    let mut server = place.start("store").await.unwrap();
    let broker = Broker::connect(&server.address(), Role::Worker).await.unwrap();
    let token = fs::read_to_string(server.token_file().unwrap()).unwrap();
    server.restart().await.unwrap();
    connects_again(&broker).await;
    assert_eq!(fs::read_to_string(server.token_file().unwrap()).unwrap(), token);
    server.stop().await;
}

#[tokio::test]
async fn a_client_with_the_file_of_the_token_follows_a_server_that_was_started_again() {
    let place = Place::new();
    let server = place.start("store").await.unwrap();
    let (url, address) = (server.url().to_owned(), server.address());
    let broker = Broker::connect(&address, Role::Worker).await.unwrap();
    server.stop().await;
    let listen = url.trim_start_matches("nats://").to_owned();
    let server = start(Options { listen, ..place.options("store") }).await.unwrap();
    connects_again(&broker).await;
    server.stop().await;
}

#[tokio::test]
async fn a_token_that_is_kept_is_asked_for_at_every_start() {
    let place = Place::new();
    let kept = place.path("kept");
    for _ in 0..2 {
        let access = Access::TokenOf(kept.clone());
        let server = start(Options { access, ..place.options("store") }).await.unwrap();
        let address = Address::plain(server.url()).with_login(Login::TokenFile(kept.clone()));
        Broker::connect(&address, Role::Admin).await.unwrap();
        server.stop().await;
    }
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o7777, 0o600);
}

/// Its port and its process id may be anybody's then: nobody is to be told its token there.
#[tokio::test]
async fn a_server_is_believed_to_run_only_while_its_lock_is_held() {
    let place = Place::new();
    let server = place.start("store").await.unwrap();
    let (pid, url) = (server.pid(), server.url().to_owned());
    server.stop().await;
    let left = |pid: u32| place.path(&format!("store/nats-server_{pid}.ports"));
    let ports = format!("{{\"nats\": [\"{url}\"]}}");
    for living in [std::process::id(), pid] {
        fs::write(left(living), &ports).unwrap();
        // A child that another test forks holds every lock of this process until it executes its program.
        let none = format!("process {living} is no server of this store");
        eventually(&none, Duration::from_secs(2), async || {
            running_at(&place).is_none().then_some(())
        })
        .await;
        fs::remove_file(left(living)).unwrap();
    }
}

#[tokio::test]
async fn a_server_may_be_open_to_everybody() {
    let place = Place::new();
    place.make("store", 0o700);
    fs::write(place.path("store/token"), "an earlier server's").unwrap();
    let access = Access::Everybody;
    let server = start(Options { access, ..place.options("store") }).await.unwrap();
    assert!(!running_at(&place).expect("it runs").has_login());
    Broker::connect(&Address::plain(server.url()), Role::Admin).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn names_that_were_planted_in_a_store_are_neither_followed_nor_written_to() {
    let place = Place::new();
    let (store, victim) = (place.path("store"), place.path("victim"));
    fs::write(&victim, "precious").unwrap();
    let mode = fs::metadata(&victim).unwrap().permissions().mode();
    place.make("store", 0o700);
    let replaced = ["server.conf", "server.conf.new", "token", "token.new", "nats-server_1.ports"];
    for name in replaced {
        symlink(&victim, store.join(name)).unwrap();
    }
    place.start("store").await.unwrap().stop().await;
    for name in ["server.log", "lock"] {
        fs::remove_file(store.join(name)).unwrap();
        symlink(&victim, store.join(name)).unwrap();
        let refused = place.start("store").await.unwrap_err().to_string();
        assert!(refused.contains(name) && refused.contains("it is a link"), "{refused}");
        fs::remove_file(store.join(name)).unwrap();
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(fs::metadata(&victim).unwrap().permissions().mode(), mode);
}

#[tokio::test]
async fn a_store_that_others_can_write_to_or_that_is_a_link_is_not_used() {
    let place = Place::new();
    let store = place.make("store", 0o777);
    symlink(&store, place.path("link")).unwrap();
    for (name, why) in [("store", "others can write to it"), ("link", "it is a link")] {
        let refused = place.start(name).await.unwrap_err();
        assert!(matches!(&refused, Error::NotOurs { .. }), "{refused}");
        assert!(refused.to_string().contains(why) && refused.hint().is_some(), "{refused}");
        assert!(running(&place.path(name)).is_err(), "nor is anything in it believed");
    }
    assert_eq!(fs::read_dir(&store).unwrap().count(), 0, "nothing was written");
}

#[tokio::test]
async fn a_server_may_fsync_before_it_acknowledges() {
    let place = Place::new();
    let options = Options { durability: Durability::Always, ..place.options("store") };
    let server = start(options).await.unwrap();
    let config = fs::read_to_string(place.path("store/server.conf")).unwrap();
    assert!(config.contains("sync_interval: always"), "{config}");
    make_stream(&server).await;
    server.stop().await;
}
