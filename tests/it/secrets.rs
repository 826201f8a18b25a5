//! What is secret stays so: in addresses, in files, on the screen and in the list of processes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use serde_json::json;

use crate::bad_input::{expect_nothing_begun, expect_refusal};
use crate::harness::Place;
use crate::keys::{Operator, certificates, write_secret};
use crate::process;
use crate::protected::{Protected, TOKEN, expect_nowhere, in_context, with_password, with_token};

/// The password as a URL has it.
const ENCODED: &str = "hunter2-5f0c81%2F%40%3A%2C%23%25";

/// The server's address with user and password in it.
fn with_login(server: &Protected) -> String {
    server.url.replace("//", &format!("//bag:{ENCODED}@"))
}

#[tokio::test]
async fn a_password_in_an_address_logs_in_and_is_seen_nowhere() {
    let place = Place::new().await;
    let server = with_password(&place).await;
    let url = with_login(&server);
    let spare = format!("nats://bag:{ENCODED}@127.0.0.1:1,{url}");
    let seen = format!("nats://127.0.0.1:1,{}", server.url);
    let command = |words: &str| {
        let mut command = place.bagpress(words);
        command.env("BAGPRESS_SERVER", &spare).env("BAGPRESS_LOG", "trace");
        command
    };
    place.finish(command("broker --init --max-file 2GiB")).await.with_code(0);
    let worker = place.start(command("worker --slots 1 --log worker.log"));
    for (name, way) in
        [("a", "--delivery jetstream"), ("b", "--delivery queue-group --results objects")]
    {
        let words = format!("run --tasks 2 --bytes 40KiB --name {name} {way}");
        let ran = place.finish(command(&words)).await.with_code(0);
        let named = format!("broker: {seen} (from BAGPRESS_SERVER)");
        assert_eq!(ran.stderr.lines().next(), Some(&*named));
    }
    let noted = fs::read_to_string(place.folder("a/staged/server.txt")).unwrap();
    assert_eq!(noted.trim(), seen);
    let mut pids = process::pids(&process::children(worker.pid()));
    pids.push(worker.pid());
    for pid in pids {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(!String::from_utf8_lossy(&arguments).contains("hunter2"));
    }
    place.finish(command("status")).await.with_code(0);
    let help = place.finish(command("status --help")).await.with_code(0);
    assert!(help.stdout.contains("BAGPRESS_SERVER"), "{help:?}");
    for words in
        ["status no/such/run", "verify runs/b/objects", "rm runs/b/objects", "rm --orphans"]
    {
        place.finish(command(words)).await;
    }
    expect_nowhere(&place, &server.secrets);

    let typed = place.run(&format!("status --server {url}")).await.with_code(0);
    assert!(typed.stderr.contains("--password-file"), "{typed:?}");
    expect_nowhere(&place, &server.secrets);
}

#[tokio::test]
async fn no_error_about_an_address_shows_its_password() {
    let place = Place::new().await;
    for url in [
        "nats://u:hunter2@h:99999",
        "http://u:hunter2@h",
        "nats://u:hunter2,x@h",
        "nats://u:hunter2@",
    ] {
        for verb in ["status", "run --tasks 1", "broker --init", "worker"] {
            let ended = place.run(&format!("{verb} --server {url}")).await;
            expect_refusal(&ended, 2, &["--server", "not the address of a NATS server"]);
        }
    }
    // Nobody is there; and somebody who wants other words.
    let nobody = "status --connect-timeout 0s --server nats://u:hunter2@127.0.0.1:1";
    expect_refusal(&place.run(nobody).await, 3, &["nats://127.0.0.1:1"]);
    let server = with_token(&place).await;
    let wrong = server.url.replace("//", "//u:hunter2@");
    expect_refusal(
        &place.run(&format!("status --server {wrong}")).await,
        3,
        &["refused", &server.url],
    );
    expect_nothing_begun(&place);
    expect_nowhere(&place, &["hunter2".to_owned()]);
}

#[tokio::test]
async fn wrong_credentials_are_said_with_what_was_given() {
    let place = Place::new().await;
    let server = with_password(&place).await;
    write_secret(&place.path("keys/wrong"), "hunter2-wrong");
    let (creds, seed) = Operator::new().credentials();
    write_secret(&place.path("keys/seed"), &seed);
    write_secret(&place.path("keys/creds"), &creds);
    for (flags, said) in [
        ("", "without credentials"),
        ("--user bag --password-file keys/wrong", "as user bag"),
        ("--token-file keys/wrong", "by the token in keys/wrong"),
        ("--nkey keys/seed", "by an nkey"),
        ("--creds keys/creds", "by a credentials file"),
    ] {
        for verb in ["status", "worker", "run --tasks 1 -q", "broker --init"] {
            let ended = place.run(&format!("{verb} --server {} {flags}", server.url)).await;
            let words = ["the server refused", "authorization violation", said, "--password-file"];
            expect_refusal(&ended, 3, &words);
        }
    }
    expect_nowhere(&place, &["hunter2".to_owned(), seed]);
}

/// Flags that name a file of secrets, with a file that would do.
const FILES: [(&str, &str); 5] = [
    ("--creds", "keys/creds"),
    ("--nkey", "keys/seed"),
    ("--user u --password-file", "keys/token"),
    ("--token-file", "keys/token"),
    ("--tls-cert keys/client.pem --tls-key", "keys/client.key"),
];

fn write_all(place: &Place) {
    let (creds, seed) = Operator::new().credentials();
    certificates(&place.path("keys"));
    write_secret(&place.path("keys/creds"), &creds);
    write_secret(&place.path("keys/seed"), &seed);
    write_secret(&place.path("keys/token"), TOKEN);
}

