//! The folders of part files: one for each bag, within one that all bags of an outputs' root share.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bagpress_broker::ids::BagId;
use bagpress_broker::limits;
use rustix::io::Errno;

use super::attributes::is_unsupported;
use crate::beneath::Dir;

/// Folder of the part files, below the outputs' root: it has a folder for each bag that writes there.
pub const PART_DIR: &str = ".bagpress-part";

/// The folder of a bag's part files, if its outputs' root is `root`.
#[must_use]
pub fn part_folder(root: &Path, bag: &BagId) -> PathBuf {
    root.join(PART_DIR).join(bag.as_str())
}

/// Makes a bag's folder and around it the one of all bags, which another bag may remove between the two steps, as it
/// is empty then. It is for us alone: an older one is made so, and that of another user is refused.
pub(super) fn private_folder(root: &Dir, bag: &BagId) -> io::Result<Dir> {
    let around = Path::new(PART_DIR);
    let folder = around.join(bag.as_str());
    let there = |made: io::Result<()>| match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    };
    let make = || {
        if root.metadata(around).is_err() {
            there(root.make_dir(around))?;
            // Bags of other users may have theirs here too, where the outputs' folder lets them.
            let mode = root.itself()?.metadata()?.mode() & 0o1777;
            let opened = rustix::fs::fchmod(root.dir(around)?.itself()?, (mode | 0o700).into());
            opened.or_else(unless_refused)?;
        }
        there(root.make_dir(&folder))?;
        root.dir(&folder)
    };
    let began = Instant::now();
    let private = loop {
        match make() {
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && began.elapsed() < limits::PART_FOLDER_WITHIN =>
            {
                // Whoever is slow at each step loses to whole rounds of others, any number of times in a row: a pause of
                // another length than theirs ends that.
                std::thread::sleep(Duration::from_millis(1));
            }
            done => break done?,
        }
    };
    let itself = private.itself()?;
    if itself.metadata()?.mode() & 0o777 != 0o700 {
        // A file system without modes decides by itself who may enter.
        rustix::fs::fchmod(&itself, rustix::fs::Mode::RWXU).or_else(unless_refused)?;
    }
    Ok(private)
}

/// Removes what `bag` has of part files beneath `root`, and counts the files. Other bags keep theirs.
///
/// # Errors
///
/// What the system said; that there are none is fine.
pub fn remove_parts(root: &Dir, bag: &BagId) -> io::Result<u64> {
    let folder = part_folder(Path::new(""), bag);
    let files = match root.dir(&folder).and_then(|folder| folder.entries()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        files => files?.len() as u64,
    };
    root.dir(&folder).and_then(|folder| folder.empty()).or_else(unless_gone)?;
    remove_emptied(root, &folder)?;
    Ok(files)
}

/// Modes and owners are not to be had everywhere.
fn unless_refused(error: Errno) -> io::Result<()> {
    if is_unsupported(&error.into()) { Ok(()) } else { Err(error.into()) }
}

fn unless_gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Removes a bag's empty folder, and the one around it if no other bag is there.
pub(super) fn remove_emptied(root: &Dir, folder: &Path) -> io::Result<()> {
    root.remove_dir(folder)?;
    match root.remove_dir(Path::new(PART_DIR)) {
        // Some file systems say of a folder that has something in it that it exists.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
            ) =>
        {
            Ok(())
        }
        removed => removed,
    }
}
