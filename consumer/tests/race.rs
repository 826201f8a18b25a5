//! Two executions of one task, raced at every step between its delivery and its ack: the task has one
//! outcome, the bytes of that outcome are there, and nothing that nobody names remains.

#[path = "../../objstore/tests/house/mod.rs"]
mod house;

use std::collections::HashSet;
use std::time::Duration;

use bagpress_broker::descriptor::{Input, ResultPath, TaskDescriptor};
use bagpress_broker::ids::{Execution, Pool};
use bagpress_broker::result::{Cause, Outcome as End, Place, TaskResult};
use bagpress_broker::testing::eventually;
use bagpress_broker::{Address, AttemptRecord, Committed, Delivery, Error, Queue, Results};
use bagpress_broker::{samples, subjects};
use bagpress_codec::{DataKind, Digest, decompress_all};
use bagpress_consumer::Options;
use bagpress_objstore::object_ref::{Bucket, Lookup};
use bagpress_objstore::{Carried, Opened, Ready, Store, Stored};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

use self::house::{House, Outcome, sample, target};

const SOON: Duration = Duration::from_secs(30);
const MIB: usize = 1024 * 1024;
const BOTH: [ResultPath; 2] = [ResultPath::Staged, ResultPath::Objects];

/// A bag on one of the result paths, what its gatherer sees, and a queue to take deliveries from.
struct Race {
    results: ResultPath,
    house: House,
    store: Store,
    bucket: Bucket,
    queue: Queue,
}

impl Race {
    async fn on(results: ResultPath) -> Outcome<Self> {
        let house = House::open(false).await?;
        let (client, context) = (house.gatherer.client_handle(), house.gatherer.context_handle());
        let name = subjects::bucket(&house.bag);
        let bucket = Bucket::create(client, context, &name, "of a test", 256 << 20, &house.bag);
        Ok(Self {
            results,
            store: Store::new(&house.worker, Vec::new()),
            bucket: Box::pin(bucket).await?,
            queue: samples::join(&house.worker).await?,
            house,
        })
    }

    /// Publishes a task whose output is its input, several chunks of it.
    async fn submit(&self) -> Outcome<TaskDescriptor> {
        let input = Input::Generate { data: DataKind::Random, seed: 1, bytes: 3 << 20 };
        self.submit_with(TaskDescriptor { input, ..self.task() }).await
    }

    /// Publishes a task that takes a while.
    async fn submit_slow(&self) -> Outcome<TaskDescriptor> {
        let input = Input::Generate { data: DataKind::Text, seed: 1, bytes: 12 << 20 };
        let codec: bagpress_codec::Codec = "zlib:9".parse()?;
        let library = codec.library();
        self.submit_with(TaskDescriptor { input, codec, library, ..self.task() }).await
    }

    fn task(&self) -> TaskDescriptor {
        samples::task(&self.house.bag, 0, self.results)
    }

    async fn submit_with(&self, task: TaskDescriptor) -> Outcome<TaskDescriptor> {
        samples::submit(&self.house.gatherer, &task).await?;
        Ok(task)
    }

    async fn take(&mut self) -> Outcome<Delivery> {
        Ok(samples::delivery(&mut self.queue).await?)
    }

    /// A delivery whose worker dies: it comes again, to somebody else.
    async fn taken_and_lost(&mut self) -> Outcome {
        let lost = self.take().await?;
        Ok(self.house.gatherer.nak_for(lost.reply()).await?)
    }

    fn worker(&self, slots: usize) -> Worker {
        let options = Options {
            address: Address::plain(self.house.worker.url()),
            slots,
            pool: Pool::default(),
            allowed: Vec::new(),
            idle_exit: None,
            time_limit: None,
            any_codec_version: false,
        };
        let drain = CancellationToken::new();
        let running = tokio::spawn(Box::pin(bagpress_consumer::run(options, drain.clone())));
        Worker { drain, running }
    }

    /// Waits until the queue has no task of the bag any more.
    async fn answered(&self) {
        eventually("every delivery is answered", SOON, async || {
            let mut waiting = 0;
            self.house.gatherer.waiting(&self.house.bag, |_| waiting += 1).await.ok()?;
            (waiting == 0).then_some(())
        })
        .await;
    }

