//! The outputs of a bag of objects, to be restored by what the broker knows of them: without the folder of its run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use bagpress_broker::descriptor::{Original, ResultPath};
use bagpress_broker::ids::BagId;
use bagpress_broker::result::{Cause, Failed};
use bagpress_broker::{BagLine, BagState, Broker, subjects};
use bagpress_codec::Codec;
use bagpress_objstore::object_ref::Reference;
use futures::{StreamExt, TryStreamExt, stream};

use crate::error::Usage;
use crate::object::lineage::may_be_made_again;
use crate::object::look::look;
use crate::object::{Answer, LOOKS, State, list};
use crate::run_folder::inputs::folders::FolderEntry;
use crate::run_folder::inputs::stream::Recorded;
use crate::run_folder::specification::RESTORE;
use crate::run_folder::tree::Tree;
use crate::submit::in_tars::{Listed, Tars};
use crate::submit::names_of_bag::names;
use crate::submit::originals::Originals;
use crate::submit::planned::Planned;
use crate::submit::tree::tree_of;

/// The outputs of a bag, each with the name of what it was made of, and with the digest of it, where the broker has its result; and the folders that
/// its run had. One that is not there is refused by itself.
///
/// # Errors
///
/// [`Usage`] if the bag is not there, not finished, or has no outputs that can be restored by themselves; if the broker does not answer.
pub async fn resolve_bag(broker: &Broker, bag: &BagId) -> Result<(Vec<Planned>, Vec<FolderEntry>)> {
    let line = line_of(broker, bag).await?;
    let bucket = subjects::bucket(bag);
    let (mut there, mut tars, mut last) = (BTreeMap::new(), Listed::new(), None);
    let listed = list(broker, &bucket, false, |answer| {
        let name = answer.reference.object();
        if subjects::first_of_tar(name).is_some() {
            tars.insert(name.to_owned(), answer.clone());
        }
        if let Some(index) = subjects::index_of_output(name) {
            last = last.max(Some(index));
            there.insert(index, answer.clone());
        }
        Ok(())
    });
    match listed.await {
        Ok(_) => {}
        Err(error) if error.is::<Usage>() && line.done > 0 => {
            return Err(Usage::error(
                format!("the outputs of bag {bag} are gone with their bucket"),
                format!(
                    "`bagpress object info obj://{bucket}/{}` says why",
                    subjects::output_name(0)
                ),
            ));
        }
        Err(error) => return Err(error),
    }
    let originals = Originals::read(broker, bag, &[], line.rounds).await?;
    check_objects(bag, &line, (tars.len(), last), &originals)?;
    let of_bag: Option<Codec> = line.codec.parse().ok();
    let tree = tree_of(broker, &line).await?;
    let to_be_read = (line.tasks, tree.is_none());
    let tars = Tars::read(broker, &bucket, (&tars, of_bag), &originals, to_be_read).await?;
    let (files, folders) = match tree {
        Some(Tree { files, folders }) => (files, folders),
        None => (called(&line, &there, &originals, &tars), Vec::new()),
    };
    let outputs =
        Outputs { broker, bag, bucket: &bucket, there: &there, originals: &originals, of_bag };
    let planning = stream::iter((0..).zip(files)).map(async |(index, (target, attributes))| {
        let planned = match originals.packed(index) {
            Some(packed) => tars.planned(&bucket, (index, packed), target),
            None => outputs.planned(index, target).await,
        };
        planned.map(|planned| Planned { attributes, ..planned })
    });
    let mut planned: Vec<_> = planning.buffered(LOOKS).try_collect().await?;
    without_doubles(&mut planned);
    Ok((planned, folders))
}

/// What the outputs are called of a bag that has no tree, as far as the outputs themselves tell.
fn called(
    line: &BagLine,
    there: &BTreeMap<u32, Answer>,
    originals: &Originals,
    tars: &Tars,
) -> Vec<(Option<PathBuf>, Option<Recorded>)> {
    let mut inputs = BTreeMap::new();
    for index in (0..line.tasks).filter(|index| originals.packed(*index).is_none()) {
        let label = there.get(&index).and_then(|answer| answer.input.clone());
        let result = || originals.made(index).and_then(|(_, name)| name.clone());
        let cut = || originals.cut(index).cloned().flatten();
        inputs.extend(label.or_else(result).or_else(cut).map(|input| (index, input)));
    }
    let mut names = names(inputs);
    let packed = tars.found().flat_map(|tar| tar.names.clone());
    names.extend(packed.filter(|(index, _)| originals.packed(*index).is_some()));
    (0..line.tasks).map(|index| (names.remove(&index), None)).collect()
}

