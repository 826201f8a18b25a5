//! Sends an output in chunks, then CLOSE.

use async_nats::HeaderMap;
use bagpress_broker::ids::{Execution, TaskId};
use bagpress_broker::result::{Cause, Failed, TaskResult};
use bagpress_broker::{limits, subjects};
use bagpress_codec::Digest;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::sync::mpsc;

use super::by_path::SharedFolder;
use super::stager::{Grant, Stager, read_answer};
use crate::error::StoreError;
use crate::staging::messages::{CLOSE, Came, Chunked, Close, Closed, NoRoom, OFFSET, xfer};
use crate::stored::Stored;

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
        // What is free is looked at while it is there; afterwards there is room again. At once: whatever comes between finds a
        // disk without any.
        let free = share.free();
        let bytes = share.remove_part();
        if failed.cause == Cause::Full {
            self.stager.found_no_room(&self.id, bytes, free).await;
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
            files: Vec::new(),
        };
        self.stager.close(&self.id, &close, self.inline.unwrap_or_default()).await
    }
}

impl Stager {
    /// Tells the gatherer that there was room for so many bytes and no more, and how many were `free` then.
    pub(crate) async fn found_no_room(&self, id: &TaskId, bytes: u64, free: Option<u64>) {
        let (index, round) = (id.index, id.round);
        let no_room = NoRoom { v: limits::WIRE_VERSION, index, round, bytes, free };
        let payload = serde_json::to_vec(&no_room).unwrap_or_default();
        let said = self.client().publish(subjects::no_room(&id.bag), payload.into()).await;
        tracing::debug!(
            ok = said.is_ok(),
            index,
            bytes,
            "the gatherer is told that there is no space"
        );
    }

    /// Ends an upload: what it closes is durable afterwards, or the task has another's outcome.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: transient. After a lost answer the part file may be there; it is swept.
    pub(crate) async fn close(
        &self,
        id: &TaskId,
        close: &Close,
        payload: Bytes,
    ) -> Result<Stored, StoreError> {
        let header = serde_json::to_string(close).map_err(|e| StoreError::lost("close", &e))?;
        let (mut tries, mut reopened) = (0, 0);
        loop {
            tries += 1;
            let mut headers = HeaderMap::new();
            headers.insert(CLOSE, header.as_str());
            let subject = subjects::close(&id.bag);
            let sent = self.request(&id.bag, subject, headers, payload.clone()).await;
            return match sent {
                Ok(Some(message)) => match read_answer::<Closed>(&message)? {
                    Closed::Durable => Ok(Stored::Staged),
                    Closed::Reading => {
                        tries = 0;
                        continue;
                    }
                    Closed::HaveIt(result) => Ok(Stored::Decided(result)),
                    Closed::Mismatch { message } => Err(StoreError::Digest(message)),
                    Closed::Wait { open: true, .. } if reopened < limits::GET_RETRIES => {
                        reopened += 1;
                        self.open_again(id, &close.execution).await?;
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
        mut chunks: mpsc::Receiver<Bytes>,
    ) -> Result<Upload, StoreError> {
        let mut upload = Upload { share: None, ..Upload::by_path(self, grant) };
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
                    // Nothing in flight: the only thing to wait for is the next chunk.
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

    /// Sends one chunk, again while it does not arrive. Returns the answer and the offset that must come back.
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
                Ok(Some(message)) => read_answer::<Chunked>(&message)?,
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
                    let text = "the gatherer dropped this upload in favour of others".to_owned();
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
