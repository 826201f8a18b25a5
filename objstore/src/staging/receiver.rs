//! The gatherer's side: opens, chunks, closes and inputs of one bag, served from one subscription.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_nats::{HeaderMap, Message};
use bagpress_broker::descriptor::decode_json;
use bagpress_broker::ids::{BagId, Execution, TaskId};
use bagpress_broker::result::{Cause, Failed, TaskResult};
use bagpress_broker::{Broker, Error, limits, subjects};
use bytes::Bytes;
use futures::StreamExt;
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tracing::debug;

use super::inputs::{InputFile, Inputs};
use super::messages::{CRC, FAILED, Go, InputRequest, Open, Opened, Share, SharedInput};
use super::parts::{Parts, Target};
use super::room::Room;
use super::settle::Settling;
use super::sync::Syncer;

/// What the receiver must know of its bag.
pub trait Plan: std::fmt::Debug + Send + Sync + 'static {
    /// The outcome of a task, if its round, or a later one, has one in the ledger.
    fn decided(&self, index: u32, round: u32) -> Option<TaskResult>;
    /// Where a task's output belongs.
    ///
    /// # Errors
    ///
    /// If there is no such task, or the specification cannot be read.
    fn target(&self, index: u32) -> std::io::Result<Target>;
    /// The file that a task compresses.
    ///
    /// # Errors
    ///
    /// If there is no such task, or it has no file, or the specification cannot be read.
    fn input(&self, index: u32) -> std::io::Result<InputFile>;
    /// Whether outputs may be handed over by path.
    fn by_path(&self) -> bool;
    /// Most bytes that the output of an input of so many can have.
    fn output_bytes_max(&self, input_bytes: u64) -> u64;
}

/// Serves the uploads and inputs of one bag until it is dropped.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    broker: Broker,
    pub(super) parts: Arc<Parts>,
    pub(super) plan: Arc<dyn Plan>,
    pub(super) syncer: Syncer,
    pub(super) uploads: Mutex<HashMap<Execution, Active>>,
    /// Large outputs that may be read back at a time.
    pub(super) large: Semaphore,
    /// Outputs that are being made durable behind their CLOSE.
    pub(super) settling: Settling,
    pub(super) inputs: Inputs,
    requests: Arc<Semaphore>,
    /// What may wait for the disk of the outputs at a time; the rest waits for its turn, without a thread.
    pub(super) disk: Arc<Semaphore>,
    /// What may wait for the disk of the inputs, which may be another one.
    input_disk: Semaphore,
    pub(super) room: Room,
}

/// An upload whose chunks arrive.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) chunks: mpsc::Sender<Message>,
    /// Chunks that it may have under way.
    pub(super) window: usize,
}

impl Receiver {
    /// Starts to serve `bag`, whose outputs live in `parts`.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`], or [`Error::Io`] if the sync thread cannot start.
    pub async fn start(
        broker: &Broker,
        bag: &BagId,
        parts: Arc<Parts>,
        plan: Arc<dyn Plan>,
    ) -> Result<Self, Error> {
        let subscriber = broker.client().subscribe(subjects::uploads_of(bag)).await;
        let mut subscriber = subscriber.map_err(|e| Error::lost("serve uploads")(&e))?;
        let syncer = Syncer::start(parts.clone()).map_err(|source| Error::Io {
            what: "start the sync thread for",
            path: parts.root().to_owned(),
            source,
        })?;
        let shared = Arc::new(Shared {
            broker: broker.clone(),
            parts,
            plan,
            syncer,
            uploads: Mutex::default(),
            large: Semaphore::new(limits::LARGE_OUTPUTS_READ),
            settling: Settling::default(),
            inputs: Inputs::default(),
            requests: Arc::new(Semaphore::new(limits::UPLOADS_MAX)),
            disk: Arc::new(Semaphore::new(limits::file_threads())),
            input_disk: Semaphore::new(limits::file_threads()),
            room: Room::default(),
        });
        let serving = tokio::spawn({
            let shared = shared.clone();
            async move {
                while let Some(message) = subscriber.next().await {
                    shared.dispatch(message).await;
                }
            }
        });
        Ok(Self { shared, serving })
    }

    /// Why uploads are being asked to wait, if they are.
    #[must_use]
    pub fn waiting(&self) -> Option<String> {
        self.shared.room.waiting(&self.shared.parts)
    }

    /// Why nothing can be written to the outputs' folder any more, if a worker asked in vain.
    #[must_use]
    pub fn gone(&self) -> Option<String> {
        self.shared.room.gone()
    }

    /// Notes that a task has its outcome.
    pub fn decided(&self, index: u32) {
        self.shared.room.decided(index);
    }

    /// Where uploads go.
    #[must_use]
    pub fn parts(&self) -> &Arc<Parts> {
        &self.shared.parts
    }