    /// All outcomes of the bag, as its gatherer sees them.
    async fn outcomes(&self) -> Outcome<Vec<TaskResult>> {
        let mut results = Results::of(&self.house.gatherer, &self.house.bag);
        let mut outcomes = Vec::new();
        loop {
            let batch = tokio::time::timeout(SOON, results.next_batch()).await??;
            for followed in batch {
                outcomes.push((*followed.result.map_err(|(_, _, why)| why)?).clone());
            }
            if results.caught_up() {
                return Ok(outcomes);
            }
        }
    }

    /// What the gatherer does with a committed result.
    fn accept(&self, result: &TaskResult) -> Outcome {
        let done = result.done().ok_or("failed")?;
        if done.place == Place::Staged {
            let (parts, id) = (&self.house.parts, result.id());
            parts.place(&id, &result.execution, &target(id.index), &done.output_digest)?;
            parts.sweep(id.index, id.round);
        }
        self.house.ledger.decide(result);
        Ok(())
    }

    async fn output(&self, index: u32) -> Outcome<Vec<u8>> {
        match self.results {
            ResultPath::Staged => Ok(self.house.placed(index).ok_or("no file")?),
            ResultPath::Objects => {
                let name = subjects::output_name(index);
                Ok(self.bucket.get(&name, u64::MAX).await?.1)
            }
        }
    }

    /// Accepts the one outcome, and checks that there is no other, that its bytes are there and give
    /// the task's input, and that nothing else is.
    async fn exactly_one(&self, task: &TaskDescriptor) -> Outcome<TaskResult> {
        self.answered().await;
        let outcomes = self.outcomes().await?;
        let [result] = outcomes.as_slice() else { return Err(format!("{outcomes:#?}").into()) };
        self.accept(result)?;
        self.check_output(task, result).await?;
        self.nothing_unnamed().await?;
        Ok(result.clone())
    }

    async fn check_output(&self, task: &TaskDescriptor, result: &TaskResult) -> Outcome {
        let done = result.done().ok_or("failed")?;
        let output = self.output(task.index).await?;
        assert_eq!(Digest::of(&output), done.output_digest);
        assert_eq!(output.len() as u64, done.output_bytes);
        let input = decompress_all(&task.codec, &output)?;
        assert_eq!(Digest::of(&input), done.input_digest);
        assert_eq!(input.len() as u64, task.input.bytes());
        Ok(())
    }

    async fn nothing_unnamed(&self) -> Outcome {
        assert!(self.house.parts.listed().is_empty(), "{:?}", self.house.parts.listed());
        let orphans = self.bucket.orphans().await?;
        assert!(orphans.is_empty(), "{orphans:?}");
        Ok(())
    }

    /// Waits until somebody other than `execution` has bytes of his output on the way.
    async fn another_uploads(&self, execution: &Execution) {
        let mine = format!("-{execution}");
        eventually("another execution uploads", SOON, async || {
            let parts = self.house.parts.listed().into_iter();
            let parts = parts.map(|(path, _)| path.display().to_string());
            let orphans = self.bucket.orphans().await.ok()?.into_iter().map(|o| o.token);
            parts.chain(orphans).any(|name| !name.ends_with(&mine)).then_some(())
        })
        .await;
    }
}

/// A worker as users run it.
struct Worker {
    drain: CancellationToken,
    running: JoinHandle<Result<(), Error>>,
}

impl Worker {
    async fn drained(self) -> Outcome {
        self.drain.cancel();
        Ok(tokio::time::timeout(SOON, self.running).await???)
    }
}

/// An execution that goes on only when the test says so.
struct ByHand {
    execution: Execution,
    task: TaskDescriptor,
    input: Digest,
    made: Vec<u8>,
    carried: Carried,
}

