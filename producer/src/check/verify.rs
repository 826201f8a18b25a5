//! Every output, hashed and decompressed again; what was restored is hashed.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use bagpress_broker::quote::name;
use bagpress_broker::result::{Cause, Done, TaskResult};
use bagpress_broker::{Address, Broker, Patience, Role, subjects};
use bagpress_codec::{Codec, Hasher, SEGMENT_BYTES};
use bagpress_objstore::beneath::Dir;
use bagpress_objstore::object_ref::Bucket;
use bagpress_objstore::staging::Plan as _;
use bytes::Bytes;

use crate::check::input_again;
use crate::check::tar_again::{InTar, TarAgain};
use crate::check::tree_again::{TreeIs, look_at_tree};
use crate::check::verified::{Checked, Flaw, Verified};
use crate::claim::buckets::open_bucket;
use crate::run_folder::folder::RunFolder;
use crate::run_folder::from_start::FromStart;
use crate::run_folder::plan::BagPlan;
use crate::run_folder::plan::read_plan;
use crate::run_folder::runs::replaced_by;
use crate::run_folder::specification::Specification;

/// What is wrong with an output that was there when its task was done.
const GONE: &str = "it is gone";

/// Compares what an output decompresses to, as `done` has it, with its input made or read again: a worker that lies about
/// one lies about the other too.
fn compare(plan: &BagPlan, index: u32, done: &Done) -> Checked {
    if plan.entry(index).is_ok_and(|entry| entry.reference.is_some()) {
        return Err(Flaw::InputIsObject);
    }
    let input = input_again::digest_of(plan, index);
    let (digest, bytes) = input.map_err(|failed| match failed.cause {
        Cause::InputMissing if plan.specification.remove_source => Flaw::InputRemoved,
        _ => Flaw::NotCompared(failed.message),
    })?;
    if (digest, bytes) == (done.input_digest, done.input_bytes) {
        return Ok(());
    }
    let (other, size) = (done.input_digest, done.input_bytes);
    if plan.input(index).is_ok_and(|file| file.bytes == 0) {
        // As below `/proc`: it is another one whenever it is read.
        return Err(Flaw::NotCompared(
            "its input has no size, and may differ at each read".to_owned(),
        ));
    }
    Err(Flaw::NotOfInput(format!(
        "it was made of {size} bytes, {other}; its input has {bytes}, {digest}"
    )))
}

/// Verifies a run: its outputs against the ledger's digests, by decompressing each, and, with `inputs`, by comparing that
/// with its input, which is made or read again.
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
    inputs: bool,
) -> Result<Verified> {
    let plan = read_plan(folder, Specification::read(folder)?)?;
    let specification = plan.specification.clone();
    let mut verified =
        Verified { bad_lines: plan.ledger.bad_lines().len() as u64, ..Verified::default() };
    for index in 0..specification.tasks {
        verified.missing += u64::from(!plan.ledger.is_decided(index));
        verified.failed += u64::from(plan.ledger.is_failed(index));
    }
    verified.helps = plan.what_helps();
    let done = done_tasks(&plan)?;
    let only_objects = specification.has_objects() && !specification.has_files();
    let plan = Arc::new(plan);
    let compared = inputs.then(|| plan.clone());
    if only_objects {
        let address = address.context("the outputs are objects: name their broker by --server")?;
        let broker = patience.connect(address, Role::Producer).await?;
        let checking = objects(&plan, &done, &broker, compared, &mut verified);
        broker.unless_denied(checking).await?;
    } else {
        let (root, folder) = (specification.output_root(folder), folder.clone());
        let checking = tokio::task::spawn_blocking(move || {
            let mut verified = files(&plan, &root, &done, compared.as_deref(), verified)?;
            verified.find_makers(&folder);
            anyhow::Ok(verified)
        });
        verified = checking.await.context("verify")??;
    }
    verified.sort();
    Ok(verified)
}

/// The tasks that are done in the round that counts.
fn done_tasks(plan: &BagPlan) -> Result<Vec<(Arc<TaskResult>, Done)>> {
    let mut done = Vec::new();
    let reading = plan.ledger.outcomes(|result| {
        if let Some(mut found) = result.done().cloned() {
            if plan.specification.restores() {
                // What was restored is as it was before it was compressed: there is nothing to decompress in it.
                found.input_bytes = found.output_bytes;
                found.input_digest = found.output_digest;
            }
            done.push((result, found));
        }
    });
    reading.with_context(|| format!("read {}", name(plan.ledger.path())))?;
    // In the ledger they are as they came.
    done.sort_by_key(|(result, _)| result.index);
    Ok(done)
}

