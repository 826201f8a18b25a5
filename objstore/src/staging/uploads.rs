//! Outputs on their way to the gatherer: chunks, in order, and the CLOSE behind them.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_nats::Message;
use bagpress_broker::descriptor::decode_json;
use bagpress_broker::ids::Execution;
use bagpress_broker::limits;
use bagpress_broker::result::Failed;
use bytes::Bytes;
use tokio::sync::mpsc;
use tracing::debug;

use super::incoming::Incoming;
use super::messages::{CLOSE, Came, Chunked, Close, Closed, NoRoom, OFFSET};
use super::receiver::{Active, Shared};
use super::settle::Trust;

/// An upload without a chunk for this long is forgotten; a later chunk takes it up from its file.
const IDLE: Duration = Duration::from_secs(30);

impl Shared {
    /// How many chunks an upload may have under way from now on: its share of what all of them may,
    /// as far as the others, which learn of their smaller share later, leave it.
    pub(super) fn window(&self, execution: &Execution) -> usize {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let all = limits::WINDOWS_BYTES / limits::CHUNK_BYTES;
        let share = (all / uploads.len().max(1)).min(limits::WINDOW_MAX);
        let granted: usize = uploads.values().map(|upload| upload.window).sum();
        let Some(upload) = uploads.get_mut(execution) else { return 1 };
        let left = (all + upload.window).saturating_sub(granted);
        upload.window = share.min(left).max(1);
        upload.window
    }

    pub(super) fn chunk(self: &Arc<Self>, execution: Execution, id: (u32, u32), message: Message) {
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
    pub(super) async fn upload(
        self: &Arc<Self>,
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
        let (opening, parts) = (part.clone(), self.parts.clone());
        let resuming = move || Incoming::resume(parts.resume(&opening)?);
        let mut incoming = match self.on_disk(resuming).await {
            Ok(Ok(incoming)) => incoming,
            Ok(Err(error)) => {
                let Some(message) = chunks.recv().await else { return };
                return match self.not_written(index, 0, &error) {
                    Ok(failed) => self.refuse(&message, &part, failed).await,
                    Err(reason) => self.turn_away(&message, &part, reason).await,
                };
            }
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
                    Ok(()) => self.settle(&close, &part, Trust::Whole).await,
                    Err(message) => Closed::Mismatch { message },
                };
                return self.answer_close(&message, &part, answer).await;
            }
            let offset = message.headers.as_ref().and_then(|h| h.get(OFFSET));
            let offset: Option<u64> = offset.and_then(|v| v.as_str().parse().ok());
            if offset == Some(incoming.offset()) {
                let (before, more) = (incoming.offset(), message.payload.len() as u64);
                if let Some(reason) = self.no_room_for(index, before, more) {
                    return self.turn_away(&message, &part, reason).await;
                }
                let payload = message.payload.clone();
                incoming = match self.on_disk(move || incoming.write(&payload)).await {
                    Ok(Ok(incoming)) => incoming,
                    Ok(Err(error)) => match self.not_written(index, before + more, &error) {
                        Ok(failed) => return self.refuse(&message, &part, failed).await,
                        Err(reason) => return self.turn_away(&message, &part, reason).await,
                    },
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
    pub(super) async fn turn_away(
        &self,
        message: &Message,
        part: &std::path::Path,
        reason: String,
    ) {
        debug!(reason, "an upload was asked to wait");
        self.remove(part);
        self.answer(message, &Chunked::Wait { reason }).await;
    }

    /// Tells a worker that its output can never be written. Its chunk, or its CLOSE, waits for the answer.
    pub(super) async fn refuse(&self, message: &Message, part: &std::path::Path, failed: Failed) {
        self.remove(part);
        if message.headers.as_ref().is_some_and(|headers| headers.get(CLOSE).is_some()) {
            return self.answer(message, &Closed::Refused(failed)).await;
        }
        self.answer(message, &Chunked::Refused(failed)).await;
    }

    pub(super) fn full(&self, message: &Message) {
        match decode_json::<NoRoom>(&message.payload) {
            Ok(full) if self.plan.decided(full.index, full.round).is_none() => {
                self.was_full(full.index, full.bytes);
            }
            Ok(_) => {}
            Err(error) => debug!(%error, "not readable"),
        }
    }

    pub(super) async fn close(self: &Arc<Self>, message: &Message) {
        let header = message.headers.as_ref().and_then(|h| h.get(CLOSE));
        let Some(close) = header.and_then(|v| decode_json::<Close>(v.as_str().as_bytes()).ok())
        else {
            let answer = Closed::Mismatch { message: "the CLOSE is not readable".to_owned() };
            return self.answer(message, &answer).await;
        };
        let part = self.parts.part(close.index, close.round, &close.execution);
        let decided = self.plan.decided(close.index, close.round);
        if let Some(result) = decided.filter(|_| close.came != Came::Chunks) {
            self.remove_first(&part).await;
            return self.answer(message, &Closed::HaveIt(Box::new(result))).await;
        }
        if let Some(answer) = self.settled(&close).await {
            // Asked again: it was not ready then.
            return self.answer_close(message, &part, answer).await;
        }
        if close.came == Came::Chunks {
            // Behind its chunks: the upload's own task answers.
            let (id, execution) = ((close.index, close.round), close.execution);
            return self.chunk(execution, id, message.clone());
        }
        let inline = (close.came == Came::Inline).then(|| message.payload.clone());
        let room = |bytes: &Bytes| self.no_room_for(close.index, 0, bytes.len() as u64);
        if let Some(reason) = inline.as_ref().and_then(room) {
            return self.answer(message, &Closed::Wait { reason }).await;
        }
        let (path, parts) = (part.clone(), self.parts.clone());
        let written = match inline {
            Some(inline) => self.on_disk(move || parts.write_part(&path, &inline)).await,
            None => Ok(Ok(())),
        };
        let answer = match written {
            Ok(Ok(())) => self.settle(&close, &part, Trust::ReadBack).await,
            Ok(Err(error)) => self.not_settled(&close, &error),
            Err(reason) => Closed::Wait { reason },
        };
        self.answer_close(message, &part, answer).await;
    }

    async fn answer_close(&self, message: &Message, part: &std::path::Path, answer: Closed) {
        if matches!(&answer, Closed::Wait { .. } | Closed::Refused(_)) {
            debug!(?answer, "an upload was turned away");
            self.remove(part);
        }
        self.answer(message, &answer).await;
    }
}
