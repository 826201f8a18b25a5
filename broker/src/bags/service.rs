//! The service `bag-worker`: `nats micro ls`, `info` and `stats` show every worker, and a worker whose
//! connection is gone is known by the *no responders* of its own subject.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::RequestErrorKind;
use async_nats::service::ServiceExt;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use crate::ids::BagId;
use crate::{Broker, Error, bounded, limits, subjects};

use super::events::HoldingsReport;

/// What a worker says of itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ServiceStats {
    /// Its host.
    #[serde(deserialize_with = "bounded::text")]
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// Its pool.
    #[serde(deserialize_with = "bounded::text")]
    pub pool: String,
    /// How many tasks it executes at a time.
    pub slots: usize,
    /// Tasks that it executes now.
    pub running: usize,
    /// Tasks done since it started.
    pub done: u64,
    /// Tasks failed since it started.
    pub failed: u64,
    /// Input bytes since it started.
    pub input_bytes: u64,
    /// Output bytes since it started.
    pub output_bytes: u64,
    /// Codec libraries, with their versions.
    pub codecs: Vec<String>,
    /// Whether it takes tasks that want another version of them.
    pub any_codec_version: bool,
    /// The [revisions](crate::pack) of packs and blocks that it knows; an earlier version says nothing of them.
    #[serde(default)]
    pub revisions: Vec<String>,
    /// Version of the program.
    #[serde(deserialize_with = "bounded::text")]
    pub version: String,
    /// What it holds, by bag.
    pub held: HashMap<String, HoldingsReport>,
}

/// A registered service; it answers as long as this lives.
#[derive(Debug)]
pub struct Service {
    id: String,
    stop: tokio_util::sync::CancellationToken,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Service {
    /// Registers a worker, which answers with what `stats` returns.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub async fn start(
        broker: &Broker,
        metadata: HashMap<String, String>,
        stats: impl Fn() -> ServiceStats + Send + Sync + Clone + 'static,
    ) -> Result<Self, Error> {
        let during = Error::during("register the worker");
        let for_handler = stats.clone();
        let service = broker
            .client()
            .service_builder()
            .description("Compresses tasks of bags")
            .metadata(metadata)
            .queue_group(subjects::QUEUE_GROUP)
            .stats_handler(move |_, _| serde_json::to_value(for_handler()).unwrap_or_default())
            .start(subjects::SERVICE, env!("CARGO_PKG_VERSION"))
            .await
            .map_err(|e| during.lost(e))?;
        let id = service.info().await.id;
        let subject = subjects::worker_status(&id);
        let endpoint = service.endpoint_builder().name("status").add(subject).await;
        let mut endpoint = endpoint.map_err(|e| during.lost(e))?;
        let stop = tokio_util::sync::CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            loop {
                let request = tokio::select! {
                    request = endpoint.next() => request,
                    () = stopped.cancelled() => break,
                };
                let Some(request) = request else { break };
                let payload = serde_json::to_vec(&stats()).unwrap_or_default();
                if let Err(error) = request.respond(Ok(payload.into())).await {
                    tracing::debug!(%error, "status not answered");
                }
            }
            if let Err(error) = service.stop().await {
                tracing::debug!(%error, "service not stopped");
            }
        });
        Ok(Self { id, stop })
    }

    /// The worker's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// Whether a worker is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It answered.
    Here,
    /// Nobody listens on its subject: its connection is gone.
    Gone,
    /// It did not answer in time, or we are not connected: nothing follows from that.
    Unknown,
}

impl Broker {
    /// Asks whether a worker is there.
    pub async fn probe(&self, worker: &str, within: Duration) -> Presence {
        let request = self.client().request(subjects::ping(worker), "".into());
        match tokio::time::timeout(within, request).await {
            Ok(Ok(_)) => Presence::Here,
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => Presence::Gone,
            _ => Presence::Unknown,
        }
    }

    /// Whether somebody serves the uploads of a bag now. In doubt: yes.
    pub async fn is_gathered(&self, bag: &BagId) -> bool {
        // What cannot be read is answered, and changes nothing.
        let asked = self.client().request(subjects::open(bag), "".into());
        match tokio::time::timeout(limits::WORKERS_ANSWER_WITHIN, asked).await {
            Ok(Err(error)) => error.kind() != RequestErrorKind::NoResponders,
            Ok(Ok(_)) | Err(_) => true,
        }
    }

    /// Asks all workers what they do; those that answer within `within` count.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub async fn workers(&self, within: Duration) -> Result<Vec<(String, ServiceStats)>, Error> {
        #[derive(Deserialize)]
        struct Answer {
            id: String,
            endpoints: Vec<Endpoint>,
        }
        #[derive(Deserialize)]
        struct Endpoint {
            data: Option<ServiceStats>,
        }
        let during = Error::during("ask the workers");
        let inbox = self.client().new_inbox();
        let mut answers =
            self.client().subscribe(inbox.clone()).await.map_err(|e| during.lost(e))?;
        let asked = self.client().publish_with_reply(subjects::stats(), inbox, "".into()).await;
        asked.map_err(|e| during.lost(e))?;
        let deadline = Instant::now() + within;
        let mut workers = Vec::new();
        while let Ok(Some(message)) = timeout_at(deadline, answers.next()).await {
            if message.status.is_some() || workers.len() >= limits::WORKERS_MAX {
                break;
            }
            if let Ok(answer) = serde_json::from_slice::<Answer>(&message.payload) {
                let stats = answer.endpoints.into_iter().find_map(|e| e.data);
                workers.push((answer.id, stats.unwrap_or_default()));
            }
        }
        Ok(workers)
    }
}
