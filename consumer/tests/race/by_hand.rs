//! Executions that go on only when a test says so.

use bagpress_broker::descriptor::{Input, ResultPath, TaskDescriptor};
use bagpress_broker::ids::{Execution, Pool};
use bagpress_broker::result::{Outcome as End, Place, TaskResult};
use bagpress_broker::testing::eventually;
use bagpress_broker::{Address, Committed, Delivery, Error, Queue, Results};
use bagpress_broker::{samples, subjects};
use bagpress_codec::{DataKind, Digest, decompress_all};
use bagpress_consumer::Options;
use bagpress_objstore::object_ref::Bucket;
use bagpress_objstore::staging::{Allowed, Placed, Placer};
use bagpress_objstore::{Carried, Opened, Ready, Store, Stored};
use futures::StreamExt;
use std::time::Duration;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::house::{House, Outcome, target};

pub(crate) const SOON: Duration = Duration::from_secs(30);
/// Ends what [`Race::listen`] notes.
const HEARD: &str = "race.heard";
pub(crate) const MIB: usize = 1024 * 1024;
pub(crate) const BOTH: [ResultPath; 2] = [ResultPath::Staged, ResultPath::Objects];

/// A bag on one of the result paths, what its gatherer sees, and a queue to take deliveries from.
pub(crate) struct Race {
    pub(crate) results: ResultPath,
    pub(crate) house: House,
    pub(crate) store: Store,
    pub(crate) bucket: Bucket,
    pub(crate) queue: Queue,
}

impl Race {
    pub(crate) async fn on(results: ResultPath) -> Outcome<Self> {
        let house = House::open(false).await?;
        let (client, context) = (house.gatherer.client_handle(), house.gatherer.context_handle());
        let name = subjects::bucket(&house.bag);
        let bucket = Bucket::create(client, context, &name, "of a test", 256 << 20, &house.bag);
        Ok(Self {
            results,
            store: Store::new(&house.worker, Allowed::default()),
            bucket: Box::pin(bucket).await?,
            queue: samples::join(&house.worker).await?,
            house,
        })
    }

    /// Publishes a task whose output is its input, several chunks of it.
    pub(crate) async fn submit(&self) -> Outcome<TaskDescriptor> {
        let input = Input::Generate { data: DataKind::Random, seed: 1, bytes: 3 << 20 };
        self.submit_with(TaskDescriptor { input, ..self.task() }).await
    }

    /// Publishes a task that takes a while.
    pub(crate) async fn submit_slow(&self) -> Outcome<TaskDescriptor> {
        let input = Input::Generate { data: DataKind::Text, seed: 1, bytes: 12 << 20 };
        let codec: bagpress_codec::Codec = "zlib:9".parse()?;
        let library = codec.library();
        self.submit_with(TaskDescriptor { input, codec, library, ..self.task() }).await
    }

    pub(crate) fn task(&self) -> TaskDescriptor {
        samples::task(&self.house.bag, 0, self.results)
    }

    pub(crate) async fn submit_with(&self, task: TaskDescriptor) -> Outcome<TaskDescriptor> {
        samples::submit(&self.house.gatherer, &task).await?;
        Ok(task)
    }

    pub(crate) async fn take(&mut self) -> Outcome<Delivery> {
        Ok(samples::delivery(&mut self.queue).await?)
    }

    /// A delivery whose worker dies: it comes again, to somebody else.
    pub(crate) async fn taken_and_lost(&mut self) -> Outcome {
        let lost = self.take().await?;
        Ok(self.house.gatherer.nak_for(lost.reply()).await?)
    }

    pub(crate) fn worker(&self, slots: usize) -> Worker {
        self.worker_within(slots, None)
    }

    pub(crate) fn worker_within(&self, slots: usize, time_limit: Option<Duration>) -> Worker {
        let options = Options {
            address: Address::plain(self.house.worker.url()),
            slots,
            pool: Pool::default(),
            delivery: None,
            allowed: Allowed::default(),
            idle_exit: None,
            time_limit,
            any_codec_version: false,
        };
        let drain = CancellationToken::new();
        let running = tokio::spawn(Box::pin(bagpress_consumer::run(options, drain.clone())));
        Worker { drain, running }
    }

