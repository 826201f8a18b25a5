//! In whatever order results come, how often, and what of them is lost first: the same outcomes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bagpress_broker::Followed;
use bagpress_broker::descriptor::{DeliveryPath, ResultPath, Transfer, Verify};
use bagpress_broker::ids::{BagId, Execution};
use bagpress_broker::result::{Cause, Done, Failed, Outcome, Place, TaskResult, Times};
use bagpress_codec::Digest;
use bagpress_objstore::staging::{Parts, Syncer};
use proptest::prelude::*;
use proptest::sample::{Index, subsequence};

use crate::gather::accept::Acceptor;
use crate::run_folder::inputs::roots::Roots;
use crate::run_folder::ledger::Ledger;
use crate::run_folder::ledger::file::LedgerFile;
use crate::run_folder::ledger::line::Entry;
use crate::run_folder::plan::BagPlan;
use crate::run_folder::specification::{Data, Specification};

const TASKS: u32 = 24;

fn bag() -> BagId {
    "demo-abcdefgh".parse().unwrap()
}

fn content(index: u32, round: u32) -> Vec<u8> {
    format!("output {index} of round {round}").into_bytes()
}

fn result(index: u32, round: u32, fails: bool, attempt: u32) -> Arc<TaskResult> {
    let output = content(index, round);
    let done = Done {
        input_bytes: 1000 + u64::from(index),
        input_digest: Digest::of(b"in"),
        output_bytes: output.len() as u64,
        output_digest: Digest::of(&output),
        place: Place::Staged,
        verified: !index.is_multiple_of(5),
        choice: None,
        fidelity: None,
        entry_points: Vec::new(),
    };
    let failed = Failed::new(Cause::CodecError, format!("task {index} broke"));
    Arc::new(TaskResult {
        v: 1,
        bag: bag(),
        index,
        round,
        execution: Execution::random(),
        attempt,
        worker: "W".to_owned(),
        host: "h".to_owned(),
        outcome: if fails { Outcome::Failed(failed) } else { Outcome::Done(done) },
        times: Times { execute_us: 100 + u64::from(index), ..Times::default() },
        descriptor: None,
        file: None,
        twin_of: None,
        members: Vec::new(),
    })
}

fn specification() -> Specification {
    Specification {
        v: 1,
        bag: bag(),
        name: "demo".parse().unwrap(),
        pool: "default".parse().unwrap(),
        codec: "zlib:6".parse().unwrap(),
        library: String::new(),
        results: ResultPath::Staged,
        delivery: DeliveryPath::Jetstream,
        verify: Verify::Worker,
        transfer: Transfer::Wire,
        attempts: 3,
        tasks: TASKS,
        input_bytes: 0,
        data: Data::Files { list: Digest::of(b""), largest: 0, roots: Roots::default() },
        out: None,
        get: false,
        keep_inputs: false,
        remove_source: false,
        stats: false,
        pack: None,
        block: None,
        ttl_s: None,
        created_us: 0,
        selection: None,
    }
}

/// A run folder that is gathered into, one process after another.
struct Run {
    folder: tempfile::TempDir,
    parts: Arc<Parts>,
    plan: BagPlan,
    acceptor: Acceptor,
}

