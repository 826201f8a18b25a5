//! Subscribes to the requests of one bag's workers, routes each, and decides what an OPEN is answered.

use std::path::Path;
use std::sync::Arc;

use async_nats::{HeaderMap, Message};
use bagpress_broker::descriptor::decode_json;
use bagpress_broker::ids::BagId;
use bagpress_broker::result::{Cause, Failed};
use bagpress_broker::{Broker, Error, limits, subjects};
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::debug;

use super::answers::{Answers, Asked};
use super::disk::Disk;
use super::durability::Durability;
use super::ledger_reader::LedgerReader;
use super::open_inputs::OpenInputs;
use super::outputs::Outputs;
use super::pack_inputs::PackInputs;
use super::plan::Plan;
use super::serving::Serving;
use super::uploads::Uploads;
use crate::staging::input::InputFile;
use crate::staging::messages::{
    CLOSE, CRC, FAILED, FILES, Go, InputRequest, NoRoom, OFFSET, Open, Opened, Share, SharedInput,
    read_xfer,
};
use crate::staging::parts::{Parts, Syncer};
use bagpress_broker::machine::boot_id;

/// Serves the uploads and inputs of one bag until it is dropped.
#[derive(Debug)]
pub struct Receiver {
    service: Arc<Service>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[derive(Debug)]
struct Service {
    serving: Serving,
    inputs: Arc<OpenInputs>,
    /// What may wait for the disk of the inputs, which may be another one.
    input_turns: Semaphore,
    syncer: Syncer,
    uploads: Uploads,
}

impl Receiver {
    /// Starts to serve `bag`, whose outputs live in `parts`.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`], or [`Error::Io`] if the sync thread cannot start.
    pub async fn start(
        broker: &Broker,
        bag: &BagId,
        parts: Arc<Parts>,
        plan: Arc<dyn Plan>,
    ) -> Result<Self, Error> {
        let subscriber = broker.client().subscribe(subjects::uploads_of(bag)).await;
        let mut subscriber = subscriber.map_err(|e| Error::lost("serve uploads")(&e))?;
        let syncer = Syncer::start(parts.clone()).map_err(|source| Error::Io {
            what: "start the sync thread for",
            path: parts.root().to_owned(),
            source,
        })?;
        let service = Arc::new(Service::new(broker, parts, plan, syncer));
        let serving = tokio::spawn({
            let service = service.clone();
            // Nothing is waited for: what a subscription's buffer holds is bounded by its number alone, so it is kept
            // empty, and what is kept is bounded by the budget.
            tokio::task::unconstrained(async move {
                while let Some(message) = subscriber.next().await {
                    service.dispatch(&message);
                }
            })
        });
        Ok(Self { service, serving })
    }

    /// Why uploads are being asked to wait, if they are. Asks the disk, for [`limits::DISK_WAIT`] at most: that it does
    /// not answer is a reason too.
    pub async fn waiting(&self) -> Option<String> {
        let outputs = self.service.serving.outputs.clone();
        // Noted, so that a disk that hangs is asked no more.
        let under_way = self.parts().begin();
        let asking = spawn_blocking(move || {
            let why = outputs.waiting();
            drop(under_way);
            why
        });
        match timeout(limits::DISK_WAIT, asking).await {
            Ok(asked) => asked.unwrap_or_else(|panicked| Some(panicked.to_string())),
            Err(_) => Some(self.parts().unanswered(limits::DISK_WAIT)),
        }
    }

    /// Why nothing can be written to the outputs' folder any more, if a worker asked in vain.
    #[must_use]
    pub fn gone(&self) -> Option<String> {
        self.service.serving.outputs.gone()
    }

    /// Notes that a task has its outcome.
    pub fn decided(&self, index: u32) {
        self.service.serving.outputs.decided(index);
    }

    /// Where uploads go.
    #[must_use]
    pub fn parts(&self) -> &Arc<Parts> {
        self.service.serving.outputs.parts()
    }

