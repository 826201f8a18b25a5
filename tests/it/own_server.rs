//! A server of our own is nobody else's: other users of the machine get nothing of a local run, and nothing of
//! what `bagpress broker` serves.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use async_nats::ConnectOptions;
use rustix::process::Signal;
use walkdir::WalkDir;

use crate::another_user::{NOBODY, can_be_another, install};
use crate::control::{ENDLESS, until_running};
use crate::death::{BAG, TASKS, middle};
use crate::harness::{Place, Running};
use crate::ledger::expect_each_done_once;
use crate::process::{self, Child};

/// A command as another user, in a place that is open to everybody.
fn as_another(place: &Place, program: &str, words: &[&str]) -> Command {
    fs::set_permissions(place.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = place.command(Path::new("setpriv"), "--clear-groups");
    command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]);
    command.arg("--").arg(program).args(words);
    command
}

fn url_of(store: &Path) -> Option<String> {
    Some(bagpress_broker::server::running(store).unwrap()?.url().to_owned())
}

/// A local run in its middle, with what belongs to it.
async fn a_local_run(place: &Place, words: &str) -> (Running, String, Vec<Child>) {
    let run = place.spawn(&format!("run {words} --workers 2 -q"));
    until_running(place, "runs/t/staged").await;
    let url = url_of(&place.folder("t/staged/.broker")).unwrap();
    let children = process::children(run.pid());
    (run, url, children)
}

#[tokio::test]
async fn another_user_can_neither_publish_nor_subscribe_at_the_server_of_a_local_run() {
    if !can_be_another() {
        return;
    }
    let place = Place::new().await;
    let (run, url, _) = a_local_run(&place, &format!("{BAG} --transfer wire")).await;
    let port = url.rsplit(':').next().unwrap();
    // All at once: of what comes behind a refusal the server says no more, and its refusal could be lost.
    // A server that asks for nothing answers each of these by +OK, and sends what is published.
    let attack = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{port}\n\
         printf 'CONNECT {{\"verbose\":true%s}}\\r\\nSUB > 1\\r\\nPUB bag.task.default 2\\r\\nhi\\r\\nPING\\r\\n' \"$1\" | cat >&3\n\
         timeout 10 cat <&3"
    );
    for login in ["", ",\"auth_token\":\"guess\"", ",\"user\":\"root\",\"pass\":\"\""] {
        let got = place.finish(as_another(&place, "bash", &["-c", &attack, "bash", login])).await;
        assert!(got.stdout.contains("-ERR 'Authorization Violation'"), "{login}: {got:?}");
        // By lines: the random keys of the first one may have any of these in them.
        for gotten in ["+OK", "PONG", "MSG"] {
            let said = got.stdout.lines().any(|line| line.starts_with(gotten));
            assert!(!said, "{login}: {got:?}");
        }
    }
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&place.folder("t/staged"), TASKS);
}

