//! Objects of committed results: looked at, and fetched where outputs become files. What one execution made of a pack is one object.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use bagpress_broker::result::{Done, Failed, Place, TaskResult};
use bagpress_broker::retry::Retry;
use bagpress_broker::{limits, quote, subjects};
use bagpress_codec::Digest;
use bagpress_objstore::object_ref::{self, Bucket, Info};
use bagpress_objstore::staging::Parts;
use bagpress_objstore::tarred::slice;
use bagpress_objstore::{Trouble, is_too_many, output_failed};
use bytes::Bytes;
use tokio::task::spawn_blocking;
use tracing::warn;

/// What is to be done about a result.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    /// It is counted.
    Counted,
    /// It is counted, and its object has this name now.
    Named(String),
    /// Its bytes are not there: run again.
    Lost,
    /// Its output cannot be written: that is the outcome.
    Fails(Failed),
}

/// What lies together of the results of one execution: several of a pack, one otherwise.
pub(crate) fn executions(results: &[Arc<TaskResult>]) -> impl Iterator<Item = &[Arc<TaskResult>]> {
    results.chunk_by(|one, other| one.execution == other.execution)
}

/// Checks that the object of the results of one execution is there, whole, and gives it its name, a tar only if it
/// `may_be_named`; fetches it where outputs become files.
///
/// # Errors
///
/// If the disk or the broker does not take part now.
pub(crate) async fn fetch(
    results: &[Arc<TaskResult>],
    bucket: Option<&Bucket>,
    parts: Option<&Parts>,
    may_be_named: bool,
) -> Result<Vec<Fate>> {
    let mut fates = Vec::with_capacity(results.len());
    let mut tar: Option<Tar> = None;
    for result in results {
        let (Some(done), Some(bucket)) = (result.done(), bucket) else {
            fates.push(Fate::Counted);
            continue;
        };
        fates.push(match &done.place {
            Place::Staged | Place::Nothing => Fate::Counted,
            Place::Object { .. } => fetch_object(bucket, result, done, parts).await?,
            Place::Tar { at, .. } => {
                if tar.as_ref().is_none_or(|tar| !tar.is_that_of(&done.place)) {
                    let found = Tar::find(bucket, result, done, may_be_named).await?;
                    tar = Some(found.read(bucket, parts.is_some()).await?);
                }
                match &tar {
                    Some(tar) => tar.part(result, done, *at, parts).await?,
                    None => Fate::Lost,
                }
            }
        });
    }
    Ok(fates)
}

/// An object that a result names.
struct Named<'a> {
    object: &'a str,
    digest: Digest,
    /// None if that is not known.
    bytes: Option<u64>,
    chunks: u64,
}

impl Named<'_> {
    fn is(&self, info: &Info) -> bool {
        (info.digest, info.chunks) == (self.digest, self.chunks)
            && self.bytes.is_none_or(|bytes| bytes == info.bytes)
    }

    /// Finds it, and gives it its name if it may. None if it is not there.
    async fn find(&self, bucket: &Bucket, index: u32, may_be_named: bool) -> Result<Option<Info>> {
        let name = subjects::name_of(self.object);
        let info = match find(bucket, self.object, name, |info| self.is(info)).await {
            Ok(info) => info,
            Err(error) if error.is_transient() => return Err(error).context("check an object"),
            Err(error) => {
                warn!(%error, index, "object not there, what is in it is run again");
                return Ok(None);
            }
        };
        if !self.is(&info) {
            warn!(index, "another object than was committed, what is in it is run again");
            return Ok(None);
        }
        if !may_be_named {
            return Ok(Some(info));
        }
        // What else has the name was never counted.
        bucket.rename(&info, name).await.context("give an object its name")?;
        Ok(Some(Info { name: name.to_owned(), ..info }))
    }
}

async fn fetch_object(
    bucket: &Bucket,
    result: &TaskResult,
    done: &Done,
    parts: Option<&Parts>,
) -> Result<Fate> {
    let Place::Object { object, chunks, .. } = &done.place else { return Ok(Fate::Lost) };
    let (digest, bytes, chunks) = (done.output_digest, Some(done.output_bytes), *chunks);
    let named = Named { object, digest, bytes, chunks };
    let Some(info) = named.find(bucket, result.index, true).await? else { return Ok(Fate::Lost) };
    let Some(parts) = parts else { return Ok(Fate::Named(info.name)) };
    let part = parts.part(result.index, result.round, &result.execution);
    let fetched = fetch_to(bucket, &info, parts, &part).await;
    fate(result, done, (&info.name, parts, &part), fetched)
}

/// The tar of the outputs of a pack, as a result names it.
struct Tar {
    place: Place,
    /// It is there.
    info: Option<Info>,
    /// Its bytes, if they are wanted and there.
    bytes: Option<Bytes>,
}

