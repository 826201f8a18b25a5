//! Tasks, results and deliveries for the tests of every crate.

use std::time::Duration;

use bagpress_codec::{DataKind, Digest};

use crate::descriptor::{Input, ResultPath, TaskDescriptor, Transfer, Verify};
use crate::ids::{BagId, Execution, Pool, TaskId};
use crate::result::{Done, Outcome, Place, TaskResult, Times, wall_clock_us};
use crate::{BagLine, BagState, Broker, Delivery, Queue, Received, limits};

/// How long a test waits for what comes at once, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A bag of its own for each call.
///
/// # Panics
///
/// Never: the name is one.
#[must_use]
pub fn bag() -> BagId {
    BagId::new(&"test".parse().unwrap_or_else(|_| unreachable!("a run name")))
}

/// A task of 100 kB of generated text, by way of `store`, so that input and output are equal.
///
/// # Panics
///
/// Never: the codec is there.
#[must_use]
pub fn task(bag: &BagId, index: u32, results: ResultPath) -> TaskDescriptor {
    let codec: bagpress_codec::Codec =
        "store".parse().unwrap_or_else(|_| unreachable!("a codec's name"));
    TaskDescriptor {
        v: limits::WIRE_VERSION,
        bag: bag.clone(),
        index,
        round: 0,
        codec,
        library: codec.library(),
        input: Input::Generate { data: DataKind::Text, seed: 0, bytes: 100_000 },
        pack: None,
        tar: None,
        again: None,
        parts: Vec::new(),
        block: None,
        decode: None,
        results,
        verify: Verify::Worker,
        transfer: Transfer::Wire,
        attempts: 3,
        published_us: wall_clock_us(),
    }
}

/// The line of a staged bag of 100 tasks, which nobody gathers.
#[must_use]
pub fn line(bag: &BagId, state: BagState) -> BagLine {
    BagLine {
        v: limits::WIRE_VERSION,
        bag: bag.clone(),
        state,
        pool: Pool::default(),
        results: ResultPath::Staged,
        codec: "store".to_owned(),
        library: String::new(),
        tasks: 100,
        done: 0,
        failed: 0,
        retried: 0,
        workers_lost: 0,
        input_bytes: 0,
        output_bytes: 0,
        block_bytes: 0,
        total_bytes: 0,
        progress_bytes: 0,
        bytes_per_s: 0,
        eta_s: None,
        waits: None,
        gatherer: None,
        rounds: 0,
        ttl_s: None,
        tree: None,
        updated_us: wall_clock_us(),
    }
}

/// What `execution` would commit for a task whose output is `output`.
#[must_use]
pub fn done(id: &TaskId, execution: &Execution, output: &[u8], place: Place) -> TaskResult {
    let (bytes, digest) = (output.len() as u64, Digest::of(output));
    TaskResult {
        v: limits::WIRE_VERSION,
        bag: id.bag.clone(),
        index: id.index,
        round: id.round,
        execution: execution.clone(),
        attempt: 1,
        worker: "by-hand".to_owned(),
        host: "here".to_owned(),
        outcome: Outcome::Done(Done {
            input_bytes: bytes,
            input_digest: digest,
            output_bytes: bytes,
            output_digest: digest,
            place,
            verified: true,
            choice: None,
            fidelity: None,
            entry_points: Vec::new(),
        }),
        times: Times::default(),
        descriptor: None,
        file: None,
        twin_of: None,
        members: Vec::new(),
    }
}

/// Publishes a task to the default pool.
///
/// # Errors
///
/// As [`Broker::submit`].
pub async fn submit(broker: &Broker, task: &TaskDescriptor) -> Result<(), crate::Error> {
    broker.submit(&Pool::default(), task, true).await?.await.map(drop)
}

/// Joins the default pool.
///
/// # Errors
///
/// As [`Queue::join`].
pub async fn join(broker: &Broker) -> Result<Queue, crate::Error> {
    Queue::join(broker, &Pool::default()).await
}

/// The next delivery, or none if none comes before `within` is over.
///
/// # Errors
///
/// As [`Queue::receive`].
pub async fn delivery_within(
    queue: &mut Queue,
    within: Duration,
) -> Result<Option<Delivery>, crate::Error> {
    let pulling = async {
        loop {
            if queue.outstanding() == 0 {
                queue.request(1).await?;
            }
            if let Received::Delivery(delivery) = queue.receive().await? {
                return Ok(delivery);
            }
        }
    };
    tokio::time::timeout(within, pulling).await.ok().transpose()
}

/// The next delivery, which must come at once: long before a lease ends.
///
/// # Errors
///
/// [`crate::Error::Missing`] if none comes, or as [`Queue::receive`].
pub async fn delivery(queue: &mut Queue) -> Result<Delivery, crate::Error> {
    let delivery = delivery_within(queue, AT_ONCE).await?;
    delivery.ok_or(crate::Error::Missing { what: format!("delivery within {AT_ONCE:?}") })
}

const _: () = assert!(AT_ONCE.as_secs() * 2 <= limits::LEASE.as_secs());