fn files(
    plan: &BagPlan,
    root: &Path,
    done: &[(Arc<TaskResult>, Done)],
    compared: Option<&BagPlan>,
    mut verified: Verified,
) -> Result<Verified> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let held = Dir::open(root).map_err(|error| error.to_string());
    let open = |target: &Path| {
        let root = held.as_ref().map_err(String::clone)?;
        open_output(root, target).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => GONE.to_owned(),
            _ => error.to_string(),
        })
    };
    let checked: Vec<_> = std::thread::scope(|scope| {
        let work = || {
            let mut found = Vec::new();
            while let Some((result, done)) =
                done.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
            {
                let name = plan.target(result.index).map(|target| target.path);
                let of = name.and_then(|name| Ok((name, plan.codec(result.index)?)));
                let checked = of.map_err(anyhow::Error::from).map(|(path, codec)| {
                    // There is nothing to look at but what its worker said of its input.
                    let there = if codec.stores_nothing() {
                        Ok(())
                    } else {
                        let file = open(&path).map_err(Flaw::Bad);
                        file.and_then(|file| {
                            let checked = check_file(&codec, &file, done);
                            checked.map_err(|why| flaw(plan, result, &file, why))
                        })
                    };
                    let compare =
                        || compared.map_or(Ok(()), |plan| compare(plan, result.index, done));
                    (root.join(path), there.and_then(|()| compare()))
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
        verified.add(path.display().to_string(), checked);
    }
    Ok(verified)
}

/// What is wrong with a file that is not what its line says: it was spoilt, or it is another one.
fn flaw(plan: &BagPlan, result: &TaskResult, file: &File, why: String) -> Flaw {
    let there = file.metadata().ok();
    let other = there.and_then(|there| replaced_by(&plan.specification, result.file, &there));
    other.map_or(Flaw::Bad(why), Flaw::Replaced)
}

/// Opens an output beneath the outputs' folder. No link is followed, and nothing but a file is waited for.
///
/// # Errors
///
/// What the system said; that it is not a file.
pub(crate) fn open_output(root: &Dir, target: &Path) -> io::Result<File> {
    let file = root.file(target)?;
    file.ok_or_else(|| io::Error::other("it is not a file"))
}

pub(crate) fn check_file(codec: &Codec, file: &File, done: &Done) -> Result<(), String> {
    let mut file = FromStart::of(file);
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
    let expected = done.decoded_digest(codec);
    let other = expected.is_some_and(|expected| input.finish() != expected);
    if other || input_bytes != done.input_bytes {
        return Err("it does not decompress to its input".to_owned());
    }
    Ok(())
}

async fn objects(
    plan: &BagPlan,
    done: &[(Arc<TaskResult>, Done)],
    broker: &Broker,
    compared: Option<Arc<BagPlan>>,
    verified: &mut Verified,
) -> Result<()> {
    let bucket = subjects::bucket(&plan.specification.bag);
    let bucket = open_bucket(broker, &bucket)?;
    let mut tar = TarAgain::default();
    for (result, done) in done {
        let mut name = subjects::output_name(result.index);
        let codec = plan.codec(result.index).context("read the list of inputs")?;
        let there = match InTar::of(plan, result, done).context("read the list of inputs")? {
            Some(output) => {
                let target = plan.target(result.index).context("find the name of an output")?;
                name = format!("{}/{}", output.object, target.path.display());
                match tar.output(&bucket, &output).await.map_err(|error| error.to_string()) {
                    Ok(Ok(bytes)) => check_held(&codec, bytes, done).await,
                    Ok(Err(why)) | Err(why) => Err(why),
                }
            }
            None => check_object(&bucket, &name, &codec, done).await,
        };
        let mut checked = there.map_err(Flaw::Bad);
        if let (Ok(()), Some(plan)) = (&checked, compared.clone()) {
            let (index, done) = (result.index, done.clone());
            let comparing = tokio::task::spawn_blocking(move || compare(&plan, index, &done));
            checked = comparing.await.context("compare an input")?;
        }
        verified.add(format!("obj://{}/{name}", bucket.name()), checked);
    }
    match look_at_tree(broker, plan, &bucket).await? {
        TreeIs::Sound => {}
        TreeIs::NeverPut => verified.has_no_tree = true,
        TreeIs::Bad(object, why) => verified.tree = Some((object, why)),
    }
    Ok(())
}

/// Checks an output that is at hand.
async fn check_held(codec: &Codec, mut left: Bytes, done: &Done) -> Result<(), String> {
    let (codec, done) = (*codec, done.clone());
    let checking = tokio::task::spawn_blocking(move || {
        check(&codec, &done, |buffer| {
            buffer.clear();
            buffer.extend_from_slice(&left.split_to(left.len().min(SEGMENT_BYTES)));
            Ok(())
        })
    });
    checking.await.map_err(|error| error.to_string())?
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
