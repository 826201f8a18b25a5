//! The worker's side: asking leave, fetching inputs, uploading outputs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_nats::{HeaderMap, Message, RequestErrorKind};
use bagpress_broker::ids::{BagId, Execution, TaskId};
use bagpress_broker::result::{Cause, Failed, TaskResult};
use bagpress_broker::{Broker, limits, subjects};
use bagpress_codec::Digest;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::spawn_blocking;

use super::messages::{
    CLOSE, CRC, Came, Chunked, Close, Closed, FAILED, InputRequest, NoRoom, OFFSET, Open, Opened,
    Share,
};
use super::parts::part_name;
use super::receiver::xfer;
use super::shared::{Allowed, Proofs, Shared as SharedFolder};
use crate::{Fetched, StoreError, Stored};

/// A worker's view of the gatherers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stager {
    broker: Broker,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Where files may be handed over by path.
    allowed: Allowed,
    boot_id: String,
    /// Folders that were proved to be seen by their gatherer, too.
    proofs: Proofs,
    /// When a bag's gatherer was last found absent.
    absent: Mutex<HashMap<BagId, Instant>>,
}

/// The answer of a bag's gatherer.
#[derive(Debug)]
pub enum Permission {
    /// Execute the task.
    Go(Grant),
    /// The task's round has an outcome already; commit that.
    HaveIt(Box<TaskResult>),
    /// There is no room now: give back, no attempt is spent.
    Wait(String),
    /// Nobody gathers the bag now: give back, no attempt is spent.
    Absent,
    /// It can never succeed.
    Refused(Failed),
}

/// Leave to execute one task.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The task.
    pub id: TaskId,
    /// Who executes it.
    pub execution: Execution,
    /// Chunks that may be under way at a time.
    pub window: usize,
    /// A folder that both see, proved.
    pub share: Option<SharedFolder>,
}

impl Stager {
    /// Uses `broker`'s connection; hands files over by path where that is `allowed`.
    #[must_use]
    pub fn new(broker: &Broker, allowed: Allowed) -> Self {
        let shared = Shared {
            allowed,
            boot_id: super::boot_id(),
            proofs: Proofs::default(),
            absent: Mutex::default(),
        };
        Self { broker: broker.clone(), shared: Arc::new(shared) }
    }

    /// Asks the gatherer of a task's bag for leave to execute it.
    ///
    /// # Errors
    ///
    /// [`StoreError`], transient, if the answer is lost.
    pub async fn open(
        &self,
        id: &TaskId,
        execution: &Execution,
        by_path: bool,
    ) -> Result<Permission, StoreError> {
        if self.recently_absent(&id.bag) {
            return Ok(Permission::Absent);
        }
        let open = Open {
            v: limits::WIRE_VERSION,
            index: id.index,
            round: id.round,
            execution: execution.clone(),
            by_path: (by_path && self.shared.allowed.anything())
                .then(|| self.shared.boot_id.clone()),
        };
        let Some(opened) = self.ask::<Opened>(&id.bag, subjects::open(&id.bag), &open).await?
        else {
            return Ok(Permission::Absent);
        };
        Ok(match opened {
            Opened::Go(go) => {
                let share = match go.share {
                    Some(share) => {
                        self.proved(share, part_name(id.index, id.round, execution)).await
                    }
                    None => None,
                };
                let window = go.window.clamp(1, limits::WINDOW_MAX);
                Permission::Go(Grant {
                    id: id.clone(),
                    execution: execution.clone(),
                    window,
                    share,
                })
            }
            Opened::HaveIt(result) => Permission::HaveIt(result),
            Opened::Wait { reason } => Permission::Wait(reason),
            Opened::Refused(failed) => Permission::Refused(failed),
        })
    }

    /// Notes that somebody gathers a bag: the next task asks again.
    pub fn gathers(&self, bag: &BagId) {
        self.shared.absent.lock().unwrap_or_else(PoisonError::into_inner).remove(bag);
    }

    fn recently_absent(&self, bag: &BagId) -> bool {
        let mut absent = self.shared.absent.lock().unwrap_or_else(PoisonError::into_inner);
        absent.retain(|_, since| since.elapsed() < limits::GATHERER_ABSENT_FOR);
        absent.contains_key(bag)
    }

