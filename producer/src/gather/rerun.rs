//! Running tasks anew: a new round begins in the ledger before anything of the old one is touched.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use bagpress_broker::{BagState, limits, quote, subjects};
use bagpress_codec::Digest;
use bagpress_objstore::beneath::Dir;
use bagpress_objstore::object_ref::{Bucket, Error, Lookup};
use bagpress_objstore::staging::{Plan as _, hash_file, mtime_ns};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::check::rebuild;
use crate::gather::Gathering;
use crate::run_folder::inputs::InputEntry;
use crate::run_folder::ledger::line::InputNow;
use crate::run_folder::plan::BagPlan;

impl Gathering {
    /// Begins new rounds for what shall run again, before anything of the old ones is touched.
    pub(crate) async fn rerun(&mut self) -> Result<()> {
        let (mut again, mut inputs) = (Vec::new(), HashMap::new());
        if self.options.retry_failed {
            let tasks = 0..self.plan.specification.tasks;
            again.extend(tasks.filter(|index| self.plan.ledger.is_failed(*index)));
            let (plan, failed) = (self.plan.clone(), again.clone());
            let looking = spawn_blocking(move || as_they_are_now(&plan, &failed));
            inputs = self.beside(looking).await?.context("look at the inputs")??;
        }
        if self.unfinished && !self.options.repair {
            again.extend(self.vanished_outputs().await?);
        }
        if self.options.repair {
            self.reading_back = true;
            again.extend(self.broken().await?);
            self.reading_back = false;
        }
        if !again.is_empty() {
            if !self.lease.confirm(self.line(BagState::Running)).await && !self.lease.is_held() {
                return Err(self.lease.ended().await.error(&self.line(BagState::Cancelled)));
            }
            info!(tasks = again.len(), changed = inputs.len(), "running again");
            self.begin_again(&again, &inputs).await?;
            if !inputs.is_empty() {
                // What has grown may need larger ones.
                self.remake_buckets().await;
            }
        }
        Ok(())
    }

    /// Tasks of a bag that goes on which are done by the ledger, and whose output is not there: the folder may have gone with
    /// the last gatherer, or be another one now.
    async fn vanished_outputs(&mut self) -> Result<Vec<u32>> {
        let Some(parts) = self.parts.clone() else { return Ok(Vec::new()) };
        let plan = self.plan.clone();
        let looking = spawn_blocking(move || vanished_outputs(&plan, parts.root()));
        let gone = self.beside(looking).await?.context("look for the outputs")??;
        if !gone.is_empty() {
            self.progress.tell(&format!(
                "{} outputs that were done are not there any more, and are made again",
                gone.len()
            ));
        }
        Ok(gone)
    }

    /// Tasks that are done by the ledger, and whose output does not read back. Lines that were lost are written
    /// again first, as far as outputs prove them.
    async fn broken(&mut self) -> Result<Vec<u32>> {
        let Some(parts) = self.parts.clone() else {
            let Some(bucket) = self.acceptor.bucket.clone() else { return Ok(Vec::new()) };
            return self.beside(broken_objects(self.plan.clone(), bucket)).await?;
        };
        let (plan, folder) = (self.plan.clone(), parts.clone());
        let rebuilding = spawn_blocking(move || rebuild::from_outputs(&plan, folder.root()));
        let tasks = self.beside(rebuilding).await?.context("rebuild the ledger")??;
        if tasks > 0 {
            info!(tasks, "ledger lines rebuilt from outputs that give their inputs again");
            crate::error::message(&format!(
                "note: {tasks} ledger lines rebuilt from their outputs"
            ));
        }
        let plan = self.plan.clone();
        let hashing = spawn_blocking(move || broken_files(&plan, parts.root()));
        self.beside(hashing).await?.context("hash the outputs")?
    }

    /// Begins a round of each of these tasks and makes room for it. Whoever asks publishes, beside the gathering:
    /// an input may have to wait until others are freed.
    pub(crate) async fn run_again(&mut self, indices: &[u32]) -> Result<()> {
        self.begin_again(indices, &HashMap::new()).await
    }

