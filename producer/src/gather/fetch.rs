//! Objects of committed results: looked at, and fetched where outputs become files.

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use bagpress_broker::result::{Failed, Outcome, Place, TaskResult};
use bagpress_broker::{limits, quote, subjects};
use bagpress_objstore::object_ref::{self, Bucket, Info};
use bagpress_objstore::staging::Parts;
use bagpress_objstore::{Trouble, is_too_many, output_failed};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::warn;

/// What is to be done about a result.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It is counted.
    Counted,
    /// Its bytes are not there: run again.
    Lost,
    /// Its output cannot be written: that is the outcome.
    Fails(Failed),
}

/// Checks that the object of a result is there, whole, and gives it its name; fetches it where outputs become files.
///
/// # Errors
///
/// If the disk or the broker does not take part now.
pub(crate) async fn fetch(
    result: &TaskResult,
    bucket: Option<&Bucket>,
    parts: Option<&Parts>,
) -> Result<Fate> {
    let Outcome::Done(done) = &result.outcome else { return Ok(Fate::Counted) };
    let (Place::Object { object, chunks, .. }, Some(bucket)) = (&done.place, bucket) else {
        return Ok(Fate::Counted);
    };
    let as_committed = |info: &Info| {
        (info.digest, info.bytes, info.chunks) == (done.output_digest, done.output_bytes, *chunks)
    };
    let info = match find(bucket, object, result.index, as_committed).await {
        Ok(info) => info,
        Err(error) if error.is_transient() => return Err(error).context("check an object"),
        Err(error) => {
            warn!(%error, index = result.index, "object not there, task is run again");
            return Ok(Fate::Lost);
        }
    };
    if !as_committed(&info) {
        warn!(index = result.index, "another object than was committed, task is run again");
        return Ok(Fate::Lost);
    }
    // What else has the name was never counted.
    let name = subjects::output_name(result.index);
    bucket.rename(&info, &name).await.context("give an object its name")?;
    let Some(parts) = parts else { return Ok(Fate::Counted) };
    let part = parts.part(result.index, result.round, &result.execution);
    match fetch_to(bucket, &info, parts, &part).await {
        Ok(()) => {
            parts.note_closed(result.index, result.round, &result.execution, info.digest);
            Ok(Fate::Counted)
        }
        Err(Fetch::Object(error)) if !error.is_transient() => {
            warn!(%error, index = result.index, "object cannot be read, task is run again");
            Ok(Fate::Lost)
        }
        Err(Fetch::Object(error)) => Err(error).context("fetch an object"),
        Err(Fetch::File(error)) => match parts.trouble(&error) {
            Trouble::Own => Ok(Fate::Fails(output_failed("write the part file", &error))),
            _ => Err(error).with_context(|| format!("write {}", quote::name(&part))),
        },
    }
}

/// Finds the object that a result names, or what has its task's name.
async fn find(
    bucket: &Bucket,
    object: &str,
    index: u32,
    as_committed: impl Fn(&Info) -> bool,
) -> Result<Info, object_ref::Error> {
    let found = bucket.check_present(object).await;
    if found.as_ref().is_ok_and(as_committed) {
        return found;
    }
    // A replica may lag, and what is lost is removed.
    let found = bucket.check_present_from_leader(object).await;
    let name = subjects::output_name(index);
    if object != name && found.as_ref().is_err_and(|error| !error.is_transient()) {
        // It may have got its name before.
        return bucket.check_present_from_leader(&name).await;
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
        let writing = spawn_blocking(move || {
            io::Write::write_all(&mut file, &chunk)?;
            Ok(file)
        });
        let written = writing.await.map_err(|e| Fetch::File(io::Error::other(e)))?;
        file = written.map_err(Fetch::File)?;
    }
    Ok(())
}

/// Makes a part file. The others that are fetched at the same time may have all the files open that this process may have,
/// and close theirs.
async fn create(parts: &Parts, part: &Path) -> io::Result<File> {
    loop {
        match parts.create(part) {
            Err(error) if is_too_many(&error) => sleep(limits::RETRY_WAIT).await,
            created => return created,
        }
    }
}
