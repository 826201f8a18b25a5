//! Fetching objects: into files that get their names once the digest was compared, or to stdout.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use bagpress_broker::ids::random_base32;
use bagpress_broker::{Broker, limits, quote};
use bagpress_codec::Digest;
use bagpress_objstore::beneath::{Dir, inside};
use bagpress_objstore::object_ref::{Bucket, Info, Reference};
use bagpress_objstore::staging::{hash_file, name_new};
use bagpress_objstore::{Trouble, trouble};
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::answer::{Answer, State, Tally};
use super::lineage::{Lineage, NotMade, Reconstruct, Why};
use super::look::{gone, look_at_what_was_made};
use super::wait::LOOK_AGAIN;
use crate::claim::buckets::open_bucket;
use crate::error::Usage;

/// Where objects are fetched to.
#[derive(Debug, Clone)]
pub enum To {
    /// Below a folder, each by its name.
    Folder(PathBuf),
    /// One, as this file.
    File(PathBuf),
    /// One behind the other, in the order in which they are named.
    Stdout,
}

impl To {
    /// Where `--out` leads for so many objects: stdout for `-`; a folder if there are several, if one is there, or if a slash
    /// ends it; a file otherwise.
    #[must_use]
    pub fn of(out: &Path, objects: usize) -> Self {
        if out == Path::new("-") {
            return Self::Stdout;
        }
        let ends_with_slash = out.as_os_str().as_encoded_bytes().ends_with(b"/");
        if objects > 1 || ends_with_slash || out.is_dir() {
            Self::Folder(out.to_owned())
        } else {
            Self::File(out.to_owned())
        }
    }
}

/// How objects are fetched.
#[derive(Debug, Clone)]
pub struct Get {
    /// Where to.
    pub to: To,
    /// How long to wait for what is not there yet, and for all of it to be fetched; none: what is not there is not waited for.
    pub deadline: Option<Duration>,
    /// How far back to go where one is lost, corrupt or was deleted by another program, to make it again.
    pub reconstruct: Reconstruct,
}

/// Fetches objects. A file gets its name when it is whole, was compared with the object's digest and is on the disk; a file that has
/// the name already is left alone, and is right if it has the very bytes.
///
/// # Errors
///
/// [`Usage`] if the folder cannot be written; if the broker does not answer, or `tell` fails.
pub async fn get(
    broker: &Broker,
    references: &[Reference],
    how: &Get,
    mut tell: impl FnMut(&Answer) -> Result<()>,
) -> Result<Tally> {
    let until = how.deadline.map(|deadline| Instant::now() + deadline);
    let place = Place::open(&how.to)?;
    let at_a_time = if matches!(how.to, To::Stdout) { 1 } else { limits::OBJECTS_FETCHED };
    let lineage = Lineage::new(broker, how.reconstruct);
    let (mut pending, mut tally, mut late) = (references.to_vec(), Tally::default(), Vec::new());
    loop {
        let round = Instant::now() + LOOK_AGAIN;
        let getting = stream::iter(&pending).map(|reference| {
            let getting = get_or_make(broker, reference, &place, &lineage, until);
            async move {
                let Some(until) = until else { return getting.await };
                // What is under way then is taken back.
                let late = "it was not fetched within the deadline";
                let late = || Answer::of(reference, State::NeverThere).refused(late);
                tokio::time::timeout_at(until, getting).await.unwrap_or_else(|_| Ok(late()))
            }
        });
        let (mut getting, mut left) = (Box::pin(getting.buffered(at_a_time)), Vec::new());
        while let Some(answer) = getting.next().await {
            let answer = answer?;
            if answer.not_reconstructed == Some(Why::TooLate) {
                late.push(answer);
            } else if until.is_some() && answer.state == State::NeverThere {
                left.push(answer);
            } else {
                tally.count(&answer);
                tell(&answer)?;
            }
        }
        drop(getting);
        let is_over = until.is_some_and(|until| Instant::now() >= until);
        if left.is_empty() || is_over {
            late.extend(left);
            tally.pending = late.len() as u64;
            tally.timed_out = !late.is_empty();
            late.iter().try_for_each(&mut tell)?;
            return Ok(tally);
        }
        pending = left.into_iter().map(|answer| answer.reference).collect();
        sleep_until(until.map_or(round, |until| round.min(until))).await;
    }
}

