//! Every subject, stream and bucket name. Nothing else in the project spells one.

use crate::ids::{BagId, Pool, TaskId};
use crate::limits;

/// Stream of tasks that wait or run.
pub const TASKS: &str = "BAG_TASKS";
/// Stream of committed outcomes.
pub const RESULTS: &str = "BAG_RESULTS";
/// Stream of the reasons why deliveries were given back.
pub const ATTEMPTS: &str = "BAG_ATTEMPTS";
/// KV bucket with a line a bag.
pub const BAGS: &str = "bags";
/// Name of the service that every worker registers, and of nothing else.
pub const SERVICE: &str = "bag-worker";
/// The queue group of all workers.
pub const QUEUE_GROUP: &str = "workers";

/// All subjects of [`TASKS`].
pub const TASK_ALL: &str = "bag.task.*.*.*.*";
/// All subjects of [`RESULTS`].
pub const RESULT_ALL: &str = "bag.result.*.*.*";
/// All subjects of [`ATTEMPTS`].
pub const ATTEMPT_ALL: &str = "bag.attempt.*.*";

/// All chunks of objects, in every bucket: `objstore` writes them.
pub const CHUNK_ALL: &str = "$O.*.C.*";
/// The metadata of all objects, in every bucket.
pub const METADATA_ALL: &str = "$O.*.M.*";

/// All duplicates, in [`ATTEMPTS`] too.
pub const DUPLICATE_ALL: &str = "bag.duplicate.*.*";

/// Event: what a worker holds of the bag.
pub const HELD: &str = "held";
/// The event of a bag that was cancelled.
pub const CANCELLED: &str = "cancelled";
/// Event: somebody gathers the bag from now on.
pub const GATHERS: &str = "gathers";
/// The beginnings of gatherings of all bags.
pub const GATHERS_ALL: &str = "bag.event.*.gathers";
/// The cancellations of all bags.
pub const CANCELLED_ALL: &str = "bag.event.*.cancelled";

/// Where a task waits.
#[must_use]
pub fn task(pool: &Pool, task: &TaskId) -> String {
    format!("bag.task.{pool}.{}.{}.{}", task.bag, task.index, task.round)
}

/// Reads a task's pool and identity back from its subject.
#[must_use]
pub fn parse_task(subject: &str) -> Option<(Pool, TaskId)> {
    let mut tokens = subject.strip_prefix("bag.task.")?.split('.');
    let pool = tokens.next()?.parse().ok()?;
    let bag = tokens.next()?.parse().ok()?;
    let index = tokens.next()?.parse().ok()?;
    let round = tokens.next()?.parse().ok()?;
    let within = index < limits::BAG_TASKS_MAX && round <= limits::ROUND_MAX;
    (within && tokens.next().is_none()).then_some((pool, TaskId { bag, index, round }))
}

/// All waiting tasks of one bag, in any pool.
#[must_use]
pub fn tasks_of(bag: &BagId) -> String {
    format!("bag.task.*.{bag}.*.*")
}

/// Every round of one task that waits or runs.
#[must_use]
pub fn rounds_of(bag: &BagId, index: u32) -> String {
    format!("bag.task.*.{bag}.{index}.*")
}

/// What the durable of one pool filters.
#[must_use]
pub fn tasks_of_pool(pool: &Pool) -> String {
    format!("bag.task.{pool}.*.*.*")
}

/// Name of the durable that a pool's workers share.
#[must_use]
pub fn durable(pool: &Pool) -> String {
    if *pool == Pool::default() { "workers".to_owned() } else { format!("workers-{pool}") }
}

/// Where a task's outcome is committed.
#[must_use]
pub fn result(task: &TaskId) -> String {
    format!("bag.result.{}.{}.{}", task.bag, task.index, task.round)
}

/// All outcomes of one bag.
#[must_use]
pub fn results_of(bag: &BagId) -> String {
    format!("bag.result.{bag}.*.*")
}

/// The outcomes of one task, by any round.
#[must_use]
pub fn results_of_task(bag: &BagId, index: u32) -> String {
    format!("bag.result.{bag}.{index}.*")
}

/// Where a task's attempts are recorded.
#[must_use]
pub fn attempt(bag: &BagId, index: u32) -> String {
    format!("bag.attempt.{bag}.{index}")
}

/// All give-backs of one bag.
#[must_use]
pub fn attempts_of(bag: &BagId) -> String {
    format!("bag.attempt.{bag}.*")
}

/// Where an execution that came too late is recorded: apart from the give-backs, whose last one carries
/// a running total.
#[must_use]
pub fn duplicate(bag: &BagId, index: u32) -> String {
    format!("bag.duplicate.{bag}.{index}")
}