/// The attack that was: a bag of one's own at the server of another's run, whose workers then read and write
/// with that user's rights, wherever it says.
#[tokio::test]
async fn workers_of_a_local_run_take_nothing_from_another_user() {
    if !can_be_another() {
        return;
    }
    let place = Place::new().await;
    let program = place.path("bagpress");
    install(Path::new(env!("CARGO_BIN_EXE_bagpress")), &program);
    fs::create_dir(place.path("theirs")).unwrap();
    fs::set_permissions(place.path("theirs"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(place.path("victims-file"), "precious").unwrap();
    fs::set_permissions(place.path("victims-file"), fs::Permissions::from_mode(0o600)).unwrap();
    let (run, url, _) = a_local_run(&place, ENDLESS).await;
    let victim = place.path("victims-file").display().to_string();
    let theirs = place.path("theirs").display().to_string();
    for verb in [
        format!("run --tasks 1 --bytes 1KiB --runs {theirs} --name evil -q"),
        format!("submit --tasks 1 --bytes 1KiB --results objects --runs {theirs} --name evil2"),
        "status".to_owned(),
        "rm --orphans --older-than 0s".to_owned(),
        "worker --slots 1".to_owned(),
        "broker --init".to_owned(),
    ] {
        let words = format!("{verb} --server {url}");
        let words: Vec<_> = words.split(' ').collect();
        let attack = as_another(&place, program.to_str().unwrap(), &words);
        let got = place.finish(attack).await;
        assert_eq!(got.code, Some(3), "{verb}: {got:?}");
        assert!(got.stderr.contains("authorization violation"), "{verb}: {got:?}");
        assert_eq!(got.stdout, "", "{verb}");
    }
    let made = WalkDir::new(place.path("theirs")).into_iter().map(Result::unwrap);
    let results = made.filter(|entry| entry.path().to_string_lossy().contains("out_"));
    assert_eq!(results.count(), 0, "nothing was executed for another");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    place.run("cancel runs/t/staged").await.with_code(0);
    run.ended(&place).await.with_code(1);
}

#[tokio::test]
async fn the_token_of_a_local_run_is_in_no_argument_and_in_no_file_that_others_can_read() {
    let place = Place::new().await;
    let mut command = place.command(Path::new("sh"), "");
    let program = env!("CARGO_BIN_EXE_bagpress");
    let words = format!("umask 000 && exec {program} run {BAG} --workers 2 -q");
    command.args(["-c", &words]);
    let run = place.start(command);
    let (folder, store) = (place.folder("t/staged"), place.folder("t/staged/.broker"));
    middle(&place, &folder).await;
    let token = fs::read_to_string(store.join("token")).unwrap();
    let token = token.trim_end();
    assert_eq!(token.len(), 64, "256 bits");
    let children = process::children(run.pid());
    assert!(children.iter().any(Child::is_server) && children.iter().any(Child::is_worker));
    for child in &children {
        assert!(!child.command.contains(token), "{}", child.command);
    }
    assert!(!fs::read_to_string(format!("/proc/{}/cmdline", run.pid())).unwrap().contains(token));
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&store), 0o700);
    for name in ["token", "server.conf", "server.log", "lock"] {
        assert_eq!(mode(&store.join(name)), 0o600, "{name}");
    }
    // Nor is it in anything that a reader of the run's folder sees.
    for entry in WalkDir::new(&folder).into_iter().map(Result::unwrap) {
        let in_store = entry.path().starts_with(&store);
        let text = if entry.file_type().is_file() && !in_store {
            fs::read(entry.path()).unwrap_or_default()
        } else {
            Vec::new()
        };
        assert!(!String::from_utf8_lossy(&text).contains(token), "{}", entry.path().display());
    }
    if can_be_another() {
        for name in ["token", "server.conf", "server.log", ""] {
            let path = store.join(name).display().to_string();
            let read = place.finish(as_another(&place, "cat", &[&path])).await;
            assert!(read.stderr.contains("Permission denied"), "{name}: {read:?}");
        }
    }
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&folder, TASKS);
    assert!(!store.join("token").exists());
}

#[tokio::test]
async fn the_owner_of_a_local_run_asks_it_as_ever() {
    let place = Place::new().await;
    let (run, url, _) = a_local_run(&place, ENDLESS).await;
    let options = ConnectOptions::new().connect(&url).await;
    assert!(options.is_err(), "without the token nobody is let in");
    let status = place.run("status runs/t/staged --json").await.with_code(0);
    assert!(status.stdout.contains("\"workers\""), "{status:?}");
    let refused = place.run("rm runs/t/staged --dry-run").await;
    assert!(refused.code != Some(0), "it is being gathered: {refused:?}");
    place.run("cancel runs/t/staged").await.with_code(0);
    run.ended(&place).await.with_code(1);
    place.run("rm runs/t/staged").await.with_code(0);
    assert!(!place.folder("t/staged").exists());
}

/// `bagpress broker` with these words, and where it listens.
async fn a_broker(place: &Place, words: &str) -> (Running, String) {
    let broker = place.spawn(&format!("broker --store store --listen 127.0.0.1:-1 {words}"));
    let url = place
        .until("the broker says who gets in", || {
            let stderr = broker.stderr();
            let said = stderr.contains("next: ") || stderr.contains("warning: ");
            let (_, rest) = stderr.split_once("broker: ")?;
            said.then(|| rest.split_once(" (store").unwrap().0.to_owned())
        })
        .await;
    (broker, url)
}

#[tokio::test]
async fn a_broker_says_where_its_token_is_and_the_line_that_it_prints_works() {
    let place = Place::new().await;
    let (broker, url) = a_broker(&place, "").await;
    let stderr = broker.stderr();
    let line = stderr.lines().find_map(|line| line.strip_prefix("next: bagpress ")).unwrap();
    let at = line.strip_prefix("worker ").unwrap().to_owned();
    assert!(at.contains(&url) && at.contains("store/token"), "{stderr}");
    let _worker = place.spawn(&format!("worker --slots 1 {at}"));
    let bag = format!("{BAG} -q {at}");
    place.run(&format!("run {bag}")).await.with_code(0);
    expect_each_done_once(&place.folder("t/staged"), TASKS);
    let refused = place.run(&format!("status --server {url}")).await.with_code(3);
    assert!(refused.stderr.contains("token"), "it says what is asked for: {refused:?}");
    broker.signal(Signal::TERM);
    broker.ended(&place).await.with_code(0);
    assert!(!place.path("store/token").exists());
}

