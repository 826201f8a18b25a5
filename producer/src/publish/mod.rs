//! Publishes the tasks of a bag: each into the queue, or to the gatherer that offers it, after its input.

mod awaited;
mod forming;
mod freeing;
mod input;
mod obstacle;
mod publisher;
mod references;
mod window;

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use anyhow::{Context, Result};
use bagpress_broker::descriptor::TaskDescriptor;
use bagpress_broker::result::{Cause, Failed};
use bagpress_broker::retry::Retry;
use bagpress_broker::{Error, limits};
use bagpress_objstore::object_ref::{self, Info};
use bagpress_objstore::staging::InputFile;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::task::coop::unconstrained;
use tracing::info;

use crate::deliver::dispatch::Offerable;
use crate::publish::forming::{Forming, Next, next};
use crate::publish::input::{Members, NotPut, put_file, put_tar};
pub(crate) use crate::publish::publisher::Publisher;
use crate::publish::publisher::Shared;
pub(crate) use crate::publish::window::InputOf;
use crate::publish::window::Share;
use crate::run_folder::inputs::InputEntry;
use crate::run_folder::ledger::Key;
use crate::run_folder::of_producer::failure;

impl Publisher {
    /// Publishes every task that is not decided and for which `wanted` is true, in order, at most [`limits::SUBMIT_WINDOW`] at
    /// a time, and packs by their first files; waits while the queue is full. Ends before the last one when it is to [give way](Self::give_way).
    ///
    /// # Errors
    ///
    /// If the list of inputs cannot be read.
    pub(crate) async fn publish(
        &self,
        message_id: bool,
        wanted: impl Fn(u32) -> bool,
    ) -> Result<()> {
        self.publish_what_is_there(message_id, wanted).await?;
        self.publish_what_comes(message_id).await;
        Ok(())
    }

