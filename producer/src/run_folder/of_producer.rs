//! Outcomes that the producer itself finds.

use bagpress_broker::ids::{BagId, Execution};
use bagpress_broker::limits;
use bagpress_broker::result::{Failed, Outcome, TaskResult, Times, wall_clock_us};

use crate::run_folder::ledger::Key;

/// The worker named in the outcome of a task that no worker can do anything for.
pub(crate) const PRODUCER: &str = "producer";

/// The outcome of a task that no worker can do anything for.
pub(crate) fn failure(bag: &BagId, key: Key, attempt: u32, failed: Failed) -> TaskResult {
    TaskResult { attempt, ..of_producer(bag, key, Outcome::Failed(failed)) }
}

/// An outcome that the producer came to by itself, at the first attempt.
pub(crate) fn of_producer(bag: &BagId, (index, round): Key, outcome: Outcome) -> TaskResult {
    TaskResult {
        v: limits::WIRE_VERSION,
        bag: bag.clone(),
        index,
        round,
        execution: Execution::random(),
        attempt: 1,
        worker: PRODUCER.to_owned(),
        host: String::new(),
        outcome,
        times: Times { made_us: wall_clock_us(), ..Times::default() },
        descriptor: None,
        file: None,
        twin_of: None,
        members: Vec::new(),
    }
}
