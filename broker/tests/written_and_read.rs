//! Whatever is written reads back as itself: descriptors, results, attempts, and the line of a bag.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that fails says why")]

mod strategies;

use bagpress_broker::descriptor::TaskDescriptor;
use bagpress_broker::ids::{Execution, Pool, TaskId};
use bagpress_broker::result::{Place, TaskResult};
use bagpress_broker::{AttemptRecord, BagLine, BagState, Gatherer, Verdict, limits, samples};
use bagpress_codec::Digest;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::strategies::{bag, cause, descriptor, execution, result, results, text, time};

fn attempt() -> impl Strategy<Value = AttemptRecord> {
    let task = (0..limits::BAG_TASKS_MAX, 0..=limits::ROUND_MAX);
    let numbers = (task, any::<[u32; 2]>(), time());
    let maybe = (option::of(execution()), option::of(text()));
    (numbers, cause(), maybe, [text(), text(), text()]).prop_map(
        |(numbers, cause, (execution, reply), [message, worker, host])| {
            let ((index, round), [delivered, planned], at_us) = numbers;
            let v = limits::WIRE_VERSION;
            AttemptRecord {
                v,
                index,
                round,
                delivered,
                cause,
                message,
                execution,
                worker,
                host,
                planned,
                at_us,
                reply,
            }
        },
    )
}

fn gatherer() -> impl Strategy<Value = Gatherer> {
    ([text(), text(), text(), text()], any::<u32>(), time()).prop_map(
        |([id, host, lock, processes], pid, since_us)| Gatherer {
            id,
            host,
            pid,
            since_us,
            lock,
            processes,
        },
    )
}

fn line() -> impl Strategy<Value = BagLine> {
    use BagState::{Cancelled, Finished, Running, Submitting};
    let state = select(vec![Submitting, Running, Finished, Cancelled]);
    let pool = "[a-z0-9]{1,20}".prop_map(|name| name.parse::<Pool>().unwrap());
    let maybe = (option::of(any::<u64>()), option::of(text()), option::of(gatherer()));
    let written = (0..=limits::ROUND_MAX, option::of(any::<u64>()), time());
    let which = (bag(), state, pool, results(), [text(), text()]);
    (which, any::<[u32; 3]>(), any::<[u64; 8]>(), maybe, written).prop_map(
        |(which, [tasks, done, failed], numbers, maybe, (rounds, ttl_s, updated_us))| {
            let (bag, state, pool, results, [codec, library]) = which;
            let [retried, workers_lost, input_bytes, output_bytes, bytes_per_s, ..] = numbers;
            let [.., block_bytes, total_bytes, progress_bytes] = numbers;
            let (eta_s, waits, gatherer) = maybe;
            BagLine {
                v: limits::WIRE_VERSION,
                bag,
                state,
                pool,
                results,
                codec,
                library,
                tasks,
                done,
                failed,
                retried,
                workers_lost,
                input_bytes,
                output_bytes,
                block_bytes,
                total_bytes,
                progress_bytes,
                bytes_per_s,
                eta_s,
                waits,
                gatherer,
                rounds,
                ttl_s,
                tree: ttl_s.map(|ttl_s| Digest::of(&ttl_s.to_le_bytes())),
                updated_us,
            }
        },
    )
}

/// Through JSON and back, twice the same bytes.
fn again<T: Serialize + DeserializeOwned>(message: &T) -> T {
    let written = serde_json::to_vec(message).unwrap();
    let read = serde_json::from_slice(&written).unwrap();
    assert_eq!(serde_json::to_vec(&read).unwrap(), written);
    read
}

proptest! {
    #[test]
    fn a_descriptor_reads_back(task in descriptor()) {
        let written = task.encode();
        prop_assert!(written.len() <= limits::MESSAGE_BYTES_MAX);
        prop_assert_eq!(TaskDescriptor::decode(&written, &task.id()).unwrap(), task);
    }

    #[test]
    fn a_result_reads_back(result in result()) {
        let written = result.encode();
        prop_assert!(written.len() <= limits::MESSAGE_BYTES_MAX);
        prop_assert_eq!(TaskResult::decode(&written).unwrap(), result);
    }

    #[test]
    fn an_attempt_reads_back(record in attempt()) {
        prop_assert_eq!(again(&record), record);
    }

    #[test]
    fn the_line_of_a_bag_reads_back(line in line()) {
        prop_assert_eq!(again(&line), line);
    }
}

/// By itself, inside an answer, or in a record: the bounds are where the fields are.
#[test]
fn what_is_out_of_bounds_is_refused_wherever_it_comes_in() {
    let id = TaskId { bag: samples::bag(), index: 0, round: 0 };
    let result = samples::done(&id, &Execution::random(), b"x", Place::Staged);
    let plain = serde_json::to_value(&result).unwrap();
    let most = |number: u64| serde_json::json!(number);
    let long = serde_json::json!("x".repeat(limits::TEXT_BYTES_MAX + 1));
    let outs = [
        ("/index", most(u64::from(limits::BAG_TASKS_MAX))),
        ("/round", most(u64::from(limits::ROUND_MAX) + 1)),
        ("/round", most(u64::from(u32::MAX))),
        ("/outcome/done/input_bytes", most(limits::INPUT_BYTES_MAX + 1)),
        ("/outcome/done/output_bytes", most(u64::MAX)),
        ("/times/queue_us", most(limits::TIME_US_MAX + 1)),
        ("/times/made_us", most(u64::MAX)),
        ("/worker", long.clone()),
        ("/host", long),
    ];
    for (place, value) in outs {
        let mut out = plain.clone();
        *out.pointer_mut(place).unwrap() = value;
        let told = serde_json::json!({ "have-it": out }).to_string();
        let error = serde_json::from_str::<Verdict>(&told).unwrap_err();
        assert!(error.to_string().contains("at most"), "{place}: {error}");
        let error = TaskResult::decode(out.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().contains("at most"), "{place}: {error}");
    }
    assert_eq!(TaskResult::decode(&result.encode()).unwrap(), result);
}
