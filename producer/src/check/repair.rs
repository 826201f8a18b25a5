//! Which tasks of a bag are to run again: their input changed, or their output is not what the ledger says.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use bagpress_broker::retry::Retry;
use bagpress_broker::{limits, quote, subjects};
use bagpress_codec::Digest;
use bagpress_objstore::beneath::Dir;
use bagpress_objstore::object_ref::{Bucket, Error, Lookup};
use bagpress_objstore::staging::{Plan as _, hash_file, mtime_ns};

use crate::check::tar_again::{InTar, TarAgain};
use crate::run_folder::inputs::InputEntry;
use crate::run_folder::ledger::line::InputNow;
use crate::run_folder::plan::BagPlan;
use crate::run_folder::runs::replaced_by;

/// The inputs of failed tasks that are not as they were: a log that grew while it was read would grow again. What is not
/// there, or no file any more, fails as before. Blocks.
///
/// # Errors
///
/// If the list of inputs cannot be read.
pub(crate) fn changed_inputs(plan: &BagPlan, failed: &[u32]) -> Result<HashMap<u32, InputNow>> {
    let mut changed = HashMap::new();
    if plan.inputs.is_none() {
        return Ok(changed);
    }
    for index in failed {
        let entry = plan.entry(*index).context("read the list of inputs")?;
        if !entry.is_file() {
            continue; // what a reference stands for never changes, nor what is generated
        }
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

/// Tasks that are done by the ledger, and whose output is not there below `root`. Blocks.
///
/// # Errors
///
/// If the ledger cannot be read, or an output has no name.
pub(crate) fn vanished_outputs(plan: &BagPlan, root: &Path) -> Result<Vec<u32>> {
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

/// Outputs that are not what the ledger says.
#[derive(Debug, Default)]
pub(crate) struct Broken {
    /// Their tasks are to run again.
    pub(crate) tasks: Vec<u32>,
    /// So many have another file in their place that the bag did not make. Nothing is wrong with them, and whatever ran again
    /// could not have its name.
    pub(crate) replaced: usize,
}

/// Tasks that are done by the ledger, and whose output below `root` is not there or has another digest. Blocks.
///
/// # Errors
///
/// If the ledger cannot be read, or an output: a file that cannot be read may be sound, and its input gone.
pub(crate) fn broken_files(plan: &BagPlan, root: &Path) -> Result<Broken> {
    let (mut broken, mut unread) = (Broken::default(), None);
    let outputs = match Dir::open(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        outputs => Some(outputs.with_context(|| format!("open {}", quote::name(root)))?),
    };
    let hash = |path: &Path| match &outputs {
        // Something that is not a file is not called bad: it may lead to a sound file.
        Some(outputs) => hash_file(outputs, path),
        None => Err(io::ErrorKind::NotFound.into()),
    };
    let is_replaced = |made, path: &Path| {
        let there = outputs.as_ref().and_then(|outputs| outputs.metadata(path).ok());
        there.is_some_and(|there| replaced_by(&plan.specification, made, &there).is_some())
    };
    let reading = plan.ledger.outcomes(|result| {
        let Some(expected) = result.done() else { return };
        let looked = plan.target(result.index).map(|target| target.path);
        let looked =
            looked.context("find the name of an output").and_then(|path| match hash(&path) {
                Ok((digest, _)) if digest == expected.output_digest => Ok(true),
                // A line that names no file does not say whose this one is: it may be ours, and spoilt. Running it again finds
                // that out, and touches nothing that is not.
                Ok(_) if result.file.is_some() && is_replaced(result.file, &path) => {
                    broken.replaced += 1;
                    Ok(true)
                }
                Ok(_) => Ok(false),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error).with_context(|| {
                    format!(
                        "make {} readable, or move it away; then repair again",
                        quote::name(root.join(&path))
                    )
                }),
            });
        match looked {
            Ok(true) => {}
            Ok(false) => broken.tasks.push(result.index),
            Err(error) => unread = Some(error),
        }
    });
    reading.with_context(|| format!("read {}", quote::name(plan.ledger.path())))?;
    unread.map_or(Ok(broken), Err)
}

/// Tasks that are done by the ledger, and whose object is not there or does not read back.
///
/// # Errors
///
/// If the ledger or an object cannot be read.
pub(crate) async fn broken_objects(plan: BagPlan, bucket: Bucket) -> Result<Vec<u32>> {
    let (mut broken, mut done) = (Vec::new(), Vec::new());
    let reading = plan.ledger.outcomes(|result| {
        if let Some(found) = result.done().cloned() {
            done.push((result, found));
        }
    });
    reading.with_context(|| format!("read {}", quote::name(plan.ledger.path())))?;
    // In the ledger they are as they came.
    done.sort_by_key(|(result, _)| result.index);
    let mut tar = TarAgain::default();
    for (result, done) in &done {
        let in_tar = InTar::of(&plan, result, done).context("read the list of inputs")?;
        let sound = match in_tar {
            Some(output) => is_sound_in(&mut tar, &bucket, &output, &done.output_digest).await,
            None => is_sound(&bucket, result.index, &done.output_digest).await,
        };
        if !sound.context("read an object back")? {
            broken.push(result.index);
        }
    }
    Ok(broken)
}

/// Whether an output in a tar reads back. Where that is unknown, never say no.
async fn is_sound_in(
    tar: &mut TarAgain,
    bucket: &Bucket,
    output: &InTar<'_>,
    digest: &Digest,
) -> Result<bool, Error> {
    let read = tar.output(bucket, output).await?;
    Ok(read.is_ok_and(|bytes| Digest::of(&bytes) == *digest))
}

/// Whether a task's object reads back. Where that is unknown, never say no: an unsound object is removed, and its
/// input may be gone.
async fn is_sound(bucket: &Bucket, index: u32, digest: &Digest) -> Result<bool, Error> {
    let name = subjects::output_name(index);
    let look = || async {
        match bucket.info_from_leader(&name).await? {
            Lookup::Found(info) if info.digest == *digest => match bucket.read_back(&info).await {
                Ok(()) => Ok(true),
                Err(error) if error.is_broken_object() => Ok(false),
                Err(error) => Err(error),
            },
            _ => Ok(false),
        }
    };
    Retry::times(limits::COMMIT_TRIES).run(look, Error::is_transient).await
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
