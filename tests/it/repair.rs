//! A ledger that was damaged is reported, skipped, and rebuilt from the outputs; only what is missing or
//! bad is run again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bagpress_broker::limits::INPUT_WINDOW_BYTES;
use serde_json::Value;

use crate::control::{bag_of, context};
use crate::harness::Place;
use crate::ledger::outcomes;

const TASKS: u64 = 8;

/// A finished run.
async fn finished(place: &Place) -> std::path::PathBuf {
    let bag = "--tasks 8 --bytes 64KiB --data text --name t -q";
    place.run(&format!("run {bag} --workers 2")).await.with_code(0);
    place.folder("t/staged")
}

/// Every task's outcome of its highest round.
fn latest(folder: &Path) -> BTreeMap<u64, Value> {
    let mut latest: BTreeMap<u64, Value> = BTreeMap::new();
    for outcome in outcomes(folder) {
        let index = outcome["index"].as_u64().unwrap();
        let older =
            latest.get(&index).is_some_and(|o| o["round"].as_u64() > outcome["round"].as_u64());
        if !older {
            latest.insert(index, outcome);
        }
    }
    latest
}

/// Damages a ledger, repairs the run, and gives the tasks whose line was rebuilt, and those run again.
async fn repaired(damage: impl FnOnce(&Path), reported: &str) -> (Vec<u64>, Vec<u64>) {
    let place = Place::new().await;
    let folder = finished(&place).await;
    damage(&folder);
    let verified = place.run("verify runs/t/staged").await.with_code(1);
    assert!(verified.stderr.contains(reported), "{verified:?}");
    let ended = place.run("gather runs/t/staged --repair --workers 1 -q").await.with_code(0);
    assert!(ended.stdout.contains("8/8, failed: 0"), "{ended:?}");
    place.run("verify runs/t/staged").await.with_code(0);
    let latest = latest(&folder);
    assert_eq!(latest.len() as u64, TASKS);
    let rebuilt = latest.iter().filter(|(_, o)| o["worker"] == "gatherer").map(|(i, _)| *i);
    let again = latest.iter().filter(|(_, o)| o["round"] != 0).map(|(i, _)| *i);
    (rebuilt.collect(), again.collect())
}

/// The lines of a ledger, and the tasks that they are about.
fn lines(folder: &Path) -> (Vec<Vec<u8>>, Vec<u64>) {
    let indices = outcomes(folder).iter().map(|o| o["index"].as_u64().unwrap()).collect();
    let bytes = fs::read(folder.join("manifest.jsonl")).unwrap();
    (bytes.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect(), indices)
}

fn write(folder: &Path, lines: &[Vec<u8>]) {
    fs::write(folder.join("manifest.jsonl"), lines.concat()).unwrap();
}

#[tokio::test]
async fn a_torn_tail_is_rebuilt_from_its_output() {
    let mut expected = Vec::new();
    let damage = |folder: &Path| {
        let (mut lines, indices) = lines(folder);
        lines[7].truncate(60);
        expected = vec![indices[7]];
        write(folder, &lines);
    };
    let (rebuilt, again) = repaired(damage, "1 lines of the ledger cannot be used").await;
    assert_eq!((rebuilt, again), (expected, vec![]));
}

#[tokio::test]
async fn a_zeroed_block_is_rebuilt_from_its_outputs() {
    let mut expected = Vec::new();
    let damage = |folder: &Path| {
        let (mut lines, indices) = lines(folder);
        for line in &mut lines[2..5] {
            line.fill(0);
        }
        expected = indices[2..5].to_vec();
        expected.sort_unstable();
        write(folder, &lines);
    };
    // Three lines without their ends are one, and so is the line behind them.
    let (rebuilt, again) = repaired(damage, "1 lines of the ledger cannot be used").await;
    assert!(expected.iter().all(|index| rebuilt.contains(index)), "{rebuilt:?}");
    assert!(rebuilt.len() == 4 && again.is_empty(), "{rebuilt:?} {again:?}");
}

#[tokio::test]
async fn a_flipped_byte_is_never_believed() {
    let mut expected = Vec::new();
    let damage = |folder: &Path| {
        let (mut lines, indices) = lines(folder);
        // The first quote of the line: it is no JSON any more, for anybody.
        lines[3][1] ^= 1;
        expected = vec![indices[3]];
        write(folder, &lines);
    };
    let (rebuilt, again) = repaired(damage, "1 lines of the ledger cannot be used").await;
    assert_eq!((rebuilt, again), (expected, vec![]));
}

