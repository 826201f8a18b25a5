//! Putting files into a bucket, each as an object whose name stands for its bytes from then on.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bagpress_broker::ids::random_base32;
use bagpress_broker::{Broker, limits, quote, subjects};
use bagpress_objstore::object_ref::{Bucket, Error, Reference, Settings, Writer, Written, expires};
use bagpress_objstore::staging::{InputFile, OpenInput, mtime_ns};
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::task::spawn_blocking;

use super::answer::{Answer, State, Tally, shown};
use crate::claim::buckets::open_bucket;
use crate::error::Usage;

/// Bytes that a bucket has beyond what is put: for what is put twice for a moment.
const SLACK_BYTES: u64 = 64 << 20;

/// What is put, and where.
#[derive(Debug, Clone)]
pub struct Put {
    /// The files.
    pub files: Vec<PathBuf>,
    /// The bucket; it is made if it is not there.
    pub bucket: String,
    /// The name of the object, for one file; the last component of each file's path otherwise.
    pub name: Option<String>,
    /// How long the objects are to be there; none: until they are freed.
    pub ttl: Option<Duration>,
}

/// A file that is to be put.
#[derive(Debug, Clone)]
struct Item {
    reference: Reference,
    /// As its user called it.
    shown: PathBuf,
    input: InputFile,
}

/// Puts files. A name that stands for other bytes, now or before it was freed, is refused, as nobody else could trust it; the very
/// bytes are adopted, or made whole again. Nothing is put unless every file is there and every name can be had.
///
/// # Errors
///
/// [`Usage`] before anything is put; if the broker has no room, does not answer, or `tell` fails.
pub async fn put(
    broker: &Broker,
    put: &Put,
    mut tell: impl FnMut(&Answer) -> Result<()>,
) -> Result<Tally> {
    let items = items(put)?;
    let bucket = Box::pin(bucket(broker, put, &items)).await?;
    let putting = stream::iter(items).map(|item| put_one(broker, &bucket, item, put.ttl));
    let (mut putting, mut tally) =
        (Box::pin(putting.buffer_unordered(limits::OBJECTS_PUT)), Tally::default());
    while let Some(answer) = putting.next().await {
        let answer = answer?;
        tally.count(&answer);
        tell(&answer)?;
    }
    Ok(tally)
}

fn items(put: &Put) -> Result<Vec<Item>> {
    if put.name.is_some() && put.files.len() != 1 {
        return Err(Usage::error(
            "--name is for one file",
            "leave it out, or put one file at a time",
        ));
    }
    if put.ttl.is_some_and(|ttl| ttl < Duration::from_secs(1)) {
        return Err(Usage::error("an object stays for a second at least", "choose a longer --ttl"));
    }
    if subjects::bag_of_bucket(&put.bucket).is_some() {
        return Err(Usage::error(
            format!("the bucket {} is, or would be, one of a bag", put.bucket),
            "choose a --bucket that does not begin with bag-",
        ));
    }
    let (mut items, mut names) = (Vec::new(), HashSet::new());
    for file in &put.files {
        let item = item(put, file)?;
        if !names.insert(item.reference.clone()) {
            return Err(Usage::error(
                format!("two of the files would be {}", item.reference),
                "put them one at a time, each with --name",
            ));
        }
        items.push(item);
    }
    Ok(items)
}

fn item(put: &Put, file: &Path) -> Result<Item> {
    let refused = |why: String| {
        let hint = "name files that can be read; a folder is compressed by `bagpress run`";
        Usage::error(format!("{}: {why}", quote::name(file)), hint)
    };
    let path = file.canonicalize().map_err(|error| refused(error.to_string()))?;
    let metadata = path.metadata().map_err(|error| refused(error.to_string()))?;
    if !metadata.is_file() {
        return Err(refused("it is not a file".to_owned()));
    }
    if metadata.len() > limits::INPUT_BYTES_MAX {
        return Err(refused(format!("it has more than {} bytes", limits::INPUT_BYTES_MAX)));
    }
    let last = file.file_name().or(path.file_name()).unwrap_or_default();
    let name = put.name.as_deref().or(last.to_str());
    let name =
        name.ok_or_else(|| refused("its name is no text; choose one by --name".to_owned()))?;
    let reference =
        Reference::new(&put.bucket, name).map_err(|error| refused(error.to_string()))?;
    let (bytes, mtime_ns, inode) = (metadata.len(), mtime_ns(&metadata), metadata.ino());
    let input = InputFile { path, bytes, mtime_ns, inode, section: None };
    Ok(Item { reference, shown: file.to_owned(), input })
}

