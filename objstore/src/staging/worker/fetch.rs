//! Fetches an input in chunks.

use async_nats::{HeaderMap, Message};
use bagpress_broker::descriptor::Pack;
use bagpress_broker::ids::TaskId;
use bagpress_broker::result::{Cause, Failed};
use bagpress_broker::{limits, subjects};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::sync::mpsc;

use super::stager::Stager;
use crate::source::Fetched;
use crate::staging::messages::{CRC, FAILED, InputRequest};

impl Stager {
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
        sink: mpsc::Sender<Result<Fetched, Failed>>,
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
        let message = self.ask_input(id, offset, None).await?;
        Ok(message.payload)
    }

    /// What a gatherer answers who is asked for a chunk of an input, or for the inputs of a pack.
    pub(super) async fn ask_input(
        &self,
        id: &TaskId,
        offset: u64,
        pack: Option<Pack>,
    ) -> Result<Message, Failed> {
        let (v, bytes) = (limits::WIRE_VERSION, limits::CHUNK_BYTES as u64);
        let request = InputRequest { v, index: id.index, offset, bytes, pack };
        let payload = serde_json::to_vec(&request).unwrap_or_default();
        let subject = subjects::input(&id.bag);
        let mut lost = String::new();
        for _ in 0..limits::GET_RETRIES {
            // A pack asks for all its files at once, and a worker holds many packs.
            let _turn = self.input_turn().await;
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
                return Ok(message);
            }
            lost = format!("chunk at {offset} arrived with other bytes than were sent");
        }
        Err(Failed::new(Cause::InputDigest, lost))
    }
}
