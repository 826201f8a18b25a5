//! One upload is written to its part file, chunk by chunk, until its CLOSE.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bagpress_broker::ids::Execution;
use bagpress_broker::limits;
use bagpress_broker::result::{Failed, TaskResult};
use tokio::sync::mpsc;
use tracing::debug;

use super::answers::Asked;
use super::durability::Trust;
use super::incoming::Incoming;
use super::open_uploads::OpenUploads;
use super::serving::Serving;
use crate::staging::messages::{Chunked, Close, Closed};

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

impl Piece {
    pub(super) fn chunk(asked: Asked, offset: u64) -> Self {
        Self { asked, what: What::Chunk(offset) }
    }

    pub(super) fn close(asked: Asked, close: Close) -> Self {
        Self { asked, what: What::Close(close) }
    }

    /// Its offset, and how many bytes it brings.
    pub(super) fn extent(&self) -> (u64, u64) {
        match &self.what {
            What::Chunk(offset) => (*offset, self.asked.payload().len() as u64),
            What::Close(_) => (0, 0),
        }
    }
}

/// How the writing of an upload ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It may go on.
    Idle,
    Over,
}

/// What came of a step at the disk.
enum Step {
    Done(Incoming),
    /// The task has an outcome; there is no part file any more.
    Decided(Box<TaskResult>),
    /// As [`Outputs::not_written`] says.
    NotWritten(Result<Failed, String>),
}

/// The part file of one task's execution.
struct PartOf {
    index: u32,
    round: u32,
    path: PathBuf,
}

/// What writes uploads. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Writing {
    serving: Serving,
    uploads: Arc<Mutex<OpenUploads<Piece>>>,
}

impl Writing {
    pub(super) fn new(serving: Serving) -> Self {
        let uploads = Arc::new(Mutex::new(OpenUploads::new(uploads_max())));
        Self { serving, uploads }
    }

    pub(super) fn uploads(&self) -> MutexGuard<'_, OpenUploads<Piece>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the chunks of one upload, in order, until it is closed or idle.
    pub(super) async fn write(
        &self,
        execution: &Execution,
        (index, round): (u32, u32),
        mut pieces: mpsc::Receiver<Piece>,
    ) -> Ended {
        let part = PartOf {
            index,
            round,
            path: self.serving.outputs.parts().part(index, round, execution),
        };
        let mut incoming = match self.resume(&part).await {
            Step::Done(incoming) => incoming,
            Step::Decided(result) => {
                while let Ok(piece) = pieces.try_recv() {
                    self.answer_decided(&piece, result.clone()).await;
                }
                return Ended::Over;
            }
            Step::NotWritten(why) => {
                let Some(piece) = pieces.recv().await else { return Ended::Over };
                return self.give_up(&piece, &part.path, why).await;
            }
        };
        while let Ok(Some(piece)) = tokio::time::timeout(limits::UPLOAD_IDLE, pieces.recv()).await {
            match &piece.what {
                What::Close(close) => {
                    self.close(&piece, close, &part.path, incoming).await;
                    return Ended::Over;
                }
                What::Chunk(offset) if *offset == incoming.offset() => {
                    incoming = match self.append(&part, &piece.asked, incoming).await {
                        Step::Done(incoming) => incoming,
                        Step::Decided(result) => {
                            self.answer_decided(&piece, result).await;
                            return Ended::Over;
                        }
                        Step::NotWritten(why) => {
                            return self.give_up(&piece, &part.path, why).await;
                        }
                    };
                }
                What::Chunk(_) => {}
            }
            let offset = incoming.offset();
            let window = self.uploads().window(execution, offset);
            let next = Chunked::Next { offset, window, again: false };
            self.serving.answers.answer(&piece.asked, &next).await;
        }
        Ended::Idle
    }

    /// Begins a part file, or goes on where it ends. A chunk that was on its way when the task was decided must not bring
    /// its file back.
    async fn resume(&self, part: &PartOf) -> Step {
        let PartOf { index, round, path } = part;
        let (index, round, path) = (*index, *round, path.clone());
        let outputs = self.serving.outputs.clone();
        let resumed = self.serving.disk.run_within(move || {
            if let Some(result) = outputs.plan().decided(index, round) {
                return Step::Decided(Box::new(result));
            }
            match outputs.parts().resume(&path).and_then(Incoming::resume) {
                Ok(incoming) => Step::Done(incoming),
                Err(error) => Step::NotWritten(outputs.not_written(index, 0, &error)),
            }
        });
        resumed.await.unwrap_or_else(|reason| Step::NotWritten(Err(reason)))
    }