impl Tar {
    async fn find(
        bucket: &Bucket,
        result: &TaskResult,
        done: &Done,
        may_be_named: bool,
    ) -> Result<Self> {
        let mut found = Self { place: done.place.clone(), info: None, bytes: None };
        let Place::Tar { object, chunks, digest, .. } = &done.place else { return Ok(found) };
        let named = Named { object, digest: *digest, bytes: None, chunks: *chunks };
        found.info = named.find(bucket, result.index, may_be_named).await?;
        Ok(found)
    }

    /// Reads its bytes, if they are `wanted`.
    async fn read(mut self, bucket: &Bucket, wanted: bool) -> Result<Self> {
        let Some(info) = self.info.as_ref().filter(|_| wanted) else { return Ok(self) };
        match bucket.read_parts(info, limits::TAR_BYTES_MAX).await {
            Ok(bytes) => self.bytes = Some(bytes),
            Err(error) if error.is_transient() => return Err(error).context("fetch a tar"),
            Err(error) => warn!(%error, "a tar cannot be read, its files are run again"),
        }
        Ok(self)
    }

    /// Whether an output that is at this place is in it.
    fn is_that_of(&self, place: &Place) -> bool {
        let of = |place: &Place| match place {
            Place::Tar { object, chunks, digest, .. } => Some((object.clone(), *chunks, *digest)),
            _ => None,
        };
        of(&self.place) == of(place)
    }

    /// What becomes of the output that begins at this byte.
    async fn part(
        &self,
        result: &TaskResult,
        done: &Done,
        at: u64,
        parts: Option<&Parts>,
    ) -> Result<Fate> {
        let Some(info) = &self.info else { return Ok(Fate::Lost) };
        if at.saturating_add(done.output_bytes) > info.bytes {
            warn!(index = result.index, "an output behind the end of its tar is run again");
            return Ok(Fate::Lost);
        }
        let Some(parts) = parts else { return Ok(Fate::Named(info.name.clone())) };
        let bytes = self.bytes.as_ref().and_then(|tar| slice(tar, at, done.output_bytes));
        let Some(bytes) = bytes.filter(|bytes| Digest::of(bytes) == done.output_digest) else {
            warn!(index = result.index, "an output is not what its result says, it is run again");
            return Ok(Fate::Lost);
        };
        let part = parts.part(result.index, result.round, &result.execution);
        let written = match create(parts, &part).await {
            Ok(file) => write(file, bytes).await.map(drop),
            Err(error) => Err(error),
        };
        fate(result, done, (&info.name, parts, &part), written.map_err(Fetch::File))
    }
}

/// What is to be done about a result whose output was fetched, or not.
fn fate(
    result: &TaskResult,
    done: &Done,
    (name, parts, part): (&str, &Parts, &Path),
    fetched: Result<(), Fetch>,
) -> Result<Fate> {
    match fetched {
        Ok(()) => {
            let TaskResult { index, round, execution, .. } = result;
            parts.note_closed(*index, *round, execution, done.output_digest);
            Ok(Fate::Named(name.to_owned()))
        }
        Err(Fetch::Object(error)) if !error.is_transient() => {
            warn!(%error, index = result.index, "object cannot be read, task is run again");
            Ok(Fate::Lost)
        }
        Err(Fetch::Object(error)) => Err(error).context("fetch an object"),
        Err(Fetch::File(error)) => match parts.trouble(&error) {
            Trouble::Own => Ok(Fate::Fails(output_failed("write the part file", &error))),
            _ => Err(error).with_context(|| format!("write {}", quote::name(part))),
        },
    }
}

/// Finds the object that a result names, or what has the `name` that it is to have.
async fn find(
    bucket: &Bucket,
    object: &str,
    name: &str,
    as_committed: impl Fn(&Info) -> bool,
) -> Result<Info, object_ref::Error> {
    let found = bucket.check_present(object).await;
    if found.as_ref().is_ok_and(as_committed) {
        return found;
    }
    // A replica may lag, and what is lost is removed.
    let found = bucket.check_present_from_leader(object).await;
    if object != name && found.as_ref().is_err_and(|error| !error.is_transient()) {
        // It may have got its name before.
        return bucket.check_present_from_leader(name).await;
    }
    found
}

enum Fetch {
    Object(object_ref::Error),
    File(io::Error),
}

async fn fetch_to(bucket: &Bucket, info: &Info, parts: &Parts, part: &Path) -> Result<(), Fetch> {
    let mut reader = bucket.reader(info);
    let mut file = create(parts, part).await.map_err(Fetch::File)?;
    while let Some(chunk) = reader.next().await.map_err(Fetch::Object)? {
        file = write(file, chunk).await.map_err(Fetch::File)?;
    }
    Ok(())
}

async fn write(mut file: File, bytes: Bytes) -> io::Result<File> {
    let writing = spawn_blocking(move || {
        io::Write::write_all(&mut file, &bytes)?;
        Ok(file)
    });
    writing.await.map_err(io::Error::other)?
}

/// Makes a part file. The others that are fetched at the same time may have all the files open that this process may have,
/// and close theirs.
async fn create(parts: &Parts, part: &Path) -> io::Result<File> {
    Retry::unbounded().run(|| async { parts.create(part) }, is_too_many).await
}