    /// Notes which duplicates are recorded and which deliveries acknowledged from now on, in order: one
    /// subscription hears what one connection says as it is said.
    pub(crate) async fn listen(&self) -> Outcome<JoinHandle<Vec<&'static str>>> {
        let mut words = self.house.gatherer.client_handle().subscribe(">").await?;
        self.house.gatherer.flush().await?;
        Ok(tokio::spawn(async move {
            let mut answers = Vec::new();
            while let Some(message) = words.next().await {
                match message.subject.as_str() {
                    HEARD => break,
                    subject if subject.starts_with("bag.duplicate.") => answers.push("duplicate"),
                    subject if subject.starts_with("$JS.ACK.") && message.payload == "+ACK" => {
                        answers.push("ack");
                    }
                    _ => {}
                }
            }
            answers
        }))
    }

    /// What was noted until now.
    pub(crate) async fn answers(
        &self,
        noted: JoinHandle<Vec<&'static str>>,
    ) -> Outcome<Vec<&'static str>> {
        self.house.gatherer.client_handle().publish(HEARD, "".into()).await?;
        Ok(tokio::time::timeout(SOON, noted).await??)
    }

    /// Waits until the queue has no task of the bag any more.
    pub(crate) async fn answered(&self) {
        eventually("every delivery is answered", SOON, async || {
            let mut waiting = 0;
            self.house.gatherer.waiting(&self.house.bag, |_| waiting += 1).await.ok()?;
            (waiting == 0).then_some(())
        })
        .await;
    }

    /// All outcomes of the bag, as its gatherer sees them.
    pub(crate) async fn outcomes(&self) -> Outcome<Vec<TaskResult>> {
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
    pub(crate) fn accept(&self, result: &TaskResult) -> Outcome {
        let done = result.done().ok_or("failed")?;
        if done.place == Place::Staged {
            let (parts, id) = (&self.house.parts, result.id());
            let target = target(id.index);
            let placed =
                Placer::new(parts).place(&id, &result.execution, &target, &done.output_digest)?;
            assert_eq!(placed, Placed::Named);
            parts.sweep(&[(id.index, id.round)]);
        }
        self.house.ledger.decide(result);
        Ok(())
    }

    pub(crate) async fn output(&self, index: u32) -> Outcome<Vec<u8>> {
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
    pub(crate) async fn exactly_one(&self, task: &TaskDescriptor) -> Outcome<TaskResult> {
        self.answered().await;
        let outcomes = self.outcomes().await?;
        let [result] = outcomes.as_slice() else { return Err(format!("{outcomes:#?}").into()) };
        self.accept(result)?;
        self.check_output(task, result).await?;
        self.nothing_unnamed().await?;
        Ok(result.clone())
    }

    pub(crate) async fn check_output(&self, task: &TaskDescriptor, result: &TaskResult) -> Outcome {
        let done = result.done().ok_or("failed")?;
        let output = self.output(task.index).await?;
        assert_eq!(Digest::of(&output), done.output_digest);
        assert_eq!(output.len() as u64, done.output_bytes);
        let input = decompress_all(&task.codec, &output)?;
        assert_eq!(Digest::of(&input), done.input_digest);
        assert_eq!(input.len() as u64, task.input.bytes());
        Ok(())
    }

    pub(crate) async fn nothing_unnamed(&self) -> Outcome {
        assert!(self.house.parts.listed().is_empty(), "{:?}", self.house.parts.listed());
        let orphans = self.bucket.orphans().await?;
        assert!(orphans.is_empty(), "{orphans:?}");
        Ok(())
    }

    /// Waits until somebody other than `execution` has bytes of his output on the way.
    pub(crate) async fn another_uploads(&self, execution: &Execution) {
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
pub(crate) struct Worker {
    pub(crate) drain: CancellationToken,
    pub(crate) running: JoinHandle<Result<(), Error>>,
}

impl Worker {
    pub(crate) async fn drained(self) -> Outcome {
        self.drain.cancel();
        Ok(tokio::time::timeout(SOON, self.running).await???)
    }
}

/// An execution that goes on only when the test says so.
pub(crate) struct ByHand {
    pub(crate) execution: Execution,
    pub(crate) task: TaskDescriptor,
    pub(crate) input: Digest,
    pub(crate) made: Vec<u8>,
    pub(crate) carried: Carried,
}

impl ByHand {
    /// Executes up to the last byte of the output, which is not closed yet.
    pub(crate) async fn execute(race: &Race, task: &TaskDescriptor) -> Outcome<Self> {
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

    pub(crate) async fn close(self) -> Outcome<Closed> {
        let Self { execution, task, input, made, carried } = self;
        let stored = carried.close(made.len() as u64, &Digest::of(&made)).await?;
        Ok(Closed { execution, task, input, made, stored })
    }
}

/// An execution whose output is at its place.
pub(crate) struct Closed {
    pub(crate) execution: Execution,
    pub(crate) task: TaskDescriptor,
    pub(crate) input: Digest,
    pub(crate) made: Vec<u8>,
    pub(crate) stored: Stored,
}

impl Closed {
    pub(crate) fn result(&self) -> TaskResult {
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

    pub(crate) async fn commit(&self, race: &Race) -> Outcome<Committed> {
        Ok(race.house.worker.commit(&self.result()).await?)
    }
}
