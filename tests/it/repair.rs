//! A ledger that was damaged is reported, skipped, and rebuilt from the outputs; only what is missing or
//! bad is run again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

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
