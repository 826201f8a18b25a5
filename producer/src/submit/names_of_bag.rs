//! What the outputs of a bag without a tree come back as: the paths of their inputs, as their labels say, below the folder that all of these have in common.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use bagpress_objstore::object_ref::Reference;

/// What the outputs are called that say of which file or object they were made.
pub(super) fn names(inputs: BTreeMap<u32, String>) -> BTreeMap<u32, PathBuf> {
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
    use super::*;

    fn expect(inputs: &[&str], expected: &[Option<&str>]) {
        let known = (0..).zip(inputs).filter(|(_, input)| !input.is_empty());
        let names = names(known.map(|(index, input)| (index, (*input).to_owned())).collect());
        let last = u32::try_from(inputs.len()).unwrap();
        let name = |index| names.get(&index).map(|name| name.to_str().unwrap());
        assert_eq!((0..last).map(name).collect::<Vec<_>>(), expected);
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