    /// The same, without waiting for objects that are not there yet.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub(crate) async fn publish_what_is_there(
        &self,
        message_id: bool,
        wanted: impl Fn(u32) -> bool,
    ) -> Result<()> {
        self.shared.awaited.clear();
        let specification = self.shared.plan.specification.clone();
        let mut list = self.shared.plan.inputs.as_ref().map(|inputs| inputs.stream());
        let most =
            if self.shared.inputs.is_some() { limits::OBJECTS_PUT } else { limits::SUBMIT_WINDOW };
        let mut under_way = FuturesUnordered::new();
        self.shared.window.open();
        let mut forming = None;
        'tasks: for index in 0..specification.tasks {
            let entry = match &mut list {
                Some(list) => {
                    let entry = list.recv().await.context("the list of inputs is too short")??;
                    Some(self.shared.plan.now(index, entry))
                }
                None => None,
            };
            let is_cut = !self.shared.plan.waits_for_twin(index);
            let blocks = self.shared.plan.open_blocks(index);
            let blocks = blocks.filter(|block| is_cut && wanted(*block));
            let blocks: Vec<_> = blocks.collect();
            // Of the few files that are cut alone.
            let cut = entry.as_ref().filter(|_| !blocks.is_empty()).cloned();
            let blocks = blocks.into_iter().zip(cut.into_iter().cycle());
            let blocks = blocks.map(|(block, entry)| Next::Block(block, entry));
            let next = next(&self.shared.plan, index, entry, &mut forming, &wanted);
            let next = next.into_iter().flatten();
            for next in next.chain(blocks) {
                if under_way.len() >= most {
                    under_way.next().await;
                }
                if self.gave_way() {
                    break 'tasks;
                }
                // Those whose turn tokio puts off for the sake of others have it in reverse.
                under_way.push(unconstrained(self.send(next, message_id)));
            }
        }
        while under_way.next().await.is_some() {}
        Ok(())
    }

    async fn send(&self, next: Next, message_id: bool) {
        match next {
            Next::Task(index, round, entry) => self.one(index, round, entry, message_id).await,
            Next::Block(block, entry) => self.block(block, &entry, message_id).await,
            Next::Pack(pack) => self.pack(pack, message_id).await,
        }
    }

    async fn block(&self, block: u32, entry: &InputEntry, message_id: bool) {
        let Shared { plan, .. } = &*self.shared;
        let Some(section) = plan.section(block) else { return };
        let key = (block, plan.ledger.round(block));
        if !plan.is_task_open(key) {
            return; // since its file was looked at
        }
        let input = || InputFile { section: Some(section.1), ..entry.clone().into() };
        if !self.put(key, input).await {
            return;
        }
        let task = plan.specification.block_descriptor(key, entry, section);
        self.deliver(&task, message_id).await;
    }

    async fn pack(&self, pack: Forming, message_id: bool) {
        if !pack.parts.is_empty() {
            return self.pack_of_parts(pack, message_id).await;
        }
        let Forming { first, entry, files, mut bytes, members, .. } = pack;
        let specification = &self.shared.plan.specification;
        if let Some(bucket) = &self.shared.inputs {
            let each = members.len() as u64 * limits::TAR_EACH_BYTES + limits::TAR_END_BYTES;
            let of = InputOf::Pack(first);
            let Some(share) = Box::pin(self.shared.window.enter(of, bytes + each)).await else {
                return;
            };
            let members = Members::from(members);
            let extension = specification.codec_of(Some(&entry)).extension();
            let put = || put_tar(bucket, first, members.clone(), extension);
            match Box::pin(self.persist_input(bytes + each, put)).await {
                Ok(Some((info, put))) => {
                    bytes = put;
                    self.note_input(of, info, share).await;
                }
                Ok(None) => {
                    let text = "no file of the pack can be read; each is run alone";
                    let failed = Failed::new(Cause::InputMissing, text);
                    return Box::pin(self.fail(first, 0, failed)).await;
                }
                Err(failed) => return Box::pin(self.fail(first, 0, failed)).await,
            }
        }
        let task = specification.pack_descriptor(first, &entry, files, bytes);
        self.deliver(&task, message_id).await;
    }

    async fn one(&self, index: u32, round: u32, entry: Option<InputEntry>, message_id: bool) {
        let specification = &self.shared.plan.specification;
        // It was refused when the bag was made; another round is begun to try it all the same.
        let nothing_to_try =
            |entry: &&InputEntry| specification.restores() && entry.stream.is_none();
        if let Some(entry) = entry.as_ref().filter(|entry| round == 0 || nothing_to_try(entry))
            && let Some(failed) = entry.refused.clone()
        {
            return Box::pin(self.fail(index, round, failed)).await;
        }
        let entry = match entry {
            Some(entry) if entry.reference.is_some() => {
                let Some(entry) = Box::pin(self.there((index, round), entry)).await else { return };
                Some(entry)
            }
            entry => entry,
        };
        if let Some(entry) = entry.as_ref().filter(|entry| entry.is_file())
            && !self.put((index, round), || entry.clone().into()).await
        {
            return;
        }
        self.deliver(&specification.descriptor(index, round, entry.as_ref()), message_id).await;
    }

    /// Puts the input of a task into the bucket, if inputs travel as objects. Returns whether the task is to be delivered:
    /// not one that fails for its input, nor any when publishing gives way.
    async fn put(&self, (index, round): Key, input: impl FnOnce() -> InputFile) -> bool {
        let Some(bucket) = &self.shared.inputs else { return true };
        let input = input();
        let (of, bytes) = (InputOf::Task(index), input.taken_bytes());
        let Some(share) = Box::pin(self.shared.window.enter(of, bytes)).await else {
            return false;
        };
        let put = || put_file(bucket, index, input.clone());
        match Box::pin(self.persist_input(bytes, put)).await {
            Ok(info) => self.note_input(of, info, share).await,
            Err(failed) => {
                Box::pin(self.fail(index, round, failed)).await;
                return false;
            }
        }
        true
    }

    /// Brings a descriptor into the queue, or to who offers it.
    async fn deliver(&self, task: &TaskDescriptor, message_id: bool) {
        self.shared.first.get_or_init(Instant::now);
        if let Some(hand_in) = &self.shared.hand_in {
            let key = (task.index, task.round);
            return hand_in.offer(Offerable { key, descriptor: task.encode().into() }).await;
        }
        let pool = &self.shared.plan.specification.pool;
        let submit = async || {
            self.shared.broker.submit(pool, task, message_id).await?.await?;
            Ok(())
        };
        self.persist(submit).await;
        self.shared.obstacle.clear();
    }

    /// Sends until the broker has it, and says meanwhile what is waited for.
    async fn persist<Sent: Future<Output = Result<(), Error>>>(&self, send: impl FnMut() -> Sent) {
        let waits = |error: &Error| {
            if self.waiting().is_none() {
                info!(%error, "publishing waits");
            }
            self.shared.obstacle.set(error.to_string());
            true
        };
        Retry::unbounded().run(send, waits).await.ok(); // every error is waited out
    }

    /// Puts an input of so many bytes into the bucket, until it is there or cannot be read.
    async fn persist_input<T, Putting: Future<Output = Result<T, NotPut>>>(
        &self,
        bytes: u64,
        put: impl FnMut() -> Putting,
    ) -> Result<T, Failed> {
        let chunks = (bytes / limits::CHUNK_BYTES as u64 + 1).min(limits::WINDOW_MAX as u64);
        let chunks = u32::try_from(chunks).unwrap_or(u32::MAX);
        let _in_flight = self.shared.chunks.acquire_many(chunks).await;
        let passes = |error: &NotPut| match error {
            NotPut::Input(failed) => {
                let passes = failed.cause.is_transient();
                if passes {
                    self.shared.obstacle.set(failed.message.clone());
                }
                passes
            }
            NotPut::Bucket(error) => {
                self.shared.obstacle.set(error.to_string());
                let gone = matches!(error, object_ref::Error::NoBucket { .. });
                self.shared.inputs_gone.fetch_or(gone, Relaxed);
                error.is_transient() || gone
            }
        };
        let put = Retry::unbounded().run(put, passes).await.map_err(|error| match error {
            NotPut::Input(failed) => failed,
            NotPut::Bucket(error) => Failed::new(Cause::TransferError, error.to_string()),
        });
        self.shared.obstacle.clear();
        put
    }

    /// Notes that an input is in the bucket, where it has its `share` of the window.
    async fn note_input(&self, of: InputOf, info: Info, share: Share) {
        self.shared.window.note(of, info, share);
        let plan = &self.shared.plan;
        let is_decided = match of {
            InputOf::Task(index) => !plan.is_task_open((index, plan.ledger.round(index))),
            InputOf::Pack(first) => !plan.is_open((first, 0)),
        };
        if is_decided {
            // Meanwhile, by an execution that outlived what the broker forgot: nobody else frees it.
            self.free(vec![of]).await;
        }
    }

    /// Makes the failure of a task that can never be published its outcome.
    async fn fail(&self, index: u32, round: u32, failed: Failed) {
        let bag = &self.shared.plan.specification.bag;
        self.shared.first.get_or_init(Instant::now);
        let result = failure(bag, (index, round), 1, failed);
        if let Some(hand_in) = &self.shared.hand_in {
            return hand_in.fail(result).await;
        }
        self.persist(async || self.shared.broker.commit(&result).await.map(drop)).await;
    }
}
