//! What becomes of each chunk and each CLOSE that arrives: decided at once, served in turns.

use async_nats::Subject;
use bagpress_broker::descriptor::decode_json;
use bagpress_broker::ids::Execution;
use bagpress_broker::limits;
use bagpress_broker::result::{Cause, Failed};
use bytes::Bytes;
use tracing::debug;

use super::answers::Asked;
use super::durability::Trust;
use super::open_uploads::{Given, Way};
use super::serving::Serving;
use super::writing::{Ended, Piece, Writing};
use crate::staging::messages::{Came, Chunked, Close, Closed};

const NOT_OPENED: &str = "this upload is not open here, or was dropped in favour of others";

/// The uploads of one bag. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Uploads {
    serving: Serving,
    writing: Writing,
}

/// Why the output that came with a CLOSE is not made durable.
enum NotWritten {
    /// Nothing was begun.
    Refused(Closed),
    /// Some of it may be in the part file.
    Failed(Closed),
}

impl Uploads {
    pub(super) fn new(serving: Serving) -> Self {
        Self { writing: Writing::new(serving.clone()), serving }
    }

    /// Notes that an execution of (index, round) has leave.
    pub(super) fn open(&self, execution: &Execution, id: (u32, u32)) {
        self.writing.uploads().open(execution, id);
    }

    /// Decides what is kept of a chunk.
    pub(super) fn chunk_arrived(
        &self,
        execution: Execution,
        id: (u32, u32),
        offset: u64,
        reply: Option<Subject>,
        payload: &Bytes,
    ) {
        if payload.len() > limits::CHUNK_BYTES {
            let text = format!("a chunk of {} bytes", payload.len());
            let failed = Failed::new(Cause::TransferError, text);
            return self.serving.answers.answer_without(reply, Chunked::Refused(failed));
        }
        let way = self.writing.uploads().way(&execution, id, offset);
        match way {
            Way::Known => {}
            Way::Again => return self.ask_again(reply, &execution),
            Way::Unknown => return self.chunk_not_opened(id, reply),
        }
        let Some(asked) = self.serving.answers.keep(reply.clone(), payload) else {
            self.writing.uploads().again(&execution, offset);
            return self.ask_again(reply, &execution);
        };
        self.give(execution, id, Piece::chunk(asked, offset));
    }

    /// Asks for a chunk again.
    fn ask_again(&self, reply: Option<Subject>, execution: &Execution) {
        let offset = self.writing.uploads().arrived(execution);
        self.serving.answers.answer_later(reply, Chunked::Next { offset, window: 1, again: true });
    }

    fn chunk_not_opened(&self, (index, round): (u32, u32), reply: Option<Subject>) {
        let Some(asked) = self.serving.answers.keep(reply, &Bytes::new()) else { return };
        let uploads = self.clone();
        self.serving.answers.serve(async move {
            let answer = match uploads.serving.ledger.decided(index, round).await {
                Some(result) => Chunked::HaveIt(Box::new(result)),
                None => Chunked::Wait { reason: NOT_OPENED.to_owned(), open: true },
            };
            uploads.serving.answers.answer(&asked, &answer).await;
        });
    }

    /// Gives an upload its next piece, or begins it.
    fn give(&self, execution: Execution, id: (u32, u32), piece: Piece) {
        let (offset, bytes) = piece.extent();
        let given = self.writing.uploads().give(&execution, id, piece, offset, bytes);
        let writing = self.writing.clone();
        match given {
            Given::Taken => {}
            Given::TooMany(piece) => {
                let reason = "as many uploads as may be are in progress".to_owned();
                tokio::spawn(async move { writing.answer_wait(&piece, reason).await });
            }
            Given::Begins(pieces, out) => {
                if let Some((other, (index, round))) = out {
                    debug!(%other, "an upload is dropped in favour of another");
                    self.serving
                        .disk
                        .remove(&self.serving.outputs.parts().part(index, round, &other));
                }
                tokio::spawn(async move {
                    if writing.write(&execution, id, pieces).await == Ended::Over {
                        writing.uploads().ended(&execution);
                    }
                });
            }
        }
    }

    /// Decides what is kept of a CLOSE, and of the output that it may carry.
    pub(super) fn close_arrived(
        &self,
        close: Option<String>,
        reply: Option<Subject>,
        payload: &Bytes,
    ) {
        let Some(close) = close.and_then(|close| decode_json::<Close>(close.as_bytes()).ok())
        else {
            let message = "the CLOSE is not readable".to_owned();
            return self.serving.answers.answer_without(reply, Closed::Mismatch { message });
        };
        let (carried, inline) = (payload.len(), close.came == Came::Inline);
        if carried > limits::CHUNK_BYTES || inline && carried as u64 != close.bytes {
            let message = format!("{carried} bytes came with a CLOSE of {}", close.bytes);
            return self.serving.answers.answer_without(reply, Closed::Mismatch { message });
        }
        // The outputs of a pack are not hashed as they come: only what is read back is believed.
        if close.came == Came::Chunks && !close.files.is_empty() {
            let message = "the outputs of a pack do not come in chunks".to_owned();
            return self.serving.answers.answer_without(reply, Closed::Mismatch { message });
        }
        let uploads = self.clone();
        let way = self.writing.uploads().way(&close.execution, (close.index, close.round), 0);
        if way == Way::Unknown {
            let Some(asked) = self.serving.answers.keep(reply, &Bytes::new()) else { return };
            return self
                .serving
                .answers
                .serve(async move { uploads.close_again(&asked, &close, true).await });
        }
        let carried = if inline { payload.clone() } else { Bytes::new() };
        let Some(asked) = self.serving.answers.keep(reply.clone(), &carried) else {
            return self.serving.answers.answer_later(reply, Closed::Reading);
        };
        if !self.writing.uploads().close(&close.execution) {
            let asked = asked.without_payload();
            return self
                .serving
                .answers
                .serve(async move { uploads.close_again(&asked, &close, false).await });
        }
        self.serving.answers.serve(async move { uploads.close(asked, close).await });
    }

