//! The outputs of a bag of objects, to be restored by what the broker knows of them: without the folder of its run.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

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
use crate::object::{Answer, LOOKS, list};
use crate::run_folder::specification::RESTORE;
use crate::submit::originals::Originals;
use crate::submit::planned::Planned;

/// The outputs of a bag, each with the name of what it was made of, below the folder that all of these have in common, and with the digest of it, where
/// the broker has its result. One that is not there is refused by itself.
///
/// # Errors
///
/// [`Usage`] if the bag is not there, not finished, or has no outputs that can be restored by themselves; if the broker does not answer.
pub async fn resolve_bag(broker: &Broker, bag: &BagId) -> Result<Vec<Planned>> {
    let line = line_of(broker, bag).await?;
    let bucket = subjects::bucket(bag);
    let mut there = BTreeMap::new();
    let mut tars = 0_u32;
    let listed = list(broker, &bucket, false, |answer| {
        let name = answer.reference.object();
        tars += u32::from(subjects::first_of_tar(name).is_some());
        if let Some(index) = subjects::index_of_output(name) {
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
    check_objects(bag, &line, tars, there.keys().next_back().copied())?;
    let originals = Originals::read(broker, bag, &[]).await?;
    let inputs = (0..line.tasks).filter_map(|index| {
        let label = there.get(&index).and_then(|answer| answer.input.clone());
        let result = || originals.made(index).and_then(|(_, name)| name.clone());
        Some((index, label.or_else(result)?))
    });
    let names = names(inputs.collect());
    let of_bag: Option<Codec> = line.codec.parse().ok();
    let planning = stream::iter(0..line.tasks).map(async |index| {
        let reference = Reference::new(&bucket, &subjects::output_name(index))?;
        let (made, target) = (originals.made(index), names.get(&index).cloned());
        let Some(answer) = there.get(&index) else {
            let refused = absent(broker, &reference, originals.why_failed(index)).await?;
            let codec = made.map(|(codec, _)| *codec).or(of_bag);
            return anyhow::Ok(Planned { codec, target, refused, ..Planned::of(reference) });
        };
        // Another program may have put it.
        let codec = answer.codec.as_ref().and_then(|codec| codec.parse::<Codec>().ok());
        let codec = codec.or(made.map(|(codec, _)| *codec)).or(of_bag);
        let original = answer.digest.and_then(|digest| originals.of(index, digest));
        if made.is_some() && original.is_none() {
            // These are other bytes than the bag made: they are not what is restored.
            return Ok(Planned { codec, target, ..Planned::of(reference) });
        }
        let (bytes, digest) = (answer.bytes, answer.digest);
        Ok(Planned { bytes, digest, codec, original, target, ..Planned::of(reference) })
    });
    let mut planned: Vec<_> = planning.buffered(LOOKS).try_collect().await?;
    without_doubles(&mut planned);
    Ok(planned)
}

/// Of outputs that were made of one file, with different codecs, each would be restored under its name. What is the same comes back
/// once, and anything else under the name of its object.
fn without_doubles(planned: &mut Vec<Planned>) {
    let mut named: BTreeMap<PathBuf, Option<Original>> = BTreeMap::new();
    planned.retain_mut(|planned| {
        let Some(target) = &planned.target else { return true };
        let Some(first) = named.get(target) else {
            named.insert(target.clone(), planned.original);
            return true;
        };
        let same = first.is_some() && *first == planned.original;
        planned.target = None;
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

/// Refuses outputs that are not each an object of its own, up to the highest index `last`.
fn check_objects(bag: &BagId, line: &BagLine, tars: u32, last: Option<u32>) -> Result<()> {
    let bucket = subjects::bucket(bag);
    if tars > 0 {
        return Err(Usage::error(
            format!(
                "outputs of bag {bag} are in {tars} tars, each of several small files, and no worker restores from these"
            ),
            format!(
                "fetch them with `bagpress object get obj://{bucket}/out_0.tar … --out DIR`, as `bagpress object ls {bucket}` lists them, unpack \
                 each with tar, and restore DIR; what is an object of its own, such as out_0.bin, `bagpress restore obj://{bucket}/out_0.bin` restores. \
                 Or run the bag with --pack 1"
            ),
        ));
    }
    if last.is_some_and(|last| last >= line.tasks) {
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
    reference: &Reference,
    failed: Option<&str>,
) -> Result<Option<Failed>> {
    let (answer, _): (Answer, _) = look(broker, reference).await?;
    if failed.is_none() && may_be_made_again(answer.state) {
        return Ok(None);
    }
    let why = answer.why.unwrap_or_default();
    let text = match failed {
        Some(cause) => format!("{reference}: the bag has no output of it: {cause}"),
        None => format!("{reference}: {}: {why}", answer.state.as_str()),
    };
    Ok(Some(Failed::new(Cause::InputMissing, text)))
}

/// What the outputs are called that say of which file or object they were made.
fn names(inputs: Vec<(u32, String)>) -> BTreeMap<u32, PathBuf> {
    let (mut files, mut names) = (BTreeMap::new(), BTreeMap::new());
    for (index, input) in inputs {
        match input.parse::<Reference>() {
            Ok(object) => {
                names.insert(index, Path::new(object.bucket()).join(object.object()));
            }
            Err(_) => drop(files.insert(index, PathBuf::from(input))),
        }
    }
    // Of one that is too long for a label, only the end is there.
    files.retain(|_, file| is_whole(file));
    let above = common(files.values().map(PathBuf::as_path));
    for (index, file) in files {
        if let Ok(below) = file.strip_prefix(&above) {
            names.insert(index, below.to_owned());
        }
    }
    names
}

/// Whether it is an absolute path that names a file, without steps upwards.
fn is_whole(path: &Path) -> bool {
    let is_plain = |component| matches!(component, Component::RootDir | Component::Normal(_));
    path.is_absolute() && path.file_name().is_some() && path.components().all(is_plain)
}

/// The deepest folder that has all of these.
fn common<'a>(files: impl Iterator<Item = &'a Path>) -> PathBuf {
    let folders = files.filter_map(Path::parent).map(Path::to_owned);
    folders
        .reduce(|above, folder| {
            let same = above.components().zip(folder.components());
            same.take_while(|(one, other)| one == other).map(|(one, _)| one).collect()
        })
        .unwrap_or_default()
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

    fn named(inputs: &[&str]) -> Vec<Option<String>> {
        let known = (0..).zip(inputs).filter(|(_, input)| !input.is_empty());
        let names = names(known.map(|(index, input)| (index, (*input).to_owned())).collect());
        let last = u32::try_from(inputs.len()).unwrap();
        let name = |index| names.get(&index).map(|name| name.to_str().unwrap().to_owned());
        (0..last).map(name).collect()
    }

    fn expect(inputs: &[&str], names: &[Option<&str>]) {
        let found = named(inputs);
        assert_eq!(found.iter().map(Option::as_deref).collect::<Vec<_>>(), names);
    }

    #[test]
    fn outputs_are_called_as_their_files_below_the_folder_that_these_have_in_common() {
        expect(&["/in/tree/a", "/in/tree/b/c"], &[Some("a"), Some("b/c")]);
        expect(&["/in/tree/a", "/in/try/a"], &[Some("tree/a"), Some("try/a")]);
        expect(&["/in/tree/a"], &[Some("a")]);
        expect(&["/a", "/in/b"], &[Some("a"), Some("in/b")]);
    }

    #[test]
    fn what_has_no_whole_path_is_called_as_its_output_and_an_object_as_it_is() {
        expect(&["", "/in/a", "ong/path/b"], &[None, Some("a"), None]);
        expect(&["obj://b/deep/o", "/in/x/../a"], &[Some("b/deep/o"), None]);
    }
}
