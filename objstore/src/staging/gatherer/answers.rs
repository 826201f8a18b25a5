//! What a gatherer is asked: kept within a budget, served in turns, and answered.

use std::sync::Arc;

use async_nats::{Client, HeaderMap, Subject};
use bagpress_broker::limits;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::Semaphore;
use tracing::debug;

use super::memory_budget::{Charge, MemoryBudget};

/// Something that is asked, until it is answered: what it takes of the budget is taken for so long.
#[derive(Debug)]
pub(super) struct Asked {
    reply: Option<Subject>,
    payload: Bytes,
    charge: Charge,
}

impl Asked {
    pub(super) fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The payload, to be written: [`written`](Self::written) gives back what it takes.
    pub(super) fn take_payload(&mut self) -> Bytes {
        std::mem::take(&mut self.payload)
    }

    pub(super) fn written(&mut self) {
        self.charge.written();
    }

    pub(super) fn without_payload(self) -> Self {
        Self { payload: Bytes::new(), ..self }
    }
}

/// The memory and the turns of those who ask, and the way back to them. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Answers {
    client: Client,
    budget: Arc<MemoryBudget>,
    turns: Arc<Semaphore>,
}

impl Answers {
    pub(super) fn new(client: Client) -> Self {
        let turns = Arc::new(Semaphore::new(limits::UPLOADS_MAX));
        Self { client, budget: Arc::default(), turns }
    }

    /// Takes room for a message, and a copy of it: the buffer that it came in may be far larger. None if its sender has too
    /// much of the budget already.
    pub(super) fn keep(&self, reply: Option<Subject>, payload: &Bytes) -> Option<Asked> {
        let inbox = reply.as_ref().map_or("", |reply| reply.as_str());
        let charge = self.budget.take(inbox, payload.len())?;
        Some(Asked { reply, payload: Bytes::copy_from_slice(payload), charge })
    }

    /// Serves something when its turn comes. What waits for one has its part of the budget, which bounds how much that is.
    pub(super) fn serve(&self, serving: impl Future<Output = ()> + Send + 'static) {
        let turns = self.turns.clone();
        tokio::spawn(async move {
            let _turn = turns.acquire().await;
            serving.await;
        });
    }

    pub(super) async fn answer(&self, asked: &Asked, answer: &impl Serialize) {
        let payload = serde_json::to_vec(answer).unwrap_or_default();
        self.send(asked, HeaderMap::new(), payload.into()).await;
    }

    pub(super) async fn send(&self, asked: &Asked, headers: HeaderMap, payload: Bytes) {
        let Some(reply) = asked.reply.clone() else { return };
        if let Err(error) = self.client.publish_with_headers(reply, headers, payload).await {
            debug!(%error, "answer not sent");
        }
    }

    /// Waits until what was answered has left this process.
    pub(super) async fn flush(&self) {
        if let Err(error) = self.client.flush().await {
            debug!(%error, "answer not flushed");
        }
    }

    /// Answers something of which no payload is kept; nothing, if not even that has room.
    pub(super) fn answer_without(
        &self,
        reply: Option<Subject>,
        answer: impl Serialize + Send + Sync + 'static,
    ) {
        let Some(asked) = self.keep(reply, &Bytes::new()) else { return };
        let answers = self.clone();
        tokio::spawn(async move { answers.answer(&asked, &answer).await });
    }

    /// The same in a while, when there may be room for what was asked.
    pub(super) fn answer_later(
        &self,
        reply: Option<Subject>,
        answer: impl Serialize + Send + Sync + 'static,
    ) {
        let Some(asked) = self.keep(reply, &Bytes::new()) else { return };
        let answers = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(limits::ARRIVED_AGAIN).await;
            answers.answer(&asked, &answer).await;
        });
    }
}