#[tokio::test]
async fn a_ledger_that_is_gone_is_rebuilt_whole() {
    let damage = |folder: &Path| fs::remove_file(folder.join("manifest.jsonl")).unwrap();
    let (rebuilt, again) = repaired(damage, "").await;
    assert_eq!((rebuilt, again), ((0..TASKS).collect(), vec![]));
}

#[tokio::test]
async fn only_what_is_missing_or_bad_is_run_again() {
    let damage = |folder: &Path| {
        fs::remove_file(folder.join("results/out_2.bin")).unwrap();
        let bad = folder.join("results/out_5.bin");
        let mut bytes = fs::read(&bad).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(&bad, bytes).unwrap();
    };
    let (rebuilt, again) = repaired(damage, "gather runs/t/staged --repair").await;
    assert_eq!((rebuilt, again), (vec![], vec![2, 5]));
}

#[tokio::test]
async fn without_its_line_a_bad_output_is_no_witness() {
    let damage = |folder: &Path| {
        fs::remove_file(folder.join("manifest.jsonl")).unwrap();
        fs::write(folder.join("results/out_5.bin"), b"something else").unwrap();
    };
    let (rebuilt, again) = repaired(damage, "").await;
    assert_eq!(rebuilt, [0, 1, 2, 3, 4, 6, 7]);
    assert!(again.len() <= 1, "{again:?}");
}

/// Says no word about outputs of which nobody knows: their inputs may be gone.
async fn refused(place: &Place, folder: &Path, says: &str) {
    let before = fs::read(folder.join("manifest.jsonl")).unwrap();
    let ended = place.run("gather runs/t/staged --repair --workers 1 -q").await.with_code(3);
    assert!(ended.stderr.contains(says), "{ended:?}");
    assert_eq!(fs::read(folder.join("manifest.jsonl")).unwrap(), before);
}

#[tokio::test]
async fn an_output_that_cannot_be_read_is_not_called_bad() {
    let place = Place::new().await;
    let folder = finished(&place).await;
    let (output, kept) = (folder.join("results/out_5.bin"), folder.join("kept"));
    fs::rename(&output, &kept).unwrap();
    std::os::unix::fs::symlink("out_5.bin", &output).unwrap();
    refused(&place, &folder, "results/out_5.bin readable, or move it away").await;
    fs::rename(&kept, &output).unwrap();
    place.run("verify runs/t/staged").await.with_code(0);
}

#[tokio::test]
async fn a_list_of_inputs_that_is_damaged_calls_no_output_bad() {
    let place = Place::new().await;
    fs::create_dir(place.path("in")).unwrap();
    for name in ["a", "b", "c"] {
        fs::write(place.path("in").join(name), name.repeat(10_000)).unwrap();
    }
    place.run("run in --out out --name t --workers 1 -q").await.with_code(0);
    let folder = place.folder("t/staged");
    let list = fs::read_to_string(folder.join("inputs.jsonl")).unwrap();
    fs::write(folder.join("inputs.jsonl"), list.replacen("\"in/b\"", "#in/b\"", 1)).unwrap();
    refused(&place, &folder, "find the name of an output").await;
    fs::write(folder.join("inputs.jsonl"), list).unwrap();
    place.run("verify runs/t/staged").await.with_code(0);
}

/// Inputs are put in a window; whoever frees them must not be the one that waits for it.
#[tokio::test]
async fn a_repair_of_more_inputs_than_fit_at_a_time_comes_to_its_end() {
    const FILES: usize = 5;
    let (place, server) = Place::with_server().await;
    fs::create_dir(place.path("in")).unwrap();
    for number in 0..FILES {
        let file = fs::File::create(place.path("in").join(number.to_string())).unwrap();
        file.set_len(INPUT_WINDOW_BYTES / 4).unwrap();
    }
    let _workers = [place.worker(&server), place.worker(&server)];
    let at = format!("--server {}", server.url());
    let bag = "run in --results objects --codec gzip:1 --name t -q";
    place.run(&format!("{bag} {at}")).await.with_code(0);
    let bucket = format!("OBJ_bag-{}", bag_of(&place, "t/objects"));
    let bucket = context(&server).await.get_stream(bucket).await.unwrap();
    bucket.purge().await.unwrap();
    place.run(&format!("gather runs/t/objects --repair -q {at}")).await.with_code(0);
    let latest = latest(&place.folder("t/objects"));
    let rounds: Vec<_> = latest.values().map(|outcome| outcome["round"].as_u64()).collect();
    assert_eq!(rounds, [Some(1); FILES]);
    place.run(&format!("verify runs/t/objects {at}")).await.with_code(0);
}