/// Outputs that are objects of their own.
struct Outputs<'a> {
    broker: &'a Broker,
    bag: &'a BagId,
    bucket: &'a str,
    there: &'a BTreeMap<u32, Answer>,
    originals: &'a Originals,
    of_bag: Option<Codec>,
}

impl Outputs<'_> {
    async fn planned(&self, index: u32, target: Option<PathBuf>) -> Result<Planned> {
        let originals = self.originals;
        let reference = Reference::new(self.bucket, &subjects::output_name(index))?;
        let made = originals.made(index);
        let Some(answer) = self.there.get(&index) else {
            if originals.cut(index).is_some() {
                let text = format!(
                    "{reference}: it was compressed in blocks, which were joined where the bag was gathered: restore it by the run folder of the bag"
                );
                let refused = Some(Failed::new(Cause::InputMissing, text));
                return Ok(Planned { target, refused, ..Planned::of(reference) });
            }
            let refused = absent(self.broker, (&reference, index), originals).await?;
            let codec = made.map(|(codec, _)| *codec).or(self.of_bag);
            return Ok(Planned { codec, target, refused, ..Planned::of(reference) });
        };
        // Another program may have put it.
        let codec = answer.codec.as_ref().and_then(|codec| codec.parse::<Codec>().ok());
        let codec = codec.or(made.map(|(codec, _)| *codec)).or(self.of_bag);
        let twin = |digest| originals.of_twin(digest, &codec?).filter(|_| made.is_none());
        let of = |digest| originals.of(index, digest).or_else(|| twin(digest));
        let original = answer.digest.and_then(of);
        if made.is_some() && original.is_none() {
            // These are other bytes than the bag made: they are not what is restored.
            return Ok(Planned { codec, target, ..Planned::of(reference) });
        }
        if original.is_none() && !originals.tars().is_empty() {
            // A twin of a file in a tar, or of one that ran again alone, has bytes that another output has, too.
            let text = format!(
                "{reference}: no result of the bag says what it was made of, and no other output has its bytes; \
                 `bagpress gather RUN --repair` makes it again from its file, where the run folder of bag {} is",
                self.bag
            );
            let refused = Some(Failed::new(Cause::InputDigest, text));
            return Ok(Planned { codec, target, refused, ..Planned::of(reference) });
        }
        let (bytes, digest) = (answer.bytes, answer.digest);
        Ok(Planned { bytes, digest, codec, original, target, ..Planned::of(reference) })
    }
}

/// Of outputs that were made of one file, with different codecs, each would be restored under its name. What is the same comes back
/// once, and anything else under the name of its object.
fn without_doubles(planned: &mut Vec<Planned>) {
    let mut named: BTreeMap<PathBuf, Option<Original>> = BTreeMap::new();
    let mut indices = 0..;
    planned.retain_mut(|planned| {
        let index = indices.next().unwrap_or(u32::MAX);
        let Some(target) = &planned.target else { return true };
        let Some(first) = named.get(target) else {
            named.insert(target.clone(), planned.original);
            return true;
        };
        let same = first.is_some() && *first == planned.original;
        // Of what is in a tar, the object has the name of all its files.
        planned.target = planned.part.map(|_| subjects::output_name(index).into());
        !same
    });
}