    /// The same, of tasks of which some take their file as it is now.
    async fn begin_again(
        &mut self,
        indices: &[u32],
        inputs: &HashMap<u32, InputNow>,
    ) -> Result<()> {
        let begun = loop {
            match self.plan.ledger.begin(indices, inputs) {
                Ok(begun) => break begun,
                // Full is not failed.
                Err(error) => self.wait_for_disk(error.into()).await?,
            }
        };
        // Whoever gathers elsewhere next believes no result of a round that the line does not know.
        self.lease.renew(self.line(BagState::Running));
        let mut renewed = Instant::now();
        for (index, _) in begun {
            self.remove_object(index, Sound::Goes).await;
            if renewed.elapsed() >= limits::GATHERER_RENEWAL {
                renewed = Instant::now();
                self.lease.renew(self.line(BagState::Running));
            }
        }
        Ok(())
    }

    /// Removes a task's object, by the sequence that was read.
    pub(crate) async fn remove_object(&self, index: u32, sound: Sound) {
        let Some(bucket) = &self.acceptor.bucket else { return };
        let name = subjects::output_name(index);
        let Ok(Lookup::Found(info)) = bucket.info_from_leader(&name).await else { return };
        if sound == Sound::Stays {
            match bucket.read_back(&info).await {
                Err(error) if error.is_broken_object() => {}
                // A worker adopts it.
                _ => return,
            }
        }
        if let Err(error) = bucket.remove_exactly(&info).await {
            warn!(%error, index, "old object not removed");
        }
    }
}

/// The inputs of failed tasks that are not as they were: a log that grew while it was read would grow again. What is not
/// there, or no file any more, fails as before.
fn as_they_are_now(plan: &BagPlan, failed: &[u32]) -> Result<HashMap<u32, InputNow>> {
    let mut changed = HashMap::new();
    if plan.inputs.is_none() {
        return Ok(changed);
    }
    for index in failed {
        let entry = plan.entry(*index).context("read the list of inputs")?;
        let Ok(metadata) = fs::metadata(&entry.path) else { continue };
        let now = InputNow {
            bytes: metadata.len(),
            mtime_ns: mtime_ns(&metadata),
            mode: metadata.mode() & 0o7777,
            inode: metadata.ino(),
        };
        let InputEntry { bytes, mtime_ns, mode, inode, .. } = entry;
        if metadata.is_file() && now != (InputNow { bytes, mtime_ns, mode, inode }) {
            changed.insert(*index, now);
        }
    }
    Ok(changed)
}

fn vanished_outputs(plan: &BagPlan, root: &Path) -> Result<Vec<u32>> {
    let (mut gone, mut unnamed) = (Vec::new(), None);
    let reading = plan.ledger.outcomes(|result| {
        if result.done().is_none() || plan.specification.codec.stores_nothing() {
            return;
        }
        match plan.target(result.index).map(|target| root.join(target.path).symlink_metadata()) {
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => gone.push(result.index),
            // What cannot be looked at just now is not called gone.
            Ok(_) => {}
            Err(error) => unnamed = Some(error),
        }
    });
    reading.with_context(|| format!("read {}", quote::name(plan.ledger.path())))?;
    unnamed.map_or(Ok(gone), |error| Err(error).context("find the name of an output"))
}

