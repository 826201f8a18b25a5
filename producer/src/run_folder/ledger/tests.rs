//! What counts, in an open ledger and when it is opened again.

use std::collections::HashSet;
use std::sync::Arc;

use bagpress_broker::ids::Execution;
use bagpress_broker::result::{Cause, Done, Failed, Outcome, Place, Times};
use bagpress_codec::Digest;

use super::*;
use crate::run_folder::cuts::BlockSize;
use crate::run_folder::packable::Packable;

/// A ledger of `tasks` tasks that was not there before, and where.
fn new_ledger(tasks: u32) -> (tempfile::TempDir, std::path::PathBuf, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manifest.jsonl");
    let ledger = Ledger::at(&path, tasks).unwrap();
    (folder, path, ledger)
}

fn result(index: u32, round: u32, fails: bool) -> Entry {
    let done = Done {
        input_bytes: 10,
        input_digest: Digest::of(b"in"),
        output_bytes: 5,
        output_digest: Digest::of(b"out"),
        place: Place::Staged,
        verified: true,
        choice: None,
        fidelity: None,
        entry_points: Vec::new(),
    };
    let failed = Failed::new(Cause::CodecError, "broken");
    Entry::Outcome(Arc::new(TaskResult {
        v: 1,
        bag: "demo-abcdefgh".parse().unwrap(),
        index,
        round,
        execution: Execution::random(),
        attempt: 1,
        worker: String::new(),
        host: String::new(),
        outcome: if fails { Outcome::Failed(failed) } else { Outcome::Done(done) },
        times: Times { execute_us: 100, ..Times::default() },
        descriptor: None,
        file: None,
        twin_of: None,
        members: Vec::new(),
    }))
}

#[test]
fn an_outcome_counts_once_whatever_comes_after() {
    let (_folder, path, ledger) = new_ledger(3);
    ledger.append(&[result(0, 0, false), result(0, 0, true), result(1, 0, true)], |_| 0).unwrap();
    assert_eq!(ledger.tally(|t| (t.done, t.failed, t.input_bytes)), (1, 1, 10));
    assert!(ledger.is_decided(0) && !ledger.is_decided(2) && ledger.is_failed(1));
    drop(ledger);
    let again = Ledger::at(&path, 3).unwrap();
    assert_eq!(again.tally(|t| (t.done, t.failed, t.input_bytes)), (1, 1, 10));
}

#[test]
fn a_round_may_take_its_file_as_it_is_now_and_so_do_later_ones() {
    let (_folder, path, ledger) = new_ledger(2);
    ledger.append(&[result(0, 0, true), result(1, 0, true)], |_| 0).unwrap();
    let now = InputNow { bytes: 7, mtime_ns: -1, mode: 0o600, inode: 3 };
    ledger.begin(&[0, 1], &HashMap::from([(0, now)]), &HashSet::new()).unwrap();
    ledger.begin(&[0], &HashMap::new(), &HashSet::new()).unwrap();
    ledger.append(&[result(0, 2, false)], |_| 0).unwrap();
    drop(ledger);
    let ledger = Ledger::at(&path, 2).unwrap();
    assert_eq!((ledger.input_now(0), ledger.input_now(1)), (Some(now), None));
}

#[test]
fn the_file_that_got_a_name_is_known_in_later_rounds_until_somebody_else_has_it() {
    let (_folder, path, ledger) = new_ledger(2);
    let with_file = |index, round, inode| {
        let Entry::Outcome(done) = result(index, round, false) else { panic!("no outcome") };
        let file = Some(FileId { inode, born_ns: 7 });
        Entry::Outcome(Arc::new(TaskResult { file, ..(*done).clone() }))
    };
    ledger.append(&[with_file(0, 0, 1), with_file(1, 0, 2)], |_| 0).unwrap();
    ledger.begin(&[0], &HashMap::new(), &HashSet::new()).unwrap();
    let file = |ledger: &Ledger, index| ledger.file(index).map(|file| file.inode);
    assert_eq!(file(&ledger, 0), Some(1));
    ledger.append(&[with_file(0, 1, 3)], |_| 0).unwrap();
    ledger.begin(&[0], &HashMap::new(), &HashSet::new()).unwrap();
    drop(ledger);
    let ledger = Ledger::at(&path, 2).unwrap();
    assert_eq!(file(&ledger, 0), Some(3));
    let Entry::Outcome(taken) = result(0, 2, true) else { panic!("no outcome") };
    let outcome = Outcome::Failed(Failed::new(Cause::OutputExists, "it is there"));
    let taken = TaskResult { outcome, ..(*taken).clone() };
    ledger.append(&[Entry::Outcome(Arc::new(taken))], |_| 0).unwrap();
    assert_eq!(file(&ledger, 0), None);
    drop(ledger);
    assert_eq!(file(&Ledger::at(&path, 2).unwrap(), 0), None);
}

#[test]
fn a_round_that_somebody_took_is_not_begun() {
    let (_folder, _path, ledger) = new_ledger(2);
    ledger.append(&[result(0, 0, true), result(1, 0, false)], |_| 0).unwrap();
    let taken = HashSet::from([(1, 1), (1, 2), (1, 4), (0, 2)]);
    assert_eq!(ledger.begin(&[0, 1], &HashMap::new(), &taken).unwrap(), [(0, 1), (1, 3)]);
}