/// The line of a bag whose outputs are objects, and all there.
async fn line_of(broker: &Broker, bag: &BagId) -> Result<BagLine> {
    let found = broker.find_bag(bag).await?;
    let here = "name a bag that `bagpress status` shows on this server, or a file, or a run folder, which has a slash";
    let line = match (found.line, found.unreadable) {
        (Some(line), _) => line,
        (None, Some(why)) => {
            return Err(Usage::error(format!("the line of bag {bag}: {why}"), here));
        }
        (None, None) if found.removed => {
            let hint = "what was compressed is where it was put with --out, or nowhere any more";
            return Err(Usage::error(format!("bag {bag} was removed, with its objects"), hint));
        }
        (None, None) => return Err(Usage::error(format!("this server has no bag {bag}"), here)),
    };
    if line.results == ResultPath::Staged {
        let name = bag.as_str().rsplit_once('-').map_or(bag.as_str(), |(name, _)| name);
        return Err(Usage::error(
            format!("the outputs of bag {bag} are files, and no objects"),
            format!(
                "they are where its gatherer put them: in its run folder, {name}/staged below the folder of runs, or in the folder of \
                 --out; there, `bagpress restore runs/{name}/staged --out DIR` restores them"
            ),
        ));
    }
    if line.codec == RESTORE {
        let hint = "name the bag that compressed them";
        return Err(Usage::error(
            format!("bag {bag} restored: its outputs are not compressed"),
            hint,
        ));
    }
    if line.state != BagState::Finished {
        let (state, done, tasks) = (line.state, line.done, line.tasks);
        return Err(Usage::error(
            format!(
                "bag {bag} is not finished: it is {state}, and {done} of {tasks} tasks are done"
            ),
            format!(
                "gather it to its end; or restore what is there by its references: `bagpress object ls {} --json` lists them for --refs",
                subjects::bucket(bag)
            ),
        ));
    }
    Ok(line)
}

/// Refuses a bag of which nobody knows what is in its tars, or whose outputs were all joined where it was gathered; `last` is the
/// highest index of an output that is there.
fn check_objects(
    bag: &BagId,
    line: &BagLine,
    (tars, last): (usize, Option<u32>),
    originals: &Originals,
) -> Result<()> {
    let bucket = subjects::bucket(bag);
    if tars > 0 && originals.tars().is_empty() {
        return Err(Usage::error(
            format!(
                "outputs of bag {bag} are in {tars} tars, each of several small files, and the broker has no result that says what is in them: \
                 its results were removed, or its tasks were offered to workers of an earlier version"
            ),
            format!(
                "restore its run folder, if there is one, which also knows of what is not there any more; or fetch them with `bagpress object get obj://{bucket}/out_0.tar … --out DIR`, as `bagpress object ls {bucket}` lists them, unpack \
                 each with tar, and restore DIR; what is an object of its own, such as out_0.bin, `bagpress restore obj://{bucket}/out_0.bin` restores"
            ),
        ));
    }
    let is_cut = |index| originals.cut(index).is_some();
    if last.is_some_and(|last| last >= line.tasks) && !(0..line.tasks).any(is_cut) {
        return Err(Usage::error(
            format!(
                "large files of bag {bag} were compressed in blocks, which were joined to files where it was gathered"
            ),
            "restore them by its run folder, or the files themselves",
        ));
    }
    Ok(())
}

/// Why a task has no output; none if it may be made again when it is wanted.
async fn absent(
    broker: &Broker,
    (reference, index): (&Reference, u32),
    originals: &Originals,
) -> Result<Option<Failed>> {
    let (answer, _): (Answer, _) = look(broker, reference).await?;
    let failed = originals.why_failed(index);
    if failed.is_none() && may_be_made_again(answer.state) {
        return Ok(None);
    }
    let why = answer.why.unwrap_or_default();
    let text = match failed {
        Some(cause) => format!("{reference}: the bag has no output of it: {cause}"),
        None if answer.state == State::NeverThere && !originals.tars().is_empty() => {
            format!("{reference}: {why}, and no result says that it is in a tar")
        }
        None => format!("{reference}: {}: {why}", answer.state.as_str()),
    };
    Ok(Some(Failed::new(Cause::InputMissing, text)))
}

#[cfg(test)]
mod tests {
    use bagpress_objstore::object_ref::Reference;

    use super::*;

    #[test]
    fn what_two_outputs_were_made_of_comes_back_once_and_anything_else_by_another_name() {
        let original = |text: &[u8]| {
            Some(Original { bytes: text.len() as u64, digest: bagpress_codec::Digest::of(text) })
        };
        let output = |index: u32, original| {
            let reference = Reference::new("bag-t", &subjects::output_name(index)).unwrap();
            Planned { original, target: Some("a".into()), ..Planned::of(reference) }
        };
        let mut planned: Vec<_> = [original(b"a"), original(b"a"), original(b"b"), None]
            .into_iter()
            .zip(0..)
            .map(|(original, index)| output(index, original))
            .collect();
        without_doubles(&mut planned);
        let left: Vec<_> =
            planned.iter().map(|of| (of.reference.object(), of.target.is_some())).collect();
        assert_eq!(left, [("out_0.bin", true), ("out_2.bin", false), ("out_3.bin", false)]);
    }
}
