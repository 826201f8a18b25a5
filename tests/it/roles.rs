//! Every process with the key of its role, against servers that know no other: what a bag needs is permitted, and what
//! each role may not do is not done, whoever asks and wherever it wants the answer.

use std::fs;
use std::path::Path;

use bagpress_broker::server::find_program;
use bagpress_broker::testing::eventually;
use bagpress_codec::DataKind;
use rustix::process::Signal;
use serde_json::Value;

use crate::control::{bag_of, until_there};
use crate::death::{DELIVERIES, expect_no_lease_was_waited_for, middle};
use crate::files::{expect_outputs, write};
use crate::harness::{Ended, Place, Running, SOON};
use crate::ledger::{expect_each_done_once, generated};

/// A bag that takes a while, and no longer.
const BAG: &str = "--tasks 12 --bytes 256KiB --data text --codec zlib:9 --name t";
const TASKS: u64 = 12;
/// One that is in its middle for a while.
const LONG_BAG: &str = "--tasks 60 --bytes 1MiB --data text --codec zlib:9 --name t";
const LONG_TASKS: u64 = 60;

/// A place with keys, and a server that knows them and nobody else.
pub(crate) struct Guarded {
    pub(crate) place: Place,
    accounts: Vec<&'static str>,
    url: String,
    server: Option<Running>,
}

impl Guarded {
    /// With the streams, and the keys in `auth`.
    pub(crate) async fn new() -> Self {
        Self::with_accounts(&[("auth", "BAGPRESS")]).await
    }