    /// The syncer of the outputs' file system.
    #[must_use]
    pub fn syncer(&self) -> &Syncer {
        &self.service.syncer
    }
}

impl Service {
    fn new(broker: &Broker, parts: Arc<Parts>, plan: Arc<dyn Plan>, syncer: Syncer) -> Self {
        let (inputs, ledger) = (Arc::new(OpenInputs::default()), LedgerReader::new(plan.clone()));
        let (disk, answers) = (Disk::new(parts.clone()), Answers::new(broker.client().clone()));
        let outputs = Arc::new(Outputs::new(parts, plan, inputs.clone()));
        let durability = Durability::new(outputs.clone(), disk.clone(), syncer.clone());
        let durability = Arc::new(durability);
        let serving = Serving { outputs, ledger, disk, durability, answers };
        let uploads = Uploads::new(serving.clone());
        let input_turns = Semaphore::new(limits::file_threads());
        Self { serving, inputs, input_turns, syncer, uploads }
    }

    /// Decides what is kept of a message. Does not wait, and reads nothing.
    fn dispatch(self: &Arc<Self>, message: &Message) {
        let what = message.subject.as_str().strip_prefix("bag.up.").unwrap_or_default();
        let what = what.split_once('.').map_or("", |(_, what)| what);
        let header = |name| message.headers.as_ref()?.get(name).map(|v| v.as_str().to_owned());
        let (reply, payload) = (message.reply.clone(), &message.payload);
        match what {
            "close" => return self.uploads.close_arrived(header(CLOSE), reply, payload),
            "open" | "input" | "full" => {}
            _ => {
                if let Some((id, execution)) = what.strip_prefix("x.").and_then(read_xfer) {
                    let offset = header(OFFSET).and_then(|v| v.parse().ok()).unwrap_or(u64::MAX);
                    self.uploads.chunk_arrived(execution, id, offset, reply, payload);
                }
                return;
            }
        }
        if payload.len() > limits::MESSAGE_BYTES_MAX {
            return debug!(subject = %message.subject, "longer than a message is");
        }
        // No more is kept of a sender that has this much in flight; it asks again.
        let Some(asked) = self.serving.answers.keep(reply, payload) else { return };
        let (service, kind) = (self.clone(), what.to_owned());
        self.serving.answers.serve(async move {
            match kind.as_str() {
                "open" => {
                    let opened = service.open(&asked).await;
                    service.serving.answers.answer(&asked, &opened).await;
                }
                "input" => service.input(&asked).await,
                _ => service.no_room(&asked).await,
            }
        });
    }

    async fn open(&self, asked: &Asked) -> Opened {
        let open: Open = match decode_json(asked.payload()) {
            Ok(open) => open,
            Err(error) => {
                return Opened::Refused(Failed::new(Cause::BadDescriptor, error.to_string()));
            }
        };
        // A disk that hangs is not asked. The ledger may be on another one.
        if let Some(reason) = self.serving.outputs.parts().hangs() {
            return match self.serving.ledger.decided(open.index, open.round).await {
                Some(result) => Opened::HaveIt(Box::new(result)),
                None => Opened::Wait { reason },
            };
        }
        let (execution, id) = (open.execution.clone(), (open.index, open.round));
        let outputs = self.serving.outputs.clone();
        let looked = self.serving.disk.run_within(move || look(&outputs, &open));
        let opened = looked.await.unwrap_or_else(|reason| Opened::Wait { reason });
        if matches!(opened, Opened::Go(_)) {
            self.uploads.open(&execution, id);
        }
        opened
    }