/// Where objects go, held.
#[derive(Debug)]
enum Place {
    Folder(PathBuf, Dir),
    /// A folder, and the file in it.
    File(PathBuf, Dir, PathBuf),
    Stdout,
}

impl Place {
    fn open(to: &To) -> Result<Self> {
        let refused = |path: &Path, error: io::Error| {
            Usage::error(
                format!("{} cannot be written: {error}", quote::name(path)),
                "choose another --out: a folder, a file in a folder, or - for stdout",
            )
        };
        match to {
            To::Stdout => Ok(Self::Stdout),
            To::Folder(path) => {
                let opened = fs::create_dir_all(path).and_then(|()| Dir::open(path));
                Ok(Self::Folder(path.clone(), opened.map_err(|error| refused(path, error))?))
            }
            To::File(path) => {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                let folder = folder.unwrap_or(Path::new("."));
                let name = path
                    .file_name()
                    .ok_or_else(|| refused(path, io::ErrorKind::IsADirectory.into()))?;
                let held = Dir::open(folder).map_err(|error| refused(path, error))?;
                Ok(Self::File(path.clone(), held, name.into()))
            }
        }
    }
}

/// Fetches an object, which is made again first if it is lost.
async fn get_or_make(
    broker: &Broker,
    reference: &Reference,
    place: &Place,
    lineage: &Lineage,
    until: Option<Instant>,
) -> Result<Answer> {
    let answer = get_one(broker, reference, place).await?;
    if answer.ok || !lineage.is_for(answer.state) {
        return Ok(answer);
    }
    let making = async {
        loop {
            match lineage.reconstruct(reference).await? {
                // Whoever gives a time waits that long for a worker, too.
                Err(NotMade { why: Why::NoWorkers, .. }) if until.is_some() => {
                    sleep(LOOK_AGAIN).await;
                }
                made => return anyhow::Ok(made),
            }
        }
    };
    let made = match until {
        // A little earlier than all of it is given up.
        Some(until) => timeout_at(until - LOOK_AGAIN.min(until - Instant::now()), making).await,
        None => Ok(making.await),
    };
    Ok(match made {
        Ok(made) => match made? {
            Ok(tasks) => {
                let again = get_one(broker, reference, place).await?;
                Answer { reconstructed: Some(tasks), ..again }
            }
            Err(not_made) => answer.not_made(not_made),
        },
        Err(_) => answer.not_made(Why::TooLate.because("its task had no outcome in time")),
    })
}

async fn get_one(broker: &Broker, reference: &Reference, place: &Place) -> Result<Answer> {
    let (answer, found) = look_at_what_was_made(broker, reference).await?;
    let Some(info) = found else { return Ok(answer) };
    let bucket = open_bucket(broker, reference.bucket())?;
    let (path, dir, name) = match place {
        Place::Stdout => return to_stdout(broker, &bucket, answer, &info).await,
        Place::File(path, dir, name) => (path.clone(), dir, name.clone()),
        Place::Folder(path, dir) => {
            let name = PathBuf::from(reference.object());
            if inside(&name).is_err() || name.file_name().is_none() {
                return Ok(
                    answer.refused("its name leads out of the folder; fetch it as --out FILE")
                );
            }
            (path.join(&name), dir, name)
        }
    };
    let fetched = fetch(&bucket, &info, dir, &name).await;
    Ok(match fetched {
        Ok(()) => Answer { file: Some(path), ..answer },
        Err(Fetch::Object(error)) => gone(broker, &bucket, reference, error).await?,
        Err(Fetch::Taken) => answer.refused(format!("{} is another file", quote::name(&path))),
        // Its name is too long, or something is in its way: the others have names of their own.
        Err(Fetch::File(error)) if trouble(&error) == Trouble::Own => {
            answer.refused(format!("{}: {error}", quote::name(&path)))
        }
        Err(Fetch::File(error)) => {
            return Err(error).with_context(|| format!("write {}", quote::name(&path)));
        }
    })
}

