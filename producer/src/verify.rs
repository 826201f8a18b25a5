//! Every output, hashed and decompressed again.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::quote::name;
use bagpress_broker::result::{Done, Place, TaskResult};
use bagpress_broker::{Address, Broker, Patience, Role, subjects};
use bagpress_codec::{Codec, Hasher, SEGMENT_BYTES};
use bagpress_objstore::object_ref::Bucket;
use bagpress_objstore::staging::Plan as _;

use crate::accept::open_bucket;
use crate::folder::RunFolder;
use crate::gather::open_plan;
use crate::plan::BagPlan;
use crate::spec::Specification;

/// What verifying found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// Outputs that give their inputs again.
    pub good: u64,
    /// Outputs that do not, each with why.
    pub bad: Vec<(String, String)>,
    /// Tasks without an outcome.
    pub missing: u64,
    /// Tasks that failed: there is nothing to verify.
    pub failed: u64,
    /// Ledger lines that cannot be used.
    pub bad_lines: u64,
}

impl Verified {
    /// Whether everything is as it should be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.bad.is_empty() && self.missing == 0 && self.failed == 0
    }
}

/// Verifies a run: its outputs against the ledger's digests, and by decompressing each.
///
/// Outputs that are objects only are read from the broker at `address`, or refused without one.
///
/// # Errors
///
/// If the run cannot be read at all.
pub async fn verify(
    folder: &RunFolder,
    address: Option<&Address>,
    patience: &Patience,
) -> Result<Verified> {
    let plan = open_plan(folder, Specification::read(folder)?)?;
    let specification = plan.specification.clone();
    let mut verified =
        Verified { bad_lines: plan.ledger.bad_lines.len() as u64, ..Verified::default() };
    for index in 0..specification.tasks {
        verified.missing += u64::from(!plan.ledger.is_decided(index));
        verified.failed += u64::from(plan.ledger.is_failed(index));
    }
    let done = done_tasks(&plan)?;
    let only_objects = specification.results == ResultPath::Objects && !specification.has_files();
    if specification.codec.stores_nothing() {
        verified.good = done.len() as u64;
    } else if only_objects {
        let address = address.context("the outputs are objects: name their broker by --server")?;
        let broker = patience.connect(address, Role::Producer).await?;
        broker.unless_denied(objects(&plan, &done, &broker, &mut verified)).await?;
    } else {
        let root = specification.output_root(folder);
        verified = tokio::task::spawn_blocking(move || files(&plan, &root, &done, verified))
            .await
            .context("verify")??;
    }
    Ok(verified)
}

/// The tasks that are done in the round that counts.
fn done_tasks(plan: &BagPlan) -> Result<Vec<(Arc<TaskResult>, Done)>> {
    let mut done = Vec::new();
    let reading = plan.ledger.outcomes(|result| {
        if let Some(found) = result.done().cloned() {
            done.push((result, found));
        }
    });
    reading.with_context(|| format!("read {}", name(plan.ledger.path())))?;
    Ok(done)
}

