//! Both result paths behind one door.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bagpress_broker::descriptor::{Input, ResultPath, TaskDescriptor, Transfer};
use bagpress_broker::ids::Execution;
use bagpress_broker::result::{Cause, Failed, TaskResult};
use bagpress_broker::{BagEvents, Broker, limits, subjects};
use bagpress_codec::{Digest, Generator};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::error::input_failed;
use crate::object_ref::Bucket;
use crate::pack::{InputsFrom, PackReady};
use crate::referenced::{Tars, Wanted};
use crate::sink::Sink;
use crate::source::Source;
use crate::staging::{Allowed, Grant, Permission, SharedFolder, Stager, Upload};
use crate::stored::Stored;
use crate::{StoreError, object_ref};

/// Where inputs come from and outputs go, for one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    broker: Broker,
    stager: Stager,
    buckets: Arc<Mutex<HashMap<String, Bucket>>>,
    tars: Tars,
}

/// Whether a task may be executed.
#[derive(Debug)]
pub enum Opened {
    /// It may.
    Go(Box<Ready>),
    /// Execute this pack.
    Pack(Box<PackReady>),
    /// Its round has an outcome already; commit that.
    HaveIt(Box<TaskResult>),
    /// There is no room now: give back, no attempt is spent.
    Wait(String),
    /// Nobody gathers the bag now: give back, no attempt is spent.
    Absent,
    /// It can never succeed.
    Refused(Failed),
}

/// Everything that an execution needs.
#[derive(Debug)]
pub struct Ready {
    /// For the thread that compresses: the input.
    pub source: Source,
    /// For the thread that compresses: the way out.
    pub sink: Sink,
    /// For a task that runs at the same time.
    pub output: Output,
}

/// Opens an input, on a thread that may wait.
type OpenSource = Box<dyn FnOnce() -> Result<Source, Failed> + Send>;

impl Store {
    /// Uses the connection of `broker` for bytes; hands files over by path where that is `allowed`.
    #[must_use]
    pub fn new(broker: &Broker, allowed: Allowed) -> Self {
        Self {
            broker: broker.clone(),
            stager: Stager::new(broker, allowed),
            buckets: Arc::default(),
            tars: Tars::default(),
        }
    }

    /// Follows which bags somebody begins to gather, until the connection is closed.
    pub async fn follow(&self, mut gatherings: BagEvents) {
        while let Some(bag) = gatherings.next().await {
            self.stager.gathers(&bag);
        }
        // Then the worker ends for another reason.
        std::future::pending::<()>().await;
    }

    /// Prepares an execution: asks leave, opens or begins to fetch the input, readies the way out.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: transient.
    pub async fn open(
        &self,
        task: &TaskDescriptor,
        execution: &Execution,
    ) -> Result<Opened, StoreError> {
        let id = task.id();
        let file_input = matches!(task.input, Input::File { .. });
        let staged = task.results == ResultPath::Staged && !task.codec.stores_nothing();
        let mut grant = None;
        if staged || file_input {
            let by_path = task.transfer == Transfer::Auto;
            match self.stager.open(&id, execution, by_path).await? {
                Permission::Go(granted) => grant = Some(granted),
                Permission::HaveIt(result) => return Ok(Opened::HaveIt(result)),
                Permission::Wait(reason) => return Ok(Opened::Wait(reason)),
                Permission::Absent => return Ok(Opened::Absent),
                Permission::Refused(failed) => return Ok(Opened::Refused(failed)),
            }
        }
        if let (Some(inputs), Some(grant)) = (self.pack_inputs(task)?, &grant) {
            let ready = PackReady::staged(&self.stager, inputs, grant.clone());
            return Ok(Opened::Pack(Box::new(ready)));
        }
        if let (Some(pack), Input::Object { bucket, object, .. }) = (task.tarred(), &task.input) {
            let (inputs, outputs) =
                (self.bucket(bucket)?, self.bucket(&subjects::bucket(&task.bag))?);
            let ready = PackReady::tar((&inputs, object), outputs, task, pack, execution).await;
            return Ok(match ready {
                Ok(ready) => Opened::Pack(Box::new(ready)),
                Err(failed) => Opened::Refused(failed),
            });
        }
        let share = grant.as_ref().and_then(|grant| grant.share.clone());
        let opened = self.input_and_part(task, share, staged).await;
        let (source, part) = match opened {
            Ok(opened) => opened,
            Err(failed) => return Ok(Opened::Refused(failed)),
        };
        let (sink, output) = match grant.filter(|_| staged) {
            Some(grant) => self.staged(grant, part),
            None if task.codec.stores_nothing() => (Sink::Nothing, Output::Nothing),
            None => self.object(task, execution)?,
        };
        Ok(Opened::Go(Box::new(Ready { source, sink, output })))
    }