    /// Answers a CLOSE that came before, or whose upload nobody opened: what is there is not touched.
    async fn close_again(&self, asked: &Asked, close: &Close, unknown: bool) {
        if self.answer_known(asked, close).await {
            return;
        }
        if unknown {
            let answer = Closed::Wait { reason: NOT_OPENED.to_owned(), open: true };
            return self.serving.answers.answer(asked, &answer).await;
        }
        // It is being written for the first one.
        tokio::time::sleep(limits::ARRIVED_AGAIN).await;
        self.serving.answers.answer(asked, &Closed::Reading).await;
    }

    /// Answers a CLOSE whose task has its outcome, or whose output is being made durable; false if it is neither.
    async fn answer_known(&self, asked: &Asked, close: &Close) -> bool {
        if let Some(result) = self.serving.ledger.decided(close.index, close.round).await {
            for part in self.serving.outputs.parts_of(close) {
                self.serving.disk.remove_first(&part).await;
            }
            self.writing.uploads().end(&close.execution);
            self.serving.answers.answer(asked, &Closed::HaveIt(Box::new(result))).await;
            return true;
        }
        let Some(answer) = self.serving.durability.answer(close).await else { return false };
        self.writing.answer_close(asked, close, answer).await;
        true
    }

    async fn close(&self, mut asked: Asked, close: Close) {
        let part = self.serving.outputs.parts().part(close.index, close.round, &close.execution);
        // Asked again: it was not ready then.
        if self.serving.durability.is_pending(&close.execution)
            && self.answer_known(&asked, &close).await
        {
            return;
        }
        if close.came == Came::Chunks {
            // Behind its chunks: the upload's own task answers.
            let (id, execution) = ((close.index, close.round), close.execution.clone());
            return self.give(execution, id, Piece::close(asked, close));
        }
        let written = match close.came {
            Came::Inline => self.write_inline(&close, asked.take_payload()).await,
            Came::ByPath | Came::Chunks => Ok(()),
        };
        asked.written();
        let answer = match written {
            Ok(()) => self.serving.durability.make(&close, &part, Trust::ReadBack).await,
            Err(NotWritten::Refused(answer)) => {
                self.writing.uploads().end(&close.execution);
                return self.serving.answers.answer(&asked, &answer).await;
            }
            Err(NotWritten::Failed(answer)) => answer,
        };
        self.writing.answer_close(&asked, &close, answer).await;
    }

    /// Writes an output that came with its CLOSE.
    async fn write_inline(&self, close: &Close, output: Bytes) -> Result<(), NotWritten> {
        if let Some(reason) = self.serving.outputs.parts().hangs() {
            return Err(NotWritten::Refused(Closed::wait(reason)));
        }
        let (outputs, close) = (self.serving.outputs.clone(), close.clone());
        let of_a_pack = !close.files.is_empty();
        let write = move |goes_on: &mut dyn FnMut()| {
            if let Some(result) = outputs.closed_already(&close) {
                return Err(NotWritten::Refused(Closed::HaveIt(Box::new(result))));
            }
            let files = u32::try_from(close.files.len()).unwrap_or(u32::MAX).max(1);
            let bytes = output.len() as u64;
            if let Some(reason) = outputs.no_room_for((close.index, files), 0, bytes) {
                return Err(NotWritten::Refused(Closed::wait(reason)));
            }
            let mut rest = output;
            for one in close.each() {
                let part = outputs.parts().part(one.index, one.round, &one.execution);
                let bytes = usize::try_from(one.bytes).unwrap_or(usize::MAX).min(rest.len());
                let written = outputs.parts().write_part(&part, &rest.split_to(bytes));
                written.map_err(|error| NotWritten::Failed(outputs.not_closed(&one, &error)))?;
                goes_on();
            }
            Ok(())
        };
        let disk = &self.serving.disk;
        // Many files take their time on a slow disk, which moves all the same: their worker asks again meanwhile.
        let written = if of_a_pack {
            disk.run(|under_way| write(&mut || under_way.goes_on())).await
        } else {
            disk.run_within(move || write(&mut || {})).await
        };
        let timed_out = |reason| Err(NotWritten::Failed(Closed::wait(reason)));
        written.unwrap_or_else(timed_out)
    }
}
