//! Every promise a result path makes. Each path keeps all of them.

mod house;

use std::fs;

use bagpress_broker::descriptor::{Input, ResultPath, TaskDescriptor, Transfer};
use bagpress_broker::ids::Execution;
use bagpress_broker::result::{Cause, Failed, Place};
use bagpress_broker::{limits, samples, subjects};
use bagpress_codec::{DataKind, Digest};
use bagpress_objstore::object_ref::{Bucket, Lookup};
use bagpress_objstore::staging::{Allowed, Placed, Placer};
use bagpress_objstore::{Carried, Opened, Ready, Store, StoreError, Stored};
use bytes::Bytes;
use tokio::task::spawn_blocking;

use self::house::{House, Outcome, sample, target};

const CHUNK: usize = limits::CHUNK_BYTES;

#[tokio::test]
async fn staging_by_wire_keeps_every_promise() -> Outcome {
    let way = Way::open(ResultPath::Staged, Transfer::Wire).await?;
    keeps_every_promise(&way).await
}

#[tokio::test]
async fn staging_by_path_keeps_every_promise() -> Outcome {
    let way = Way::open(ResultPath::Staged, Transfer::Auto).await?;
    keeps_every_promise(&way).await
}

#[tokio::test]
async fn objects_keep_every_promise() -> Outcome {
    let way = Way::open(ResultPath::Objects, Transfer::Wire).await?;
    keeps_every_promise(&way).await
}

async fn keeps_every_promise(way: &Way) -> Outcome {
    what_was_put_comes_back_whole(way).await?;
    nothing_is_visible_before_it_is_complete(way).await?;
    a_second_execution_changes_nothing(way).await?;
    a_second_execution_that_began_before_changes_nothing(way).await?;
    bytes_that_are_not_those_made_are_refused(way).await?;
    an_output_given_up_is_not_visible_and_the_task_may_be_done_again(way).await?;
    a_slot_that_fails_leaves_nothing_visible(way).await?;
    an_input_arrives_whole(way).await?;
    an_input_that_is_gone_fails_its_task_for_good(way).await?;
    what_stores_nothing_is_nowhere(way).await
}

/// A result path, and a gatherer's view of it.
struct Way {
    results: ResultPath,
    transfer: Transfer,
    house: House,
    store: Store,
    bucket: Bucket,
    inputs: Bucket,
}

impl Way {
    async fn open(results: ResultPath, transfer: Transfer) -> Outcome<Self> {
        let house = House::open(transfer == Transfer::Auto).await?;
        let bucket = async |name: String| {
            let (client, context) =
                (house.gatherer.client_handle(), house.gatherer.context_handle());
            Bucket::create(client, context, &name, "of a test", 256 << 20, &house.bag).await
        };
        Ok(Self {
            results,
            transfer,
            store: Store::new(&house.worker, Allowed::below(vec![house.folder().to_owned()])),
            bucket: bucket(subjects::bucket(&house.bag)).await?,
            inputs: bucket(subjects::input_bucket(&house.bag)).await?,
            house,
        })
    }

    /// A task whose output is its input.
    fn task(&self, index: u32, seed: u64, bytes: usize) -> TaskDescriptor {
        let input = Input::Generate { data: DataKind::Random, seed, bytes: bytes as u64 };
        let task = samples::task(&self.house.bag, index, self.results);
        TaskDescriptor { input, transfer: self.transfer, ..task }
    }

    async fn open_task(&self, run: &Run) -> Outcome<Ready> {
        match self.store.open(&run.task, &run.execution).await? {
            Opened::Go(ready) => Ok(*ready),
            other => Err(format!("not granted: {other:?}").into()),
        }
    }

    /// Executes as a slot and its attempt do, up to the end of the output.
    async fn make(&self, run: &Run) -> Outcome<(Result<Vec<u8>, Failed>, Carried)> {
        let Ready { mut source, mut sink, output } = self.open_task(run).await?;
        let slot = spawn_blocking(move || {
            let (mut segment, mut made) = (Vec::new(), Vec::new());
            loop {
                source.next(&mut segment)?;
                if segment.is_empty() {
                    sink.finish()?;
                    return Ok(made);
                }
                made.extend_from_slice(&segment);
                sink.write(&segment)?;
            }
        });
        let (made, carried) = tokio::join!(slot, output.carry());
        Ok((made?, carried?))
    }

    async fn put(&self, run: &Run) -> Outcome<(Vec<u8>, Stored)> {
        let (made, carried) = self.make(run).await?;
        let made = made.map_err(|failed| failed.message)?;
        let stored = carried.close(made.len() as u64, &Digest::of(&made)).await?;
        Ok((made, stored))
    }

