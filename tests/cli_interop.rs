//! What the stock `nats` command line sees, and what it can read.

#![expect(clippy::expect_used, reason = "a helper of a test may fail the test, and says why")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bagpress_broker::testing::eventually;
use bagpress_codec::{Codec, DataKind, Generator, decompress_all};

/// `bagpress broker` on the store of a finished run.
struct Broker {
    child: Child,
    url: String,
    token: PathBuf,
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may be gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn bagpress() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bagpress"))
}

fn nats(broker: &Broker, arguments: &[&str]) -> String {
    let token = std::fs::read_to_string(&broker.token).expect("the broker has a token");
    let mut command = Command::new("nats");
    command.args(["--server", &broker.url]).args(arguments).env("NATS_TOKEN", token.trim_end());
    let output = command.output();
    let output = output.expect("the `nats` command line is on PATH: make tools-cli");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nats {arguments:?}: {text}{error}");
    text
}

async fn broker_on(store: &Path) -> Broker {
    let child = bagpress()
        .args(["broker", "--listen", "127.0.0.1:-1", "--store"])
        .arg(store)
        .stderr(Stdio::null())
        .spawn()
        .expect("bagpress starts");
    let ports = store.to_owned();
    let url = eventually("the broker listens", Duration::from_secs(20), async || {
        let mut found = std::fs::read_dir(&ports).ok()?.filter_map(Result::ok).map(|e| e.path());
        let file: PathBuf = found.find(|p| p.extension().is_some_and(|e| e == "ports"))?;
        let text = std::fs::read_to_string(file).ok()?;
        let read: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some(read["nats"][0].as_str()?.to_owned())
    })
    .await;
    Broker { child, url, token: store.join("token") }
}

#[tokio::test]
async fn the_nats_command_line_shows_what_workers_do() {
    let folder = tempfile::tempdir().unwrap();
    let broker = broker_on(&folder.path().join("store")).await;
    // It listens before it has made its streams; this makes what is missing.
    let at = ["--server", &broker.url, "--token-file", broker.token.to_str().unwrap()];
    let made = bagpress().args(["broker", "--init"]).args(at).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let worker = bagpress()
        .current_dir(folder.path())
        .args(["worker", "--slots", "2"])
        .args(at)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let token = broker.token.clone();
    let _worker = Broker { child: worker, url: broker.url.clone(), token };
    let ran = bagpress()
        .current_dir(folder.path())
        .args(["run", "--tasks", "3", "--bytes", "65536", "--name", "cli", "--quiet"])
        .args(at)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));

    let listed = nats(&broker, &["micro", "ls"]);
    assert!(listed.contains("bag-worker"), "{listed}");
    let info = nats(&broker, &["micro", "info", "bag-worker"]);
    assert!(info.contains("Compresses tasks of bags") && info.contains("slots: 2"), "{info}");
    let stats = nats(&broker, &["micro", "stats", "bag-worker", "--json"]);
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    let of_one = if stats.is_array() { &stats[0] } else { &stats };
    let told = &of_one["endpoints"][0]["data"];
    assert_eq!((&told["slots"], &told["done"], &told["failed"]), (&2.into(), &3.into(), &0.into()));
    assert_eq!(told["input_bytes"], 3 * 65_536, "{of_one}");
}

/// The bag of a run folder.
fn bag_of(run: &Path) -> String {
    let text = std::fs::read_to_string(run.join("bag.json")).expect("there is a specification");
    let specification: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    specification["bag"].as_str().expect("it names the bag").to_owned()
}

