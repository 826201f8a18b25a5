//! Servers that require credentials: every verb logs in by flags, variables and contexts, and shows nothing of it.

use std::fs;
use std::process::Command;

use bagpress_broker::server::find_program;
use nkeys::KeyPair;
use serde_json::{Value, json};
use walkdir::WalkDir;

use crate::bad_input::expect_refusal;
use crate::harness::{Ended, Place, Running};
use crate::keys::{Operator, certificates, write_secret};
use crate::ledger::expect_each_done_once;

/// A server that requires credentials. Its keys and configuration are in `keys`.
pub(crate) struct Protected {
    _server: Running,
    pub(crate) url: String,
    /// What gets us in: flags without their dashes, and their values.
    pub(crate) access: Vec<(&'static str, String)>,
    /// The same as fields of a context.
    pub(crate) context: Value,
    /// What must be seen nowhere.
    pub(crate) secrets: Vec<String>,
}

impl Protected {
    /// Starts a server with these lines of configuration.
    pub(crate) async fn start(place: &Place, lines: &str) -> Self {
        let program = fs::canonicalize(find_program(None).unwrap().path).unwrap();
        fs::create_dir_all(place.path("keys")).unwrap();
        let config = format!(
            "listen: \"127.0.0.1:-1\"\nports_file_dir: keys\n\
             jetstream {{ store_dir: store, max_file: 4GB }}\n{lines}\n"
        );
        fs::write(place.path("keys/nats.conf"), config).unwrap();
        let server = place.start(place.command(&program, "--config keys/nats.conf"));
        let file = place.path(&format!("keys/nats-server_{}.ports", server.pid()));
        // It is the last thing that a server writes before it is ready.
        let url = place
            .until("the server listens", || {
                let ports: Value = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
                Some(ports["nats"][0].as_str()?.to_owned())
            })
            .await;
        let (access, context, secrets) = (Vec::new(), json!({ "url": url }), Vec::new());
        Self { _server: server, url, access, context, secrets }
    }

    /// Lets us in by a flag whose value is this, and by fields of a context.
    fn by(mut self, flag: &'static str, value: &str) -> Self {
        self.access.push((flag, value.to_owned()));
        self
    }

    fn field(mut self, field: &str, value: &str) -> Self {
        self.context[field] = value.into();
        self
    }

    fn secret(mut self, secret: &str) -> Self {
        self.secrets.push(secret.to_owned());
        self
    }

    /// Words behind a verb.
    pub(crate) fn flags(&self) -> String {
        let flags = self.access.iter().map(|(flag, value)| format!("--{flag} {value}"));
        let flags: Vec<_> = flags.collect();
        format!("--server {} {}", self.url, flags.join(" "))
    }

