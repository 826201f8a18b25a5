//! Outputs on their way to the gatherer: chunks, in order, and the CLOSE behind them.

use std::sync::Arc;

use async_nats::Subject;
use bagpress_broker::descriptor::decode_json;
use bagpress_broker::ids::Execution;
use bagpress_broker::limits;
use bagpress_broker::result::{Cause, Failed, TaskResult};
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;
use tracing::debug;

use super::incoming::Incoming;
use super::known::{Given, Way};
use super::messages::{Came, Chunked, Close, Closed, NoRoom};
use super::receiver::{Asked, Shared};
use super::settle::Trust;

const NOT_OPENED: &str = "nobody opened this upload here, or it was given up for others";

/// A chunk of an upload, or the CLOSE behind its chunks.
#[derive(Debug)]
pub(super) struct Piece {
    asked: Asked,
    what: What,
}

#[derive(Debug)]
enum What {
    /// At this offset.
    Chunk(u64),
    Close(Close),
}

impl Shared {
    /// Decides what is kept of a chunk.
    pub(super) fn chunk_arrived(
        self: &Arc<Self>,
        execution: Execution,
        id: (u32, u32),
        offset: u64,
        reply: Option<Subject>,
        payload: &Bytes,
    ) {
        if payload.len() > limits::CHUNK_BYTES {
            let text = format!("a chunk of {} bytes", payload.len());
            let failed = Failed::new(Cause::TransferError, text);
            return self.answer_without(reply, Chunked::Refused(failed));
        }
        let way = self.known().way(&execution, id, offset);
        match way {
            Way::Known => {}
            Way::Again => return self.again(reply, &execution),
            Way::Unknown => return self.chunk_not_opened(id, reply),
        }
        let Some(asked) = self.asked(reply.clone(), payload) else {
            self.known().again(&execution, offset);
            return self.again(reply, &execution);
        };
        self.piece(execution, id, Piece { asked, what: What::Chunk(offset) });
    }

    /// Answers something of which no payload is kept; nothing, if not even that has room.
    fn answer_without(
        self: &Arc<Self>,
        reply: Option<Subject>,
        answer: impl Serialize + Send + Sync + 'static,
    ) {
        let Some(asked) = self.asked(reply, &Bytes::new()) else { return };
        let shared = self.clone();
        tokio::spawn(async move { shared.answer(&asked, &answer).await });
    }