/// All duplicates of one bag.
#[must_use]
pub fn duplicates_of(bag: &BagId) -> String {
    format!("bag.duplicate.{bag}.*")
}

/// All give-backs and all duplicates of one bag.
#[must_use]
pub fn recorded_of(bag: &BagId) -> String {
    format!("bag.*.{bag}.*")
}

/// All give-backs and all duplicates of one task.
#[must_use]
pub fn recorded_of_task(bag: &BagId, index: u32) -> String {
    format!("bag.*.{bag}.{index}")
}

/// A bag's line in the KV bucket.
#[must_use]
pub fn line(bag: &BagId) -> String {
    format!("$KV.{BAGS}.{bag}")
}

/// The lines of all bags.
#[must_use]
pub fn line_all() -> String {
    format!("$KV.{BAGS}.*")
}

/// The stream underneath the KV bucket.
#[must_use]
pub fn lines() -> String {
    format!("KV_{BAGS}")
}

/// The bag that a subject of a stream of ours belongs to.
#[must_use]
pub fn bag_of(subject: &str) -> Option<BagId> {
    let mut tokens = subject.split('.').skip(1);
    let kind = tokens.next()?;
    let bag = if kind == "task" { tokens.nth(1) } else { tokens.next() };
    bag?.parse().ok()
}

/// Where a worker says that its output found no room.
#[must_use]
pub fn no_room(bag: &BagId) -> String {
    format!("bag.up.{bag}.full")
}

/// Everything that a bag's gatherer serves: uploads and inputs.
#[must_use]
pub fn uploads_of(bag: &BagId) -> String {
    format!("bag.up.{bag}.>")
}

/// Where an upload is opened.
#[must_use]
pub fn open(bag: &BagId) -> String {
    format!("bag.up.{bag}.open")
}

/// Where the chunks of upload `xfer` go.
#[must_use]
pub fn chunk(bag: &BagId, xfer: &str) -> String {
    format!("bag.up.{bag}.x.{xfer}")
}

/// Where an upload is closed.
#[must_use]
pub fn close(bag: &BagId) -> String {
    format!("bag.up.{bag}.close")
}

/// Where a worker asks for a chunk of an input.
#[must_use]
pub fn input(bag: &BagId) -> String {
    format!("bag.up.{bag}.input")
}

/// Where a pool's tasks are offered to its workers.
#[must_use]
pub fn run(pool: &Pool) -> String {
    format!("bag.run.{pool}")
}

/// Everything that a worker with a lease says to the bag's gatherer.
#[must_use]
pub fn leases_of(bag: &BagId) -> String {
    format!("bag.lease.{bag}.*")
}

/// Where a worker renews its lease.
#[must_use]
pub fn renew(bag: &BagId) -> String {
    format!("bag.lease.{bag}.renew")
}

/// Where a worker gives its lease back.
#[must_use]
pub fn give_back(bag: &BagId) -> String {
    format!("bag.lease.{bag}.back")
}

/// Where a worker hands the outcome of a leased task over.
#[must_use]
pub fn outcome(bag: &BagId) -> String {
    format!("bag.lease.{bag}.outcome")
}

/// A live event of one bag.
#[must_use]
pub fn event(bag: &BagId, what: &str) -> String {
    format!("bag.event.{bag}.{what}")
}

/// Bucket of a bag's outputs.
#[must_use]
pub fn bucket(bag: &BagId) -> String {
    format!("bag-{bag}")
}

/// Bucket of a bag's inputs.
#[must_use]
pub fn input_bucket(bag: &BagId) -> String {
    format!("bag-{bag}-in")
}

/// The bag whose bucket this is, and whether it has the bag's inputs; none if no bag's bucket has such a name.
#[must_use]
pub fn bag_of_bucket(bucket: &str) -> Option<(BagId, bool)> {
    let bag = bucket.strip_prefix("bag-")?;
    let inputs = bag.strip_suffix("-in");
    Some((inputs.unwrap_or(bag).parse().ok()?, inputs.is_some()))
}

/// Name of a task's output, in a bucket and in `results/`.
#[must_use]
pub fn output_name(index: u32) -> String {
    format!("out_{index}.bin")
}

/// Behind the name of an output: whose it is, where another object has the name and other bytes.
pub const BESIDE: char = '~';

/// Whether an object has a second name, derived from an output's own.
#[must_use]
pub fn is_beside(object: &str) -> bool {
    object.contains(BESIDE)
}

/// Whether an object is a task's output, under its name or a second name.
#[must_use]
pub fn is_output(object: &str, index: u32) -> bool {
    let beside = object.strip_prefix(output_name(index).as_str());
    beside.is_some_and(|beside| beside.is_empty() || beside.starts_with(BESIDE))
}

