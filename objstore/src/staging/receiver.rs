//! The gatherer's side: opens, chunks, closes and inputs of one bag, served from one subscription.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
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
use super::messages::{
    CLOSE, CRC, Came, Chunked, Close, Closed, FAILED, Go, InputRequest, OFFSET, Open, Opened,
    Share, SharedInput,
};
use super::parts::{Parts, Target, hash_file, mtime_ns, remove_if_there, write_part};
use super::sync::Syncer;
use crate::error::is_full;

/// An upload without a chunk for this long is forgotten; a later chunk takes it up from its file.
const IDLE: Duration = Duration::from_secs(30);

/// A file that is a task's input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFile {
    /// Its absolute path.
    pub path: PathBuf,
    /// Its size when the bag was made.
    pub bytes: u64,
    /// Its modification time then, ns since 1970.
    pub mtime_ns: i64,
    /// Its inode then.
    pub inode: u64,
}

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
    inputs: Mutex<Vec<(u32, Arc<File>)>>,
    requests: Arc<Semaphore>,
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
            inputs: Mutex::default(),
            requests: Arc::new(Semaphore::new(limits::UPLOADS_MAX)),
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
        let full = self.parts.full(bytes);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&full);
        full
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
        let mut incoming = match spawn_blocking(move || Incoming::resume(&opening)).await {
            Ok(Ok(incoming)) => incoming,
            Ok(Err(error)) => return warn!(%error, part = %part.display(), "part file not opened"),
            Err(error) => return warn!(%error, "part file not opened"),
        };
        while let Ok(Some(message)) = tokio::time::timeout(IDLE, chunks.recv()).await {
            if let Some(result) = self.plan.decided(index, round) {
                drop(incoming);
                let removed = remove_if_there(&part);
                debug!(ok = removed.is_ok(), "part file of a decided task removed");
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
                let written = spawn_blocking(move || incoming.write(&payload)).await;
                incoming = match written {
                    Ok(Ok(incoming)) => incoming,
                    Ok(Err(error)) => {
                        let reason = format!("{}: {error}", part.display());
                        return self.turn_away(&message, &part, reason).await;
                    }
                    Err(error) => return warn!(%error, "chunk not written"),
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
        let removed = remove_if_there(part);
        debug!(ok = removed.is_ok(), reason, "an upload was asked to wait");
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
            let removed = remove_if_there(&part);
            debug!(ok = removed.is_ok(), "part file of a decided task removed");
            return self.answer(message, &Closed::HaveIt(Box::new(result))).await;
        }
        let inline = (close.came == Came::Inline).then(|| message.payload.clone());
        if let Some(reason) = inline.as_ref().and_then(|bytes| self.room(bytes.len() as u64)) {
            return self.answer(message, &Closed::Wait { reason }).await;
        }
        let (path, bytes, digest) = (part.clone(), close.bytes, close.digest);
        let checked = spawn_blocking(move || {
            if let Some(inline) = inline {
                write_part(&path, &inline).map_err(|e| (e.kind(), e.to_string()))?;
            }
            let found = hash_file(&path).map_err(|e| (e.kind(), e.to_string()))?;
            if found == (digest, bytes) {
                return Ok(());
            }
            let text = format!(
                "{} bytes, {} arrived; {bytes} bytes, {digest} announced",
                found.1, found.0
            );
            Err((std::io::ErrorKind::InvalidData, text))
        })
        .await;
        let answer = match checked {
            Ok(Ok(())) => self.durable(&close, &part).await,
            Ok(Err((kind, reason))) if is_full(kind) => Closed::Wait { reason },
            Ok(Err((_, message))) => Closed::Mismatch { message },
            Err(error) => Closed::Mismatch { message: error.to_string() },
        };
        if matches!(answer, Closed::Wait { .. }) {
            let removed = remove_if_there(&part);
            debug!(ok = removed.is_ok(), "an upload was asked to wait");
        }
        self.answer(message, &answer).await;
    }

    async fn durable(&self, close: &Close, part: &std::path::Path) -> Closed {
        let dressed =
            self.plan.target(close.index).and_then(|target| self.parts.dress(part, &target));
        let synced = match dressed {
            Ok(()) => self.syncer.sync().await,
            Err(error) => Err(error),
        };
        match synced {
            Ok(()) => Closed::Durable,
            Err(error) => Closed::Wait { reason: format!("{}: {error}", part.display()) },
        }
    }

    async fn input(self: &Arc<Self>, message: &Message) {
        let Ok(request) = decode_json::<InputRequest>(&message.payload) else { return };
        let shared = self.clone();
        let read = spawn_blocking(move || shared.read_input(&request)).await;
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

    fn read_input(&self, request: &InputRequest) -> Result<Vec<u8>, Failed> {
        let unreadable =
            |error: std::io::Error| Failed::new(Cause::InputUnreadable, error.to_string());
        let input = self.plan.input(request.index).map_err(unreadable)?;
        let file = self.open_input(request.index, &input)?;
        let left = input.bytes.saturating_sub(request.offset);
        let wanted = request.bytes.min(left).min(limits::CHUNK_BYTES as u64);
        let mut buffer = vec![0; usize::try_from(wanted).unwrap_or(0)];
        let shorter = |_| changed(&input, "it became shorter");
        file.read_exact_at(&mut buffer, request.offset).map_err(shorter)?;
        // After the read: what was read before a change is what the bag was made of.
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.len() != input.bytes || mtime_ns(&metadata) != input.mtime_ns {
            return Err(changed(&input, "its size or time is another"));
        }
        Ok(buffer)
    }

    fn open_input(&self, index: u32, input: &InputFile) -> Result<Arc<File>, Failed> {
        let mut inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = inputs.iter().position(|(i, _)| *i == index) {
            let entry = inputs.remove(at);
            let file = entry.1.clone();
            inputs.push(entry);
            return Ok(file);
        }
        let file = open_unchanged(input)?;
        if inputs.len() >= limits::OPEN_INPUTS_MAX {
            inputs.remove(0);
        }
        inputs.push((index, Arc::new(file)));
        Ok(inputs[inputs.len() - 1].1.clone())
    }
}

fn changed(input: &InputFile, how: &str) -> Failed {
    let text = format!("{} changed since the bag was made: {how}", input.path.display());
    Failed::new(Cause::InputChanged, text)
}

/// Opens an input, and checks that it is the file that the bag was made of.
///
/// # Errors
///
/// [`Cause::InputMissing`], [`Cause::InputUnreadable`] or [`Cause::InputChanged`]: all permanent.
pub fn open_unchanged(input: &InputFile) -> Result<File, Failed> {
    let cause = |error: &std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Cause::InputMissing,
        _ => Cause::InputUnreadable,
    };
    let failed = |error: std::io::Error| {
        Failed::new(cause(&error), format!("{}: {error}", input.path.display()))
    };
    let file = File::open(&input.path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.len() != input.bytes
        || mtime_ns(&metadata) != input.mtime_ns
        || metadata.ino() != input.inode
    {
        return Err(changed(input, "its size, time or inode is another"));
    }
    Ok(file)
}

/// The task that an upload's token names.
#[must_use]
pub(super) fn xfer(id: &TaskId, execution: &Execution) -> String {
    format!("{}_{}-{execution}", id.index, id.round)
}
