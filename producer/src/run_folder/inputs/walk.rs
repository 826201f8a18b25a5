//! Folders, walked: nothing that is met on the way ends the walk.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bagpress_broker::quote;
use bagpress_broker::result::Cause;
use walkdir::{DirEntry, WalkDir};

use super::finder::{Candidate, Finder};
use super::folders::FolderEntry;
use super::refusal::{refused, unreadable};
use super::roots::last_component;
use super::skipped::Kind;

/// Takes one path of the command line: a file, or a folder with all that is in it.
///
/// # Errors
///
/// As `find`. What cannot be read is a refused task.
pub(super) fn walk(finder: &mut Finder<'_>, root: &Path) -> Result<()> {
    let name = PathBuf::from(last_component(root)?);
    // The root itself may be a link, or behind one: a link that is named stands for what it leads to now.
    let absolute = root.canonicalize().or_else(|_| std::path::absolute(root));
    let absolute = absolute.with_context(|| format!("find {}", quote::name(root)))?;
    finder.reads(&absolute);
    let metadata = match fs::metadata(&absolute) {
        Ok(metadata) => metadata,
        Err(error) => {
            let file = Candidate { path: &absolute, shown: root, target: name, codec: None };
            return finder.refuse(file, unreadable(&absolute, &error));
        }
    };
    if !metadata.is_dir() {
        if finder.excluded().has(&name, false) {
            finder.skip(Kind::Excluded, root);
        } else if metadata.is_file() {
            let file = Candidate { path: &absolute, shown: root, target: name, codec: None };
            finder.take(&file, &metadata)?;
        } else {
            finder.skip(Kind::of(metadata.file_type()), root);
        }
        return Ok(());
    }
    let mut walker =
        WalkDir::new(&absolute).follow_root_links(true).sort_by_file_name().into_iter();
    let mut walk = Walk { finder, root, absolute: &absolute, name: &name, open: Vec::new() };
    while let Some(entry) = walker.next() {
        let enters = match entry {
            Ok(entry) => walk.entry(&entry)?,
            Err(error) => {
                walk.error(&error)?;
                true
            }
        };
        if !enters {
            walker.skip_current_dir();
        }
    }
    walk.close(0)
}

/// A folder whose entries are being walked.
struct Open {
    path: PathBuf,
    /// Whether anything is in it that makes an output, or would if it were wanted.
    has_content: bool,
    made_as: FolderEntry,
}

/// One walk.
struct Walk<'a, 'f> {
    finder: &'a mut Finder<'f>,
    root: &'a Path,
    absolute: &'a Path,
    /// What the root is called below the outputs' folder.
    name: &'a Path,
    open: Vec<Open>,
}

impl Walk<'_, '_> {
    /// Takes what the walk came to; whether to enter it, if it is a folder.
    fn entry(&mut self, entry: &DirEntry) -> Result<bool> {
        self.close(entry.depth())?;
        let relative = entry.path().strip_prefix(self.absolute).unwrap_or(entry.path());
        let (shown, target) = (join(self.root, relative), join(self.name, relative));
        let file_type = entry.file_type();
        if entry.depth() > 0 && self.finder.excluded().has(relative, file_type.is_dir()) {
            self.finder.skip(Kind::Excluded, &shown);
            self.has_content();
            // To turn away from a file would be to turn away from everything else in its folder.
            return Ok(!file_type.is_dir());
        }
        let file = Candidate { path: entry.path(), shown: &shown, target, codec: None };
        if file_type.is_dir() || (entry.depth() == 0 && file_type.is_symlink()) {
            return self.folder(entry, file);
        }
        if !file_type.is_file() {
            self.finder.skip(Kind::of(file_type), &shown);
            return Ok(true);
        }
        self.has_content();
        match fs::symlink_metadata(entry.path()) {
            Ok(metadata) if metadata.is_file() => self.finder.take(&file, &metadata)?,
            Ok(metadata) => self.finder.skip(Kind::of(metadata.file_type()), &shown),
            Err(error) => {
                let failed = unreadable(entry.path(), &error);
                self.finder.refuse(file, failed)?;
            }
        }
        Ok(true)
    }

    fn folder(&mut self, entry: &DirEntry, folder: Candidate<'_>) -> Result<bool> {
        let metadata: Metadata = match fs::metadata(entry.path()) {
            Ok(metadata) => metadata,
            Err(error) => {
                self.has_content();
                self.finder.refuse(folder, unreadable(entry.path(), &error))?;
                return Ok(false);
            }
        };
        // A run's folder that is named is meant, with what is in it.
        if entry.depth() > 0
            && let Some(why) = self.finder.left_out().has(entry.path(), &metadata)
        {
            self.has_content();
            self.finder.leave_out(why, folder.shown);
            return Ok(false);
        }
        self.open.push(Open {
            path: entry.path().to_owned(),
            has_content: false,
            made_as: FolderEntry::new(folder.target, entry.path(), &metadata),
        });
        Ok(true)
    }

    /// A folder or an entry that cannot be read: a task that fails, by name.
    fn error(&mut self, error: &walkdir::Error) -> Result<()> {
        let path = match error.path() {
            Some(path) => path.to_owned(),
            None => self.open.last().map_or(self.absolute, |open| &open.path).to_owned(),
        };
        let above = self.open.iter().rposition(|open| path.starts_with(&open.path));
        self.close(above.map_or(0, |at| at + 1))?;
        self.has_content();
        let relative = path.strip_prefix(self.absolute).unwrap_or(&path);
        let (shown, target) = (join(self.root, relative), join(self.name, relative));
        let failed = match error.io_error() {
            Some(error) => unreadable(&path, &plain(error)),
            None => refused(Cause::InputUnreadable, &path, "it is in a loop of folders"),
        };
        self.finder.refuse(Candidate { path: &path, shown: &shown, target, codec: None }, failed)
    }

    fn has_content(&mut self) {
        if let Some(open) = self.open.last_mut() {
            open.has_content = true;
        }
    }

    /// Closes the folders from this depth on: one without content, which no output makes, is made.
    fn close(&mut self, depth: usize) -> Result<()> {
        while self.open.len() > depth {
            let Some(closed) = self.open.pop() else { break };
            if closed.has_content {
                self.has_content();
            } else {
                self.finder.folder(&closed.made_as)?;
            }
        }
        Ok(())
    }
}

/// As [`Path::join`], without a slash behind a path that nothing is joined to.
fn join(path: &Path, relative: &Path) -> PathBuf {
    if relative.as_os_str().is_empty() { path.to_owned() } else { path.join(relative) }
}

/// An error without the path that the walker has put into its text.
fn plain(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}