    /// What a gatherer does with a committed result.
    fn accept(&self, run: &Run, output: &[u8], stored: &Stored) -> Outcome {
        let id = run.task.id();
        let (place, digest) = match stored {
            Stored::Staged => (Place::Staged, Digest::of(output)),
            Stored::Object(info) => {
                let (bucket, object) = (info.bucket.clone(), info.name.clone());
                (Place::Object { bucket, object, chunks: info.chunks }, info.digest)
            }
            other => return Err(format!("nothing to accept: {other:?}").into()),
        };
        if place == Place::Staged {
            let parts = &self.house.parts;
            let mut names = Placer::new(parts);
            let placed = names.place(&id, &run.execution, &target(id.index), &digest)?;
            assert_eq!(placed, Placed::Named);
            self.house.parts.sweep(&[(id.index, id.round)]);
        }
        self.house.ledger.decide(&samples::done(&id, &run.execution, output, place));
        Ok(())
    }

    /// The output, if there is one for everybody to see.
    async fn visible(&self, index: u32) -> Outcome<Option<Vec<u8>>> {
        let name = subjects::output_name(index);
        match (self.results, self.bucket.info_from_leader(&name).await?) {
            (ResultPath::Staged, _) => Ok(self.house.placed(index)),
            (ResultPath::Objects, Lookup::Found(_)) => {
                Ok(Some(self.bucket.get(&name, u64::MAX).await?.1))
            }
            (ResultPath::Objects, _) => Ok(None),
        }
    }

    /// What is there and has no name, of tasks that have an outcome.
    async fn unnamed(&self, index: u32) -> Outcome<Vec<String>> {
        let parts = self.house.parts.listed().into_iter().filter(|(_, (of, _))| *of == index);
        let parts = parts.map(|(path, _)| path.display().to_string());
        let prefix = format!("{index}-");
        let orphans = self.bucket.orphans().await?.into_iter().map(|orphan| orphan.token);
        Ok(parts.chain(orphans.filter(|token| token.starts_with(&prefix))).collect())
    }
}

/// One execution.
struct Run {
    task: TaskDescriptor,
    execution: Execution,
}

impl Run {
    fn of(task: TaskDescriptor) -> Self {
        Self { task, execution: Execution::random() }
    }
}

async fn what_was_put_comes_back_whole(way: &Way) -> Outcome {
    for (index, size) in (0..).zip([0, 1, CHUNK, 3 * CHUNK + 1]) {
        let run = Run::of(way.task(index, 1, size));
        let (made, stored) = way.put(&run).await?;
        assert_eq!(made.len(), size);
        way.accept(&run, &made, &stored)?;
        assert!(way.visible(index).await? == Some(made), "{size}");
        assert!(way.unnamed(index).await?.is_empty(), "{size}");
    }
    Ok(())
}

async fn nothing_is_visible_before_it_is_complete(way: &Way) -> Outcome {
    let run = Run::of(way.task(10, 1, 3 * CHUNK));
    let (made, carried) = way.make(&run).await?;
    let made = made.map_err(|failed| failed.message)?;
    assert_eq!(way.visible(10).await?, None);
    let stored = carried.close(made.len() as u64, &Digest::of(&made)).await?;
    way.accept(&run, &made, &stored)?;
    assert!(way.visible(10).await?.is_some());
    Ok(())
}

async fn a_second_execution_changes_nothing(way: &Way) -> Outcome {
    let first = Run::of(way.task(11, 1, 2 * CHUNK + 1));
    let (made, stored) = way.put(&first).await?;
    way.accept(&first, &made, &stored)?;

    // Of other bytes even: no descriptor can ask for that, a broken worker can make it.
    let second = Run::of(way.task(11, 2, CHUNK));
    match way.store.open(&second.task, &second.execution).await? {
        Opened::HaveIt(line) => assert_eq!(line.execution, first.execution),
        Opened::Go(ready) => {
            drop(ready);
            let (other, stored) = way.put(&second).await?;
            let Stored::Object(info) = stored else { return Err("no object".into()) };
            // Other bytes are not adopted: both stay until the commit decides.
            assert_eq!(info.digest, Digest::of(&other));
            assert_ne!(info.name, subjects::output_name(11));
        }
        other => return Err(format!("{other:?}").into()),
    }

    assert!(way.visible(11).await? == Some(made));
    assert!(way.unnamed(11).await?.is_empty());
    Ok(())
}

async fn a_second_execution_that_began_before_changes_nothing(way: &Way) -> Outcome {
    let second = Run::of(way.task(12, 2, 2 * CHUNK));
    let (late, carried) = way.make(&second).await?;
    let late = late.map_err(|failed| failed.message)?;
    let first = Run::of(way.task(12, 1, 3 * CHUNK));
    let (made, stored) = way.put(&first).await?;
    way.accept(&first, &made, &stored)?;

    match carried.close(late.len() as u64, &Digest::of(&late)).await? {
        Stored::Decided(line) => assert_eq!(line.execution, first.execution),
        Stored::Object(info) => {
            assert_eq!(info.digest, Digest::of(&late));
            assert_ne!(info.name, subjects::output_name(12));
        }
        other => return Err(format!("{other:?}").into()),
    }

    assert!(way.visible(12).await? == Some(made));
    assert!(way.unnamed(12).await?.is_empty());
    Ok(())
}

