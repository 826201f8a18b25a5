//! Tasks into the queue, and their inputs before them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::ids::Execution;
use bagpress_broker::result::{Cause, Failed};
use bagpress_broker::{Broker, Error, limits, quote, subjects};
use bagpress_objstore::object_ref::{self, Bucket, Info};
use bagpress_objstore::staging::{InputFile, OpenInput};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, FuturesUnordered};
use futures::{FutureExt, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, spawn_blocking};
use tracing::{info, warn};

use crate::check::input_again::digest_of_file;
use crate::claim::buckets::input_bucket;
use crate::deliver::dispatch::{HandIn, Offerable};
use crate::deliver::handed::{Handed, failure};
use crate::run_folder::inputs::InputEntry;
use crate::run_folder::plan::BagPlan;
use crate::run_folder::specification::Data;

/// Bytes that one permit of the input window stands for.
const WINDOW_UNIT: u64 = 64 * 1024;
/// Chunks of inputs under way at a time, so that large inputs hold no more memory than small ones.
const CHUNKS_UNDER_WAY: usize = 4 * limits::WINDOW_MAX;
/// Inputs that are freed at a time, of each batch of outcomes; no bytes travel.
const FREEINGS: usize = 16;
/// Inputs that are about to be freed.
const FREEINGS_MAX: u32 = 4_096;

/// Publishes the tasks of one bag. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    broker: Broker,
    plan: BagPlan,
    /// Who offers the tasks; none where they wait in the stream.
    hand_in: Option<HandIn>,
    inputs: Option<Bucket>,
    window: Arc<Semaphore>,
    /// Inputs that wait for the window.
    at_the_window: AtomicUsize,
    /// Whether they wait no longer, and publishing ends with them.
    gives_way: watch::Sender<bool>,
    under_way: Semaphore,
    /// Whoever gathers the bag makes the bucket again, if the bag is still theirs.
    inputs_gone: AtomicBool,
    /// Inputs in the bucket, each with its share of the window.
    stored: Mutex<HashMap<u32, (Info, OwnedSemaphorePermit)>>,
    /// Inputs that are about to be freed, and how often: they are not put again before they are gone.
    being_freed: Mutex<HashMap<u32, u32>>,
    freeing: Arc<Semaphore>,
    first: OnceLock<Instant>,
    waiting: Mutex<Option<String>>,
}