enum Fetch {
    Object(bagpress_objstore::object_ref::Error),
    /// Another file has the name.
    Taken,
    File(io::Error),
}

/// A file without a name of its own yet; dropping it removes it.
struct Part<'a> {
    dir: &'a Dir,
    name: PathBuf,
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        // When it has its name, there is nothing left to remove.
        self.dir.remove_file(&self.name).ok();
    }
}

async fn fetch(bucket: &Bucket, info: &Info, dir: &Dir, name: &Path) -> Result<(), Fetch> {
    make_folders(dir, name).map_err(Fetch::File)?;
    if is_there(dir, name, info).await? {
        return Ok(());
    }
    let part = format!(".bagpress-get-{}", random_base32::<10>());
    let part = Part { dir, name: name.with_file_name(part) };
    let mut file = dir.create_as_usual(&part.name).map_err(Fetch::File)?;
    let mut reader = bucket.reader(info);
    while let Some(chunk) = reader.next().await.map_err(Fetch::Object)? {
        file = write(file, chunk).await.map_err(Fetch::File)?;
    }
    let (dir, from, to) = (dir.clone(), part.name.clone(), name.to_owned());
    let naming = spawn_blocking(move || {
        file.sync_all()?;
        name_new(&dir, &from, &dir, &to)?;
        dir.dir(to.parent().unwrap_or(Path::new("")))?.itself()?.sync_all()
    });
    match naming.await.map_err(|error| Fetch::File(io::Error::other(error)))? {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Since we looked, perhaps by another command that fetches the same.
            if is_there(part.dir, name, info).await? { Ok(()) } else { Err(Fetch::Taken) }
        }
        named => named.map_err(Fetch::File),
    }
}

/// Whether the object is there already, as a file of that name.
async fn is_there(dir: &Dir, name: &Path, info: &Info) -> Result<bool, Fetch> {
    let (dir, name) = (dir.clone(), name.to_owned());
    let looking = spawn_blocking(move || match dir.metadata(&name) {
        Ok(there) if there.is_file() => hash_file(&dir, &name).map(Some),
        Ok(_) => Ok(Some((Digest::of(b""), u64::MAX))), // no file: it has no bytes that could be right
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    });
    let looked = looking.await.map_err(|error| Fetch::File(io::Error::other(error)))?;
    match looked.map_err(Fetch::File)? {
        None => Ok(false),
        Some(there) if there == (info.digest, info.bytes) => Ok(true),
        Some(_) => Err(Fetch::Taken),
    }
}

async fn write(mut file: File, chunk: Bytes) -> io::Result<File> {
    let writing = spawn_blocking(move || file.write_all(&chunk).map(|()| file));
    writing.await.map_err(io::Error::other)?
}

/// Nothing that was written can be taken back, so the object is read before, to know that it is whole.
async fn to_stdout(
    broker: &Broker,
    bucket: &Bucket,
    answer: Answer,
    info: &Info,
) -> Result<Answer> {
    if let Err(error) = bucket.read_back(info).await {
        return gone(broker, bucket, &answer.reference, error).await;
    }
    let mut reader = bucket.reader(info);
    loop {
        match reader.next().await {
            Ok(Some(chunk)) => {
                let writing = spawn_blocking(move || {
                    let mut stdout = io::stdout().lock();
                    stdout.write_all(&chunk).and_then(|()| stdout.flush())
                });
                writing.await?.context("write to stdout")?;
            }
            Ok(None) => return Ok(answer),
            Err(error) => return gone(broker, bucket, &answer.reference, error).await,
        }
    }
}

/// Makes the folders above a file, for their owner.
fn make_folders(dir: &Dir, name: &Path) -> io::Result<()> {
    let above: Vec<_> =
        name.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
    for folder in above.into_iter().rev() {
        match dir.make_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