    /// The syncer of the outputs' file system.
    #[must_use]
    pub fn syncer(&self) -> &Syncer {
        &self.shared.syncer
    }
}

impl Shared {
    async fn dispatch(self: &Arc<Self>, message: Message) {
        let what = message.subject.as_str().strip_prefix("bag.up.").unwrap_or_default();
        let what = what.split_once('.').map_or("", |(_, what)| what).to_owned();
        if let Some(xfer) = what.strip_prefix("x.") {
            let execution = xfer.split_once('-').and_then(|(_, e)| e.parse().ok());
            let index = xfer.split_once('-').and_then(|(i, _)| i.split_once('_'));
            let id = index.and_then(|(i, r)| Some((i.parse().ok()?, r.parse().ok()?)));
            if let (Some(execution), Some(id)) = (execution, id) {
                self.chunk(execution, id, message);
            }
            return;
        }
        // The semaphore bounds what is under way; a subscription's buffer holds the rest.
        let Ok(permit) = self.requests.clone().acquire_owned().await else { return };
        let shared = self.clone();
        tokio::spawn(async move {
            let _permit = permit;
            match what.as_str() {
                "open" => shared.open(&message).await,
                "close" => shared.close(&message).await,
                "input" => shared.input(&message).await,
                "full" => shared.full(&message),
                _ => debug!(subject = %message.subject, "unknown request"),
            }
        });
    }

    pub(super) async fn answer(&self, message: &Message, answer: &impl Serialize) {
        let payload = serde_json::to_vec(answer).unwrap_or_default();
        self.reply(message, HeaderMap::new(), payload.into()).await;
    }

    async fn reply(&self, message: &Message, headers: HeaderMap, payload: Bytes) {
        let Some(reply) = message.reply.clone() else { return };
        let client = self.broker.client();
        let sent = client.publish_with_headers(reply, headers, payload).await;
        if let Err(error) = sent {
            debug!(%error, "answer not sent");
        }
    }

    async fn open(&self, message: &Message) {
        let open: Open = match decode_json(&message.payload) {
            Ok(open) => open,
            Err(error) => {
                let failed = Failed::new(Cause::BadDescriptor, error.to_string());
                return self.answer(message, &Opened::Refused(failed)).await;
            }
        };
        if let Some(result) = self.plan.decided(open.index, open.round) {
            return self.answer(message, &Opened::HaveIt(Box::new(result))).await;
        }
        if let Some(reason) = self.no_room(open.index, 0) {
            return self.answer(message, &Opened::Wait { reason }).await;
        }
        if let Err(error) = self.plan.target(open.index) {
            let failed = Failed::new(Cause::BadDescriptor, format!("no such task: {error}"));
            return self.answer(message, &Opened::Refused(failed)).await;
        }
        let part = self.parts.part(open.index, open.round, &open.execution);
        let offset = part.metadata().map_or(0, |metadata| metadata.len());
        // A message holds text: where a path is none, the bytes travel.
        let is_text = |path: &std::path::Path| path.to_str().is_some();
        let by_path = self.plan.by_path() && is_text(&part);
        let share = open.by_path.as_ref().filter(|_| by_path).map(|boot| {
            let (nonce_file, nonce) = self.parts.nonce();
            Share {
                nonce_file,
                nonce: nonce.to_owned(),
                part,
                same_kernel: *boot == super::boot_id(),
                input: self.plan.input(open.index).ok().filter(|file| is_text(&file.path)).map(
                    |file| SharedInput {
                        path: file.path,
                        bytes: file.bytes,
                        mtime_ns: file.mtime_ns,
                        inode: file.inode,
                    },
                ),
            }
        });
        // How many upload at the same time is known when the first chunk is there.
        self.answer(message, &Opened::Go(Go { window: 1, offset, share })).await;
    }

    async fn input(self: &Arc<Self>, message: &Message) {
        let Ok(request) = decode_json::<InputRequest>(&message.payload) else { return };
        let _turn = self.input_disk.acquire().await;
        let shared = self.clone();
        let read = spawn_blocking(move || shared.inputs.read(&*shared.plan, &request)).await;
        let read = read.unwrap_or_else(|e| Err(Failed::new(Cause::InputUnreadable, e.to_string())));
        let mut headers = HeaderMap::new();
        let payload = match read {
            Ok(bytes) => {
                headers.insert(CRC, format!("{:08x}", crc32fast::hash(&bytes)));
                bytes.into()
            }
            Err(failed) => {
                headers.insert(FAILED, serde_json::to_string(&failed).unwrap_or_default());
                Bytes::new()
            }
        };
        self.reply(message, headers, payload).await;
    }
}

/// The task that an upload's token names.
#[must_use]
pub(super) fn xfer(id: &TaskId, execution: &Execution) -> String {
    format!("{}_{}-{execution}", id.index, id.round)
}
