//! Two bags with one `--out`: whatever becomes of one, the other's part files are its own.

use std::fs;
use std::path::Path;

use bagpress_broker::ids::{Execution, TaskId};
use bagpress_broker::result::Place as Where;
use bagpress_broker::testing::{NatsServer, eventually};
use bagpress_broker::{Broker, samples};
use bagpress_codec::{DataKind, Digest};
use bagpress_objstore::staging::{
    Allowed, Grant, PART_DIR, Permission, Stager, Upload, part_folder,
};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::control::{bag_of, broker, until_there};
use crate::harness::{Place, Running, SOON};
use crate::ledger::{expect_each_done_once, generated, outcomes};

const BYTES: usize = 64 * 1024;

/// How an output reaches the gatherer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Wire,
    Path,
}

/// A bag of one task of a pool without workers: what becomes of it is done by hand.
struct ByHand {
    name: &'static str,
    way: Way,
    run: Running,
    task: TaskId,
    broker: Broker,
}

impl ByHand {
    async fn start(place: &Place, server: &NatsServer, name: &'static str, way: Way) -> Self {
        let transfer = if way == Way::Path { "auto" } else { "wire" };
        let bag =
            format!("--tasks 1 --bytes {BYTES} --codec store --pool hand --transfer {transfer}");
        let run = format!("run {bag} --out out --name {name} -q --server {}", server.url());
        let run = place.spawn(&run);
        until_there(place, &format!("{name}/staged")).await;
        let bag = bag_of(place, &format!("{name}/staged")).parse().unwrap();
        let task = TaskId { bag, index: 0, round: 0 };
        Self { name, way, run, task, broker: broker(server).await }
    }

    /// Asks for leave, as a worker does that sees the gatherer's folder; waits for the gatherer.
    async fn open(&self, execution: &Execution) -> (Stager, Grant) {
        eventually("the gatherer gives leave", SOON, async || {
            let stager = Stager::new(&self.broker, Allowed::below(vec!["/".into()]));
            match stager.open(&self.task, execution, self.way == Way::Path).await {
                Ok(Permission::Go(grant)) => Some((stager, grant)),
                _ => None,
            }
        })
        .await
    }

    /// Hands in the output: it is durable afterwards, and nothing is committed.
    async fn hand_in(&self) -> Execution {
        let (execution, output) = (Execution::random(), output());
        let (stager, grant) = self.open(&execution).await;
        assert_eq!(grant.share.is_some(), self.way == Way::Path);
        let upload = if let Some(share) = &grant.share {
            let mut part = share.create_part().unwrap();
            std::io::Write::write_all(&mut part, &output).unwrap();
            Upload::by_path(&stager, &grant)
        } else {
            let (sender, chunks) = mpsc::channel(1);
            sender.try_send(Bytes::copy_from_slice(&output)).unwrap();
            drop(sender);
            stager.upload(&grant, chunks).await.unwrap()
        };
        upload.close(BYTES as u64, &Digest::of(&output)).await.unwrap();
        execution
    }

    /// Commits what was handed in. The bag ends with that very execution, in its first round.
    async fn commit(self, place: &Place, execution: &Execution) {
        // Its workers still see the same folder.
        let (_, grant) = self.open(&Execution::random()).await;
        assert_eq!(grant.share.is_some(), self.way == Way::Path);
        let result = samples::done(&self.task, execution, &output(), Where::Staged);
        self.broker.commit(&result).await.unwrap();
        self.run.ended(place).await.with_code(0);
        let folder = place.folder(&format!("{}/staged", self.name));
        expect_each_done_once(&folder, 1);
        let outcome = &outcomes(&folder)[0];
        assert_eq!(outcome["execution"], execution.as_str());
        assert_eq!(outcome["round"], 0);
        let ledger = fs::read_to_string(folder.join("manifest.jsonl")).unwrap();
        assert!(!ledger.contains("\"begun\""), "no round began: {ledger}");
        assert_eq!(fs::read(place.path("out/out_0.bin")).unwrap(), output());
        place.run(&format!("verify runs/{}/staged", self.name)).await.with_code(0);
    }
}