    /// With keys in several folders, each for an account of its own, with streams in each.
    async fn with_accounts(accounts: &[(&'static str, &str)]) -> Self {
        let place = Place::new().await;
        for (folder, account) in accounts {
            place.run(&format!("broker --auth {folder} --account {account}")).await.with_code(0);
        }
        let accounts = accounts.iter().map(|(folder, _)| *folder).collect();
        let url = "nats://127.0.0.1:-1".to_owned();
        let mut guarded = Self { place, accounts, url, server: None };
        guarded.restart().await;
        for folder in guarded.accounts.clone() {
            let init = format!("broker --init --max-file 2GiB {}", guarded.at(folder, "admin"));
            guarded.place.run(&init).await.with_code(0);
        }
        guarded
    }

    /// Kills the server, and starts it on the same port and store.
    async fn restart(&mut self) {
        self.server = None;
        let includes =
            self.accounts.iter().map(|of| format!("include \"{of}/server/auth.conf\"\n"));
        let configuration = format!(
            "listen: \"{}\"\nports_file_dir: \".\"\nlog_file: \"server.out\"\n\
             jetstream {{ store_dir: \"store\", max_file: 8GB }}\naccounts {{\n{}}}\n",
            self.url.trim_start_matches("nats://"),
            includes.collect::<String>()
        );
        fs::write(self.place.path("server.conf"), configuration).unwrap();
        let program = fs::canonicalize(find_program(None).unwrap().path).unwrap();
        let server = self.place.start(self.place.command(&program, "--config server.conf"));
        let ports = self.place.path(&format!("nats-server_{}.ports", server.pid()));
        let listening = || {
            let ports: Value = serde_json::from_slice(&fs::read(&ports).ok()?).ok()?;
            Some(ports["nats"][0].as_str()?.to_owned())
        };
        self.url = self.place.until("the server listens", listening).await;
        self.server = Some(server);
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The flags of somebody with the key of `role` in `folder`.
    fn at(&self, folder: &str, role: &str) -> String {
        format!("--server {} --nkey {folder}/{role}/{role}.nk", self.url)
    }

    async fn run(&self, words: &str, role: &str) -> Ended {
        self.place.run(&format!("{words} {}", self.at("auth", role))).await
    }

    fn spawn(&self, words: &str, role: &str) -> Running {
        self.place.spawn(&format!("{words} {}", self.at("auth", role)))
    }

    fn worker(&self) -> Running {
        self.spawn("worker --slots 1", "worker")
    }

    pub(crate) fn seed(&self, role: &str) -> String {
        let file = self.place.path("auth").join(role).join(format!("{role}.nk"));
        fs::read_to_string(file).unwrap().trim().to_owned()
    }

    /// Fails if anybody was refused anything.
    fn expect_no_refusals(&self) {
        let log = fs::read_to_string(self.place.path("server.out")).unwrap();
        let refused: Vec<_> = log.lines().filter(|line| line.contains("Violation")).collect();
        assert!(refused.is_empty(), "{refused:#?}");
        self.place.expect_no_warnings(&[]);
    }
}

async fn whole_bags(results: &str) {
    let guarded = Guarded::new().await;
    let (place, _workers) = (&guarded.place, [guarded.worker(), guarded.worker()]);
    // In one chunk, and in more than one.
    for (index, bytes) in [(0, 1_000), (1, 40_000), (2, 600_000)] {
        let bytes = generated(DataKind::Text, index, bytes);
        write(&place.path(&format!("in/{index}")), &bytes);
    }
    for delivery in DELIVERIES {
        let how = format!("-q --results {results} --delivery {delivery} --transfer wire");
        let bag = format!("run --tasks 4 --bytes 64KiB --codec zlib:6 --name g-{delivery} {how}");
        guarded.run(&bag, "producer").await.with_code(0);
        expect_each_done_once(&place.folder(&format!("g-{delivery}/{results}")), 4);

        let files = format!("run in --out out-{delivery} --name f-{delivery} {how}");
        guarded.run(&files, "producer").await.with_code(0);
        expect_each_done_once(&place.folder(&format!("f-{delivery}/{results}")), 3);
        expect_outputs(&place.path("in"), &place.path(&format!("out-{delivery}/in")));

        let folder = format!("runs/g-{delivery}/{results}");
        let verified = guarded.run(&format!("verify {folder}"), "producer").await.with_code(0);
        assert!(verified.stdout.contains("4 good, 0 bad"), "{verified:?}");
        let bag = bag_of(place, &format!("g-{delivery}/{results}"));
        for status in
            [String::new(), folder, bag.clone(), format!("{bag} 1"), format!("{bag} --failed")]
        {
            for role in ["observer", "producer"] {
                guarded.run(&format!("status {status}"), role).await.with_code(0);
            }
        }
        let listed = guarded.run("status", "observer").await.stdout;
        assert!(listed.contains(&bag) && listed.contains("0 of 1 slots busy"), "{listed}");
        let removed = guarded.run(&format!("rm {bag}"), "producer").await.with_code(0);
        assert!(removed.stdout.contains("removed"), "{removed:?}");
        guarded.run("rm --orphans --older-than 0s", "producer").await.with_code(0);
    }
    guarded.expect_no_refusals();
}

#[tokio::test]
async fn each_process_does_its_part_of_a_staged_bag_with_the_key_of_its_role() {
    whole_bags("staged").await;
}

#[tokio::test]
async fn each_process_does_its_part_of_an_objects_bag_with_the_key_of_its_role() {
    whole_bags("objects").await;
}

#[tokio::test]
async fn with_keys_of_roles_a_dead_worker_costs_no_lease() {
    for delivery in DELIVERIES {
        let guarded = Guarded::new().await;
        let (place, folder) = (&guarded.place, guarded.place.folder("t/staged"));
        let (victim, _other) = (guarded.worker(), guarded.worker());
        let run = guarded.spawn(&format!("run {BAG} -q --delivery {delivery}"), "producer");
        middle(place, &folder).await;
        victim.signal(Signal::KILL);
        run.ended(place).await.with_code(0);
        expect_each_done_once(&folder, TASKS);
        expect_no_lease_was_waited_for(&folder);
    }
}

#[tokio::test]
async fn with_keys_of_roles_a_bag_is_submitted_gathered_cancelled_and_resumed() {
    let guarded = Guarded::new().await;
    let (place, folder) = (&guarded.place, guarded.place.folder("t/staged"));
    guarded.run(&format!("submit {LONG_BAG}"), "producer").await.with_code(0);
    until_there(place, "t/staged").await;
    // Nobody gathers it: they give it back, and are told when somebody does.
    let _workers = [guarded.worker(), guarded.worker()];
    let gather = guarded.spawn("gather runs/t/staged -q", "producer");
    middle(place, &folder).await;
    guarded.run("cancel runs/t/staged", "producer").await.with_code(0);
    gather.ended(place).await.with_code(1);
    guarded.run("gather runs/t/staged -q --resume", "producer").await.with_code(0);
    expect_each_done_once(&folder, LONG_TASKS);
    guarded.expect_no_refusals();
}

#[tokio::test]
async fn with_keys_of_roles_a_worker_outlives_a_restart_of_its_server() {
    let mut guarded = Guarded::new().await;
    let folder = guarded.place.folder("t/objects");
    let _workers = [guarded.worker(), guarded.worker()];
    let run = guarded.spawn(&format!("run {LONG_BAG} -q --results objects"), "producer");
    middle(&guarded.place, &folder).await;
    guarded.restart().await;
    run.ended(&guarded.place).await.with_code(0);
    expect_each_done_once(&folder, LONG_TASKS);
}

#[tokio::test]
async fn nobody_gets_in_without_a_key() {
    let guarded = Guarded::new().await;
    guarded.place.run("broker --auth others").await.with_code(0);
    let at = format!("--server {} --connect-timeout 0s", guarded.url());
    for login in ["", "--nkey others/producer/producer.nk", "--nkey others/admin/admin.nk"] {
        let refused = guarded.place.run(&format!("status {login} {at}")).await.with_code(3);
        assert!(refused.stderr.contains("the server refused"), "{refused:?}");
    }
}

#[tokio::test]
async fn a_key_of_another_role_ends_a_command_at_once_by_what_it_may_not() {
    let guarded = Guarded::new().await;
    let bag = "run --tasks 2 --bytes 1KiB -q --name";
    for (words, role, wanted) in [
        ("broker --init".to_owned(), "producer", "subscribe to _INBOX_admin."),
        ("broker --init".to_owned(), "worker", "subscribe to _INBOX_admin."),
        (format!("{bag} by-observer"), "observer", "subscribe to _INBOX_producer."),
        (format!("{bag} by-worker"), "worker", "subscribe to _INBOX_producer."),
        ("worker".to_owned(), "producer", "subscribe to $SRV."),
        ("worker".to_owned(), "observer", "subscribe to $SRV."),
        ("status".to_owned(), "worker", "subscribe to _INBOX_observer."),
        ("cancel no-abcdefgh".to_owned(), "observer", "subscribe to _INBOX_producer."),
        ("rm no-abcdefgh".to_owned(), "observer", "subscribe to _INBOX_producer."),
        ("rm --orphans".to_owned(), "worker", "subscribe to _INBOX_producer."),
    ] {
        let refused = guarded.run(&words, role).await.with_code(3);
        let text = &refused.stderr;
        assert!(text.contains(wanted) && text.contains("rights of this role"), "{words}: {text}");
        assert!(text.contains("hint: ") && !text.contains("timed out"), "{words}: {text}");
    }
}

#[tokio::test]
async fn a_producer_sees_and_touches_nothing_of_another_accounts_bags() {
    let accounts = [("auth", "BAGPRESS"), ("theirs", "second")];
    let guarded = Guarded::with_accounts(&accounts).await;
    let (place, theirs) = (&guarded.place, guarded.at("theirs", "producer"));
    let run = guarded.spawn(&format!("run {BAG} -q --results objects"), "producer");
    until_there(place, "t/objects").await;
    let bag = bag_of(place, "t/objects");
    eventually("its bag is on the server", SOON, async || {
        let listed = guarded.run("status", "producer").await.stdout;
        listed.contains(&bag).then_some(())
    })
    .await;
    let _thief = place.spawn(&format!("worker --slots 4 {}", guarded.at("theirs", "worker")));

    let listed = place.run(&format!("status {theirs}")).await.with_code(0);
    assert!(!listed.stdout.contains(&bag), "{listed:?}");
    let unknown = place.run(&format!("status {bag} {theirs}")).await.with_code(2);
    assert!(unknown.stderr.contains("knows no bag"), "{unknown:?}");
    place.run(&format!("cancel {bag} {theirs}")).await.with_code(2);
    let removed = place.run(&format!("rm {bag} {theirs}")).await;
    assert!(
        !removed.stdout.contains("removed") || removed.stdout.contains(" 0 messages"),
        "{removed:?}"
    );
    place.run(&format!("rm --orphans --older-than 0s {theirs}")).await.with_code(0);

    // Nothing of it was done by them, cancelled or removed: it only waited for workers of its own account.
    let _workers = [guarded.worker(), guarded.worker()];
    run.ended(place).await.with_code(0);
    expect_each_done_once(&place.folder("t/objects"), TASKS);
}

/// Whether `docs/operations.md` has this table.
#[test]
fn the_table_of_rights_in_the_docs_is_the_one_that_servers_get() {
    let table = bagpress_broker::roles::table();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/roles.md");
    let document = fs::read_to_string(path).unwrap();
    assert!(document.contains(&table), "docs/roles.md has another table than this:\n{table}");
}

#[tokio::test]
async fn a_producer_does_everything_to_objects_and_an_observer_frees_none() {
    let guarded = Guarded::new().await;
    write(&guarded.place.path("f"), b"an object");
    let all = "obj://objects/f";
    for words in [
        "object put f".to_owned(),
        format!("object info {all} --digest"),
        format!("object wait {all} --timeout 1s"),
        format!("object get {all} --out got"),
        format!("object pin {all}"),
        "object ls".to_owned(),
        "object ls objects --holders".to_owned(),
        format!("object unpin {all}"),
    ] {
        guarded.run(&words, "producer").await.with_code(0);
    }
    let _worker = guarded.worker();
    guarded.run(&format!("run {all} --out out -q"), "producer").await.with_code(0);
    // One that another client deletes is made again.
    let admin = async_nats::ConnectOptions::with_nkey(guarded.seed("admin"));
    let admin = async_nats::jetstream::new(admin.connect(guarded.url()).await.unwrap());
    for delivery in DELIVERIES {
        let run = format!("run --tasks 2 --bytes 1KiB --results objects --name {delivery} -q");
        guarded.run(&format!("{run} --delivery {delivery}"), "producer").await.with_code(0);
        let bucket = format!("bag-{}", bag_of(&guarded.place, &format!("{delivery}/objects")));
        admin.get_object_store(&bucket).await.unwrap().delete("out_0.bin").await.unwrap();
        let get = format!("object get obj://{bucket}/out_0.bin --out {delivery}.got");
        let got = guarded.run(&get, "producer").await.with_code(0);
        assert!(got.stdout.contains("made again by 1 task"), "{got:?}");
    }
    guarded.expect_no_refusals();
    for role in ["observer", "worker"] {
        guarded.run(&format!("object free {all}"), role).await.with_code(3);
    }
    guarded.run(&format!("object info {all} --digest"), "producer").await.with_code(0);
    guarded.run(&format!("object free {all}"), "producer").await.with_code(0);
}
