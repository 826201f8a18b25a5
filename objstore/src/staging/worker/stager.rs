//! The worker's side: sends OPEN, and proves which folders it shares with the gatherer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_nats::{HeaderMap, Message, RequestErrorKind};
use bagpress_broker::ids::{BagId, Execution, TaskId};
use bagpress_broker::result::{Failed, TaskResult};
use bagpress_broker::{Broker, limits, subjects};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;

use super::by_path::{Allowed, Proofs, SharedFolder};
use crate::error::StoreError;
use crate::staging::messages::{Open, Opened, Share, SharedInput};
use crate::staging::parts::part_name;
use bagpress_broker::machine::boot_id;

/// A worker's view of the gatherers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stager {
    broker: Broker,
    known: Arc<Known>,
}

/// What one worker knows of all gatherers.
#[derive(Debug)]
struct Known {
    /// Where files may be handed over by path.
    allowed: Allowed,
    /// Folders that were proved to be seen by their gatherer, too.
    proofs: Proofs,
    /// Inputs that may be asked for at a time: a gatherer drops what is too much.
    inputs: Semaphore,
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
    /// The execution.
    pub execution: Execution,
    /// Chunks that may be in flight at a time.
    pub window: usize,
    /// A folder that both see, proved.
    pub share: Option<SharedFolder>,
    /// Of a pack: places of files that have their outcome.
    pub decided: Vec<u32>,
    /// Of a pack: files that both see.
    pub inputs: Vec<Option<SharedInput>>,
}

impl Stager {
    pub(super) fn client(&self) -> &async_nats::Client {
        self.broker.client()
    }

    /// Uses `broker`'s connection; hands files over by path where that is `allowed`.
    #[must_use]
    pub fn new(broker: &Broker, allowed: Allowed) -> Self {
        let known = Known {
            allowed,
            proofs: Proofs::default(),
            inputs: Semaphore::new(limits::INPUTS_ASKED_MAX),
            absent: Mutex::default(),
        };
        Self { broker: broker.clone(), known: Arc::new(known) }
    }

    /// Waits until one more input may be asked for.
    pub(super) async fn input_turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.known.inputs.acquire().await.ok()
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
            by_path: (by_path && self.known.allowed.anything()).then(|| boot_id().to_owned()),
        };
        let Some(opened) = self.ask::<Opened>(&id.bag, subjects::open(&id.bag), &open).await?
        else {
            return Ok(Permission::Absent);
        };
        Ok(match opened {
            Opened::Go(go) => {
                let mut inputs = Vec::new();
                let share = match go.share {
                    Some(share) => {
                        inputs.clone_from(&share.inputs);
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
                    decided: go.decided,
                    inputs,
                })
            }
            Opened::HaveIt(result) => Permission::HaveIt(result),
            Opened::Wait { reason } => Permission::Wait(reason),
            Opened::Refused(failed) => Permission::Refused(failed),
        })
    }

    /// Notes that somebody gathers a bag: the next task asks again.
    pub fn gathers(&self, bag: &BagId) {
        self.known.absent.lock().unwrap_or_else(PoisonError::into_inner).remove(bag);
    }

    fn recently_absent(&self, bag: &BagId) -> bool {
        let mut absent = self.known.absent.lock().unwrap_or_else(PoisonError::into_inner);
        absent.retain(|_, since| since.elapsed() < limits::GATHERER_ABSENT_FOR);
        absent.contains_key(bag)
    }

    /// The folder that a gatherer shares, if it is the one that it says.
    async fn proved(&self, share: Share, part: String) -> Option<SharedFolder> {
        let Known { allowed, proofs, .. } = &*self.known;
        if let Some(known) = proofs.recall(allowed, &share, &part) {
            return Some(known);
        }
        let proving = self.clone();
        // A disk that hangs keeps a thread of its own waiting, not those of everybody.
        let proved = spawn_blocking(move || {
            let Known { allowed, proofs, .. } = &*proving.known;
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
        answer.map(|message| read_answer(&message)).transpose()
    }

    pub(super) async fn request(
        &self,
        bag: &BagId,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Option<Message>, StoreError> {
        match self.broker.client().request_with_headers(subject, headers, payload).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                let mut absent = self.known.absent.lock().unwrap_or_else(PoisonError::into_inner);
                absent.insert(bag.clone(), Instant::now());
                Ok(None)
            }
            Err(error) => Err(StoreError::lost("ask the gatherer", &error)),
        }
    }

    /// Asks leave again for an execution that has been done. Its gatherer is another one than the one that gave it, or had
    /// to forget it for others.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: transient, unless the output can never be written.
    pub(super) async fn open_again(
        &self,
        id: &TaskId,
        execution: &Execution,
    ) -> Result<(), StoreError> {
        match self.open(id, execution, false).await? {
            // What was to be answered is answered so again.
            Permission::Go(_) | Permission::HaveIt(_) => Ok(()),
            Permission::Wait(reason) => Err(StoreError::Full(reason)),
            Permission::Absent => Err(StoreError::Absent),
            Permission::Refused(failed) => Err(StoreError::Output(failed)),
        }
    }
}

pub(super) fn read_answer<T: DeserializeOwned>(message: &Message) -> Result<T, StoreError> {
    serde_json::from_slice(&message.payload).map_err(|e| StoreError::lost("read an answer", &e))
}
