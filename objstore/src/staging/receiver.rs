//! The gatherer's side: opens, chunks, closes and inputs of one bag, served from one subscription.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::{HeaderMap, Message, Subject};
use bagpress_broker::descriptor::decode_json;
use bagpress_broker::ids::{BagId, Execution, TaskId};
use bagpress_broker::result::{Cause, Failed, TaskResult};
use bagpress_broker::{Broker, Error, limits, subjects};
use bytes::Bytes;
use futures::StreamExt;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tracing::debug;

use super::budget::{Budget, Charge};
use super::inputs::{InputFile, Inputs};
use super::known::Known;
use super::messages::{
    CLOSE, CRC, FAILED, Go, InputRequest, OFFSET, Open, Opened, Share, SharedInput,
};
use super::parts::{Parts, Target};
use super::room::Room;
use super::settle::Settling;
use super::sync::Syncer;
use super::uploads::Piece;

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
    known: Mutex<Known<Piece>>,
    pub(super) budget: Budget,
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

/// Something that is asked, until it is answered: what it takes of the budget is taken for so long.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) reply: Option<Subject>,
    pub(super) payload: Bytes,
    pub(super) charge: Charge,
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
            known: Mutex::new(Known::new(uploads_max())),
            budget: Budget::default(),
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
            // Nothing is waited for: what a subscription's buffer holds is bounded by its number alone, so it is kept
            // empty, and what is kept is bounded by the budget.
            tokio::task::unconstrained(async move {
                while let Some(message) = subscriber.next().await {
                    shared.dispatch(&message);
                }
            })
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
    /// Decides what is kept of a message. Does not wait, and reads nothing.
    fn dispatch(self: &Arc<Self>, message: &Message) {
        let what = message.subject.as_str().strip_prefix("bag.up.").unwrap_or_default();
        let what = what.split_once('.').map_or("", |(_, what)| what);
        let header = |name| message.headers.as_ref()?.get(name).map(|v| v.as_str().to_owned());
        let (reply, payload) = (message.reply.clone(), &message.payload);
        match what {
            "close" => return self.close_arrived(header(CLOSE), reply, payload),
            "open" | "input" | "full" => {}
            _ => {
                if let Some((id, execution)) = what.strip_prefix("x.").and_then(parse_xfer) {
                    let offset = header(OFFSET).and_then(|v| v.parse().ok()).unwrap_or(u64::MAX);
                    self.chunk_arrived(execution, id, offset, reply, payload);
                }
                return;
            }
        }
        if payload.len() > limits::MESSAGE_BYTES_MAX {
            return debug!(subject = %message.subject, "longer than a message is");
        }
        // Of a sender who has this much under way already no more is kept, and it asks again.
        let Some(asked) = self.asked(reply, payload) else { return };
        let kind = what.to_owned();
        self.serve(|shared| async move {
            match kind.as_str() {
                "open" => shared.open(&asked).await,
                "input" => shared.input(&asked).await,
                _ => shared.full(&asked),
            }
        });
    }

    /// Serves something when its turn comes. What waits for one has its part of the budget, which bounds how much that is.
    pub(super) fn serve<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(Arc<Self>) -> F,
    ) {
        let (requests, serving) = (self.requests.clone(), work(self.clone()));
        tokio::spawn(async move {
            let _turn = requests.acquire().await;
            serving.await;
        });
    }

    /// Takes room for a message, and a copy of it: the buffer that it came in may be far larger.
    pub(super) fn asked(&self, reply: Option<Subject>, payload: &Bytes) -> Option<Asked> {
        let inbox = reply.as_ref().map_or("", |reply| reply.as_str());
        let charge = self.budget.take(inbox, payload.len())?;
        Some(Asked { reply, payload: Bytes::copy_from_slice(payload), charge })
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known<Piece>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn answer(&self, asked: &Asked, answer: &impl Serialize) {
        let payload = serde_json::to_vec(answer).unwrap_or_default();
        self.reply(asked, HeaderMap::new(), payload.into()).await;
    }

    async fn reply(&self, asked: &Asked, headers: HeaderMap, payload: Bytes) {
        let Some(reply) = asked.reply.clone() else { return };
        let client = self.broker.client();
        let sent = client.publish_with_headers(reply, headers, payload).await;
        if let Err(error) = sent {
            debug!(%error, "answer not sent");
        }
    }

    async fn open(&self, message: &Asked) {
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
        self.known().open(&open.execution, (open.index, open.round));
        // How many upload at the same time is known when the first chunk is there.
        self.answer(message, &Opened::Go(Go { window: 1, offset, share })).await;
    }

    async fn input(self: &Arc<Self>, message: &Asked) {
        let Ok(request) = decode_json::<InputRequest>(&message.payload) else { return };
        // Until it is sent: what waits for the connection takes memory too.
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
        self.broker.client().flush().await.ok();
    }
}

/// How many uploads may have begun: each has a file open while it is written, and so have others.
fn uploads_max() -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    limits::UPLOADS_MAX.min(files / 2).max(1)
}

/// The (index, round) and execution that an upload's token names.
fn parse_xfer(xfer: &str) -> Option<((u32, u32), Execution)> {
    let (id, execution) = xfer.split_once('-')?;
    let (index, round) = id.split_once('_')?;
    Some(((index.parse().ok()?, round.parse().ok()?), execution.parse().ok()?))
}

/// The token of an upload.
#[must_use]
pub(super) fn xfer(id: &TaskId, execution: &Execution) -> String {
    format!("{}_{}-{execution}", id.index, id.round)
}