    /// The same in a while, when there may be room for what was asked.
    fn answer_later(
        self: &Arc<Self>,
        reply: Option<Subject>,
        answer: impl Serialize + Send + Sync + 'static,
    ) {
        let Some(asked) = self.asked(reply, &Bytes::new()) else { return };
        let shared = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(limits::ARRIVED_AGAIN).await;
            shared.answer(&asked, &answer).await;
        });
    }

    /// Asks for a chunk again.
    fn again(self: &Arc<Self>, reply: Option<Subject>, execution: &Execution) {
        let offset = self.known().arrived(execution);
        self.answer_later(reply, Chunked::Next { offset, window: 1, again: true });
    }

    fn chunk_not_opened(self: &Arc<Self>, (index, round): (u32, u32), reply: Option<Subject>) {
        let Some(asked) = self.asked(reply, &Bytes::new()) else { return };
        self.serve(|shared| async move {
            let answer = match shared.plan.decided(index, round) {
                Some(result) => Chunked::HaveIt(Box::new(result)),
                None => Chunked::Wait { reason: NOT_OPENED.to_owned(), open: true },
            };
            shared.answer(&asked, &answer).await;
        });
    }

    /// Gives an upload its next piece, or begins it.
    fn piece(self: &Arc<Self>, execution: Execution, id: (u32, u32), piece: Piece) {
        let (offset, bytes) = match &piece.what {
            What::Chunk(offset) => (*offset, piece.asked.payload.len() as u64),
            What::Close(_) => (0, 0),
        };
        let given = self.known().give(&execution, id, piece, offset, bytes);
        let shared = self.clone();
        match given {
            Given::Taken => {}
            Given::TooMany(piece) => {
                let reason = "as many uploads as may be are under way".to_owned();
                tokio::spawn(async move { shared.answer_wait(&piece, reason).await });
            }
            Given::Begins(pieces, out) => {
                if let Some((other, (index, round))) = out {
                    debug!(%other, "an upload makes room for another");
                    self.remove(&self.parts.part(index, round, &other));
                }
                tokio::spawn(async move {
                    if shared.upload(&execution, id, pieces).await == Upload::Over {
                        shared.known().ended(&execution);
                    }
                });
            }
        }
    }

    /// Writes the chunks of one upload, in order, until it is closed or idle.
    async fn upload(
        self: &Arc<Self>,
        execution: &Execution,
        (index, round): (u32, u32),
        mut pieces: mpsc::Receiver<Piece>,
    ) -> Upload {
        let part = self.parts.part(index, round, execution);
        if let Some(result) = self.plan.decided(index, round) {
            // A chunk that was on its way when the task was decided must not bring its file back.
            while let Ok(piece) = pieces.try_recv() {
                self.answer_decided(&piece, result.clone()).await;
            }
            return Upload::Over;
        }
        let (opening, parts) = (part.clone(), self.parts.clone());
        let resuming = move || Incoming::resume(parts.resume(&opening)?);
        let opened = match self.on_disk(resuming).await {
            Ok(Ok(incoming)) => Ok(incoming),
            Ok(Err(error)) => Err(self.not_written(index, 0, &error)),
            Err(reason) => Err(Err(reason)),
        };
        let mut incoming = match opened {
            Ok(incoming) => incoming,
            Err(why) => {
                let Some(piece) = pieces.recv().await else { return Upload::Over };
                return self.give_up(&piece, &part, why).await;
            }
        };
        while let Ok(Some(piece)) = tokio::time::timeout(limits::UPLOAD_IDLE, pieces.recv()).await {
            if let Some(result) = self.plan.decided(index, round) {
                drop(incoming);
                self.remove_first(&part).await;
                self.answer_decided(&piece, result).await;
                return Upload::Over;
            }
            let offset = match piece.what {
                What::Chunk(offset) => offset,
                What::Close(close) => {
                    let answer = match incoming.finish(close.bytes, &close.digest) {
                        Ok(()) => self.settle(&close, &part, Trust::Whole).await,
                        Err(message) => Closed::Mismatch { message },
                    };
                    self.answer_close(&piece.asked, &close, &part, answer).await;
                    return Upload::Over;
                }
            };
            if offset == incoming.offset() {
                let (before, more) = (incoming.offset(), piece.asked.payload.len() as u64);
                if let Some(reason) = self.no_room_for(index, before, more) {
                    return self.give_up(&piece, &part, Err(reason)).await;
                }
                let payload = piece.asked.payload.clone();
                let why = match self.on_disk(move || incoming.write(&payload)).await {
                    Ok(Ok(written)) => {
                        incoming = written;
                        let arrived = incoming.offset();
                        let window = self.known().window(execution, arrived);
                        let next = Chunked::Next { offset: arrived, window, again: false };
                        self.answer(&piece.asked, &next).await;
                        continue;
                    }
                    Ok(Err(error)) => self.not_written(index, before + more, &error),
                    Err(reason) => Err(reason),
                };
                return self.give_up(&piece, &part, why).await;
            }
            let window = self.known().window(execution, incoming.offset());
            let next = Chunked::Next { offset: incoming.offset(), window, again: false };
            self.answer(&piece.asked, &next).await;
        }
        Upload::Idle
    }

    /// Ends an upload that could not be written: its worker is to come again later, or never. It will come as another
    /// execution: what this one left would only take the room that is missing.
    async fn give_up(
        &self,
        piece: &Piece,
        part: &std::path::Path,
        why: Result<Failed, String>,
    ) -> Upload {
        self.remove(part);
        match why {
            Ok(failed) => self.answer_refused(piece, failed).await,
            Err(reason) => self.answer_wait(piece, reason).await,
        }
        Upload::Over
    }

    async fn answer_decided(&self, piece: &Piece, result: TaskResult) {
        let result = Box::new(result);
        match &piece.what {
            What::Chunk(_) => self.answer(&piece.asked, &Chunked::HaveIt(result)).await,
            What::Close(_) => self.answer(&piece.asked, &Closed::HaveIt(result)).await,
        }
    }

    async fn answer_wait(&self, piece: &Piece, reason: String) {
        debug!(reason, "an upload was asked to wait");
        match &piece.what {
            What::Chunk(_) => {
                self.answer(&piece.asked, &Chunked::Wait { reason, open: false }).await;
            }
            What::Close(_) => self.answer(&piece.asked, &Closed::wait(reason)).await,
        }
    }

    async fn answer_refused(&self, piece: &Piece, failed: Failed) {
        match &piece.what {
            What::Chunk(_) => self.answer(&piece.asked, &Chunked::Refused(failed)).await,
            What::Close(_) => self.answer(&piece.asked, &Closed::Refused(failed)).await,
        }
    }

    pub(super) fn full(&self, asked: &Asked) {
        match decode_json::<NoRoom>(&asked.payload) {
            Ok(full) if self.plan.target(full.index).is_err() => {}
            Ok(full) if self.plan.decided(full.index, full.round).is_none() => {
                self.was_full(full.index, full.bytes);
            }
            Ok(_) => {}
            Err(error) => debug!(%error, "not readable"),
        }
    }

    /// Decides what is kept of a CLOSE, and of the output that it may carry.
    pub(super) fn close_arrived(
        self: &Arc<Self>,
        close: Option<String>,
        reply: Option<Subject>,
        payload: &Bytes,
    ) {
        let Some(close) = close.and_then(|close| decode_json::<Close>(close.as_bytes()).ok())
        else {
            let message = "the CLOSE is not readable".to_owned();
            return self.answer_without(reply, Closed::Mismatch { message });
        };
        let (carried, inline) = (payload.len(), close.came == Came::Inline);
        if carried > limits::CHUNK_BYTES || inline && carried as u64 != close.bytes {
            let message = format!("{carried} bytes came with a CLOSE of {}", close.bytes);
            return self.answer_without(reply, Closed::Mismatch { message });
        }
        let id = (close.index, close.round);
        let way = self.known().way(&close.execution, id, 0);
        if way == Way::Unknown {
            let Some(asked) = self.asked(reply, &Bytes::new()) else { return };
            return self
                .serve(|shared| async move { shared.close_again(&asked, &close, true).await });
        }
        let carried = if inline { payload.clone() } else { Bytes::new() };
        let Some(asked) = self.asked(reply.clone(), &carried) else {
            return self.answer_later(reply, Closed::Reading);
        };
        if !self.known().close(&close.execution) {
            let asked = Asked { payload: Bytes::new(), ..asked };
            return self
                .serve(|shared| async move { shared.close_again(&asked, &close, false).await });
        }
        self.serve(|shared| async move { shared.close(asked, close).await });
    }

    /// Answers a CLOSE that came before, or whose upload nobody opened: what is there is not touched.
    async fn close_again(self: &Arc<Self>, asked: &Asked, close: &Close, unknown: bool) {
        let part = self.parts.part(close.index, close.round, &close.execution);
        if let Some(result) = self.plan.decided(close.index, close.round) {
            self.remove_first(&part).await;
            return self.answer(asked, &Closed::HaveIt(Box::new(result))).await;
        }
        if let Some(answer) = self.settled(close).await {
            return self.answer_close(asked, close, &part, answer).await;
        }
        if unknown {
            let answer = Closed::Wait { reason: NOT_OPENED.to_owned(), open: true };
            return self.answer(asked, &answer).await;
        }
        // It is being written for the first one.
        tokio::time::sleep(limits::ARRIVED_AGAIN).await;
        self.answer(asked, &Closed::Reading).await;
    }

    async fn close(self: &Arc<Self>, mut asked: Asked, close: Close) {
        let part = self.parts.part(close.index, close.round, &close.execution);
        let decided = self.plan.decided(close.index, close.round);
        if let Some(result) = decided.filter(|_| close.came != Came::Chunks) {
            self.remove_first(&part).await;
            self.known().end(&close.execution);
            return self.answer(&asked, &Closed::HaveIt(Box::new(result))).await;
        }
        if let Some(answer) = self.settled(&close).await {
            // Asked again: it was not ready then.
            return self.answer_close(&asked, &close, &part, answer).await;
        }
        if close.came == Came::Chunks {
            // Behind its chunks: the upload's own task answers.
            let (id, execution) = ((close.index, close.round), close.execution.clone());
            return self.piece(execution, id, Piece { asked, what: What::Close(close) });
        }
        let inline = (close.came == Came::Inline).then(|| std::mem::take(&mut asked.payload));
        let room = |bytes: &Bytes| self.no_room_for(close.index, 0, bytes.len() as u64);
        if let Some(reason) = inline.as_ref().and_then(room) {
            self.known().end(&close.execution);
            return self.answer(&asked, &Closed::wait(reason)).await;
        }
        let (path, parts) = (part.clone(), self.parts.clone());
        let written = match inline {
            Some(inline) => self.on_disk(move || parts.write_part(&path, &inline)).await,
            None => Ok(Ok(())),
        };
        asked.charge.written();
        let answer = match written {
            Ok(Ok(())) => self.settle(&close, &part, Trust::ReadBack).await,
            Ok(Err(error)) => self.not_settled(&close, &error),
            Err(reason) => Closed::wait(reason),
        };
        self.answer_close(&asked, &close, &part, answer).await;
    }

    /// Answers a CLOSE. What it was for is over then, unless it is still being read; and if it is not durable, its part
    /// file is removed.
    async fn answer_close(
        &self,
        asked: &Asked,
        close: &Close,
        part: &std::path::Path,
        answer: Closed,
    ) {
        if !matches!(&answer, Closed::Durable | Closed::Reading) {
            debug!(?answer, "an upload was turned away");
            self.remove(part);
        }
        if answer == Closed::Reading {
            self.known().close_comes_again(&close.execution);
        } else {
            self.known().end(&close.execution);
        }
        self.answer(asked, &answer).await;
    }
}

/// How the writing of an upload ended.
#[derive(Debug, PartialEq, Eq)]
enum Upload {
    /// It may go on.
    Idle,
    Over,
}