/// Name of the tar that has the outputs of the pack that this file begins.
#[must_use]
pub fn tar_name(first: u32) -> String {
    format!("out_{first}.tar")
}

/// Name of the object that says how a bag's files are called, and what they were like: gzipped lines of JSON.
pub const TREE: &str = "tree.jsonl.gz";

/// The first file of the pack whose outputs are in the tar of this name, or second name.
#[must_use]
pub fn first_of_tar(object: &str) -> Option<u32> {
    let name = name_of(object);
    let first = name.strip_prefix("out_")?.strip_suffix(".tar")?.parse().ok()?;
    (tar_name(first) == name).then_some(first)
}

/// An object's name, if this is a second name of it or the name itself.
#[must_use]
pub fn name_of(object: &str) -> &str {
    object.split(BESIDE).next().unwrap_or(object)
}

/// The task whose output has this name.
#[must_use]
pub fn index_of_output(name: &str) -> Option<u32> {
    let index = name.strip_prefix("out_")?.strip_suffix(".bin")?.parse().ok()?;
    (output_name(index) == name).then_some(index)
}

/// Name of a task's input in the input bucket.
#[must_use]
pub fn input_name(index: u32) -> String {
    format!("in_{index}")
}

/// Name of the tar that has the inputs of the pack that this file begins, in the input bucket.
#[must_use]
pub fn input_tar_name(first: u32) -> String {
    format!("in_{first}.tar")
}

/// Where one worker answers for itself.
#[must_use]
pub fn ping(worker: &str) -> String {
    format!("$SRV.PING.{SERVICE}.{worker}")
}

/// Where all workers are asked what they do.
#[must_use]
pub fn stats() -> String {
    format!("$SRV.STATS.{SERVICE}")
}

/// Where one worker is asked what it does.
#[must_use]
pub fn worker_status(worker: &str) -> String {
    format!("bag.worker.{worker}.status")
}

/// Where the answers to somebody of one role come: no other role may read below it.
#[must_use]
pub fn inbox(role: &str) -> String {
    format!("_INBOX_{role}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stored_subject_tells_its_bag() {
        let bag: BagId = "b-1".parse().unwrap();
        let id = TaskId { bag: bag.clone(), index: 7, round: 2 };
        let subjects =
            [task(&Pool::default(), &id), result(&id), attempt(&bag, 7), duplicate(&bag, 7)];
        for subject in subjects {
            assert_eq!(bag_of(&subject), Some(bag.clone()), "{subject}");
        }
        assert_eq!(bag_of("bag"), None);
    }

    #[test]
    fn the_buckets_of_a_bag_tell_it_and_others_do_not() {
        let bag: BagId = "t1-abcdefgh".parse().unwrap();
        assert_eq!(bag_of_bucket(&bucket(&bag)), Some((bag.clone(), false)));
        assert_eq!(bag_of_bucket(&input_bucket(&bag)), Some((bag, true)));
        for other in ["bag-", "bags", "bag-X", "objects"] {
            assert_eq!(bag_of_bucket(other), None, "{other}");
        }
    }

    #[test]
    fn the_name_of_an_output_or_of_a_tar_reads_back_and_no_other_does() {
        assert_eq!(index_of_output(&output_name(17)), Some(17));
        for other in ["out_017.bin", "out_+1.bin", "out_.bin", "in_1", "out_1.bin.gz"] {
            assert_eq!(index_of_output(other), None, "{other}");
        }
        assert_eq!(index_of_output(TREE), None);
        assert_eq!(first_of_tar(&tar_name(17)), Some(17));
        assert_eq!(first_of_tar("out_17.tar~17-0a"), Some(17));
        for other in ["out_017.tar", "out_+1.tar", "out_.tar", "in_1.tar", "out_1.bin", "out_1"] {
            assert_eq!(first_of_tar(other), None, "{other}");
        }
        assert_eq!(index_of_output(&tar_name(17)), None);
        assert_eq!(name_of("out_17.tar~17-0a"), tar_name(17));
    }

    #[test]
    fn a_task_subject_reads_back() {
        let id = TaskId { bag: "b-1".parse().unwrap(), index: 7, round: 2 };
        let subject = task(&Pool::default(), &id);
        assert_eq!(subject, "bag.task.default.b-1.7.2");
        assert_eq!(parse_task(&subject), Some((Pool::default(), id)));
        assert_eq!(parse_task("bag.task.default.b-1.7"), None);
        assert_eq!(parse_task("bag.task.default.b-1.x.0"), None);
    }
}