    /// The folder that a gatherer shares, if it is the one that it says.
    async fn proved(&self, share: Share, part: String) -> Option<SharedFolder> {
        let Shared { allowed, proofs, .. } = &*self.shared;
        if let Some(known) = proofs.recall(allowed, &share, &part) {
            return Some(known);
        }
        let proving = self.clone();
        // A disk that hangs keeps a thread of its own waiting, not those of everybody.
        let proved = spawn_blocking(move || {
            let Shared { allowed, proofs, .. } = &*proving.shared;
            proofs.prove(allowed, &share, &part)
        });
        proved.await.ok().flatten()
    }

    /// One request to a bag's gatherer; None if nobody gathers it.
    async fn ask<T: DeserializeOwned>(
        &self,
        bag: &BagId,
        subject: String,
        request: &impl Serialize,
    ) -> Result<Option<T>, StoreError> {
        let payload = serde_json::to_vec(request).map_err(|e| StoreError::lost("ask", &e))?;
        let answer = self.request(bag, subject, HeaderMap::new(), payload.into()).await?;
        answer.map(|message| read(&message)).transpose()
    }

    async fn request(
        &self,
        bag: &BagId,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Option<Message>, StoreError> {
        match self.broker.client().request_with_headers(subject, headers, payload).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                let mut absent = self.shared.absent.lock().unwrap_or_else(PoisonError::into_inner);
                absent.insert(bag.clone(), Instant::now());
                Ok(None)
            }
            Err(error) => Err(StoreError::lost("ask the gatherer", &error)),
        }
    }

    /// Fetches an input of about `bytes` bytes, in windowed chunks, in order and to its end, into `sink`; ends early if
    /// `sink` is closed.
    ///
    /// # Errors
    ///
    /// What the gatherer said of the file, [`Cause::InputDigest`] for a chunk that was changed on its
    /// way, [`Cause::GathererAbsent`].
    pub async fn fetch_input(
        &self,
        id: &TaskId,
        bytes: u64,
        sink: tokio::sync::mpsc::Sender<Result<Fetched, Failed>>,
    ) {
        const CHUNK: u64 = limits::CHUNK_BYTES as u64;
        // The last one is shorter than asked for, or empty. Behind it there is something only where a size is none.
        let expected = bytes / CHUNK + 1;
        let mut under_way: FuturesOrdered<_> = FuturesOrdered::new();
        let mut asked = 0;
        loop {
            while under_way.is_empty()
                || under_way.len() < limits::WINDOW_MAX / 2 && asked < expected
            {
                under_way.push_back(self.input_chunk(id, asked * CHUNK));
                asked += 1;
            }
            let Some(chunk) = under_way.next().await else { return };
            let ends = chunk.as_ref().map_or(true, |chunk| chunk.len() < limits::CHUNK_BYTES);
            let failed = chunk.is_err();
            if sink.send(chunk.map(Fetched::Bytes)).await.is_err() || failed {
                return;
            }
            if ends {
                // Closed means that nobody waits for the input any more.
                sink.send(Ok(Fetched::End)).await.ok();
                return;
            }
        }
    }

    async fn input_chunk(&self, id: &TaskId, offset: u64) -> Result<Bytes, Failed> {
        let bytes = limits::CHUNK_BYTES as u64;
        let request = InputRequest { v: limits::WIRE_VERSION, index: id.index, offset, bytes };
        let payload = serde_json::to_vec(&request).unwrap_or_default();
        let subject = subjects::input(&id.bag);
        let mut lost = String::new();
        for _ in 0..limits::GET_RETRIES {
            let sent = self
                .request(&id.bag, subject.clone(), HeaderMap::new(), payload.clone().into())
                .await;
            let message = match sent {
                Ok(Some(message)) => message,
                Ok(None) => {
                    return Err(Failed::new(Cause::GathererAbsent, "the gatherer is gone"));
                }
                Err(error) => {
                    lost = error.to_string();
                    continue;
                }
            };
            let header = |name| message.headers.as_ref().and_then(|h| h.get(name));
            if let Some(failed) = header(FAILED) {
                let failed = serde_json::from_str(failed.as_str());
                return Err(failed.unwrap_or_else(|e| {
                    Failed::new(Cause::TransferError, format!("unreadable failure: {e}"))
                }));
            }
            let crc = header(CRC).and_then(|v| u32::from_str_radix(v.as_str(), 16).ok());
            if crc == Some(crc32fast::hash(&message.payload))
                && message.payload.len() <= limits::CHUNK_BYTES
            {
                return Ok(message.payload);
            }
            lost = format!("chunk at {offset} arrived with other bytes than were sent");
        }
        Err(Failed::new(Cause::InputDigest, lost))
    }

    /// Sends an output's chunks, as they come out of `chunks`, under the gatherer's window.
    ///
    /// An output of one chunk is kept for [`close`](Upload::close), to travel with it.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: transient, execute again.
    pub async fn upload(
        &self,
        grant: &Grant,
        mut chunks: tokio::sync::mpsc::Receiver<Bytes>,
    ) -> Result<Upload, StoreError> {
        let mut upload = Upload {
            stager: self.clone(),
            id: grant.id.clone(),
            execution: grant.execution.clone(),
            inline: None,
            decided: None,
            sent: 0,
            share: None,
        };
        let Some(first) = chunks.recv().await else {
            upload.inline = Some(Bytes::new());
            return Ok(upload);
        };
        let Some(second) = chunks.recv().await else {
            upload.inline = Some(first);
            return Ok(upload);
        };
        let mut window = grant.window;
        let mut ready = vec![second, first];
        let mut under_way: FuturesOrdered<_> = FuturesOrdered::new();
        loop {
            while under_way.len() < window {
                let next = match ready.pop() {
                    Some(chunk) => Some(chunk),
                    // Nothing under way: the only thing to wait for is the next chunk.
                    None if under_way.is_empty() => chunks.recv().await,
                    None => chunks.try_recv().ok(),
                };
                let Some(chunk) = next else { break };
                let offset = upload.sent;
                upload.sent += chunk.len() as u64;
                under_way.push_back(self.chunk(grant, offset, chunk));
            }
            let Some(answer) = under_way.next().await else { return Ok(upload) };
            match answer? {
                (Chunked::Next { window: granted, offset, .. }, wanted) if offset >= wanted => {
                    window = granted.clamp(1, limits::WINDOW_MAX);
                }
                (Chunked::Next { offset, .. }, wanted) => {
                    let gap = format!("{offset} bytes arrived where {wanted} were sent");
                    return Err(StoreError::lost("upload", &gap));
                }
                (Chunked::HaveIt(result), _) => {
                    upload.decided = Some(result);
                    // The slot must not take the end of the way for a failure.
                    while chunks.recv().await.is_some() {}
                    return Ok(upload);
                }
                (Chunked::Wait { reason, .. }, _) => return Err(StoreError::Full(reason)),
                (Chunked::Refused(failed), _) => return Err(StoreError::Output(failed)),
            }
        }
    }

    /// Sends one chunk, again while it does not arrive; the offset that must come back is beside the
    /// answer.
    async fn chunk(
        &self,
        grant: &Grant,
        offset: u64,
        chunk: Bytes,
    ) -> Result<(Chunked, u64), StoreError> {
        let subject = subjects::chunk(&grant.id.bag, &xfer(&grant.id, &grant.execution));
        let mut headers = HeaderMap::new();
        headers.insert(OFFSET, offset.to_string());
        let wanted = offset + chunk.len() as u64;
        let (mut tries, mut reopened) = (0, 0);
        loop {
            tries += 1;
            let sent =
                self.request(&grant.id.bag, subject.clone(), headers.clone(), chunk.clone()).await;
            let answer = match sent {
                Ok(Some(message)) => read::<Chunked>(&message)?,
                Ok(None) => return Err(StoreError::Absent),
                Err(error) if tries > limits::GET_RETRIES => return Err(error),
                Err(_) => continue,
            };
            // An earlier chunk may be on its way again: the receiver takes only the exact next one.
            match answer {
                Chunked::Next { again: true, .. } => {
                    tries = 0;
                    tokio::time::sleep(limits::RETRY_WAIT / 8).await;
                }
                Chunked::Next { offset: next, .. }
                    if next < wanted && tries <= limits::GET_RETRIES * 8 =>
                {
                    tokio::time::sleep(limits::RETRY_WAIT / 8).await;
                }
                Chunked::Next { offset: next, .. } if next < wanted && reopened > 0 => {
                    let text = "the gatherer gave this upload up for others".to_owned();
                    return Err(StoreError::Full(text));
                }
                Chunked::Wait { open: true, .. } if reopened < limits::GET_RETRIES => {
                    reopened += 1;
                    self.open_again(&grant.id, &grant.execution).await?;
                }
                answer => return Ok((answer, wanted)),
            }
        }
    }
}