/// What is not there, or has another digest. A file that cannot be read may be sound, and its input gone.
fn broken_files(plan: &BagPlan, root: &Path) -> Result<Vec<u32>> {
    let (mut broken, mut unread) = (Vec::new(), None);
    let outputs = match Dir::open(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        outputs => Some(outputs.with_context(|| format!("open {}", quote::name(root)))?),
    };
    let hash = |path: &Path| match &outputs {
        // What is no file is nobody's to call bad: it may lead to one that is sound.
        Some(outputs) => hash_file(outputs, path),
        None => Err(io::ErrorKind::NotFound.into()),
    };
    let reading = plan.ledger.outcomes(|result| {
        let Some(expected) = result.done() else { return };
        let looked = plan.target(result.index).map(|target| target.path);
        let looked =
            looked.context("find the name of an output").and_then(|path| match hash(&path) {
                Ok((digest, _)) => Ok(digest == expected.output_digest),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error).with_context(|| {
                    format!(
                        "read {}; if nobody can, move it away and repair again",
                        bagpress_broker::quote::name(root.join(&path))
                    )
                }),
            });
        match looked {
            Ok(true) => {}
            Ok(false) => broken.push(result.index),
            Err(error) => unread = Some(error),
        }
    });
    reading
        .with_context(|| format!("read {}", bagpress_broker::quote::name(plan.ledger.path())))?;
    unread.map_or(Ok(broken), Err)
}

async fn broken_objects(plan: BagPlan, bucket: Bucket) -> Result<Vec<u32>> {
    let (mut broken, mut done) = (Vec::new(), Vec::new());
    let reading = plan.ledger.outcomes(|result| {
        done.extend(result.done().map(|done| (result.index, done.output_digest)));
    });
    reading
        .with_context(|| format!("read {}", bagpress_broker::quote::name(plan.ledger.path())))?;
    for (index, digest) in done {
        if !is_sound(&bucket, index, &digest).await.context("read an object back")? {
            broken.push(index);
        }
    }
    Ok(broken)
}

/// Whether a task's object reads back. Who does not know must not say no: what is not sound is removed, and its
/// input may be gone.
async fn is_sound(bucket: &Bucket, index: u32, digest: &Digest) -> Result<bool, Error> {
    let name = subjects::output_name(index);
    let look = async || match bucket.info_from_leader(&name).await? {
        Lookup::Found(info) if info.digest == *digest => match bucket.read_back(&info).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_broken_object() => Ok(false),
            Err(error) => Err(error),
        },
        _ => Ok(false),
    };
    for _ in 1..limits::COMMIT_TRIES {
        match look().await {
            Err(error) if error.is_transient() => sleep(limits::RETRY_WAIT).await,
            looked => return looked,
        }
    }
    look().await
}

/// What becomes of an old object that reads back with its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sound {
    /// It is removed: it is another than was committed, or was found bad before.
    Goes,
    /// It is left: it may be that of a worker that has not committed yet.
    Stays,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bagpress_broker::testing::NatsServer;
    use bagpress_broker::{Role, samples};

    use super::*;
    use crate::claim::buckets::open_bucket;

    #[tokio::test]
    async fn an_object_that_nobody_can_read_now_is_not_called_bad() {
        let server = NatsServer::start().await;
        let broker = server.broker(Role::Admin).await;
        let (bag, name) = (samples::bag(), subjects::output_name(0));
        let (client, context) = (broker.client_handle(), broker.context_handle());
        let made = Bucket::create(client, context, "b", "Outputs of a test", 1 << 20, &bag);
        made.await.unwrap();
        let bucket = open_bucket(&broker, "b").unwrap();
        bucket.put(&name, "0-a", b"sound".as_slice().into()).await.unwrap();
        let digest = Digest::of(b"sound");
        assert!(is_sound(&bucket, 0, &digest).await.unwrap());
        assert!(!is_sound(&bucket, 0, &Digest::of(b"other")).await.unwrap());
        assert!(!is_sound(&bucket, 1, &digest).await.unwrap());

        server.stop_process();
        let mut looking = Box::pin(is_sound(&bucket, 0, &digest));
        // Long enough for a request to be given up.
        let longer = limits::REQUEST_TIMEOUT + Duration::from_secs(1);
        let said = tokio::time::timeout(longer, &mut looking).await;
        assert!(said.is_err(), "{said:?}");
        server.continue_process();
        assert!(looking.await.unwrap());
    }
}