#[tokio::test]
async fn workers_with_the_file_of_its_token_follow_a_broker_that_was_killed() {
    let place = Place::new().await;
    let (broker, url) = a_broker(&place, "").await;
    let first = fs::read(place.path("store/token")).unwrap();
    let worker = place.spawn(&format!("worker --slots 1 --server {url} --token-file store/token"));
    let run = format!("run {BAG} -q --server {url} --token-file store/token");
    let run = place.spawn(&run);
    middle(&place, &place.folder("t/staged")).await;
    broker.signal(Signal::KILL);
    broker.ended(&place).await;
    let listen = url.trim_start_matches("nats://");
    let again = format!("broker --store store --listen {listen}");
    let _again = place.spawn(&again);
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&place.folder("t/staged"), TASKS);
    assert_ne!(fs::read(place.path("store/token")).unwrap(), first);
    assert!(process::is_alive(worker.pid()), "{}", worker.stderr());
}

#[tokio::test]
async fn who_has_a_token_of_an_earlier_start_is_told_so_and_a_kept_one_stays() {
    let place = Place::new().await;
    let (broker, url) = a_broker(&place, "--keep-token kept").await;
    assert_eq!(fs::metadata(place.path("kept")).unwrap().mode() & 0o7777, 0o600);
    let kept = fs::read(place.path("kept")).unwrap();
    place.run(&format!("status --server {url} --token-file kept")).await.with_code(0);
    broker.signal(Signal::TERM);
    broker.ended(&place).await.with_code(0);
    let (broker, url) = a_broker(&place, "--keep-token kept").await;
    assert_eq!(fs::read(place.path("kept")).unwrap(), kept);
    place.run(&format!("status --server {url} --token-file kept")).await.with_code(0);
    broker.signal(Signal::TERM);
    broker.ended(&place).await.with_code(0);
    let (_broker, url) = a_broker(&place, "").await;
    let late = format!("worker --slots 1 --server {url} --token-file kept");
    let late = place.run(&late).await.with_code(3);
    assert!(late.stderr.contains("a new token"), "{late:?}");
}

#[tokio::test]
async fn a_broker_is_open_to_everybody_only_where_that_is_said() {
    let place = Place::new().await;
    for listen in ["0.0.0.0:-1", "4222", "[::]:-1"] {
        let refused = place.run(&format!("broker --store store --no-auth --listen {listen}")).await;
        let refused = refused.with_code(2);
        assert!(refused.stderr.contains("--no-auth=public"), "{refused:?}");
        assert!(!place.path("store").exists(), "nothing is begun");
    }
    for words in ["--no-auth", "--no-auth=public"] {
        let (broker, url) = a_broker(&place, words).await;
        assert!(broker.stderr().contains("warning: no token is required"), "{}", broker.stderr());
        place.run(&format!("status --server {url}")).await.with_code(0);
        broker.signal(Signal::TERM);
        broker.ended(&place).await.with_code(0);
    }
}

#[tokio::test]
async fn a_store_that_is_not_ones_own_is_refused() {
    let place = Place::new().await;
    fs::create_dir(place.path("mine")).unwrap();
    fs::set_permissions(place.path("mine"), fs::Permissions::from_mode(0o700)).unwrap();
    symlink("mine", place.path("link")).unwrap();
    fs::create_dir(place.path("open")).unwrap();
    fs::set_permissions(place.path("open"), fs::Permissions::from_mode(0o777)).unwrap();
    let mut stores = vec![("link", "it is a link"), ("link/", "it is a link")];
    stores.push(("open", "others can write to it"));
    if can_be_another() {
        fs::create_dir(place.path("theirs")).unwrap();
        fs::set_permissions(place.path("theirs"), fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(place.path("theirs"), Some(NOBODY), Some(NOBODY)).unwrap();
        stores.push(("theirs", "it belongs to user 65534"));
    }
    for (store, why) in stores {
        let words = format!("broker --listen 127.0.0.1:-1 --store {store}");
        let refused = place.run(&words).await.with_code(3);
        assert!(refused.stderr.contains(why), "{store}: {refused:?}");
        assert!(refused.stderr.contains("hint: "), "{store}: {refused:?}");
        let found = fs::read_dir(place.path(store)).unwrap().count();
        assert_eq!(found, 0, "{store}: nothing was written");
    }
}
