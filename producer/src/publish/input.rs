//! One input: a file, or those of a pack as a tar, read into the bucket, and removed from it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bagpress_broker::ids::Execution;
use bagpress_broker::result::{Cause, Failed};
use bagpress_broker::{limits, quote, subjects};
use bagpress_codec::Digest;
use bagpress_objstore::object_ref::{self, Bucket, Freed, Info, Lookup, Writer};
use bagpress_objstore::staging::{InputFile, OpenInput};
use bagpress_objstore::tarred;
use bytes::Bytes;
use tokio::task::{JoinError, spawn_blocking};
use tracing::{info, warn};

use crate::check::input_again::digest_of_file;
use crate::object::by;
use crate::run_folder::inputs::InputEntry;

/// Files of a pack, with their places.
pub(crate) type Members = Arc<[(u32, InputEntry)]>;

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

/// Puts the files of a pack into the input bucket as one tar, as far as they can be read: what is missing there is left open, and
/// fails, or is done, when it is run alone. Returns how many bytes the files have; none if there is no file in it.
///
/// # Errors
///
/// [`NotPut`]: either kind may pass.
pub(crate) async fn put_tar(
    bucket: &Bucket,
    first: u32,
    members: Members,
    extension: &'static str,
) -> Result<Option<(Info, u64)>, NotPut> {
    let reading = spawn_blocking(move || tar_of(&members, extension)).await;
    let Some((tar, bytes)) = reading.map_err(|error| stopped(Path::new("a pack"), &error))?? else {
        return Ok(None);
    };
    let token = format!("{first}-{}", Execution::random());
    let mut writer = bucket.writer(&subjects::input_tar_name(first), &token)?;
    match writer.write(tar.clone()).await {
        Ok(()) => Ok(Some((writer.commit_or_adopt().await?.info, bytes))),
        // As with a file: the very tar may be what takes the room.
        Err(full @ object_ref::Error::Full { .. }) => {
            let Some(there) = writer.adoptable().await else { return Err(full.into()) };
            if there.digest == Digest::of(&tar) {
                return Ok(Some((there, bytes)));
            }
            bucket.remove_exactly(&there).await?;
            Err(full.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// The tar of a pack, and how many bytes its files have; none if there is none. Blocks.
fn tar_of(members: &[(u32, InputEntry)], extension: &str) -> Result<Option<(Bytes, u64)>, NotPut> {
    let (mut writer, mut left, mut files) = (tarred::Writer::default(), limits::PACK_BYTES_MAX, 0);
    for (place, entry) in members {
        let read = if tarred::Writer::takes(&entry.member(*place, extension).name) {
            read_small(InputFile::from(entry.clone()), left)
        } else {
            Err(Failed::new(Cause::OutputUnwritable, "its name is too long for a tar of ours"))
        };
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(failed) if failed.cause.is_transient() => return Err(NotPut::Input(failed)),
            Err(failed) => {
                info!(path = %quote::name(&entry.path), cause = %failed.cause, error = failed.message, "not in its pack, it is run alone");
                continue;
            }
        };
        writer.add(&entry.member(*place, ""), &bytes).map_err(|error| stays(&error))?;
        left -= bytes.len() as u64;
        files += 1;
    }
    Ok((files > 0).then(|| (writer.finish(), limits::PACK_BYTES_MAX - left)))
}

/// Reads a file of at most `most` bytes whole.
fn read_small(input: InputFile, most: u64) -> Result<Vec<u8>, Failed> {
    let file = OpenInput::open(input)?;
    let (mut whole, mut piece, mut ended) = (Vec::new(), Vec::new(), false);
    while !ended {
        ended = file.read_at(whole.len() as u64, limits::CHUNK_BYTES, &mut piece)?;
        whole.append(&mut piece);
        if whole.len() as u64 > most {
            return Err(Failed::new(
                Cause::InputChanged,
                "it is longer than what is left of its pack",
            ));
        }
    }
    Ok(whole)
}

/// A tar that cannot be made: never of the files that make packs.
fn stays(error: &io::Error) -> NotPut {
    NotPut::Input(Failed::new(Cause::InputUnreadable, format!("the tar of a pack: {error}")))
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

/// Removes an input, and leaves a tombstone that says why. A publisher that put it knows what to remove, and need not look it up; unless it was replaced
/// meanwhile.
///
/// # Errors
///
/// Those of the bucket.
pub(crate) async fn remove_input(
    bucket: &Bucket,
    name: &str,
    known: Option<&Info>,
) -> Result<(), object_ref::Error> {
    let freed = Freed { by: by(), is_input: true, at: None };
    if let Some(info) = known
        && bucket.free_exactly(info, &freed).await?
    {
        return Ok(());
    }
    if let Lookup::Found(info) = bucket.info_from_leader(name).await?
        && bucket.free_exactly(&info, &freed).await?
    {
        return Ok(());
    }
    bucket.remove(name).await?;
    Ok(())
}

async fn abandon(writer: Writer) {
    if let Err(error) = writer.abandon().await {
        warn!(%error, "chunks left behind");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use bagpress_objstore::staging::mtime_ns;

    use super::*;

    fn entry(path: &Path, target: &str) -> InputEntry {
        let (metadata, path) = (fs::metadata(path).unwrap(), path.canonicalize().unwrap());
        InputEntry {
            bytes: metadata.len(),
            mtime_ns: mtime_ns(&metadata),
            mode: 0o600,
            inode: metadata.ino(),
            ..InputEntry::named(path, target.into())
        }
    }

    fn in_tar(members: &[(u32, InputEntry)]) -> Option<(Vec<u32>, u64)> {
        let (tar, bytes) = tar_of(members, ".gz").unwrap_or(None)?;
        let found = tarred::read(&tar).unwrap();
        Some((found.iter().map(|found| found.member.place).collect(), bytes))
    }

    #[test]
    fn a_file_that_cannot_be_in_the_tar_of_its_pack_keeps_no_other_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: usize| {
            let path = folder.path().join(name);
            fs::write(&path, vec![7; bytes]).unwrap();
            entry(&path, name)
        };
        let most = usize::try_from(limits::PACK_BYTES_MAX).unwrap();
        let named = |bytes: usize| {
            let target = format!("{}/{}", "d".repeat(800), "n".repeat(bytes - 801));
            entry(&folder.path().join("a"), &target)
        };
        let members = [
            (0, file("a", 10)),
            (2, file("gone", 10)),
            (3, file("grown", 10)),
            (4, named(limits::TAR_NAME_BYTES_MAX - 3)),
            (5, named(limits::TAR_NAME_BYTES_MAX - 2)),
            (6, file("large", most)),
            (9, file("b", 20)),
        ];
        fs::remove_file(folder.path().join("gone")).unwrap();
        fs::write(folder.path().join("grown"), "it is longer now").unwrap();
        assert_eq!(in_tar(&members), Some((vec![0, 4, 9], 40)));
        assert_eq!(in_tar(&members[1..3]), None);
        let tar = |members| tar_of(members, ".gz").unwrap_or(None);
        assert_eq!(tar(&members), tar(&members));
    }
}