impl Run {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let parts = Arc::new(Parts::open(folder.path(), &bag()).unwrap());
        let (plan, acceptor) = acceptor(&folder, &parts);
        Self { folder, parts, plan, acceptor }
    }

    fn restart(&mut self) {
        (self.plan, self.acceptor) = acceptor(&self.folder, &self.parts);
    }

    fn ledger(&self) -> &Ledger {
        &self.plan.ledger
    }

    /// What CLOSE has made durable before a result is committed.
    fn upload(&self, result: &TaskResult) {
        if result.done().is_some() {
            let part = self.parts.part(result.index, result.round, &result.execution);
            std::fs::write(part, content(result.index, result.round)).unwrap();
        }
    }

    /// Accepts a batch, as `Gathering::take` does; returns what is to be run again.
    async fn accept(&self, batch: &[Arc<TaskResult>]) -> Vec<u32> {
        let followed = |result: &Arc<TaskResult>| Followed { result: Ok(result.clone()), bytes: 0 };
        let mut batch: Vec<_> = batch.iter().map(followed).collect();
        let mut lost = Vec::new();
        while !batch.is_empty() {
            let accepted = self.acceptor.clone().accept(batch).await.unwrap();
            lost.extend(accepted.lost);
            batch = accepted.later;
        }
        lost
    }

    /// Everything that a summary and a reader of the ledger can see.
    fn seen(&self) -> (String, Vec<Option<(u32, Outcome)>>) {
        let summary = self.ledger().tally(|t| {
            let mut means = t.means();
            // How long a result was on its way is the only thing that the order decides.
            means.commit_us = 0;
            format!(
                "{:?}",
                (
                    (t.done, t.failed, t.input_bytes, t.output_bytes, t.retried, t.unverified),
                    (&t.failures, means, t.execute_us(0.5), t.execute_us(0.95)),
                )
            )
        });
        let outcome = |index| self.ledger().outcome(index, 0).map(|r| (r.round, r.outcome));
        (summary, (0..TASKS).map(outcome).collect())
    }

    fn check_files(&self) {
        for index in (0..TASKS).filter(|index| self.ledger().is_done(*index)) {
            let round = self.ledger().round(index);
            let file = self.folder.path().join(format!("out_{index}.bin"));
            assert_eq!(std::fs::read(file).unwrap(), content(index, round));
        }
    }
}