#[tokio::test]
async fn a_file_of_secrets_that_others_can_read_is_refused_with_the_chmod_that_helps() {
    let place = Place::new().await;
    write_all(&place);
    for (flag, file) in FILES {
        let words = format!("{flag} {file} --connect-timeout 0s --server nats://127.0.0.1:1");
        for mode in [0o644, 0o640, 0o604, 0o620, 0o660] {
            fs::set_permissions(place.path(file), fs::Permissions::from_mode(mode)).unwrap();
            let ended = place.run(&format!("status {words}")).await;
            expect_refusal(
                &ended,
                2,
                &[file, &format!("mode {mode:04o}"), &format!("chmod 600 {file}")],
            );
        }
        fs::set_permissions(place.path(file), fs::Permissions::from_mode(0o600)).unwrap();
        // Now nobody is there.
        expect_refusal(
            &place.run(&format!("status {words}")).await,
            3,
            &["no NATS server answered"],
        );
    }
    // A context has them in itself.
    for field in ["password", "token"] {
        let context = json!({ "url": "nats://127.0.0.1:1", "user": "u", field: TOKEN });
        let command = in_context(&place, "status", &context);
        let file = place.path("keys/nats/context/it.json");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        expect_refusal(&place.finish(command).await, 2, &["it.json", "chmod 600"]);
    }
    expect_nowhere(&place, &[TOKEN.to_owned()]);
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "who runs the tests is told what was left out")]
async fn a_file_of_secrets_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: only root can give a file to somebody else");
        return;
    }
    let place = Place::new().await;
    write_all(&place);
    for (flag, file) in FILES {
        let words =
            format!("status {flag} {file} --connect-timeout 0s --server nats://127.0.0.1:1");
        fs::set_permissions(place.path(file), fs::Permissions::from_mode(0o600)).unwrap();
        let command = place.unprivileged(&words);
        expect_refusal(&place.finish(command).await, 3, &["no NATS server answered"]);
        let command = place.unprivileged(&words);
        fs::set_permissions(place.path(file), fs::Permissions::from_mode(0o644)).unwrap();
        chown(place.path(file), Some(12_345), None).unwrap();
        expect_refusal(&place.finish(command).await, 2, &[file, "another user (uid 12345)"]);
    }
}

#[tokio::test]
async fn a_file_that_holds_no_secret_of_its_kind_is_refused_and_not_shown() {
    let place = Place::new().await;
    write_all(&place);
    write_secret(&place.path("keys/junk"), "hunter2");
    write_secret(&place.path("keys/empty"), "");
    for (flag, file, why) in [
        ("--creds", "keys/junk", "no user JWT"),
        ("--creds", "keys/none", "No such file"),
        ("--nkey", "keys/junk", "no nkey seed"),
        ("--token-file", "keys/empty", "empty"),
        ("--user u --password-file", "keys", "not a file"),
        ("--tls-ca", "keys/junk", "no PEM certificate"),
        ("--tls-ca", "keys/none", "No such file"),
        (
            "--tls-cert keys/junk --tls-key keys/client.key --tls-ca",
            "keys/ca.pem",
            "no PEM certificate",
        ),
        ("--tls-cert keys/client.pem --tls-key", "keys/junk", "no unencrypted PEM private key"),
    ] {
        for verb in ["run --tasks 1", "worker", "broker --init"] {
            let words = format!("{verb} --server nats://127.0.0.1:1 {flag} {file}");
            expect_refusal(&place.run(&words).await, 2, &[why]);
        }
    }
    expect_nothing_begun(&place);
    expect_nowhere(&place, &["hunter2".to_owned()]);
}

#[tokio::test]
async fn what_is_typed_goes_before_a_context_and_both_before_what_is_exported() {
    let place = Place::new().await;
    let server = with_password(&place).await;
    write_secret(&place.path("keys/wrong"), "hunter2-wrong");
    let junk = [
        ("BAGPRESS_CREDS", "none"),
        ("BAGPRESS_NKEY", "none"),
        ("BAGPRESS_USER", "nobody"),
        ("BAGPRESS_PASSWORD_FILE", "keys/wrong"),
        ("BAGPRESS_TOKEN_FILE", "none"),
    ];
    let of_tls = [("BAGPRESS_TLS_CA", "none"), ("BAGPRESS_TLS_CERT", "none")];
    // A context that is typed has its own.
    let mut command = in_context(&place, "broker --init --max-file 1GiB", &server.context);
    command.envs(junk).envs(of_tls);
    place.finish(command).await.with_code(0);
    // A flag overrides it.
    let wrong = json!({ "url": server.url, "creds": "none" });
    let words = "status --user bag --password-file keys/password";
    let mut command = in_context(&place, words, &wrong);
    command.envs(junk).envs(of_tls);
    place.finish(command).await.with_code(0);
    let right = server.context.clone();
    let words = "status --user bag --password-file keys/wrong";
    expect_refusal(&place.finish(in_context(&place, words, &right)).await, 3, &["as user bag"]);
    // A flag, or an address, goes before what is exported.
    for words in
        [format!("status {}", server.flags()), format!("status --server {}", with_login(&server))]
    {
        let mut command = place.bagpress(&words);
        command.envs(junk);
        place.finish(command).await.with_code(0);
    }
    // None of it is for a server of our own.
    let mut command = place.bagpress("run --tasks 1 --bytes 1KiB --workers 1 -q");
    command.envs(junk).envs(of_tls);
    place.finish(command).await.with_code(0);
    // Two that are exported are none that was chosen.
    let mut command = place.bagpress(&format!("status --server {}", server.url));
    command.envs(junk);
    expect_refusal(&place.finish(command).await, 2, &["BAGPRESS_CREDS", "BAGPRESS_NKEY"]);
}