/// The bucket, with room for all that is put.
async fn bucket(broker: &Broker, put: &Put, items: &[Item]) -> Result<Bucket> {
    let each = |item: &Item| item.input.bytes + item.input.bytes / 1024 + limits::OBJECT_EACH_BYTES;
    let bytes: u64 = items.iter().map(each).sum();
    let bucket = open_bucket(broker, &put.bucket)?;
    let there = match bucket.facts().await {
        Ok(facts) => facts,
        Err(Error::NoBucket { .. }) => {
            let max_bytes = bytes + SLACK_BYTES;
            let settings = Settings { description: "Objects", max_bytes, bag: None, ttl: None };
            let (client, context) = (broker.client_handle(), broker.context_handle());
            let made = Box::pin(Bucket::create_with(client, context, &put.bucket, &settings)).await;
            return made.with_context(|| format!("make the bucket {}", put.bucket));
        }
        Err(error) => return Err(error.into()),
    };
    bucket.grow_to(there.bytes + bytes + SLACK_BYTES).await.context("enlarge the bucket")?;
    Ok(bucket)
}

async fn put_one(
    broker: &Broker,
    bucket: &Bucket,
    item: Item,
    ttl: Option<Duration>,
) -> Result<Answer> {
    let Item { reference, shown: file, input } = item;
    let token = format!("put-{}", random_base32::<15>());
    let labels = [("name".to_owned(), reference.object().to_owned())];
    let mut writer = bucket
        .writer(reference.object(), &token)?
        .description(format!("file {}", file.display()))
        .metadata(HashMap::from(labels));
    if let Some(ttl) = ttl {
        writer = writer.expiring(ttl);
    }
    let of_file = |answer: Answer| Answer { file: Some(file.clone()), ..answer };
    if let Err(failed) = write(&mut writer, input).await? {
        writer.abandon().await?;
        let answer = Answer::of(&reference, State::NeverThere).refused(failed);
        return Ok(of_file(answer));
    }
    match writer.commit_new().await {
        Ok(written) => {
            let answer = Answer::there(&reference, &written.info);
            Ok(of_file(match adopted_with_another_time(&written, ttl) {
                Some(why) => answer.refused(why),
                None => answer,
            }))
        }
        Err(error @ (Error::Exists { .. } | Error::Malformed { .. })) => {
            let (answer, _) = super::look::look(broker, &reference).await?;
            let hint = "a reference never changes what it stands for: choose another --name";
            Ok(of_file(answer.refused(format!("{error}; {hint}"))))
        }
        Err(error) => Err(error.into()),
    }
}

/// Why an object that was there already is not what was asked for, though it has the very bytes.
fn adopted_with_another_time(written: &Written, ttl: Option<Duration>) -> Option<String> {
    let expires = expires(&written.info.metadata).filter(|_| !written.mine);
    match (expires, ttl) {
        (Some(at), None) => Some(format!(
            "it is there with the same bytes, but expires {}; put it under another --name",
            shown(at)
        )),
        (None, Some(_)) if !written.mine => Some(
            "it is there with the same bytes, and does not expire; put it under another --name"
                .to_owned(),
        ),
        _ => None,
    }
}

/// Writes all of a file; what is wrong with the file, if anything is.
async fn write(writer: &mut Writer, input: InputFile) -> Result<Result<(), String>> {
    let opened = spawn_blocking(move || OpenInput::open(input)).await?;
    let file = match opened {
        Ok(file) => Arc::new(file),
        Err(failed) => return Ok(Err(failed.message)),
    };
    let (mut offset, mut ended) = (0, false);
    while !ended {
        let (from, at) = (file.clone(), offset);
        let reading = spawn_blocking(move || {
            let mut chunk = Vec::new();
            from.read_at(at, limits::CHUNK_BYTES, &mut chunk).map(|ended| (chunk, ended))
        });
        let chunk = match reading.await? {
            Ok((chunk, end)) => {
                ended = end;
                chunk
            }
            Err(failed) => return Ok(Err(failed.message)),
        };
        offset += chunk.len() as u64;
        if !chunk.is_empty() {
            writer.write(Bytes::from(chunk)).await?;
        }
    }
    Ok(Ok(()))
}