fn output() -> Vec<u8> {
    generated(DataKind::Random, 0, BYTES)
}

async fn with_a_pool_without_workers() -> (Place, NatsServer) {
    let (place, server) = Place::with_server().await;
    let init = format!("broker --init --pool hand --max-file 2GiB --server {}", server.url());
    place.run(&init).await.with_code(0);
    (place, server)
}

/// The bags that have part files in a folder.
fn bags_with_parts(out: &Path) -> Vec<String> {
    let entries = fs::read_dir(out.join(PART_DIR)).unwrap().map(Result::unwrap);
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_bag_that_finishes_takes_nothing_of_another_in_the_same_out() {
    for way in [Way::Wire, Way::Path] {
        let (place, server) = with_a_pool_without_workers().await;
        let _worker = place.spawn(&format!("worker --slots 1 --allow / --server {}", server.url()));
        let first = ByHand::start(&place, &server, "first", way).await;
        let execution = first.hand_in().await;

        fs::create_dir_all(place.path("in")).unwrap();
        fs::write(place.path("in/file"), "a file").unwrap();
        let other = format!("run in --out out --name other -q --server {}", server.url());
        place.run(&other).await.with_code(0);

        assert_eq!(bags_with_parts(&place.path("out")), [first.task.bag.as_str()]);
        first.commit(&place, &execution).await;
        assert!(!place.path("out").join(PART_DIR).exists());
        place.run("verify runs/other/staged").await.with_code(0);
    }
}

#[tokio::test]
async fn a_bag_that_is_removed_takes_nothing_of_another_in_the_same_out() {
    for way in [Way::Wire, Way::Path] {
        let (place, server) = with_a_pool_without_workers().await;
        let first = ByHand::start(&place, &server, "first", way).await;
        let execution = first.hand_in().await;
        let removed = ByHand::start(&place, &server, "removed", way).await;
        removed.hand_in().await;
        assert_eq!(bags_with_parts(&place.path("out")).len(), 2);

        let rm = format!("rm runs/removed/staged --force --outputs --server {}", server.url());
        place.run(&rm).await.with_code(0);
        removed.run.ended(&place).await.with_code(1);

        assert_eq!(bags_with_parts(&place.path("out")), [first.task.bag.as_str()]);
        first.commit(&place, &execution).await;
        assert!(!place.path("out").join(PART_DIR).exists());
    }
}

#[tokio::test]
async fn a_sweep_takes_part_files_of_finished_bags_only_from_a_shared_out() {
    let place = Place::new().await;
    place.run("run --tasks 1 --bytes 64KiB --out out --name t --workers 1 -q").await.with_code(0);
    let out = place.path("out");
    let (own, other) = (bag_of(&place, "t/staged").parse().unwrap(), samples::bag());
    for bag in [&own, &other] {
        fs::create_dir_all(part_folder(&out, bag)).unwrap();
        fs::write(part_folder(&out, bag).join("0.0-x"), "left").unwrap();
    }
    let dry = place.run("rm --orphans --dry-run").await.with_code(0);
    assert!(dry.stdout.contains(own.as_str()) && !dry.stdout.contains(other.as_str()), "{dry:?}");
    assert_eq!(bags_with_parts(&out).len(), 2);
    place.run("rm --orphans").await.with_code(0);
    assert_eq!(bags_with_parts(&out), [other.as_str()]);
    assert!(out.join("out_0.bin").is_file());
}

#[tokio::test]
async fn a_bag_of_files_without_outputs_leaves_no_part_folder() {
    let place = Place::new().await;
    fs::create_dir_all(place.path("in")).unwrap();
    fs::write(place.path("in/file"), "a file").unwrap();
    let ran = place.run("run in --codec noop --out out --name t --workers 1 -q").await.with_code(0);
    for root in [place.folder("t/staged/results"), place.path("out")] {
        assert!(!root.join(PART_DIR).exists(), "{}: {ran:?}", root.display());
    }
}