fn files(
    plan: &BagPlan,
    root: &Path,
    done: &[(Arc<TaskResult>, Done)],
    mut verified: Verified,
) -> Result<Verified> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let checked: Vec<_> = std::thread::scope(|scope| {
        let work = || {
            let mut found = Vec::new();
            while let Some((result, done)) =
                done.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
            {
                let name = plan.target(result.index).map(|target| root.join(target.path));
                let checked = name.map_err(anyhow::Error::from).map(|path| {
                    let checked = check_file(&plan.specification.codec, &path, done);
                    (path, checked)
                });
                found.push(checked);
            }
            found
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    for checked in checked {
        let (path, checked): (PathBuf, _) = checked?;
        match checked {
            Ok(()) => verified.good += 1,
            Err(why) => verified.bad.push((path.display().to_string(), why)),
        }
    }
    verified.bad.sort();
    Ok(verified)
}

pub(crate) fn check_file(codec: &Codec, path: &Path, done: &Done) -> Result<(), String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    check(codec, done, |buffer| {
        buffer.clear();
        file.by_ref().take(SEGMENT_BYTES as u64).read_to_end(buffer).map_err(|e| e.to_string())?;
        Ok(())
    })
}

/// Checks one output that `next` hands out piece by piece, ending with an empty one.
fn check(
    codec: &Codec,
    done: &Done,
    mut next: impl FnMut(&mut Vec<u8>) -> Result<(), String>,
) -> Result<(), String> {
    let mut decoder = codec.decoder();
    let (mut stored, mut input) = (Hasher::new(), Hasher::new());
    let (mut stored_bytes, mut input_bytes) = (0, 0);
    let (mut piece, mut unpacked) = (Vec::new(), Vec::new());
    let mut broken = None;
    loop {
        next(&mut piece)?;
        if piece.is_empty() {
            break;
        }
        stored.update(&piece);
        stored_bytes += piece.len() as u64;
        let mut rest = &piece[..];
        while broken.is_none() && !rest.is_empty() {
            unpacked.clear();
            match decoder.read(rest, &mut unpacked, SEGMENT_BYTES) {
                Ok(consumed) => {
                    input.update(&unpacked);
                    input_bytes += unpacked.len() as u64;
                    rest = &rest[consumed..];
                    if consumed == 0 && unpacked.is_empty() {
                        broken = Some("bytes follow its end".to_owned());
                    }
                }
                Err(error) => broken = Some(error.to_string()),
            }
        }
    }
    // Pieces may end before everything unpacked was taken.
    while broken.is_none() {
        unpacked.clear();
        match decoder.read(&[], &mut unpacked, SEGMENT_BYTES) {
            Ok(_) if unpacked.is_empty() => break,
            Ok(_) => {
                input.update(&unpacked);
                input_bytes += unpacked.len() as u64;
            }
            Err(error) => broken = Some(error.to_string()),
        }
    }
    let digest = stored.finish();
    if digest != done.output_digest || stored_bytes != done.output_bytes {
        let (wanted, bytes) = (done.output_digest, done.output_bytes);
        return Err(format!(
            "it has {stored_bytes} bytes, {digest}; the ledger says {bytes}, {wanted}"
        ));
    }
    if let Some(why) = broken {
        return Err(why);
    }
    decoder.finish().map_err(|error| error.to_string())?;
    if input.finish() != done.input_digest || input_bytes != done.input_bytes {
        return Err("it decompresses to something else than its input".to_owned());
    }
    Ok(())
}

async fn objects(
    plan: &BagPlan,
    done: &[(Arc<TaskResult>, Done)],
    broker: &Broker,
    verified: &mut Verified,
) -> Result<()> {
    let bucket = subjects::bucket(&plan.specification.bag);
    let bucket = open_bucket(broker, &bucket)?;
    for (result, done) in done {
        let name = match &done.place {
            Place::Object { object, .. } => object.clone(),
            Place::Staged | Place::Nothing => subjects::output_name(result.index),
        };
        match check_object(&bucket, &name, &plan.specification.codec, done).await {
            Ok(()) => verified.good += 1,
            Err(why) => verified.bad.push((format!("obj://{}/{name}", bucket.name()), why)),
        }
    }
    Ok(())
}

async fn check_object(
    bucket: &Bucket,
    name: &str,
    codec: &Codec,
    done: &Done,
) -> Result<(), String> {
    let info = bucket.check_present(name).await.map_err(|error| error.to_string())?;
    let mut reader = bucket.reader(&info);
    let (sender, mut pieces) = tokio::sync::mpsc::channel::<Result<bytes::Bytes, String>>(2);
    let (codec, done) = (*codec, done.clone());
    let checking = tokio::task::spawn_blocking(move || {
        check(&codec, &done, |buffer| {
            buffer.clear();
            if let Some(piece) = pieces.blocking_recv() {
                buffer.extend_from_slice(&piece?);
            }
            Ok(())
        })
    });
    loop {
        match reader.next().await {
            Ok(Some(piece)) => {
                if sender.send(Ok(piece)).await.is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                drop(sender.send(Err(error.to_string())).await);
                break;
            }
        }
    }
    drop(sender);
    checking.await.map_err(|error| error.to_string())?
}