    /// Where the inputs of a staged pack come from, if it is one.
    fn pack_inputs(&self, task: &TaskDescriptor) -> Result<Option<InputsFrom>, StoreError> {
        if let (Input::Object { bucket, object, digest, .. }, [_, ..]) = (&task.input, &*task.parts)
        {
            let tar = Box::new(Wanted::new(self.bucket(bucket)?, object, *digest));
            return Ok(Some(InputsFrom::Parts(self.tars.clone(), tar, task.parts.clone())));
        }
        Ok(task.pack.map(InputsFrom::Gatherer))
    }

    /// The input, and the part file where the output is `staged` and written in place.
    async fn input_and_part(
        &self,
        task: &TaskDescriptor,
        share: Option<SharedFolder>,
        staged: bool,
    ) -> Result<(Source, Option<File>), Failed> {
        let Some(share) = share else { return Ok((self.source(task)?, None)) };
        let in_place = share.input.clone().filter(|_| matches!(task.input, Input::File { .. }));
        let open: OpenSource = if let Some(input) = in_place {
            Box::new(move || Source::file(input.into()))
        } else {
            let source = self.source(task)?;
            Box::new(move || Ok(source))
        };
        // A disk that hangs keeps a thread of its own waiting: one for both files.
        let opened = spawn_blocking(move || {
            let source = open()?;
            // What this worker cannot do there its gatherer may, who also knows what it means.
            let log = |error: &io::Error| {
                tracing::debug!(%error, part = %share.part.display(), "not by path");
            };
            let part = staged.then(|| share.create_part().inspect_err(log).ok());
            Ok((source, part.flatten()))
        });
        opened.await.unwrap_or_else(|e| Err(Failed::new(Cause::TransferError, e.to_string())))
    }

    /// An input that needs no disk of ours.
    fn source(&self, task: &TaskDescriptor) -> Result<Source, Failed> {
        match &task.input {
            Input::Generate { data, seed, bytes } => {
                Ok(Source::generated(Generator::new(*data, *seed, task.index, *bytes), *bytes))
            }
            Input::File { .. } => {
                let (sender, chunks) = mpsc::channel(1);
                let (stager, id) = (self.stager.clone(), task.id());
                let bytes = task.input.bytes();
                let fetch = async move { stager.fetch_input(&id, bytes, sender).await };
                Ok(Source::fetched(chunks, tokio::spawn(fetch).abort_handle(), Some(bytes)))
            }
            Input::Object { bucket, object, bytes, digest, part, .. } => {
                let (sender, chunks) = mpsc::channel(1);
                let bucket = self.bucket(bucket).map_err(|error| input_failed(&error))?;
                let (wanted, part) = (Wanted::new(bucket, object, *digest), *part);
                let (tars, bytes) = (self.tars.clone(), *bytes);
                let fetching = tokio::spawn(async move {
                    let fetched = match part {
                        None => wanted.fetch(&sender).await,
                        Some(part) => tars.fetch(&wanted, (part, bytes), &sender).await,
                    };
                    if let Err(error) = fetched {
                        // Closed means that nobody waits for the input any more.
                        sender.send(Err(input_failed(&error))).await.ok();
                    }
                });
                Ok(Source::fetched(chunks, fetching.abort_handle(), Some(bytes)))
            }
        }
    }

    fn staged(&self, grant: Grant, part: Option<File>) -> (Sink, Output) {
        if let (Some(share), Some(file)) = (&grant.share, part) {
            let sink = Sink::file(file, !share.same_kernel);
            return (sink, Output::ByPath(Upload::by_path(&self.stager, &grant)));
        }
        let (sender, chunks) = mpsc::channel(limits::WINDOW_MAX);
        let output = Output::Upload { stager: self.stager.clone(), grant, chunks };
        (Sink::chunks(sender), output)
    }

    fn object(
        &self,
        task: &TaskDescriptor,
        execution: &Execution,
    ) -> Result<(Sink, Output), StoreError> {
        let (sender, chunks) = mpsc::channel(limits::WINDOW_MAX);
        let bucket = self.bucket(&subjects::bucket(&task.bag))?;
        let token = format!("{}-{execution}", task.index);
        let (description, labels) = label(task);
        let writer = bucket.writer(&subjects::output_name(task.index), &token)?;
        let writer = writer.description(description).metadata(labels);
        Ok((Sink::chunks(sender), Output::Object { writer: Box::new(writer), chunks }))
    }

    /// Removes an object of ours that has no outcome and no name of its own, as far as it can.
    pub async fn forget(&self, bucket: &str, object: &str) {
        let removed = match self.bucket(bucket) {
            Ok(bucket) => bucket.remove(object).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::debug!(%error, object, "object of a duplicate left behind");
        }
    }