    /// The same, exported.
    pub(crate) fn export(&self, command: &mut Command) {
        command.env("BAGPRESS_SERVER", &self.url);
        for (flag, value) in &self.access {
            let name = flag.replace('-', "_").to_uppercase();
            command.env(format!("BAGPRESS_{name}"), value);
        }
    }
}

pub(crate) const PASSWORD: &str = "hunter2-5f0c81/@:,#%";
pub(crate) const TOKEN: &str = "hunter2-token-77ad";

/// A server with one user.
pub(crate) async fn with_password(place: &Place) -> Protected {
    write_secret(&place.path("keys/password"), &format!("{PASSWORD}\n"));
    let lines = format!("authorization {{ users: [ {{ user: bag, password: '{PASSWORD}' }} ] }}");
    let server = Protected::start(place, &lines).await.by("user", "bag");
    let server = server.by("password-file", "keys/password").secret(PASSWORD).secret("hunter2");
    server.field("user", "bag").field("password", PASSWORD)
}

pub(crate) async fn with_token(place: &Place) -> Protected {
    write_secret(&place.path("keys/token"), TOKEN);
    let server = Protected::start(place, &format!("authorization {{ token: '{TOKEN}' }}")).await;
    server.by("token-file", "keys/token").field("token", TOKEN).secret(TOKEN)
}

pub(crate) async fn with_nkey(place: &Place) -> Protected {
    let key = KeyPair::new_user();
    let seed = key.seed().unwrap();
    write_secret(&place.path("keys/seed"), &seed);
    let lines = format!("authorization {{ users: [ {{ nkey: {} }} ] }}", key.public_key());
    let server = Protected::start(place, &lines).await;
    server.by("nkey", "keys/seed").field("nkey", "keys/seed").secret(&seed)
}

pub(crate) async fn with_jwt(place: &Place) -> Protected {
    let operator = Operator::new();
    let (credentials, seed) = operator.credentials();
    write_secret(&place.path("keys/user.creds"), &credentials);
    let server = Protected::start(place, &operator.configuration()).await;
    server.by("creds", "keys/user.creds").field("creds", "keys/user.creds").secret(&seed)
}

pub(crate) async fn with_tls(place: &Place) -> Protected {
    certificates(&place.path("keys"));
    let lines = "tls { cert_file: keys/server.pem, key_file: keys/server.key, timeout: 20 }";
    let server = Protected::start(place, lines).await;
    server.by("tls-ca", "keys/ca.pem").field("ca", "keys/ca.pem")
}

/// A server that asks for a certificate, and for a token too.
pub(crate) async fn with_client_certificates(place: &Place) -> Protected {
    certificates(&place.path("keys"));
    write_secret(&place.path("keys/token"), TOKEN);
    let lines = format!(
        "tls {{ cert_file: keys/server.pem, key_file: keys/server.key, ca_file: keys/ca.pem, \
         verify: true, timeout: 20 }}\nauthorization {{ token: '{TOKEN}' }}"
    );
    let server = Protected::start(place, &lines).await.by("tls-ca", "keys/ca.pem");
    let server = server.by("tls-cert", "keys/client.pem").by("tls-key", "keys/client.key");
    let server = server.by("token-file", "keys/token").field("token", TOKEN).secret(TOKEN);
    let server = server.field("ca", "keys/ca.pem").field("cert", "keys/client.pem");
    server.field("key", "keys/client.key")
}

/// The program, which finds this context as `it`.
pub(crate) fn in_context(place: &Place, words: &str, context: &Value) -> Command {
    write_secret(&place.path("keys/nats/context/it.json"), &context.to_string());
    let mut command = place.bagpress(&format!("{words} --context it"));
    command.env("XDG_CONFIG_HOME", place.path("keys"));
    command
}

async fn exported(place: &Place, words: &str, server: &Protected) -> Ended {
    let mut command = place.bagpress(words);
    server.export(&mut command);
    place.finish(command).await
}

/// Nothing that the program wrote or said has a secret.
pub(crate) fn expect_nowhere(place: &Place, secrets: &[String]) {
    let keys = place.path("keys");
    let files = WalkDir::new(place.path("")).into_iter().filter_entry(|e| e.path() != keys);
    for file in files.filter_map(Result::ok).filter(|entry| entry.file_type().is_file()) {
        // What a server is just removing has been seen before.
        let bytes = fs::read(file.path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        for secret in secrets {
            let seen = text.lines().find(|line| line.contains(secret));
            assert!(seen.is_none(), "{}: {seen:?}", file.path().display());
        }
    }
}

/// Every verb gets in, and whole bags are done, by both deliveries and result paths.
async fn lets_every_verb_in(place: &Place, server: &Protected) {
    let (flags, plain) = (server.flags(), format!("--server {}", server.url));
    let outside = place.run(&format!("status {plain}")).await;
    assert_eq!(outside.code, Some(3), "{outside:?}");

    place.run(&format!("broker --init --max-file 2GiB {flags}")).await.with_code(0);
    place
        .finish(in_context(place, "broker --init --max-file 2GiB", &server.context))
        .await
        .with_code(0);
    let mut worker = place.bagpress("worker --slots 1 --log worker.log");
    worker.env("BAGPRESS_LOG", "trace");
    server.export(&mut worker);
    let _worker = place.start(worker);

    let bag = "--tasks 3 --bytes 40KiB";
    place.run(&format!("run {bag} --name a -q {flags}")).await.with_code(0);
    let queue_group = format!("run {bag} --name b -q --delivery queue-group");
    exported(place, &queue_group, server).await.with_code(0);
    let objects = format!("submit {bag} --name c --results objects");
    place.finish(in_context(place, &objects, &server.context)).await.with_code(0);
    place.finish(in_context(place, "gather runs/c/objects -q", &server.context)).await.with_code(0);
    let both = format!("run {bag} --name d -q --results objects --delivery queue-group {flags}");
    place.run(&both).await.with_code(0);
    for run in ["a/staged", "b/staged", "c/objects", "d/objects"] {
        expect_each_done_once(&place.folder(run), 3);
    }

    place.run(&format!("verify runs/c/objects {flags}")).await.with_code(0);
    let status = exported(place, "status", server).await.with_code(0);
    assert!(status.stdout.contains("\nworker "), "{status:?}");
    place.run(&format!("cancel runs/d/objects {flags}")).await.with_code(0);
    let remove = in_context(place, "rm runs/d/objects", &server.context);
    place.finish(remove).await.with_code(0);
    expect_nowhere(place, &server.secrets);
}

#[tokio::test]
async fn a_server_with_users_lets_every_verb_in() {
    let place = Place::new().await;
    lets_every_verb_in(&place, &with_password(&place).await).await;
}

#[tokio::test]
async fn a_server_with_a_token_lets_every_verb_in() {
    let place = Place::new().await;
    lets_every_verb_in(&place, &with_token(&place).await).await;
}

#[tokio::test]
async fn a_server_with_nkeys_lets_every_verb_in() {
    let place = Place::new().await;
    lets_every_verb_in(&place, &with_nkey(&place).await).await;
}

#[tokio::test]
async fn a_server_with_an_operator_lets_every_verb_in() {
    let place = Place::new().await;
    lets_every_verb_in(&place, &with_jwt(&place).await).await;
}

#[tokio::test]
async fn a_server_with_tls_lets_every_verb_in_and_who_does_not_know_its_authority_learns_how() {
    let place = Place::new().await;
    let server = with_tls(&place).await;
    for verb in ["status", "run --tasks 1 -q", "broker --init", "worker"] {
        let ended = place.run(&format!("{verb} --server {}", server.url)).await;
        expect_refusal(&ended, 3, &[&server.url, "UnknownIssuer", "--tls-ca"]);
    }
    lets_every_verb_in(&place, &server).await;
}

#[tokio::test]
async fn a_server_that_asks_for_certificates_lets_every_verb_in_and_says_what_it_misses() {
    let place = Place::new().await;
    let server = with_client_certificates(&place).await;
    for verb in ["status", "worker"] {
        let half =
            format!("{verb} --server {} --tls-ca keys/ca.pem --token-file keys/token", server.url);
        expect_refusal(&place.run(&half).await, 3, &["--tls-cert"]);
    }
    lets_every_verb_in(&place, &server).await;
}