impl Publisher {
    /// Publishes for `plan`'s bag; makes its input bucket if it needs one.
    ///
    /// # Errors
    ///
    /// If the server has no room for the bucket, or does not answer.
    pub(crate) async fn new(
        broker: &Broker,
        plan: &BagPlan,
        hand_in: Option<HandIn>,
    ) -> Result<Self> {
        let specification = &plan.specification;
        let inputs = match (&specification.data, specification.results) {
            (Data::Files { largest, .. }, ResultPath::Objects) => {
                Some(input_bucket(broker, plan, *largest).await?)
            }
            _ => None,
        };
        let permits = usize::try_from(limits::INPUT_WINDOW_BYTES / WINDOW_UNIT).unwrap_or(1);
        let shared = Shared {
            broker: broker.clone(),
            plan: plan.clone(),
            hand_in,
            inputs,
            window: Arc::new(Semaphore::new(permits)),
            at_the_window: AtomicUsize::new(0),
            gives_way: watch::Sender::new(false),
            under_way: Semaphore::new(CHUNKS_UNDER_WAY),
            inputs_gone: AtomicBool::new(false),
            stored: Mutex::default(),
            being_freed: Mutex::default(),
            freeing: Arc::new(Semaphore::new(FREEINGS_MAX as usize)),
            first: OnceLock::new(),
            waiting: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whether somebody found no input bucket, since this was asked last: the broker forgot it.
    pub(crate) fn misses_inputs(&self) -> bool {
        self.shared.inputs_gone.swap(false, Relaxed)
    }

    /// Makes the input bucket again, if a broker forgot it; whoever waits for it goes on.
    ///
    /// # Errors
    ///
    /// As [`Publisher::new`].
    pub(crate) async fn remake_inputs(&self) -> Result<()> {
        let plan = &self.shared.plan;
        let data = &plan.specification.data;
        if let (Some(_), Data::Files { largest, .. }) = (&self.shared.inputs, data) {
            input_bucket(&self.shared.broker, plan, *largest).await?;
        }
        Ok(())
    }

    /// When the first task was published by this process.
    #[must_use]
    pub(crate) fn first(&self) -> Option<Instant> {
        self.shared.first.get().copied()
    }

    /// Why publishing waits, if it does.
    #[must_use]
    pub(crate) fn waiting(&self) -> Option<String> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_waiting(&self, why: Option<String>) {
        *self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Ends the publishing early if it waits for the input window: what the broker forgot frees nothing there, and is
    /// published again by nobody before this publishing has ended.
    pub(crate) fn give_way(&self) {
        if self.shared.at_the_window.load(Relaxed) > 0 {
            self.shared.gives_way.send_replace(true);
        }
    }

    /// Whether it ended early, with tasks that nobody has published yet.
    pub(crate) fn gave_way(&self) -> bool {
        *self.shared.gives_way.borrow()
    }

    /// Publishes every task for which `wanted` is true, in order, at most [`limits::SUBMIT_WINDOW`] at
    /// a time; waits while the queue is full. Ends before the last one when it is to [give way](Self::give_way).
    ///
    /// # Errors
    ///
    /// If the list of inputs cannot be read.
    pub(crate) async fn publish(
        &self,
        message_id: bool,
        wanted: impl Fn(u32) -> bool,
    ) -> Result<()> {
        let specification = self.shared.plan.specification.clone();
        let mut list = self.shared.plan.inputs.as_ref().map(|inputs| inputs.entries());
        let most =
            if self.shared.inputs.is_some() { limits::OBJECTS_PUT } else { limits::SUBMIT_WINDOW };
        let mut under_way = FuturesUnordered::new();
        self.shared.gives_way.send_replace(false);
        for index in 0..specification.tasks {
            let entry = match &mut list {
                Some(list) => {
                    let entry = list.next().context("the list of inputs is too short")??;
                    Some(self.shared.plan.now(index, entry))
                }
                None => None,
            };
            if !wanted(index) {
                continue;
            }
            if under_way.len() >= most {
                under_way.next().await;
            }
            if self.gave_way() {
                break;
            }
            let round = self.shared.plan.ledger.round(index);
            under_way.push(self.one(index, round, entry, message_id));
        }
        while under_way.next().await.is_some() {}
        Ok(())
    }

    async fn one(&self, index: u32, round: u32, entry: Option<InputEntry>, message_id: bool) {
        let specification = &self.shared.plan.specification;
        // What was known when the bag was made; whoever asks for another round wants it tried.
        if round == 0
            && let Some(failed) = entry.as_ref().and_then(|entry| entry.refused.clone())
        {
            return Box::pin(self.fail(index, round, failed)).await;
        }
        if let (Some(bucket), Some(entry)) = (&self.shared.inputs, &entry) {
            let Some(share) = self.enter_window(index, entry.bytes).await else { return };
            if let Err(failed) = Box::pin(self.put_input(bucket, index, entry, share)).await {
                return Box::pin(self.fail(index, round, failed)).await;
            }
        }
        let task = specification.descriptor(index, round, entry.as_ref());
        if let Some(hand_in) = &self.shared.hand_in {
            self.shared.first.get_or_init(Instant::now);
            let task = Offerable { key: (index, round), descriptor: task.encode().into() };
            // Fails only when nobody gathers any more.
            return drop(hand_in.tasks.send(task).await);
        }
        loop {
            self.shared.first.get_or_init(Instant::now);
            let sent = self.shared.broker.submit(&specification.pool, &task, message_id).await;
            let stored = match sent {
                Ok(ack) => ack.await,
                Err(error) => Err(error),
            };
            match stored {
                Ok(_) => return self.set_waiting_if_set(),
                Err(error) => self.pause(&error).await,
            }
        }
    }

    fn set_waiting_if_set(&self) {
        let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_some() {
            *waiting = None;
        }
    }

    async fn pause(&self, error: &Error) {
        if self.waiting().is_none() {
            info!(%error, "publishing waits");
        }
        self.set_waiting(Some(error.to_string()));
        tokio::time::sleep(limits::RETRY_WAIT).await;
    }

    /// Waits until the window has room for an input; nothing if it is to give way meanwhile.
    async fn enter_window(&self, index: u32, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let total = limits::INPUT_WINDOW_BYTES / WINDOW_UNIT;
        let units = (bytes / WINDOW_UNIT + 1).min(total);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        // Neither an earlier round's share is to be waited for, nor what is about to be removed adopted.
        drop(self.stored().remove(&index));
        while self.being_freed().contains_key(&index) {
            tokio::time::sleep(limits::RETRY_WAIT).await;
        }
        let mut gives_way = self.shared.gives_way.subscribe();
        self.shared.at_the_window.fetch_add(1, Relaxed);
        let share = tokio::select! {
            biased;
            share = self.shared.window.clone().acquire_many_owned(units) => share.ok(),
            _ = gives_way.wait_for(|gives_way| *gives_way) => None,
        };
        self.shared.at_the_window.fetch_sub(1, Relaxed);
        share
    }

    /// Puts a file into the input bucket, where it has its `share` of the window.
    async fn put_input(
        &self,
        bucket: &Bucket,
        index: u32,
        entry: &InputEntry,
        share: OwnedSemaphorePermit,
    ) -> Result<(), Failed> {
        let chunks = (entry.bytes / limits::CHUNK_BYTES as u64 + 1).min(limits::WINDOW_MAX as u64);
        let chunks = u32::try_from(chunks).unwrap_or(u32::MAX);
        let _under_way = self.shared.under_way.acquire_many(chunks).await;
        let info = loop {
            match put_file(bucket, index, InputFile::from(entry.clone())).await {
                Ok(info) => break info,
                Err(Put::Input(failed)) if failed.cause.is_transient() => {
                    self.set_waiting(Some(failed.message));
                    tokio::time::sleep(limits::RETRY_WAIT).await;
                }
                Err(Put::Input(failed)) => return Err(failed),
                Err(Put::Bucket(error)) => {
                    self.set_waiting(Some(error.to_string()));
                    let gone = matches!(error, object_ref::Error::NoBucket { .. });
                    self.shared.inputs_gone.fetch_or(gone, Relaxed);
                    if !error.is_transient() && !gone {
                        return Err(Failed::new(Cause::TransferError, error.to_string()));
                    }
                    tokio::time::sleep(limits::RETRY_WAIT).await;
                }
            }
        };
        self.set_waiting_if_set();
        self.stored().insert(index, (info, share));
        if self.shared.plan.ledger.is_decided(index) {
            // Meanwhile, by an execution that outlived what the broker forgot: nobody else frees it.
            self.free_inputs(std::iter::once(index)).await;
        }
        Ok(())
    }

    fn stored(&self) -> MutexGuard<'_, HashMap<u32, (Info, OwnedSemaphorePermit)>> {
        self.shared.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees the inputs that are in the bucket and are not wanted there.
    pub(crate) async fn free_stored(&self, unwanted: impl Fn(u32) -> bool) {
        let stored: Vec<u32> = self.stored().keys().copied().filter(|i| unwanted(*i)).collect();
        self.free_inputs(stored.into_iter()).await;
    }

    /// Frees the inputs of tasks that need them no more, or not now, beside whatever the caller does: a broker that is slow to forget must not
    /// hold it up. Waits while too many are being freed.
    pub(crate) async fn free_inputs(&self, indices: impl Iterator<Item = u32>) {
        let Some(bucket) = self.shared.inputs.clone() else { return };
        let indices: Vec<u32> = indices.collect();
        if indices.is_empty() {
            return;
        }
        let most = u32::try_from(indices.len()).unwrap_or(u32::MAX).min(FREEINGS_MAX);
        let Ok(share) = self.shared.freeing.clone().acquire_many_owned(most).await else { return };
        for index in &indices {
            *self.being_freed().entry(*index).or_default() += 1;
        }
        let publisher = self.clone();
        tokio::spawn(async move {
            let freeing: Vec<BoxFuture<'_, ()>> =
                indices.iter().map(|index| publisher.free_input(&bucket, *index).boxed()).collect();
            stream::iter(freeing).buffer_unordered(FREEINGS).collect::<Vec<()>>().await;
            drop(share);
        });
    }

    async fn free_input(&self, bucket: &Bucket, index: u32) {
        let stored = self.stored().remove(&index);
        if !self.shared.plan.specification.keep_inputs
            && let Err(error) =
                remove_input(bucket, index, stored.as_ref().map(|(info, _)| info)).await
            && !matches!(error, object_ref::Error::NoBucket { .. })
        {
            warn!(%error, index, "input not freed");
        }
        drop(stored); // and its share of the window with it
        let mut being_freed = self.being_freed();
        let left = being_freed.remove(&index).unwrap_or_default().saturating_sub(1);
        if left > 0 {
            being_freed.insert(index, left);
        }
    }

    fn being_freed(&self) -> MutexGuard<'_, HashMap<u32, u32>> {
        self.shared.being_freed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the input bucket, when no task needs it any more.
    pub(crate) async fn remove_inputs(&self) {
        let Some(bucket) = &self.shared.inputs else { return };
        let freed = self.shared.freeing.acquire_many(FREEINGS_MAX).await;
        if !self.shared.plan.specification.keep_inputs
            && let Err(error) = bucket.delete().await
        {
            warn!(%error, "input bucket not removed");
        }
        drop(freed);
    }

    /// Makes the failure of a task that can never be published its outcome.
    async fn fail(&self, index: u32, round: u32, failed: Failed) {
        let bag = &self.shared.plan.specification.bag;
        self.shared.first.get_or_init(Instant::now);
        let result = failure(bag, (index, round), 1, failed);
        if let Some(hand_in) = &self.shared.hand_in {
            let handed = Handed { result: Arc::new(result), reply: None };
            return drop(hand_in.outcomes.send(handed).await);
        }
        while let Err(error) = self.shared.broker.commit(&result).await {
            self.pause(&error).await;
        }
    }
}

enum Put {
    Input(Failed),
    Bucket(object_ref::Error),
}

impl From<object_ref::Error> for Put {
    fn from(error: object_ref::Error) -> Self {
        Self::Bucket(error)
    }
}

/// Who put an input knows what to remove, and asks nobody; unless it was replaced meanwhile.
async fn remove_input(
    bucket: &Bucket,
    index: u32,
    known: Option<&Info>,
) -> Result<(), object_ref::Error> {
    if let Some(info) = known
        && bucket.remove_exactly(info).await?
    {
        return Ok(());
    }
    bucket.remove(&subjects::input_name(index)).await.map(drop)
}

async fn put_file(bucket: &Bucket, index: u32, input: InputFile) -> Result<Info, Put> {
    let token = format!("{index}-{}", Execution::random());
    let path = input.path.clone();
    let stopped = |error: JoinError| {
        let text = format!("{}: {error}", quote::name(&path));
        Put::Input(Failed::new(Cause::InputUnreadable, text))
    };
    let opened = spawn_blocking(move || OpenInput::open(input)).await;
    let file = Arc::new(opened.map_err(stopped)?.map_err(Put::Input)?);
    let mut writer = bucket.writer(&subjects::input_name(index), &token)?;
    let (mut offset, mut ended) = (0, false);
    while !ended {
        let (from, at) = (file.clone(), offset);
        let reading = spawn_blocking(move || {
            let mut chunk = Vec::new();
            from.read_at(at, limits::CHUNK_BYTES, &mut chunk).map(|ended| (chunk, ended))
        });
        let chunk = match reading.await.map_err(stopped)? {
            Ok((chunk, end)) => {
                ended = end;
                chunk
            }
            Err(failed) => {
                abandon(writer).await;
                return Err(Put::Input(failed));
            }
        };
        if chunk.is_empty() {
            break;
        }
        offset += chunk.len() as u64;
        if let Err(error) = writer.write(Bytes::from(chunk)).await {
            // The very input may be what takes the room: an earlier gatherer put it.
            let full = matches!(error, object_ref::Error::Full { .. });
            let there = if full { writer.adoptable().await } else { None };
            let Some(there) = there else { return Err(error.into()) };
            let again = file.clone();
            let hashed = spawn_blocking(move || digest_of_file(&again)).await.map_err(stopped)?;
            let Ok((digest, bytes)) = hashed else { return Err(error.into()) };
            if (there.bytes, there.digest) == (bytes, digest) {
                return Ok(there);
            }
            // Nobody else has anything to put there, and it takes the room of what should be.
            bucket.remove_exactly(&there).await?;
            return Err(error.into());
        }
    }
    Ok(writer.commit_or_adopt().await?.info)
}

async fn abandon(writer: object_ref::Writer) {
    if let Err(error) = writer.abandon().await {
        warn!(%error, "chunks left behind");
    }
}
