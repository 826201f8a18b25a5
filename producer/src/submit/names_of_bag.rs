//! What the outputs of a bag come back as: the paths of their inputs, below the folder that all of these have in common. An output that
//! is an object of its own says which path that was; one in a tar says only what it is called below the folder of the outputs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use bagpress_objstore::object_ref::Reference;

/// What is known of the inputs of a bag, by task.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    /// Paths of files, or references.
    pub(super) named: BTreeMap<u32, String>,
    /// Of those in tars, what is below the folder of the outputs.
    pub(super) packed: BTreeMap<u32, PathBuf>,
    /// Paths of files, each with what it is called below that folder.
    pub(super) both: Vec<(PathBuf, PathBuf)>,
}

/// What the outputs are called that say of which file or object they were made.
pub(super) fn names(inputs: Inputs) -> BTreeMap<u32, PathBuf> {
    let (mut files, mut names) = (BTreeMap::new(), BTreeMap::new());
    for (index, input) in inputs.named {
        match input.parse::<Reference>() {
            Ok(object) => {
                names.insert(index, Path::new(object.bucket()).join(object.object()));
            }
            Err(_) => drop(files.insert(index, PathBuf::from(input))),
        }
    }
    // Of one that is too long for a label, only the end is there.
    files.retain(|_, file| is_whole(file));
    let above = above(&files, &inputs.packed, &inputs.both);
    for (index, below) in inputs.packed {
        match first(&below).and_then(|first| above.get(first)) {
            Some(above) => drop(files.insert(index, above.join(below))),
            // It is known only what it was called itself.
            None => drop(names.insert(index, below)),
        }
    }
    let above = common(files.values().map(PathBuf::as_path));
    for (index, file) in files {
        if let Ok(below) = file.strip_prefix(&above) {
            names.insert(index, below.to_owned());
        }
    }
    names
}

/// The folder above each first folder, or file, of what is in tars, as far as that can be told from the paths of others.
fn above(
    files: &BTreeMap<u32, PathBuf>,
    packed: &BTreeMap<u32, PathBuf>,
    both: &[(PathBuf, PathBuf)],
) -> HashMap<OsString, PathBuf> {
    let mut told: HashMap<OsString, BTreeSet<PathBuf>> = HashMap::new();
    for (path, below) in both.iter().filter(|(path, _)| is_whole(path)) {
        let parts = below.components().count();
        let above = path.ancestors().nth(parts).filter(|above| above.join(below) == *path);
        if let (Some(above), Some(first)) = (above, first(below)) {
            told.entry(first.to_owned()).or_default().insert(above.to_owned());
        }
    }
    let firsts: BTreeSet<_> = packed.values().filter_map(|below| first(below)).collect();
    if told.is_empty() && files.is_empty() {
        // Nothing tells of any: what they have in common is left out all the same.
        return firsts.into_iter().map(|first| (first.to_owned(), "/".into())).collect();
    }
    for first in firsts {
        if !told.contains_key(first) {
            told.insert(first.to_owned(), may_be_above(first, files.values()));
        }
    }
    // Of several, nobody knows which it is.
    let known = told.into_iter().filter(|(_, above)| above.len() == 1);
    known.filter_map(|(first, above)| Some((first, above.into_iter().next()?))).collect()
}

/// The folders that have an entry `first`, in the paths of all files that have such a folder.
fn may_be_above<'a>(first: &OsStr, files: impl Iterator<Item = &'a PathBuf>) -> BTreeSet<PathBuf> {
    let of_file = |file: &'a PathBuf| -> BTreeSet<PathBuf> {
        let folders = file.ancestors().skip(1).filter(|folder| folder.file_name() == Some(first));
        folders.filter_map(Path::parent).map(Path::to_owned).collect()
    };
    let each = files.map(of_file).filter(|folders| !folders.is_empty());
    each.reduce(|all, of_one| &all & &of_one).unwrap_or_default()
}

fn first(below: &Path) -> Option<&OsStr> {
    below.components().next().map(Component::as_os_str)
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
    use super::*;

    fn expect_of(
        single: &[&str],
        packed: &[&str],
        both: &[(&str, &str)],
        expected: &[Option<&str>],
    ) {
        let inputs = (0..).zip(single).filter(|(_, input)| !input.is_empty());
        let behind = u32::try_from(single.len()).unwrap();
        let names = names(Inputs {
            named: inputs.map(|(index, input)| (index, (*input).to_owned())).collect(),
            packed: (behind..).zip(packed.iter().map(PathBuf::from)).collect(),
            both: both.iter().map(|(path, below)| (path.into(), below.into())).collect(),
        });
        let last = behind + u32::try_from(packed.len()).unwrap();
        let name = |index| names.get(&index).map(|name| name.to_str().unwrap());
        assert_eq!((0..last).map(name).collect::<Vec<_>>(), expected);
    }

    fn expect(inputs: &[&str], names: &[Option<&str>]) {
        expect_of(inputs, &[], &[], names);
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

    #[test]
    fn what_is_in_tars_is_called_as_if_it_were_not() {
        expect_of(&[], &["in/a", "in/b/c"], &[], &[Some("a"), Some("b/c")]);
        expect_of(&[], &["in/a"], &[], &[Some("a")]);
        expect_of(&[], &["a", "x/b"], &[], &[Some("a"), Some("x/b")]);
        // The path of another file, or of one of them, tells what was above.
        let (a, b) = (&["/w/in/d/large"], &[Some("large"), Some("small")]);
        expect_of(a, &["in/d/small"], &[], b);
        expect_of(a, &["in/x/small"], &[], &[Some("d/large"), Some("x/small")]);
        let both = [("/w/a/x/1", "x/1"), ("/w/b/y/1", "y/1")];
        expect_of(&[], &["x/1", "y/1"], &both, &[Some("a/x/1"), Some("b/y/1")]);
        expect_of(&["/w/l"], &["x/1", "y/1"], &both, &[Some("l"), Some("a/x/1"), Some("b/y/1")]);
    }

    #[test]
    fn what_is_in_tars_keeps_its_own_name_where_several_folders_may_be_above() {
        expect_of(&["/in/w/in/large"], &["in/small"], &[], &[Some("large"), Some("in/small")]);
        let other = [("/w/a", "b")];
        expect_of(&["/in/large"], &["b", "c"], &other, &[Some("large"), Some("b"), Some("c")]);
        let two = [("/v/x/1", "x/1"), ("/w/x/1", "x/1")];
        expect_of(&[], &["x/1"], &two, &[Some("x/1")]);
        // Which of the two is above tells a second file.
        expect_of(
            &["/w/in/in/large", "/w/in/z"],
            &["in/small"],
            &[],
            &[Some("in/large"), Some("z"), Some("small")],
        );
    }
}
