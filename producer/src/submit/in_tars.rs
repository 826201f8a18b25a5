//! The tars that have the outputs of a bag's packs: looked up, and read where nothing else says what their files are called.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::Result;
use bagpress_broker::descriptor::Part;
use bagpress_broker::result::{Cause, Failed};
use bagpress_broker::{Broker, limits, subjects};
use bagpress_codec::{Codec, Digest};
use bagpress_objstore::object_ref::{Info, Reference};
use bagpress_objstore::tarred::{self, slice};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::claim::buckets::open_bucket;
use crate::object::lineage::{Lineage, may_be_made_again};
use crate::object::look::{gone, look, not_what_was_made};
use crate::object::{Answer, LOOKS, NotMade, Reconstruct};
use crate::submit::originals::{Originals, Packed, Tar};
use crate::submit::planned::Planned;

/// The objects of a bag's bucket, by name, as they were listed.
pub(super) type Listed = BTreeMap<String, Answer>;

/// A tar that is there, or is made again when its files are restored.
#[derive(Debug)]
pub(super) struct Found {
    reference: Reference,
    digest: Digest,
    /// The codec of its files.
    codec: Option<Codec>,
    /// What the files are called, by their tasks, below the folder of the outputs and as their inputs were, if that was to be read.
    pub(super) names: HashMap<u32, PathBuf>,
    /// Tasks whose outputs are not in it as they were made.
    damaged: HashMap<u32, Digest>,
}

/// The tars of a bag, each as it is there, or why nothing can be restored of it.
#[derive(Debug)]
pub(super) struct Tars {
    found: Vec<Result<Found, Failed>>,
    /// What each is called.
    names: Vec<String>,
}

impl Tars {
    /// Looks the tars up that the results name among what is `listed`, and reads each if it is `to_be_read`. `of_bag` is the codec of what says none.
    ///
    /// # Errors
    ///
    /// If the broker does not answer.
    pub(super) async fn read(
        broker: &Broker,
        bucket: &str,
        (listed, of_bag): (&Listed, Option<Codec>),
        originals: &Originals,
        (tasks, to_be_read): (u32, bool),
    ) -> Result<Self> {
        let mut packed = HashMap::<_, Vec<_>>::new();
        for index in 0..tasks {
            if let Some(one) = originals.packed(index) {
                packed.entry(one.tar).or_default().push((index, *one));
            }
        }
        let reading = originals.tars().iter().enumerate().map(|(number, tar)| {
            let members = packed.remove(&number).unwrap_or_default();
            let members = to_be_read.then_some(members);
            read_one(broker, bucket, (listed, of_bag), tar, members)
        });
        let reading: Vec<_> = reading.collect();
        let found = stream::iter(reading).buffered(LOOKS).try_collect().await?;
        let names = originals.tars().iter().map(|tar| tar.object.clone()).collect();
        Ok(Self { found, names })
    }

    /// Those that are there, or are made again.
    pub(super) fn found(&self) -> impl Iterator<Item = &Found> {
        self.found.iter().filter_map(|found| found.as_ref().ok())
    }

    /// What is to be restored of an output in one of them, whose name is `target`, if it has one.
    ///
    /// # Errors
    ///
    /// If the bucket has no name that a reference can have.
    pub(super) fn planned(
        &self,
        bucket: &str,
        (index, packed): (u32, &Packed),
        target: Option<PathBuf>,
    ) -> Result<Planned> {
        // The name of the object is that of all its files.
        let target = Some(target.unwrap_or_else(|| subjects::output_name(index).into()));
        let refused = |failed| -> Result<Planned> {
            let name = self.names.get(packed.tar).map_or("", |name| subjects::name_of(name));
            let reference = Reference::new(bucket, name)?;
            Ok(Planned { target: target.clone(), refused: Some(failed), ..Planned::of(reference) })
        };
        let found = match self.found.get(packed.tar) {
            Some(Ok(found)) => found,
            Some(Err(failed)) => return refused(failed.clone()),
            None => anyhow::bail!("a tar that no result names"),
        };
        if let Some(digest) = found.damaged.get(&index) {
            let text = format!(
                "{}: it is damaged: the digest of its bytes from {} on is {digest}, not {}",
                found.reference, packed.at, packed.digest
            );
            return refused(Failed::new(Cause::InputDigest, text));
        }
        let Packed { at, bytes, digest, .. } = *packed;
        Ok(Planned {
            bytes: Some(bytes),
            digest: Some(found.digest),
            codec: found.codec,
            part: Some(Part { at, digest }),
            original: found.codec.and_then(|codec| packed.original(&codec)),
            target,
            ..Planned::of(found.reference.clone())
        })
    }
}

