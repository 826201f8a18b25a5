//! The gatherer's side: opens, chunks, closes and inputs of one bag, served from one subscription.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
use tracing::{debug, warn};

use super::incoming::Incoming;
use super::inputs::{InputFile, Inputs};
use super::messages::{
    CLOSE, CRC, Came, Chunked, Close, Closed, FAILED, Go, InputRequest, OFFSET, Open, Opened,
    Share, SharedInput,
};
use super::parts::{Parts, Target, hash_file, remove_if_there, write_part};
use super::sync::Syncer;
use crate::error::is_full;

/// An upload without a chunk for this long is forgotten; a later chunk takes it up from its file.
const IDLE: Duration = Duration::from_secs(30);

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
struct Shared {
    broker: Broker,
    parts: Arc<Parts>,
    plan: Arc<dyn Plan>,
    syncer: Syncer,
    uploads: Mutex<HashMap<Execution, Active>>,
    inputs: Inputs,
    requests: Arc<Semaphore>,
    /// What may wait for the disk of the outputs at a time; the rest waits for its turn, without a thread.
    disk: Arc<Semaphore>,
    /// What may wait for the disk of the inputs, which may be another one.
    input_disk: Semaphore,
    waiting: Mutex<Option<String>>,
}

/// An upload whose chunks arrive.
#[derive(Debug)]
struct Active {
    chunks: mpsc::Sender<Message>,
    /// Chunks that it may have under way.
    window: usize,
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
            inputs: Inputs::default(),
            requests: Arc::new(Semaphore::new(limits::UPLOADS_MAX)),
            disk: Arc::new(Semaphore::new(limits::file_threads())),
            input_disk: Semaphore::new(limits::file_threads()),
            waiting: Mutex::default(),
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
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
                _ => debug!(subject = %message.subject, "unknown request"),
            }
        });
    }

    async fn answer(&self, message: &Message, answer: &impl Serialize) {
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

    fn room(&self, bytes: u64) -> Option<String> {
        let full = self.parts.hangs().or_else(|| self.parts.full(bytes));
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&full);
        full
    }

    /// Does what may wait for the disk, or says that it waits; then it is done some time, for nobody, or never if its
    /// turn had not come.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<std::io::Result<T>, String> {
        let working = on_disk(self.disk.clone(), self.parts.clone(), work);
        match tokio::time::timeout(limits::DISK_WAIT, working).await {
            Ok(done) => Ok(done),
            Err(_) => Err(self.parts.unanswered(limits::DISK_WAIT)),
        }
    }

    /// Removes a part file before anything is answered, unless the disk hangs: then some time.
    async fn remove_first(&self, part: &std::path::Path) {
        let removing = self.remove(part);
        tokio::time::timeout(limits::DISK_WAIT, removing).await.ok();
    }

    /// Removes a part file some time, whether or not that is waited for.
    fn remove(&self, part: &std::path::Path) -> tokio::task::JoinHandle<()> {
        let (disk, parts, part) = (self.disk.clone(), self.parts.clone(), part.to_owned());
        tokio::spawn(async move {
            let path = part.clone();
            let removed = on_disk(disk, parts, move || remove_if_there(&path)).await;
            debug!(ok = removed.is_ok(), part = %part.display(), "part file removed");
        })
    }

    /// How many chunks an upload may have under way from now on: its share of what all of them may,
    /// as far as the others, which learn of their smaller share later, leave it.
    fn window(&self, execution: &Execution) -> usize {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let all = limits::WINDOWS_BYTES / limits::CHUNK_BYTES;
        let share = (all / uploads.len().max(1)).min(limits::WINDOW_MAX);
        let granted: usize = uploads.values().map(|upload| upload.window).sum();
        let Some(upload) = uploads.get_mut(execution) else { return 1 };
        let left = (all + upload.window).saturating_sub(granted);
        upload.window = share.min(left).max(1);
        upload.window
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
        if let Some(reason) = self.room(0) {
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

    fn chunk(self: &Arc<Self>, execution: Execution, id: (u32, u32), message: Message) {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upload) = uploads.get(&execution)
            && !upload.chunks.is_closed()
        {
            // A sender that overruns its window loses the chunk, and is told the offset by the next.
            drop(upload.chunks.try_send(message));
            return;
        }
        if uploads.len() >= limits::UPLOADS_MAX {
            return;
        }
        let (sender, receiver) = mpsc::channel(limits::WINDOW_MAX * 2);
        drop(sender.try_send(message));
        uploads.insert(execution.clone(), Active { chunks: sender, window: 1 });
        drop(uploads);
        let shared = self.clone();
        tokio::spawn(async move {
            shared.upload(&execution, id, receiver).await;
            shared.uploads.lock().unwrap_or_else(PoisonError::into_inner).remove(&execution);
        });
    }

    /// Writes the chunks of one upload, in order, until it is closed or idle.
    async fn upload(
        &self,
        execution: &Execution,
        (index, round): (u32, u32),
        mut chunks: mpsc::Receiver<Message>,
    ) {
        let part = self.parts.part(index, round, execution);
        if let Some(result) = self.plan.decided(index, round) {
            // A chunk that was on its way when the task was decided must not bring its file back.
            let answer = Chunked::HaveIt(Box::new(result));
            while let Ok(message) = chunks.try_recv() {
                self.answer(&message, &answer).await;
            }
            return;
        }
        let opening = part.clone();
        let mut incoming = match self.on_disk(move || Incoming::resume(&opening)).await {
            Ok(Ok(incoming)) => incoming,
            Ok(Err(error)) => return warn!(%error, part = %part.display(), "part file not opened"),
            Err(reason) => {
                let Some(message) = chunks.recv().await else { return };
                return self.turn_away(&message, &part, reason).await;
            }
        };
        while let Ok(Some(message)) = tokio::time::timeout(IDLE, chunks.recv()).await {
            if let Some(result) = self.plan.decided(index, round) {
                drop(incoming);
                self.remove_first(&part).await;
                return self.answer(&message, &Chunked::HaveIt(Box::new(result))).await;
            }
            if let Some(close) = message.headers.as_ref().and_then(|h| h.get(CLOSE)) {
                let Ok(close) = decode_json::<Close>(close.as_str().as_bytes()) else { continue };
                let answer = match incoming.finish(close.bytes, &close.digest) {
                    Ok(()) => self.durable(&close, &part).await,
                    Err(message) => Closed::Mismatch { message },
                };
                return self.answer(&message, &answer).await;
            }
            let offset = message.headers.as_ref().and_then(|h| h.get(OFFSET));
            let offset: Option<u64> = offset.and_then(|v| v.as_str().parse().ok());
            if offset == Some(incoming.offset()) {
                if let Some(reason) = self.room(message.payload.len() as u64) {
                    return self.turn_away(&message, &part, reason).await;
                }
                let payload = message.payload.clone();
                let written = self.on_disk(move || incoming.write(&payload)).await;
                let written = written.and_then(|written| {
                    written.map_err(|error| format!("{}: {error}", part.display()))
                });
                incoming = match written {
                    Ok(incoming) => incoming,
                    Err(reason) => return self.turn_away(&message, &part, reason).await,
                };
            }
            let window = self.window(execution);
            let next = Chunked::Next { offset: incoming.offset(), window };
            self.answer(&message, &next).await;
        }
    }

    /// Asks a worker to come again later. It will as another execution: what this one left would only
    /// take the room that is missing.
    async fn turn_away(&self, message: &Message, part: &std::path::Path, reason: String) {
        debug!(reason, "an upload was asked to wait");
        self.remove(part);
        self.answer(message, &Chunked::Wait { reason }).await;
    }

    async fn close(self: &Arc<Self>, message: &Message) {
        let header = message.headers.as_ref().and_then(|h| h.get(CLOSE));
        let Some(close) = header.and_then(|v| decode_json::<Close>(v.as_str().as_bytes()).ok())
        else {
            let answer = Closed::Mismatch { message: "the CLOSE is not readable".to_owned() };
            return self.answer(message, &answer).await;
        };
        if close.came == Came::Chunks {
            // Behind its chunks: the upload's own task answers.
            let (id, execution) = ((close.index, close.round), close.execution);
            return self.chunk(execution, id, message.clone());
        }
        let part = self.parts.part(close.index, close.round, &close.execution);
        if let Some(result) = self.plan.decided(close.index, close.round) {
            self.remove_first(&part).await;
            return self.answer(message, &Closed::HaveIt(Box::new(result))).await;
        }
        let inline = (close.came == Came::Inline).then(|| message.payload.clone());
        if let Some(reason) = inline.as_ref().and_then(|bytes| self.room(bytes.len() as u64)) {
            return self.answer(message, &Closed::Wait { reason }).await;
        }
        let (path, bytes, digest) = (part.clone(), close.bytes, close.digest);
        let checking = self.on_disk(move || {
            if let Some(inline) = inline {
                write_part(&path, &inline)?;
            }
            let found = hash_file(&path)?;
            if found == (digest, bytes) {
                return Ok(());
            }
            let text = format!(
                "{} bytes, {} arrived; {bytes} bytes, {digest} announced",
                found.1, found.0
            );
            Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text))
        });
        let answer = match checking.await {
            Ok(Ok(())) => self.durable(&close, &part).await,
            Ok(Err(error)) if is_full(error.kind()) => Closed::Wait { reason: error.to_string() },
            Ok(Err(error)) => Closed::Mismatch { message: error.to_string() },
            Err(reason) => Closed::Wait { reason },
        };
        if let Closed::Wait { reason } = &answer {
            debug!(reason, "an upload was asked to wait");
            self.remove(&part);
        }
        self.answer(message, &answer).await;
    }

    async fn durable(&self, close: &Close, part: &std::path::Path) -> Closed {
        let target = match self.plan.target(close.index) {
            Ok(target) => target,
            Err(error) => return Closed::Wait { reason: format!("{}: {error}", part.display()) },
        };
        if target.attributes.is_some() {
            let (parts, path) = (self.parts.clone(), part.to_owned());
            match self.on_disk(move || parts.dress(&path, &target)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    return Closed::Wait { reason: format!("{}: {error}", part.display()) };
                }
                Err(reason) => return Closed::Wait { reason },
            }
        }
        match tokio::time::timeout(limits::DISK_WAIT, self.syncer.sync()).await {
            Ok(Ok(())) => Closed::Durable,
            Ok(Err(error)) => Closed::Wait { reason: format!("{}: {error}", part.display()) },
            Err(_) => Closed::Wait { reason: self.parts.unanswered(limits::DISK_WAIT) },
        }
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

/// Does what may wait for the disk when its turn comes, on a thread of its own. Once begun, it is done even if nobody
/// waits for it any more.
async fn on_disk<T: Send + 'static>(
    disk: Arc<Semaphore>,
    parts: Arc<Parts>,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    let turn = disk.acquire_owned().await;
    // Only now: whoever waits for a turn does not wait for the disk.
    let under_way = parts.begin();
    // Back with what was done, so that the thread is idle before whoever is next looks for one.
    let working = spawn_blocking(move || {
        let done = work();
        drop(under_way);
        (done, turn)
    });
    match working.await {
        Ok((done, _turn)) => done,
        Err(error) => Err(std::io::Error::other(error)),
    }
}

/// The task that an upload's token names.
#[must_use]
pub(super) fn xfer(id: &TaskId, execution: &Execution) -> String {
    format!("{}_{}-{execution}", id.index, id.round)
}