impl ByHand {
    /// Executes up to the last byte of the output, which is not closed yet.
    async fn execute(race: &Race, task: &TaskDescriptor) -> Outcome<Self> {
        let execution = Execution::random();
        let opened = race.store.open(task, &execution).await?;
        let Opened::Go(ready) = opened else { return Err(format!("{opened:?}").into()) };
        let Ready { mut source, mut sink, output } = *ready;
        let codec = task.codec;
        let slot = spawn_blocking(move || {
            let mut encoder = codec.encoder();
            let (mut segment, mut input, mut made) = (Vec::new(), Vec::new(), Vec::new());
            loop {
                source.next(&mut segment).map_err(|failed| failed.message)?;
                let (before, ended) = (made.len(), segment.is_empty());
                let result = if ended {
                    encoder.finish(&mut made)
                } else {
                    encoder.write(&segment, &mut made)
                };
                result.map_err(|error| error.to_string())?;
                input.extend_from_slice(&segment);
                sink.write(&made[before..]).map_err(|failed| failed.message)?;
                if ended {
                    sink.finish().map_err(|failed| failed.message)?;
                    return Ok::<_, String>((Digest::of(&input), made));
                }
            }
        });
        let (slot, carried) = tokio::join!(slot, output.carry());
        let (input, made) = slot??;
        Ok(Self { execution, task: task.clone(), input, made, carried: carried? })
    }

    async fn close(self) -> Outcome<Closed> {
        let Self { execution, task, input, made, carried } = self;
        let stored = carried.close(made.len() as u64, &Digest::of(&made)).await?;
        Ok(Closed { execution, task, input, made, stored })
    }
}

/// An execution whose output is at its place.
struct Closed {
    execution: Execution,
    task: TaskDescriptor,
    input: Digest,
    made: Vec<u8>,
    stored: Stored,
}

impl Closed {
    fn result(&self) -> TaskResult {
        let place = match &self.stored {
            Stored::Object(info) => Place::Object {
                bucket: info.bucket.clone(),
                object: info.name.clone(),
                chunks: info.chunks,
            },
            Stored::Decided(result) => return (**result).clone(),
            _ => Place::Staged,
        };
        let mut result = samples::done(&self.task.id(), &self.execution, &self.made, place);
        if let End::Done(done) = &mut result.outcome {
            (done.input_bytes, done.input_digest) = (self.task.input.bytes(), self.input);
        }
        result
    }