    async fn append(&self, part: &PartOf, asked: &Asked, incoming: Incoming) -> Step {
        if let Some(reason) = self.serving.outputs.parts().hangs() {
            return Step::NotWritten(Err(reason));
        }
        let PartOf { index, round, path } = part;
        let (index, round, path) = (*index, *round, path.clone());
        let outputs = self.serving.outputs.clone();
        let (before, payload) = (incoming.offset(), asked.payload().clone());
        let appended = self.serving.disk.run_within(move || {
            if let Some(result) = outputs.decided_already(index, round, &path) {
                return Step::Decided(Box::new(result));
            }
            let more = payload.len() as u64;
            if let Some(reason) = outputs.no_room_for((index, 1), before, more) {
                return Step::NotWritten(Err(reason));
            }
            match incoming.write(&payload) {
                Ok(incoming) => Step::Done(incoming),
                Err(error) => Step::NotWritten(outputs.not_written(index, before + more, &error)),
            }
        });
        appended.await.unwrap_or_else(|reason| Step::NotWritten(Err(reason)))
    }

    async fn close(&self, piece: &Piece, close: &Close, part: &Path, incoming: Incoming) {
        if let Some(result) = self.serving.ledger.decided(close.index, close.round).await {
            drop(incoming);
            self.serving.disk.remove_first(part).await;
            return self.answer_decided(piece, Box::new(result)).await;
        }
        let answer = match incoming.finish(close.bytes, &close.digest) {
            Ok(()) => self.serving.durability.make(close, part, Trust::Whole).await,
            Err(message) => Closed::Mismatch { message },
        };
        self.answer_close(&piece.asked, close, answer).await;
    }

    /// Answers a CLOSE. What it was for is over then, unless it is still being read; and if it is not durable, its part
    /// file is removed.
    pub(super) async fn answer_close(&self, asked: &Asked, close: &Close, answer: Closed) {
        if !matches!(&answer, Closed::Durable | Closed::Reading) {
            debug!(?answer, "an upload was turned away");
            for part in self.serving.outputs.parts_of(close) {
                self.serving.disk.remove(&part);
            }
        }
        if answer == Closed::Reading {
            self.uploads().close_comes_again(&close.execution);
        } else {
            self.uploads().end(&close.execution);
        }
        self.serving.answers.answer(asked, &answer).await;
    }

    /// Ends an upload that could not be written: its worker is to come again later, or never. It will come as another
    /// execution: what this one left would only take the room that is missing.
    async fn give_up(&self, piece: &Piece, part: &Path, why: Result<Failed, String>) -> Ended {
        self.serving.disk.remove(part);
        match why {
            Ok(failed) => self.answer_refused(piece, failed).await,
            Err(reason) => self.answer_wait(piece, reason).await,
        }
        Ended::Over
    }

    async fn answer_decided(&self, piece: &Piece, result: Box<TaskResult>) {
        match &piece.what {
            What::Chunk(_) => {
                self.serving.answers.answer(&piece.asked, &Chunked::HaveIt(result)).await;
            }
            What::Close(_) => {
                self.serving.answers.answer(&piece.asked, &Closed::HaveIt(result)).await;
            }
        }
    }

    pub(super) async fn answer_wait(&self, piece: &Piece, reason: String) {
        debug!(reason, "an upload was asked to wait");
        match &piece.what {
            What::Chunk(_) => {
                let wait = Chunked::Wait { reason, open: false };
                self.serving.answers.answer(&piece.asked, &wait).await;
            }
            What::Close(_) => {
                self.serving.answers.answer(&piece.asked, &Closed::wait(reason)).await;
            }
        }
    }

    async fn answer_refused(&self, piece: &Piece, failed: Failed) {
        match &piece.what {
            What::Chunk(_) => {
                self.serving.answers.answer(&piece.asked, &Chunked::Refused(failed)).await;
            }
            What::Close(_) => {
                self.serving.answers.answer(&piece.asked, &Closed::Refused(failed)).await;
            }
        }
    }
}

/// How many uploads may have begun: each has a file open while it is written, and so have others.
fn uploads_max() -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    limits::UPLOADS_MAX.min(files / 2).max(1)
}