    async fn input(&self, asked: &Asked) {
        let Ok(request) = decode_json::<InputRequest>(asked.payload()) else { return };
        // Until it is sent: what waits for the connection takes memory too.
        let _turn = self.input_turns.acquire().await;
        let (inputs, outputs) = (self.inputs.clone(), self.serving.outputs.clone());
        let read = spawn_blocking(move || {
            if let Some(pack) = request.pack {
                return Ok(PackInputs::read(outputs.plan(), request.index, pack.files));
            }
            let unreadable = |e: std::io::Error| Failed::new(Cause::InputUnreadable, e.to_string());
            let input = outputs.plan().input(request.index).map_err(unreadable)?;
            let bytes = inputs.read(&input, &request)?;
            Ok(PackInputs { files: Vec::new(), bytes })
        });
        let read = read.await;
        let read = read.unwrap_or_else(|e| Err(Failed::new(Cause::InputUnreadable, e.to_string())));
        let mut headers = HeaderMap::new();
        let payload = match read {
            Ok(PackInputs { files, bytes }) => {
                headers.insert(CRC, format!("{:08x}", crc32fast::hash(&bytes)));
                if !files.is_empty() {
                    headers.insert(FILES, serde_json::to_string(&files).unwrap_or_default());
                }
                bytes.into()
            }
            Err(failed) => {
                headers.insert(FAILED, serde_json::to_string(&failed).unwrap_or_default());
                Bytes::new()
            }
        };
        self.serving.answers.send(asked, headers, payload).await;
        self.serving.answers.flush().await;
    }

    /// Notes that an output that was written by path found no room.
    async fn no_room(&self, asked: &Asked) {
        let full: NoRoom = match decode_json(asked.payload()) {
            Ok(full) => full,
            Err(error) => return debug!(%error, "not readable"),
        };
        let outputs = self.serving.outputs.clone();
        let noted = self.serving.disk.run(move |_| {
            let plan = outputs.plan();
            if plan.target(full.index).is_ok() && plan.decided(full.index, full.round).is_none() {
                let files = plan.files(full.index, full.round);
                outputs.was_full((full.index, files), full.bytes, full.free);
            }
        });
        if let Err(error) = noted.await {
            debug!(error, "not noted");
        }
    }
}

/// Whether a task may be executed, and how its output comes here. Asks the disk.
fn look(outputs: &Outputs, open: &Open) -> Opened {
    let (plan, parts) = (outputs.plan(), outputs.parts());
    if let Some(result) = plan.decided(open.index, open.round) {
        return Opened::HaveIt(Box::new(result));
    }
    if let Some(reason) = outputs.no_room(open.index, 0) {
        return Opened::Wait { reason };
    }
    if let Err(error) = plan.target(open.index) {
        let text = format!("no such task: {error}");
        return Opened::Refused(Failed::new(Cause::BadDescriptor, text));
    }
    let files = plan.files(open.index, open.round);
    let part = parts.part(open.index, open.round, &open.execution);
    let offset = part.metadata().map_or(0, |metadata| metadata.len());
    let decided: Vec<_> = (0..files)
        .filter(|place| files > 1 && plan.is_file_decided(open.index + place, open.round))
        .collect();
    // A message holds text: where a path is none, the bytes travel.
    let is_text = |path: &Path| path.to_str().is_some();
    let by_path = plan.by_path() && is_text(&part);
    let share = open.by_path.as_ref().filter(|_| by_path).map(|boot| {
        let (nonce_file, nonce) = parts.nonce();
        // An object has no path.
        let is_told = |file: &InputFile| file.path.is_absolute() && is_text(&file.path);
        let input = |index| plan.input(index).ok().filter(is_told).map(SharedInput::from);
        let of_pack =
            |place| if decided.contains(&place) { None } else { input(open.index + place) };
        let inputs = if files > 1 { (0..files).map(of_pack).collect() } else { Vec::new() };
        let input = if files > 1 { None } else { input(open.index) };
        let (nonce, same_kernel) = (nonce.to_owned(), *boot == boot_id());
        Share { nonce_file, nonce, part, same_kernel, input, inputs }
    });
    // How many upload at the same time is known when the first chunk is there.
    let go = Go { window: 1, offset, share, decided };
    Opened::Go(without_share_if_too_long(go))
}

/// The paths of a pack may be more than a message holds: then its files travel.
fn without_share_if_too_long(go: Go) -> Go {
    let has_paths = go.share.as_ref().is_some_and(|share| !share.inputs.is_empty());
    let fits = |go: &Go| {
        serde_json::to_vec(go).is_ok_and(|json| json.len() < limits::MESSAGE_BYTES_MAX / 2)
    };
    if has_paths && !fits(&go) { Go { share: None, ..go } } else { go }
}