fn read<T: DeserializeOwned>(message: &Message) -> Result<T, StoreError> {
    serde_json::from_slice(&message.payload).map_err(|e| StoreError::lost("read an answer", &e))
}

/// An output whose chunks are sent, and whose end is not.
#[derive(Debug)]
pub struct Upload {
    stager: Stager,
    id: TaskId,
    execution: Execution,
    inline: Option<Bytes>,
    decided: Option<Box<TaskResult>>,
    sent: u64,
    /// The folder of the part file, if this side writes it.
    share: Option<SharedFolder>,
}

impl Upload {
    /// An output that was written to its part file by path.
    #[must_use]
    pub fn by_path(stager: &Stager, grant: &Grant) -> Self {
        Self {
            stager: stager.clone(),
            id: grant.id.clone(),
            execution: grant.execution.clone(),
            inline: None,
            decided: None,
            sent: 0,
            share: grant.share.clone(),
        }
    }

    /// Gives up what was written by path and never closed. If there was no room for it, the gatherer learns how much
    /// there was: nobody is to execute the task again before there is more.
    pub(crate) async fn abandon(self, failed: &Failed) {
        let Some(share) = self.share else { return };
        // At once: whatever comes between finds a disk without any room.
        let bytes = share.remove_part();
        if failed.cause == Cause::Full {
            let (index, round) = (self.id.index, self.id.round);
            let no_room = NoRoom { v: limits::WIRE_VERSION, index, round, bytes };
            let payload = serde_json::to_vec(&no_room).unwrap_or_default();
            let client = self.stager.broker.client();
            let said = client.publish(subjects::no_room(&self.id.bag), payload.into()).await;
            tracing::debug!(ok = said.is_ok(), index, bytes, "the gatherer is told of no room");
        }
    }