#[test]
fn a_begun_round_takes_the_old_outcome_back() {
    let (_folder, path, ledger) = new_ledger(2);
    ledger.append(&[result(0, 0, true), result(1, 0, false)], |_| 0).unwrap();
    assert_eq!(ledger.begin(&[0], &HashMap::new(), &HashSet::new()).unwrap(), [(0, 1)]);
    assert_eq!(ledger.tally(|t| (t.done, t.failed, t.failures.len())), (1, 0, 0));
    // A late result of the old round is nothing.
    ledger.append(&[result(0, 0, true)], |_| 0).unwrap();
    assert!(!ledger.is_decided(0));
    assert!(ledger.outcome(0, 0).is_none());
    ledger.append(&[result(0, 1, false)], |_| 0).unwrap();
    assert_eq!(ledger.outcome(0, 0).unwrap().round, 1);
    drop(ledger);
    let again = Ledger::at(&path, 2).unwrap();
    assert_eq!(again.tally(|t| (t.done, t.failed, t.input_bytes)), (2, 0, 20));
    assert_eq!((again.round(0), again.round(1)), (1, 0));
}

/// Which execution has the outcome of each task, as a late worker is told.
fn winners(ledger: &Ledger, tasks: u32) -> Vec<Option<(u32, Execution)>> {
    let winner = |index| ledger.outcome(index, 0).map(|result| (result.round, result.execution));
    (0..tasks).map(winner).collect()
}

fn winner(entry: &Entry) -> (u32, Execution) {
    let Entry::Outcome(result) = entry else { panic!("no outcome") };
    (result.round, result.execution.clone())
}

#[test]
fn an_outcome_is_read_from_its_line_wherever_that_is() {
    let (_folder, path, ledger) = new_ledger(4);
    let lines = [result(2, 0, false), result(0, 0, true), result(2, 0, true), result(1, 0, false)];
    ledger.append(&lines[..1], |_| 0).unwrap();
    ledger.append(&lines[1..], |_| 0).unwrap();
    let expected = [&lines[1], &lines[3], &lines[0]].map(|entry| Some(winner(entry)));
    assert_eq!(winners(&ledger, 3), expected);
    assert!(ledger.outcome(3, 0).is_none() && ledger.outcome(4, 0).is_none());
    drop(ledger);
    assert_eq!(winners(&Ledger::at(&path, 4).unwrap(), 3), expected, "after it was opened again");

    let torn = [std::fs::read(&path).unwrap(), b"{\"v\":1,\"outc".to_vec()].concat();
    std::fs::write(&path, torn).unwrap();
    let ledger = Ledger::at(&path, 4).unwrap();
    let behind = result(3, 0, false);
    ledger.append(std::slice::from_ref(&behind), |_| 0).unwrap();
    assert_eq!(winners(&ledger, 4)[3], Some(winner(&behind)), "behind a torn line");
    assert_eq!(winners(&ledger, 3), expected);

    ledger.begin(&[0], &HashMap::new(), &HashSet::new()).unwrap();
    assert!(ledger.outcome(0, 0).is_none(), "a round without an outcome");
    let anew = [result(0, 0, false), result(0, 1, false)];
    ledger.append(&anew, |_| 0).unwrap();
    assert!(ledger.outcome(0, 2).is_none());
    let expected = [&anew[1], &lines[3], &lines[0], &behind].map(|entry| Some(winner(entry)));
    assert_eq!(winners(&ledger, 4), expected, "of a new round");
    drop(ledger);
    assert_eq!(winners(&Ledger::at(&path, 4).unwrap(), 4), expected, "after that was opened again");
}

#[test]
fn a_line_that_was_flipped_since_is_not_believed() {
    let (_folder, path, ledger) = new_ledger(2);
    ledger.append(&[result(0, 0, false), result(1, 0, false)], |_| 0).unwrap();
    let mut text = std::fs::read(&path).unwrap();
    text[40] ^= 1;
    std::fs::write(&path, text).unwrap();
    assert!(ledger.outcome(0, 0).is_none() && ledger.outcome(1, 0).is_some());
}

#[test]
fn blocks_count_until_their_file_has_an_outcome_or_is_run_whole() {
    const MIB: u64 = 1 << 20;
    let (folder, size) =
        (tempfile::tempdir().unwrap(), BlockSize { bytes: 2 * MIB, above: 2 * MIB });
    let path = folder.path().join("manifest.jsonl");
    let files = [5 * MIB, MIB].map(|bytes| {
        Ok(Packable { bytes, refused: false, is_file: true, part_of: None, codec: None })
    });
    let cut = Arc::new(Cuts::of(size, 2, files.into_iter()).unwrap());
    let open = || {
        let file = File::options().read(true).append(true).create(true).open(&path).unwrap();
        Ledger::of(file, &path, 2, Some(cut.clone())).unwrap()
    };
    // At hand, and when it is opened again.
    let both = |ledger: &Ledger| {
        [ledger, &open()].map(|ledger| ledger.tally(|tally| (tally.block_bytes, tally.input_bytes)))
    };
    let ledger = open();
    ledger.append(&[result(2, 0, false), result(4, 0, false), result(4, 0, false)], |_| 0).unwrap();
    assert_eq!(both(&ledger), [(3 * MIB, 0); 2]);
    ledger.begin(&[4], &HashMap::new(), &HashSet::new()).unwrap();
    assert_eq!(both(&ledger), [(2 * MIB, 0); 2], "its bytes were lost");
    ledger.append(&[result(4, 1, false), result(3, 0, true)], |_| 0).unwrap();
    assert_eq!(both(&ledger), [(3 * MIB, 0); 2]);
    ledger.append(&[result(0, 0, true), result(1, 0, false)], |_| 0).unwrap();
    assert_eq!(both(&ledger), [(0, 10); 2], "its file failed");
    ledger.begin(&[0], &HashMap::new(), &HashSet::new()).unwrap();
    assert_eq!(both(&ledger), [(0, 10); 2], "its file is run whole");
    ledger.append(&[result(0, 1, false)], |_| 0).unwrap();
    assert_eq!(both(&ledger), [(0, 20); 2]);
}