fn acceptor(folder: &tempfile::TempDir, parts: &Arc<Parts>) -> (BagPlan, Acceptor) {
    let ledger = Ledger::at(&folder.path().join("manifest.jsonl"), TASKS).unwrap();
    assert!(ledger.bad_lines().is_empty());
    let plan = BagPlan {
        extents: None,
        cuts: None,
        twins: None,
        earlier: None,
        specification: Arc::new(specification()),
        inputs: None,
        ledger: Arc::new(ledger),
    };
    let syncer = Syncer::start(parts.clone()).unwrap();
    let acceptor = Acceptor::new(plan.clone(), Some((parts.clone(), syncer)), None, None, 1);
    (plan, acceptor)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Each task fails or not, by round 0 and by a retry, and took an attempt or more.
fn outcomes() -> impl Strategy<Value = Vec<(bool, bool, u32)>> {
    proptest::collection::vec((any::<bool>(), any::<bool>(), 1..4_u32), TASKS as usize)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Results come shuffled, in batches, some twice and some not at all before the gatherer is
    /// restarted; then the failed tasks are retried and the old results come once more.
    #[test]
    fn any_order_duplication_and_loss_give_the_same_summary(
        outcomes in outcomes(),
        order in Just((0..TASKS).collect::<Vec<_>>()).prop_shuffle(),
        twice in subsequence((0..TASKS).collect::<Vec<_>>(), 0..TASKS as usize),
        batch in 1..9_usize,
        lost_until in any::<Index>(),
        deleted in any::<Index>(),
    ) {
        let seen = |disturbed: bool| block_on(async {
            let mut run = Run::new();
            let make = |round: u32| {
                let make = |(index, (first, second, attempt)): (usize, &(bool, bool, u32))| {
                    let fails = if round == 0 { *first } else { *second };
                    result(u32::try_from(index).unwrap(), round, fails, *attempt)
                };
                outcomes.iter().enumerate().map(make).collect::<Vec<_>>()
            };
            let (first, second) = (make(0), make(1));
            for result in &first {
                run.upload(result);
            }
            if disturbed {
                let shuffled: Vec<_> =
                    order.iter().chain(&twice).map(|i| first[*i as usize].clone()).collect();
                let some = lost_until.index(shuffled.len());
                for batch in shuffled[..some].chunks(batch) {
                    assert!(run.accept(batch).await.is_empty());
                }
                run.restart();
            }
            assert!(run.accept(&first).await.is_empty());
            let before = run.seen();
            // The failed ones again, and one whose bytes are gone.
            let failed = (0..TASKS).filter(|index| run.ledger().is_failed(*index));
            let mut again: Vec<_> = failed.collect();
            again.push(u32::try_from(deleted.index(TASKS as usize)).unwrap());
            run.ledger().begin(&again, &HashMap::new(), &HashSet::new()).unwrap();
            for result in second.iter().filter(|result| again.contains(&result.index)) {
                run.upload(result);
            }
            if disturbed {
                assert!(run.accept(&first).await.is_empty());
                run.restart();
            }
            let committed = second.iter().filter(|result| again.contains(&result.index));
            let mut committed: Vec<_> = committed.cloned().collect();
            if disturbed {
                committed.sort_by_key(|r| order.iter().position(|index| *index == r.index));
                committed.extend(first.clone());
            }
            assert!(run.accept(&committed).await.is_empty());
            run.check_files();
            let live = run.seen();
            run.restart();
            assert_eq!(run.seen(), live, "what is read from the ledger is what was counted");
            (before, live)
        });
        prop_assert_eq!(seen(true), seen(false));
    }

    /// A result whose bytes are not here is run again; one of a round that was begun elsewhere counts.
    #[test]
    fn lost_bytes_and_rounds_begun_elsewhere_end_in_one_outcome(
        index in 0..TASKS,
        together in any::<bool>(),
    ) {
        block_on(async {
            let mut run = Run::new();
            let (first, second) = (result(index, 0, false, 1), result(index, 1, false, 1));
            // In another folder both rounds were gathered: nothing of theirs is here.
            let mut lost = if together {
                run.accept(&[first.clone(), second.clone()]).await
            } else {
                let mut lost = run.accept(std::slice::from_ref(&first)).await;
                lost.extend(run.accept(std::slice::from_ref(&second)).await);
                lost
            };
            lost.dedup();
            assert_eq!(lost, [index]);
            run.ledger().begin(&lost, &HashMap::new(), &HashSet::new()).unwrap();
            let round = run.ledger().round(index);
            let mine = result(index, round, false, 1);
            run.upload(&mine);
            assert!(run.accept(&[second, mine, first]).await.is_empty());
            assert!(run.ledger().is_done(index));
            run.check_files();
            run.restart();
            assert_eq!(run.ledger().tally(|t| t.done), 1);
        });
    }

    /// Whatever is flipped or cut, each line is read as it was written or not at all, and a line that
    /// is not is reported.
    #[test]
    fn a_broken_ledger_drops_lines_and_changes_none(
        outcomes in outcomes(),
        at in any::<Index>(),
        to in any::<u8>(),
        cut in proptest::option::of(any::<Index>()),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.jsonl");
        let (lines, _) = LedgerFile::at(&path, |_, _| {}).unwrap();
        let mut written = Vec::new();
        for (index, (first, second, attempt)) in (0..).zip(&outcomes) {
            written.push(Entry::Outcome(result(index, 0, *first, *attempt)));
            if *first {
                written.push(Entry::Begun { index, round: 1, input: None });
                written.push(Entry::Outcome(result(index, 1, *second, 1)));
            }
        }
        lines.append(&written).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        let at = at.index(bytes.len());
        bytes[at] = to;
        let flipped = bytes != whole;
        let length = cut.map_or(bytes.len(), |cut| cut.index(bytes.len()));
        bytes.truncate(length);
        std::fs::write(&path, &bytes).unwrap();

        let mut read = Vec::new();
        let (_, bad) = LedgerFile::at(&path, |_, entry| read.push(entry)).unwrap();
        let mut rest = written.iter();
        for entry in &read {
            prop_assert!(rest.any(|other| other == entry), "a line that nobody wrote, or out of order");
        }
        let torn = length > 0 && whole[length - 1] != b'\n' && length < whole.len();
        let hit = flipped && at < length;
        if hit || torn {
            // Of a cut behind a line's last byte only its end is missing.
            let complete = torn && !hit && whole[length] == b'\n';
            prop_assert!(complete || !bad.is_empty());
            prop_assert!(bad.len() <= 3);
        } else {
            prop_assert!(bad.is_empty());
        }

        // The highest round that a line is left of is the one that counts, also without its begun line.
        let ledger = Ledger::at(&path, TASKS).unwrap();
        for index in 0..TASKS {
            if let Some(found) = ledger.outcome(index, 0) {
                let highest = read.iter().filter_map(|entry| match entry {
                    Entry::Outcome(result) if result.index == index => Some(result),
                    _ => None,
                });
                let highest = highest.max_by_key(|result| result.round);
                prop_assert_eq!(Some(&found), highest.map(AsRef::as_ref));
            }
        }
    }
}