async fn bytes_that_are_not_those_made_are_refused(way: &Way) -> Outcome {
    for (index, size) in [(13, 9), (14, 2 * CHUNK)] {
        let run = Run::of(way.task(index, 1, size));
        let (_, carried) = way.make(&run).await?;
        let refused = carried.close(size as u64, &Digest::of(b"others")).await;
        assert!(matches!(refused, Err(StoreError::Digest(_))), "{refused:?}");
        assert_eq!(way.visible(index).await?, None);

        let again = Run::of(way.task(index, 1, size));
        let (made, stored) = way.put(&again).await?;
        way.accept(&again, &made, &stored)?;
        assert!(way.visible(index).await? == Some(made));
        assert!(way.unnamed(index).await?.is_empty());
    }
    Ok(())
}

fn failed() -> Failed {
    Failed::new(Cause::CodecError, "it broke")
}

async fn an_output_given_up_is_not_visible_and_the_task_may_be_done_again(way: &Way) -> Outcome {
    let run = Run::of(way.task(15, 1, 3 * CHUNK));
    let (_, carried) = way.make(&run).await?;
    carried.abandon(&failed()).await;
    assert_eq!(way.visible(15).await?, None);

    let again = Run::of(way.task(15, 1, 3 * CHUNK));
    let (made, stored) = way.put(&again).await?;
    way.accept(&again, &made, &stored)?;
    assert!(way.visible(15).await? == Some(made));
    assert!(way.unnamed(15).await?.is_empty());
    Ok(())
}

async fn a_slot_that_fails_leaves_nothing_visible(way: &Way) -> Outcome {
    let run = Run::of(way.task(16, 1, 3 * CHUNK));
    let Ready { mut sink, output, .. } = way.open_task(&run).await?;
    let slot = spawn_blocking(move || sink.write(&sample(2 * CHUNK + 1)));
    let (wrote, carried) = tokio::join!(slot, output.carry());
    assert!(wrote?.is_ok());
    carried?.abandon(&failed()).await;

    assert_eq!(way.visible(16).await?, None);
    way.house.parts.sweep(&[(16, 0)]);
    assert!(way.unnamed(16).await?.is_empty());
    Ok(())
}

/// A task whose input is a file, or an object where outputs are objects.
async fn task_with_input(way: &Way, index: u32, input: &[u8]) -> Outcome<TaskDescriptor> {
    let (name, bytes) = (format!("source {index}"), input.len() as u64);
    let path = way.house.folder().join(&name);
    fs::write(&path, input)?;
    way.house.ledger.take_input(index, &path)?;
    let object = subjects::input_name(index);
    way.inputs.put(&object, &format!("{index}-in"), Bytes::copy_from_slice(input)).await?;
    let input = match way.results {
        ResultPath::Staged => Input::File { name, bytes },
        ResultPath::Objects => Input::Object {
            bucket: way.inputs.name().to_owned(),
            object,
            name,
            bytes,
            digest: None,
            part: None,
        },
    };
    Ok(TaskDescriptor { input, ..way.task(index, 0, 0) })
}

async fn an_input_arrives_whole(way: &Way) -> Outcome {
    for (index, size) in (20..).zip([0, 1, 3 * CHUNK + 1]) {
        let input = sample(size);
        let run = Run::of(task_with_input(way, index, &input).await?);
        let (made, stored) = way.put(&run).await?;
        assert!(made == input, "{size}");
        way.accept(&run, &made, &stored)?;
        assert!(way.visible(index).await? == Some(input), "{size}");
    }
    Ok(())
}

async fn an_input_that_is_gone_fails_its_task_for_good(way: &Way) -> Outcome {
    let task = task_with_input(way, 25, &sample(CHUNK + 1)).await?;
    fs::remove_file(way.house.folder().join("source 25"))?;
    assert!(way.inputs.remove("in_25").await?);

    let run = Run::of(task);
    // A file that is opened in place is missed before the execution begins.
    let failed = match way.store.open(&run.task, &run.execution).await? {
        Opened::Refused(failed) => failed,
        _ => way.make(&run).await?.0.err().ok_or("made of nothing")?,
    };

    assert_eq!(failed.cause, Cause::InputMissing);
    assert!(!failed.cause.is_transient());
    assert_eq!(way.visible(25).await?, None);
    Ok(())
}

async fn what_stores_nothing_is_nowhere(way: &Way) -> Outcome {
    let task = TaskDescriptor { codec: "noop".parse()?, ..way.task(30, 1, 3 * CHUNK) };
    let (made, stored) = way.put(&Run::of(task)).await?;
    assert_eq!(made.len(), 3 * CHUNK);
    assert!(matches!(stored, Stored::Nothing), "{stored:?}");
    assert_eq!(way.visible(30).await?, None);
    assert!(way.unnamed(30).await?.is_empty());
    Ok(())
}
