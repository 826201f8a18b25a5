//! What was named on the command line, looked at before anything is walked.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bagpress_broker::quote;

use serde::{Deserialize, Serialize};

use super::left_out::Identity;
use super::{read_path, write_path};
use crate::error::Usage;

/// Most roots that are told apart: they are arguments of local workers.
const ROOTS_MAX: usize = 32;

/// Files, and folders with all that is in them, that are read; absolute, none in another. Of many listed files those above
/// them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roots(Vec<Root>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Root(#[serde(serialize_with = "write_path", deserialize_with = "read_path")] PathBuf);

impl Roots {
    /// Adds what lies at `path`.
    pub(crate) fn add(&mut self, path: &Path) {
        if self.paths().any(|root| path.starts_with(root)) {
            return;
        }
        self.0.retain(|root| !root.0.starts_with(path));
        self.0.push(Root(path.to_owned()));
        if self.0.len() > ROOTS_MAX {
            let mut above = Self::default();
            for root in self.paths() {
                above.join(root);
            }
            *self = above;
        }
    }

    /// Adds what lies at `path`, and with it all that is between it and the one in the same folder below `/`.
    fn join(&mut self, path: &Path) {
        let top = path.components().nth(1);
        match self.0.iter_mut().find(|root| root.0.components().nth(1) == top) {
            Some(root) => {
                let above = path.ancestors().find(|above| root.0.starts_with(above));
                root.0 = above.unwrap_or(Path::new("/")).to_owned();
            }
            None => self.0.push(Root(path.to_owned())),
        }
    }

    /// Each of them.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|root| root.0.as_path())
    }
}

/// Refuses before anything is read: a million files are not walked to find a typing error.
///
/// # Errors
///
/// [`Usage`]: no such path, a link that leads nowhere, two inputs with one target, an input that is the
/// folder of the outputs.
pub(crate) fn check_roots(paths: &[PathBuf], out: Option<&Path>) -> Result<()> {
    let out = out.and_then(Identity::at);
    let mut targets: HashMap<OsString, &Path> = HashMap::new();
    for path in paths {
        let link = path.symlink_metadata().map_err(|error| no_such(path, &error))?;
        let there = match fs::metadata(path) {
            Err(error) if link.is_symlink() => return Err(bad_link(path, &error)),
            found => found.map_err(|error| no_such(path, &error))?,
        };
        if there.is_dir() && out == Some(Identity::of(&there)) {
            return Err(Usage::error(
                format!(
                    "{} is also the folder of the outputs, which would become inputs",
                    quote::name(path)
                ),
                "choose another --out DIR; one inside it is left out of the inputs",
            ));
        }
        if let Some(other) = targets.insert(last_component(path)?, path) {
            return Err(same_target(other, path));
        }
    }
    Ok(())
}

fn no_such(path: &Path, error: &io::Error) -> anyhow::Error {
    Usage::error(
        format!("no such input: {}: {error}", quote::name(path)),
        "name files and folders that exist",
    )
}

fn bad_link(path: &Path, error: &io::Error) -> anyhow::Error {
    let what = match (error.kind(), fs::read_link(path)) {
        (io::ErrorKind::NotFound, Ok(to)) => {
            format!("it is a dangling symbolic link, to {}", quote::name(to))
        }
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            "it is a symbolic link in a loop of links".to_owned()
        }
        _ => format!("where that symbolic link leads: {error}"),
    };
    Usage::error(
        format!("no such input: {}: {what}", quote::name(path)),
        "name files and folders that exist",
    )
}

/// Two inputs would be written to one place.
pub(crate) fn same_target(one: &Path, other: &Path) -> anyhow::Error {
    Usage::error(
        format!("{} and {} would have the same output", quote::name(one), quote::name(other)),
        "give them to different runs, or name a folder above both",
    )
}

/// The name that an input keeps below the outputs' folder; also of `.` and `..`.
///
/// # Errors
///
/// If the path cannot be followed.
pub(crate) fn last_component(path: &Path) -> Result<OsString> {
    if let Some(name) = path.file_name() {
        return Ok(name.to_owned());
    }
    let absolute = path.canonicalize();
    let absolute = absolute.with_context(|| format!("find {}", quote::name(path)))?;
    Ok(absolute.file_name().unwrap_or_else(|| "root".as_ref()).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(paths: &[&str]) -> Vec<String> {
        let mut roots = Roots::default();
        for path in paths {
            roots.add(Path::new(path));
        }
        roots.paths().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn what_lies_in_another_root_is_none() {
        assert_eq!(roots(&["/a/b", "/a/b/c", "/a/bc", "/d/e"]), ["/a/b", "/a/bc", "/d/e"]);
        assert_eq!(roots(&["/a/b/c", "/a/b/d", "/a/b"]), ["/a/b"]);
    }

    #[test]
    fn many_files_are_read_by_what_is_above_them() {
        let many: Vec<_> = (0..100).map(|n| format!("/data/in/{}/{n}", n % 7)).collect();
        let mut many: Vec<_> = many.iter().map(String::as_str).collect();
        many.push("/home/x/file");
        assert_eq!(roots(&many), ["/data/in", "/home/x/file"]);
    }
}