    /// Ends the upload: the output is durable afterwards, or the task has another's outcome.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: transient. After a lost answer the part file may be there; it is swept.
    pub async fn close(self, bytes: u64, digest: &Digest) -> Result<Stored, StoreError> {
        if let Some(result) = self.decided {
            return Ok(Stored::Decided(result));
        }
        let came = match (&self.inline, self.sent) {
            (Some(_), _) => Came::Inline,
            (None, 0) => Came::ByPath,
            (None, _) => Came::Chunks,
        };
        let close = Close {
            v: limits::WIRE_VERSION,
            index: self.id.index,
            round: self.id.round,
            execution: self.execution.clone(),
            bytes,
            digest: *digest,
            came,
        };
        let header = serde_json::to_string(&close).map_err(|e| StoreError::lost("close", &e))?;
        let payload = self.inline.unwrap_or_default();
        let (mut tries, mut reopened) = (0, 0);
        loop {
            tries += 1;
            let mut headers = HeaderMap::new();
            headers.insert(CLOSE, header.as_str());
            let subject = subjects::close(&self.id.bag);
            let sent = self.stager.request(&self.id.bag, subject, headers, payload.clone()).await;
            return match sent {
                Ok(Some(message)) => match read::<Closed>(&message)? {
                    Closed::Durable => Ok(Stored::Staged),
                    Closed::Reading => {
                        tries = 0;
                        continue;
                    }
                    Closed::HaveIt(result) => Ok(Stored::Decided(result)),
                    Closed::Mismatch { message } => Err(StoreError::Digest(message)),
                    Closed::Wait { open: true, .. } if reopened < limits::GET_RETRIES => {
                        reopened += 1;
                        self.stager.open_again(&self.id, &self.execution).await?;
                        continue;
                    }
                    Closed::Wait { reason, .. } => Err(StoreError::Full(reason)),
                    Closed::Refused(failed) => Err(StoreError::Output(failed)),
                },
                Ok(None) => Err(StoreError::Absent),
                Err(_) if tries <= limits::GET_RETRIES => continue,
                Err(error) => Err(error),
            };
        }
    }
}