    fn bucket(&self, name: &str) -> Result<Bucket, object_ref::Error> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get(name) {
            return Ok(bucket.clone());
        }
        let (client, context) = (self.broker.client().clone(), self.broker.jetstream().clone());
        let bucket = Bucket::new(client, context, name)?;
        if buckets.len() >= limits::OPEN_INPUTS_MAX {
            buckets.clear();
        }
        buckets.insert(name.to_owned(), bucket.clone());
        Ok(bucket)
    }
}

/// Description and labels of the object of a task's output.
#[must_use]
pub fn label(task: &TaskDescriptor) -> (String, HashMap<String, String>) {
    let input = match &task.input {
        Input::Generate { .. } => None,
        Input::File { name, .. } | Input::Object { name, .. } => Some(name.clone()),
    };
    let labels = [("bag", Some(task.bag.to_string())), ("codec", Some(task.codec.to_string()))];
    let labels = labels.into_iter().chain([("input", input)]);
    let labels = labels.filter_map(|(label, text)| Some((label.to_owned(), text?)));
    (format!("task {} of bag {}, {}", task.index, task.bag, task.codec), labels.collect())
}

/// The asynchronous half of a way out.
#[derive(Debug)]
pub enum Output {
    /// Nothing to carry.
    Nothing,
    /// The slot writes the part file itself.
    ByPath(Upload),
    /// To the gatherer, in chunks.
    Upload {
        /// The way.
        stager: Stager,
        /// The leave.
        grant: Grant,
        /// From the slot.
        chunks: mpsc::Receiver<Bytes>,
    },
    /// To the bag's bucket.
    Object {
        /// The object being written.
        writer: Box<object_ref::Writer>,
        /// From the slot.
        chunks: mpsc::Receiver<Bytes>,
    },
}

/// An output whose bytes are on their way or there, and which is not complete before it is closed.
#[derive(Debug)]
pub enum Carried {
    /// Nothing.
    Nothing,
    /// At the gatherer's.
    Upload(Box<Upload>),
    /// In the bag's bucket.
    Object(Box<object_ref::Writer>),
    /// Not there: the bucket is full, and has the task's object already.
    Found(Box<object_ref::Info>),
}

impl Output {
    /// Carries away what the slot makes, until it ends.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: transient. The slot then meets a closed sink.
    pub async fn carry(self) -> Result<Carried, StoreError> {
        match self {
            Self::Nothing => Ok(Carried::Nothing),
            Self::ByPath(upload) => Ok(Carried::Upload(Box::new(upload))),
            Self::Upload { stager, grant, chunks } => {
                let upload = stager.upload(&grant, chunks).await?;
                Ok(Carried::Upload(Box::new(upload)))
            }
            Self::Object { mut writer, mut chunks } => {
                while let Some(chunk) = chunks.recv().await {
                    let Err(error) = writer.write(chunk).await else { continue };
                    // Another execution may have filled the bucket with this very object.
                    if matches!(error, object_ref::Error::Full { .. })
                        && let Some(info) = writer.adoptable().await
                    {
                        // The slot must not take the end of the way for a failure.
                        while chunks.recv().await.is_some() {}
                        return Ok(Carried::Found(Box::new(info)));
                    }
                    abandon(*writer).await;
                    return Err(error.into());
                }
                Ok(Carried::Object(writer))
            }
        }
    }
}

impl Carried {
    /// Completes the output: it is durable at its place afterwards.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: transient.
    pub async fn close(self, bytes: u64, digest: &Digest) -> Result<Stored, StoreError> {
        match self {
            Self::Nothing => Ok(Stored::Nothing),
            Self::Upload(upload) => upload.close(bytes, digest).await,
            Self::Object(writer) => {
                // Looked at before there is an object: the next execution would adopt it.
                let stored = writer.expecting(bytes, *digest).commit_beside().await?;
                Ok(Stored::Object(Box::new(stored.info)))
            }
            Self::Found(info) if (info.bytes, info.digest) == (bytes, *digest) => {
                Ok(Stored::Object(info))
            }
            // It may be that of an outcome which counts.
            Self::Found(info) => {
                let text = format!(
                    "obj://{}/{} has other bytes and takes their space",
                    info.bucket, info.name
                );
                Err(StoreError::Full(text))
            }
        }
    }

    /// Gives the output of an execution up that failed so, and removes what it left, as far as it can.
    pub async fn abandon(self, failed: &Failed) {
        match self {
            Self::Nothing | Self::Found(_) => {}
            Self::Upload(upload) => upload.abandon(failed).await,
            Self::Object(writer) => abandon(*writer).await,
        }
    }
}

async fn abandon(writer: object_ref::Writer) {
    if let Err(error) = writer.abandon().await {
        tracing::debug!(%error, "chunks left behind, they are swept later");
    }
}
