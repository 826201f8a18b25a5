//! Whatever is written reads back as itself: descriptors, results, attempts, and the line of a bag.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that fails says why")]

mod strategies;

use bagpress_broker::descriptor::TaskDescriptor;
use bagpress_broker::ids::Pool;
use bagpress_broker::result::TaskResult;
use bagpress_broker::{AttemptRecord, BagLine, BagState, Gatherer, limits};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::strategies::{bag, cause, descriptor, execution, result, results, text};

fn attempt() -> impl Strategy<Value = AttemptRecord> {
    let numbers = any::<(u32, u32, u32, u32, u64)>();
    let maybe = (option::of(execution()), option::of(text()));
    (numbers, cause(), maybe, [text(), text(), text()]).prop_map(
        |(numbers, cause, (execution, reply), [message, worker, host])| {
            let (index, round, delivered, planned, at_us) = numbers;
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
    ([text(), text(), text(), text()], any::<u32>(), any::<u64>()).prop_map(
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
    let which = (bag(), state, pool, results(), [text(), text()]);
    (which, any::<[u32; 3]>(), any::<[u64; 6]>(), maybe).prop_map(
        |((bag, state, pool, results, [codec, library]), [tasks, done, failed], numbers, maybe)| {
            let [retried, workers_lost, input_bytes, output_bytes, bytes_per_s, updated_us] =
                numbers;
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
                bytes_per_s,
                eta_s,
                waits,
                gatherer,
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
