//! One input: a file read into the bucket, and removed from it.

use std::path::Path;
use std::sync::Arc;

use bagpress_broker::ids::Execution;
use bagpress_broker::result::{Cause, Failed};
use bagpress_broker::{limits, quote, subjects};
use bagpress_objstore::object_ref::{self, Bucket, Info, Writer};
use bagpress_objstore::staging::{InputFile, OpenInput};
use bytes::Bytes;
use tokio::task::{JoinError, spawn_blocking};
use tracing::warn;

use crate::check::input_again::digest_of_file;

/// Why an input is not in the bucket.
pub(crate) enum NotPut {
    /// The file cannot be read, or is not as it was.
    Input(Failed),
    /// The bucket does not take it.
    Bucket(object_ref::Error),
}

impl From<object_ref::Error> for NotPut {
    fn from(error: object_ref::Error) -> Self {
        Self::Bucket(error)
    }
}

/// Puts a file into the input bucket.
///
/// # Errors
///
/// [`NotPut`]; either kind may pass.
pub(crate) async fn put_file(
    bucket: &Bucket,
    index: u32,
    input: InputFile,
) -> Result<Info, NotPut> {
    let token = format!("{index}-{}", Execution::random());
    let path = input.path.clone();
    let stopped = |error: JoinError| stopped(&path, &error);
    let opened = spawn_blocking(move || OpenInput::open(input)).await;
    let file = Arc::new(opened.map_err(stopped)?.map_err(NotPut::Input)?);
    let mut writer = bucket.writer(&subjects::input_name(index), &token)?;
    let (mut offset, mut ended) = (0, false);
    while !ended {
        let (from, at) = (file.clone(), offset);
        let reading = spawn_blocking(move || {
            let mut chunk = Vec::new();
            from.read_at(at, limits::CHUNK_BYTES, &mut chunk).map(|ended| (chunk, ended))
        });
        let chunk = match reading.await.map_err(stopped)? {
            Ok((chunk, end)) => {
                ended = end;
                chunk
            }
            Err(failed) => {
                abandon(writer).await;
                return Err(NotPut::Input(failed));
            }
        };
        if chunk.is_empty() {
            break;
        }
        offset += chunk.len() as u64;
        match writer.write(Bytes::from(chunk)).await {
            Ok(()) => {}
            // The very input may be what takes the room: an earlier gatherer put it.
            Err(full @ object_ref::Error::Full { .. }) => {
                return adopt(bucket, &mut writer, (file, &path), full).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(writer.commit_or_adopt().await?.info)
}

/// Takes the object that is there under the input's name for it, if it has the same bytes. If not it is removed, and
/// the bucket is still `full` this time: nobody else has anything to put there, and it takes the room of the input.
async fn adopt(
    bucket: &Bucket,
    writer: &mut Writer,
    (file, path): (Arc<OpenInput>, &Path),
    full: object_ref::Error,
) -> Result<Info, NotPut> {
    let Some(there) = writer.adoptable().await else { return Err(full.into()) };
    let hashed = spawn_blocking(move || digest_of_file(&file)).await;
    let Ok((digest, bytes)) = hashed.map_err(|error| stopped(path, &error))? else {
        return Err(full.into());
    };
    if (there.bytes, there.digest) == (bytes, digest) {
        return Ok(there);
    }
    bucket.remove_exactly(&there).await?;
    Err(full.into())
}

/// What it is when reading a file panicked.
fn stopped(path: &Path, error: &JoinError) -> NotPut {
    NotPut::Input(Failed::new(Cause::InputUnreadable, format!("{}: {error}", quote::name(path))))
}

/// Removes an input. A publisher that put it knows what to remove, and need not look it up; unless it was replaced
/// meanwhile.
///
/// # Errors
///
/// Those of the bucket.
pub(crate) async fn remove_input(
    bucket: &Bucket,
    index: u32,
    known: Option<&Info>,
) -> Result<(), object_ref::Error> {
    if let Some(info) = known
        && bucket.remove_exactly(info).await?
    {
        return Ok(());
    }
    bucket.remove(&subjects::input_name(index)).await?;
    Ok(())
}

async fn abandon(writer: Writer) {
    if let Err(error) = writer.abandon().await {
        warn!(%error, "chunks left behind");
    }
}