#[tokio::test]
async fn the_nats_command_line_reads_what_a_bag_left() {
    let folder = tempfile::tempdir().unwrap();
    let ran = bagpress()
        .current_dir(folder.path())
        .args(["run", "--tasks", "3", "--bytes", "1200000", "--data", "text", "--codec", "gzip:6"])
        .args(["--results", "objects", "--name", "cli", "--workers", "2", "--quiet"])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let run = folder.path().join("runs/cli/objects");
    let bag = bag_of(&run);
    let broker = broker_on(&run.join(".broker")).await;

    let streams = nats(&broker, &["stream", "ls"]);
    assert!(streams.contains("BAG_TASKS") && streams.contains("BAG_RESULTS"), "{streams}");
    let bucket = format!("bag-{bag}");
    let objects = nats(&broker, &["object", "ls", &bucket]);
    let codec: Codec = "gzip:6".parse().unwrap();
    for index in 0..3 {
        let name = format!("out_{index}.bin");
        assert!(objects.contains(&name), "{objects}");
        let output = folder.path().join(&name);
        nats(&broker, &["object", "get", &bucket, &name, "-O", output.to_str().unwrap(), "-f"]);
        let unpacked = decompress_all(&codec, &std::fs::read(&output).unwrap()).unwrap();
        let mut wanted = vec![0; 1_200_000];
        Generator::new(DataKind::Text, 0, index, 1_200_000).fill(&mut wanted);
        assert!(unpacked == wanted, "{name} is not what was generated");
    }
    let subject = format!("bag.result.{bag}.1.0");
    let result = nats(&broker, &["stream", "get", "BAG_RESULTS", "--last-for", &subject]);
    assert!(result.contains("\"output_digest\""), "{result}");
    let line = nats(&broker, &["kv", "get", "bags", &bag, "--raw"]);
    assert!(line.contains("\"finished\""), "{line}");
}

#[tokio::test]
async fn the_nats_command_line_and_tar_take_a_file_out_of_a_pack() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("in")).unwrap();
    for number in 0..8 {
        std::fs::write(folder.path().join(format!("in/{number}")), vec![number; 5_000]).unwrap();
    }
    let ran = bagpress()
        .current_dir(folder.path())
        .args(["run", "in", "--results", "objects", "--pack", "8", "--codec", "gzip:6"])
        .args(["--name", "cli", "--workers", "1", "--quiet"])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let run = folder.path().join("runs/cli/objects");
    let bucket = format!("bag-{}", bag_of(&run));
    let broker = broker_on(&run.join(".broker")).await;
    let tar = folder.path().join("pack.tar");
    nats(&broker, &["object", "get", &bucket, "out_0.tar", "-O", tar.to_str().unwrap(), "-f"]);
    let program = |words: &[&str]| {
        let ran = Command::new("tar").args(words).arg(&tar).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
        ran.stdout
    };
    let listed = String::from_utf8(program(&["-tf"])).unwrap();
    let names: Vec<_> = (0..8).map(|number| format!("in/{number}.gz")).collect();
    assert_eq!(listed.lines().collect::<Vec<_>>(), names);
    let output = program(&["--to-stdout", "-x", "in/5.gz", "-f"]);
    let codec: Codec = "gzip:6".parse().unwrap();
    assert_eq!(decompress_all(&codec, &output).unwrap(), vec![5; 5_000]);
}

/// The commands of a document's console blocks under one heading.
fn commands_under(document: &str, heading: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = std::fs::read_to_string(path).expect("the document is there");
    let section = text.split("\n## ").find(|section| section.starts_with(heading));
    let lines = section.expect("it has that heading").lines();
    lines.filter_map(|line| line.strip_prefix("$ ").map(str::to_owned)).collect()
}

#[tokio::test]
async fn the_documented_commands_make_files_of_the_objects_of_a_finished_local_run() {
    let folder = tempfile::tempdir().unwrap();
    let ran = bagpress()
        .current_dir(folder.path())
        .args(["run", "--tasks", "2", "--bytes", "100000", "--data", "text", "--codec", "gzip:6"])
        .args(["--results", "objects", "--name", "t1", "--workers", "1", "--quiet"])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let commands = commands_under("docs/operations.md", "Objects as files");
    let (serve, read) = commands.split_first().unwrap();
    assert_eq!(serve, "bagpress broker --store runs/t1/objects/.broker");
    assert_eq!(read.len(), 3, "{read:?}");
    let run = folder.path().join("runs/t1/objects");
    // Where tests listen is free, and not where the document says.
    let broker = broker_on(&run.join(".broker")).await;
    let script = read.join(" && ").replace("nats://127.0.0.1:4222", &broker.url);
    let script = script.replace("<bag>", &bag_of(&run));
    let read = Command::new("sh").current_dir(folder.path()).args(["-c", &script]).output();
    let read = read.unwrap();
    assert!(read.status.success(), "{script}: {}", String::from_utf8_lossy(&read.stderr));
    let codec: Codec = "gzip:6".parse().unwrap();
    let output = std::fs::read(folder.path().join("out_0.gz")).unwrap();
    let mut wanted = vec![0; 100_000];
    Generator::new(DataKind::Text, 0, 0, 100_000).fill(&mut wanted);
    assert!(decompress_all(&codec, &output).unwrap() == wanted);
}