    async fn commit(&self, race: &Race) -> Outcome<Committed> {
        Ok(race.house.worker.commit(&self.result()).await?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_and_not_committed() -> Outcome {
    for results in BOTH {
        let mut race = Race::on(results).await?;
        let task = race.submit().await?;
        let first = ByHand::execute(&race, &task).await?.close().await?;
        assert!(matches!(first.stored, Stored::Staged | Stored::Object(_)), "{:?}", first.stored);
        race.taken_and_lost().await?;

        let worker = race.worker(1);
        let outcome = race.exactly_one(&task).await?;

        assert_ne!(outcome.execution, first.execution);
        assert_eq!(outcome.attempt, 2);
        if results == ResultPath::Objects {
            // Adopted, not written again.
            let info = race.bucket.info_from_leader("out_0.bin").await?;
            let Lookup::Found(info) = info else { return Err(format!("{info:?}").into()) };
            assert_eq!(info.token, format!("0-{}", first.execution));
        }
        // It was not dead, only late.
        let Committed::Other(winner) = first.commit(&race).await? else {
            return Err("two outcomes".into());
        };
        assert_eq!(*winner, outcome);
        assert_eq!(race.exactly_one(&task).await?, outcome);
        worker.drained().await?;
    }
    Ok(())
}

/// The last chunk is there; CLOSE, or the metadata, is not.
#[tokio::test(flavor = "multi_thread")]
async fn uploaded_and_not_closed() -> Outcome {
    for results in BOTH {
        for gathered_before in [false, true] {
            let mut race = Race::on(results).await?;
            let task = race.submit().await?;
            let first = ByHand::execute(&race, &task).await?;
            race.taken_and_lost().await?;
            let worker = race.worker(1);
            race.answered().await;
            let winner = race.outcomes().await?.pop().ok_or("no outcome")?;
            assert_ne!(winner.execution, first.execution);
            if gathered_before {
                race.accept(&winner)?;
            }

            let first = first.close().await?;

            match (results, &first.stored) {
                (ResultPath::Staged, Stored::Decided(line)) if gathered_before => {
                    assert_eq!(**line, winner);
                }
                (ResultPath::Staged, Stored::Staged) if !gathered_before => {}
                (ResultPath::Objects, Stored::Object(info)) => {
                    assert_eq!(info.token, format!("0-{}", winner.execution));
                }
                (_, stored) => return Err(format!("{stored:?}").into()),
            }
            if !matches!(first.stored, Stored::Decided(_)) {
                assert!(matches!(first.commit(&race).await?, Committed::Other(_)));
            }
            assert_eq!(race.exactly_one(&task).await?, winner);
            worker.drained().await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_and_not_acknowledged() -> Outcome {
    for results in BOTH {
        let mut race = Race::on(results).await?;
        let task = race.submit().await?;
        let first = ByHand::execute(&race, &task).await?.close().await?;
        assert!(matches!(first.commit(&race).await?, Committed::Mine));
        race.taken_and_lost().await?;

        let worker = race.worker(1);
        let outcome = race.exactly_one(&task).await?;

        assert_eq!(outcome.execution, first.execution);
        // It was acknowledged, not executed.
        let workers = race.house.gatherer.workers(Duration::from_millis(300)).await?;
        assert_eq!((workers.len(), workers[0].1.done, workers[0].1.failed), (1, 0, 0));
        worker.drained().await?;
    }
    Ok(())
}

/// The loser is a real worker in the middle of its upload.
#[tokio::test(flavor = "multi_thread")]
async fn committed_while_another_executes() -> Outcome {
    for results in BOTH {
        for gathered_before in [false, true] {
            let mut race = Race::on(results).await?;
            let task = race.submit_slow().await?;
            let first = ByHand::execute(&race, &task).await?.close().await?;
            race.taken_and_lost().await?;
            let worker = race.worker(1);
            race.another_uploads(&first.execution).await;

            assert!(matches!(first.commit(&race).await?, Committed::Mine));
            if gathered_before {
                race.accept(&first.result())?;
            }

            let outcome = race.exactly_one(&task).await?;
            assert_eq!(outcome.execution, first.execution);
            worker.drained().await?;
            race.nothing_unnamed().await?;
        }
    }
    Ok(())
}

/// Both have stored; the one that commits second is the duplicate, whoever stored first.
#[tokio::test(flavor = "multi_thread")]
async fn both_stored_and_then_committed() -> Outcome {
    for results in BOTH {
        let mut race = Race::on(results).await?;
        let task = race.submit().await?;
        let first = ByHand::execute(&race, &task).await?.close().await?;
        let second = ByHand::execute(&race, &task).await?.close().await?;

        assert!(matches!(second.commit(&race).await?, Committed::Mine));
        let Committed::Other(winner) = first.commit(&race).await? else {
            return Err("two outcomes".into());
        };
        assert_eq!(winner.execution, second.execution);

        race.taken_and_lost().await?;
        let worker = race.worker(1);
        assert_eq!(race.exactly_one(&task).await?.execution, second.execution);
        worker.drained().await?;
    }
    Ok(())
}

/// The broker forgot a result that the ledger has: the worker commits that one.
#[tokio::test(flavor = "multi_thread")]
async fn in_the_ledger_and_not_committed() -> Outcome {
    let race = Race::on(ResultPath::Staged).await?;
    let task = race.submit().await?;
    let first = ByHand::execute(&race, &task).await?.close().await?;
    race.accept(&first.result())?;

    let worker = race.worker(1);

    assert_eq!(race.exactly_one(&task).await?, first.result());
    worker.drained().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn half_an_upload_of_a_dead_worker_goes_when_the_task_is_decided() -> Outcome {
    let mut race = Race::on(ResultPath::Staged).await?;
    let task = race.submit().await?;
    let dead = Execution::random();
    std::fs::write(race.house.parts.part(0, 0, &dead), sample(MIB))?;
    race.taken_and_lost().await?;

    let worker = race.worker(1);

    assert_ne!(race.exactly_one(&task).await?.execution, dead);
    worker.drained().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_no_worker_survives_fails_and_is_not_executed_again() -> Outcome {
    for results in BOTH {
        let mut race = Race::on(results).await?;
        let task = race.submit_with(TaskDescriptor { attempts: 2, ..race.task() }).await?;
        race.taken_and_lost().await?;
        race.taken_and_lost().await?;

        let worker = race.worker(1);
        race.answered().await;

        let outcomes = race.outcomes().await?;
        let [TaskResult { outcome: End::Failed(failed), .. }] = outcomes.as_slice() else {
            return Err(format!("{outcomes:?}").into());
        };
        assert_eq!(failed.cause, Cause::CrashLimit);
        assert_eq!(outcomes[0].id(), task.id());
        race.nothing_unnamed().await?;
        worker.drained().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_given_back_as_planned_are_no_crashes() -> Outcome {
    let mut race = Race::on(ResultPath::Objects).await?;
    let task = race.submit_with(TaskDescriptor { attempts: 1, ..race.task() }).await?;
    for _ in 0..3 {
        let delivery = race.take().await?;
        let before = race.house.worker.planned_give_backs(delivery.id()).await?;
        let record =
            AttemptRecord::new(delivery.id(), delivery.delivered(), before, Cause::Drain, "W");
        race.house.worker.record_attempt(&task.bag, &record).await?;
        delivery.nak(Duration::ZERO).await?;
    }

    let worker = race.worker(1);

    assert_eq!(race.exactly_one(&task).await?.attempt, 1);
    worker.drained().await?;
    Ok(())
}

/// Every task is taken away from its living worker once, so that both execute it.
#[tokio::test(flavor = "multi_thread")]
async fn two_workers_that_execute_the_same_tasks() -> Outcome {
    const TASKS: u32 = 12;
    for results in BOTH {
        let race = Race::on(results).await?;
        let mut held = race.house.gatherer.held_events(&race.house.bag).await?;
        race.house.gatherer.flush().await?;
        let input = Input::Generate { data: DataKind::Text, seed: 1, bytes: 2 << 20 };
        let mut tasks = Vec::new();
        for index in 0..TASKS {
            let task = TaskDescriptor { index, input: input.clone(), ..race.task() };
            tasks.push(race.submit_with(task).await?);
        }
        let workers = [race.worker(1), race.worker(1)];
        let gatherer = race.house.gatherer.clone();
        let thief = tokio::spawn(async move {
            let mut stolen = HashSet::new();
            while let Some(held) = held.held().await {
                for delivery in held.deliveries.into_iter().filter(|d| d.delivered == 1) {
                    if stolen.insert(delivery.index) {
                        gatherer.nak_for(&delivery.reply).await?;
                    }
                }
            }
            Ok::<_, Error>(())
        });

        race.answered().await;
        for worker in workers {
            worker.drained().await?;
        }
        thief.abort();

        let outcomes = race.outcomes().await?;
        let indices: HashSet<_> = outcomes.iter().map(|result| result.index).collect();
        assert_eq!((outcomes.len(), indices.len()), (TASKS as usize, TASKS as usize));
        for result in &outcomes {
            race.accept(result)?;
            race.check_output(&tasks[result.index as usize], result).await?;
        }
        race.nothing_unnamed().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_fails_its_task_alone_and_at_once() -> Outcome {
    let race = Race::on(ResultPath::Staged).await?;
    let content = sample(MIB + 1);
    let mut tasks = Vec::new();
    for index in 0..2 {
        let name = format!("source {index}");
        let path = race.house.folder().join(&name);
        std::fs::write(&path, &content)?;
        race.house.ledger.take_input(index, &path)?;
        let input = Input::File { name, bytes: content.len() as u64 };
        tasks.push(TaskDescriptor { index, input, ..race.task() });
    }
    std::fs::remove_file(race.house.folder().join("source 0"))?;
    for task in &tasks {
        race.submit_with(task.clone()).await?;
    }

    let worker = race.worker(1);
    race.answered().await;

    for result in race.outcomes().await? {
        match &result.outcome {
            End::Failed(failed) => {
                assert_eq!((result.index, failed.cause), (0, Cause::InputMissing));
                assert_eq!(result.attempt, 1);
                race.house.parts.sweep(0, 0);
            }
            End::Done(_) => {
                assert_eq!(result.index, 1);
                race.accept(&result)?;
                race.check_output(&tasks[1], &result).await?;
            }
        }
    }
    race.nothing_unnamed().await?;
    worker.drained().await?;
    Ok(())
}
