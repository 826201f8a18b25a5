//! Which of the files that were named a user wants.

use std::path::{Path, PathBuf};

use anyhow::Result;
use bagpress_broker::quote;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde::{Deserialize, Serialize};

use crate::error::Usage;

/// What is taken of what was named, and what becomes of outputs that are there already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// What is left out: lines as in a `.gitignore` in each folder that was named.
    pub exclude: Vec<String>,
    /// Where the names of the files are, instead of on the command line.
    pub files_from: Option<FilesFrom>,
    /// What becomes of a file that has an output's name.
    pub existing: Existing,
    /// Leave out what is compressed already, by its content.
    pub skip_compressed: bool,
    /// Note when each file was last changed in any way: it is to be removed later, if it was not.
    pub note_changes: bool,
}

/// A list of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesFrom {
    /// The file with the names; `-` is stdin.
    pub path: PathBuf,
    /// What stands in it.
    pub form: ListForm,
    /// Whether a broker was named, on which the objects are that it names.
    pub has_broker: bool,
}

/// What stands in a list of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListForm {
    /// A path in each line.
    Lines,
    /// Paths that each end in a zero byte.
    Zeros,
    /// A task in each line, as JSON.
    Tasks,
}

/// What becomes of a file that has an output's name already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Existing {
    /// The bag is refused.
    #[default]
    Refuse,
    /// It stays if it is up to date, and is replaced if not.
    Update {
        /// Whether that is found out by decompressing it.
        checksum: bool,
    },
    /// It is replaced.
    Overwrite,
}

/// How many files are new, changed and up to date; of a bag with `--update` or `--overwrite`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selected {
    /// Without an output before.
    pub new: u64,
    /// With an output that is to be replaced.
    pub changed: u64,
    /// Left out, as their output is up to date.
    pub up_to_date: u64,
}

impl std::fmt::Display for Selected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { new, changed, up_to_date } = self;
        write!(f, "{new} new, {changed} changed, {up_to_date} up to date")
    }
}

/// The globs of `--exclude`.
#[derive(Debug)]
pub(crate) struct Excluded(Gitignore);

impl Excluded {
    /// Compiles the globs.
    ///
    /// # Errors
    ///
    /// [`Usage`], naming the one that is none.
    pub(crate) fn new(globs: &[String]) -> Result<Self> {
        let mut builder = GitignoreBuilder::new("");
        for glob in globs {
            let refuse = |why: String| {
                Usage::error(
                    format!("--exclude {}: {why}", quote::name(glob)),
                    "write it as a line of a .gitignore, such as '*.tmp', '/build/' or '!keep.tmp'",
                )
            };
            if glob.trim().is_empty() {
                return Err(refuse("it is empty".to_owned()));
            }
            if glob.starts_with('#') {
                return Err(refuse("that is a comment in a .gitignore; begin with \\#".to_owned()));
            }
            builder
                .add_line(None, glob)
                .map_err(|error| refuse(quote::words(&error.to_string())))?;
        }
        let built = builder.build();
        Ok(Self(built.map_err(|error| {
            Usage::error(format!("--exclude: {error}"), "give fewer or simpler globs")
        })?))
    }

    /// Whether what has this name below a folder that was named is left out.
    pub(crate) fn has(&self, relative: &Path, is_folder: bool) -> bool {
        self.0.matched(relative, is_folder).is_ignore()
    }

    /// As [`has`](Self::has), of what was not reached through the folders above it.
    pub(crate) fn has_it_or_a_folder_above(&self, relative: &Path, is_folder: bool) -> bool {
        // What is below an excluded folder cannot be taken back.
        let above = relative.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
        !self.0.is_empty()
            && (self.has(relative, is_folder)
                || above.into_iter().any(|folder| self.has(folder, true)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(globs: &[&str]) -> Excluded {
        let globs: Vec<_> = globs.iter().map(|glob| (*glob).to_owned()).collect();
        Excluded::new(&globs).unwrap()
    }

    #[test]
    fn globs_mean_what_they_mean_in_a_gitignore() {
        let of = excluded(&["*.tmp", "!keep.tmp", "/build/", "logs/**/*.gz"]);
        for (path, is_folder, left_out) in [
            ("a.tmp", false, true),
            ("deep/er/a.tmp", false, true),
            ("deep/keep.tmp", false, false),
            ("build", true, true),
            ("build", false, false),
            ("deep/build", true, false),
            ("logs/a/b/c.gz", false, true),
            ("c.gz", false, false),
        ] {
            assert_eq!(of.has(Path::new(path), is_folder), left_out, "{path}");
        }
        assert!(of.has_it_or_a_folder_above(Path::new("build/x/y"), false));
        assert!(!of.has_it_or_a_folder_above(Path::new("deep/build/y"), false));
    }

    #[test]
    fn a_glob_that_is_none_is_named() {
        for glob in ["[z-a]", "", "#x"] {
            let error = Excluded::new(&[glob.to_owned()]).unwrap_err();
            assert!(error.is::<Usage>() && error.to_string().contains("--exclude"), "{error}");
        }
    }
}