async fn read_one(
    broker: &Broker,
    bucket: &str,
    (listed, of_bag): (&Listed, Option<Codec>),
    tar: &Tar,
    members: Option<Vec<(u32, Packed)>>,
) -> Result<Result<Found, Failed>> {
    let name = subjects::name_of(&tar.object);
    let missing = |answer: Answer| missing(broker, answer, tar, members.is_some());
    // It got its name after its result was committed, or kept a second one.
    let named = || listed.range(name.to_owned()..).take_while(|(other, _)| other.starts_with(name));
    let is_it = |answer: &&Answer| answer.digest == Some(tar.digest);
    let Some(answer) = named().map(|(_, answer)| answer).find(is_it) else {
        return missing(gone_or_another(broker, bucket, tar).await?).await;
    };
    let (answer, info) = look(broker, &answer.reference).await?;
    let Some(info) = info.filter(|info| info.digest == tar.digest) else {
        return missing(answer).await;
    };
    let Some(members) = &members else {
        let (reference, digest) = (answer.reference, info.digest);
        let codec = codec_of(&info, of_bag);
        let unread =
            Found { reference, digest, codec, names: HashMap::new(), damaged: HashMap::new() };
        return Ok(Ok(unread));
    };
    let open = open_bucket(broker, bucket)?;
    match open.read_parts(&info, limits::TAR_BYTES_MAX).await {
        Ok(bytes) => {
            let mut found = found(answer.reference, &info, of_bag, tar, &bytes, members);
            if !found.damaged.is_empty()
                && let Ok(made) = made_again(broker, (&found.reference, tar), true).await?
            {
                found = made;
            }
            Ok(Ok(found))
        }
        Err(error) => missing(gone(broker, &open, &answer.reference, error).await?).await,
    }
}

/// What became of the name that a tar had, or has as its second one where another tar has the first.
async fn gone_or_another(broker: &Broker, bucket: &str, tar: &Tar) -> Result<Answer> {
    let name = subjects::name_of(&tar.object);
    let (mut answer, _) = look(broker, &Reference::new(bucket, name)?).await?;
    if answer.ok && name != tar.object {
        answer = look(broker, &Reference::new(bucket, &tar.object)?).await?.0;
    }
    Ok(match answer.digest.filter(|_| answer.ok) {
        Some(found) => not_what_was_made(&answer.reference, found, tar.digest),
        None => answer,
    })
}

/// What is to be restored of a tar that is not there: all of it, if the tar can be made again when its files are wanted.
async fn missing(
    broker: &Broker,
    answer: Answer,
    tar: &Tar,
    to_be_read: bool,
) -> Result<Result<Found, Failed>> {
    let (reference, state) = (&answer.reference, answer.state.as_str());
    let mut why = answer.why.clone().unwrap_or_default();
    if may_be_made_again(answer.state) {
        match made_again(broker, (reference, tar), to_be_read).await? {
            Ok(found) => return Ok(Ok(found)),
            Err(not_made) => why = format!("{why}; {}", not_made.text),
        }
    }
    Ok(Err(Failed::new(Cause::InputMissing, format!("{reference}: {state}: {why}"))))
}

/// A tar as it will be when its pack was run again. What its files are called is in the tar of their inputs, too.
async fn made_again(
    broker: &Broker,
    (reference, tar): (&Reference, &Tar),
    to_be_read: bool,
) -> Result<Result<Found, NotMade>> {
    let lineage = Lineage::new(broker, Reconstruct::default());
    let made = match lineage.can_make(reference).await? {
        Ok(made) => made,
        Err(not_made) => return Ok(Err(not_made)),
    };
    let mut names = HashMap::new();
    if to_be_read {
        let bucket = open_bucket(broker, made.inputs.bucket())?;
        // It was there a moment ago; without it, files have the names of their outputs.
        let inputs = bucket.get(made.inputs.object(), limits::TAR_BYTES_MAX).await;
        let inputs = inputs.map(|(_, bytes)| bytes).unwrap_or_default();
        let files = tarred::read(&inputs.into()).unwrap_or_default().into_iter();
        names.extend(files.map(|file| (tar.first + file.member.place, file.member.name)));
    }
    let (reference, damaged) = (reference.clone(), HashMap::new());
    Ok(Ok(Found { reference, digest: tar.digest, codec: Some(made.codec), names, damaged }))
}

/// What a tar has, by its bytes.
fn found(
    reference: Reference,
    info: &Info,
    of_bag: Option<Codec>,
    tar: &Tar,
    bytes: &Bytes,
    members: &[(u32, Packed)],
) -> Found {
    let codec = codec_of(info, of_bag);
    let extension = codec.map_or("", |codec: Codec| codec.extension());
    // Of one that is damaged there are no names: its files have those of their outputs.
    let files = tarred::read(bytes).unwrap_or_default();
    let names: HashMap<_, _> = files
        .into_iter()
        .map(|file| (tar.first + file.member.place, without(&file.member.name, extension)))
        .collect();
    let damaged = members.iter().filter_map(|(index, packed)| {
        let found = Digest::of(&slice(bytes, packed.at, packed.bytes).unwrap_or_default());
        (found != packed.digest).then_some((*index, found))
    });
    Found { reference, digest: info.digest, codec, damaged: damaged.collect(), names }
}

fn codec_of(info: &Info, of_bag: Option<Codec>) -> Option<Codec> {
    info.metadata.get("codec").and_then(|codec| codec.parse().ok()).or(of_bag)
}

/// A name without an extension, if it has that.
fn without(name: &Path, extension: &str) -> PathBuf {
    let bytes = name.as_os_str().as_bytes();
    let bytes = bytes.strip_suffix(extension.as_bytes()).unwrap_or(bytes);
    std::ffi::OsString::from_vec(bytes.to_vec()).into()
}
