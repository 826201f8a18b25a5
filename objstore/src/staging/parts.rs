//! Part files: outputs on the file system of their final name, not yet decided about.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bagpress_broker::ids::{BagId, Execution, random_base32};
use bagpress_broker::result::FileId;
use bagpress_broker::{limits, quote};
use bagpress_codec::{Digest, Hasher};
use rustix::fs::Access;
use serde::{Deserialize, Serialize};

use super::closed::Closed;
use crate::{Trouble, trouble};

/// Folder of the part files, below the outputs' root: it has a folder for each bag that writes there.
pub const PART_DIR: &str = ".bagpress-part";
/// Folder of files that had an output's name and not its digest.
pub const BAD_DIR: &str = ".bad";
const NONCE: &str = "nonce";

/// Where a task's output belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Below the outputs' root.
    pub path: PathBuf,
    /// Permission bits and modification time (ns since 1970) of the file that it was made from.
    pub attributes: Option<(u32, i64)>,
    /// The file that has its name already, and that it is to replace.
    pub replaces: Option<Replaced>,
    /// What may be moved aside if it has the name, and is not what it should be.
    pub own: Own,
}

/// Which file under an output's name is the bag's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// None: the bag has given that name to nothing.
    Nothing,
    /// The one that its ledger says.
    File(FileId),
    /// Whatever is there: the folder is the run's own.
    Everything,
}

/// A file that somebody asked to be replaced, as it was then: another one that has its name meanwhile is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// Its size.
    pub bytes: u64,
    /// Its modification time, ns since 1970.
    pub mtime_ns: i64,
    /// Its inode.
    pub inode: u64,
}

/// The outputs of one bag, and the part files that become them.
#[derive(Debug)]
pub struct Parts {
    root: PathBuf,
    /// The bag's own: other bags may have the same root.
    folder: PathBuf,
    nonce: String,
    under_way: Arc<Mutex<Vec<Instant>>>,
    /// Outputs without their source's mode or time: how many, and the first.
    undressed: Mutex<Option<(u64, String)>>,
    closed: Closed,
}

/// Something that the disk was asked for and has not done; until it is dropped.
#[derive(Debug)]
pub struct UnderWay {
    all: Arc<Mutex<Vec<Instant>>>,
    since: Instant,
}

impl UnderWay {
    /// Notes that the disk has done a part of it: one that only has much to do does not hang.
    pub(super) fn goes_on(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = all.iter_mut().find(|since| **since == self.since) {
            self.since = Instant::now();
            *since = self.since;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = all.iter().position(|since| *since == self.since) {
            all.swap_remove(at);
        }
    }
}

impl Parts {
    /// Uses `root`, which is made if it is not there, for the outputs of `bag`, and writes a new nonce.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn open(root: &Path, bag: &BagId) -> io::Result<Self> {
        let root = std::path::absolute(root)?;
        fs::create_dir_all(&root)?;
        let folder = part_folder(&root, bag);
        make_folder(&root.join(PART_DIR), &folder)?;
        let nonce = random_base32::<15>();
        fs::write(folder.join(NONCE), &nonce)?;
        let (under_way, undressed) = (Arc::default(), Mutex::default());
        let closed = Closed::default();
        Ok(Self { root, folder, nonce, under_way, undressed, closed })
    }

    pub(super) fn closed(&self) -> &Closed {
        &self.closed
    }

    /// The outputs' root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The nonce file and what it holds.
    #[must_use]
    pub fn nonce(&self) -> (PathBuf, &str) {
        (self.folder.join(NONCE), &self.nonce)
    }

    /// The part file of one execution.
    #[must_use]
    pub fn part(&self, index: u32, round: u32, execution: &Execution) -> PathBuf {
        self.folder.join(format!("{index}.{round}-{execution}"))
    }

    /// Notes that the disk is being asked for something, for as long as what is returned is kept.
    #[must_use]
    pub fn begin(&self) -> UnderWay {
        let (all, since) = (self.under_way.clone(), Instant::now());
        all.lock().unwrap_or_else(PoisonError::into_inner).push(since);
        UnderWay { all, since }
    }

    /// Why the disk is not to be asked for more now, if it hangs: it has had something to do for
    /// [`limits::DISK_HANGS_AFTER`].
    #[must_use]
    pub fn hangs(&self) -> Option<String> {
        let all = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = all.iter().min()?.elapsed();
        (longest >= limits::DISK_HANGS_AFTER).then(|| self.unanswered(longest))
    }

    /// That the disk has not answered for so long, for people.
    #[must_use]
    pub(super) fn unanswered(&self, wait: Duration) -> String {
        let seconds = wait.as_secs();
        format!("the disk of {} has not answered for {seconds} s", quote::name(&self.root))
    }

    /// Why there is no room for `bytes` more, if there is none. Some room is always kept free:
    /// [`limits::DISK_FREE_MIN`], and on a small disk a share of it.
    #[must_use]
    pub fn full(&self, bytes: u64) -> Option<String> {
        self.lacks(bytes).map(|(free, needed)| {
            let root = quote::name(&self.root);
            format!("disk full: {free} bytes free at {root}, {needed} needed; free some space")
        })
    }

    /// Free bytes on the outputs' file system, and how many are needed for `bytes` more, if those are not there.
    #[must_use]
    pub fn lacks(&self, bytes: u64) -> Option<(u64, u64)> {
        let stat = rustix::fs::statvfs(&self.root).ok()?;
        let (free, total) = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
        let kept = limits::DISK_FREE_MIN.min(total / limits::DISK_FREE_SHARE);
        let needed = bytes.saturating_add(kept);
        (free < needed).then_some((free, needed))
    }

    /// What an error below the outputs' folder means.
    #[must_use]
    pub fn trouble(&self, error: &io::Error) -> Trouble {
        match trouble(error) {
            Trouble::Own if self.gone().is_some() => Trouble::Run,
            trouble => trouble,
        }
    }

    /// Why no output can be written any more, whatever it is called, if that is so.
    #[must_use]
    pub fn gone(&self) -> Option<String> {
        let access = Access::WRITE_OK | Access::EXEC_OK;
        let error = rustix::fs::access(&self.folder, access).err()?;
        let passes = trouble(&error.into()) == Trouble::Passes;
        (!passes).then(|| {
            let (root, part) = (quote::name(&self.root), quote::name(&self.folder));
            format!("nothing can be written to the output folder {root} any more: {part}: {error}")
        })
    }

    /// Notes that an output could not have its source's mode or time.
    pub(super) fn note_undressed(&self, path: &Path, error: &io::Error) {
        let mut noted = self.undressed.lock().unwrap_or_else(PoisonError::into_inner);
        let first = noted.take().unwrap_or_else(|| (0, format!("{}: {error}", quote::name(path))));
        *noted = Some((first.0 + 1, first.1));
    }

    /// How many outputs could not have their source's mode or time, and what the system said of the first.
    #[must_use]
    pub fn undressed(&self) -> Option<(u64, String)> {
        self.undressed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes everything that was written below the root durable.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn sync(&self) -> io::Result<()> {
        let root = File::open(&self.root)?;
        rustix::fs::syncfs(&root).map_err(io::Error::from)
    }

    /// Removes the part files of a decided task: its own round's and earlier ones'.
    pub fn sweep(&self, index: u32, round: u32) {
        for (path, id) in self.listed() {
            if id.0 == index && id.1 <= round {
                let removed = remove_if_there(&path);
                tracing::debug!(part = %path.display(), ok = removed.is_ok(), "part file removed");
            }
        }
    }

    /// The bag's part files, with the index and round of each.
    #[must_use]
    pub fn listed(&self) -> Vec<(PathBuf, (u32, u32))> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let parse = |entry: fs::DirEntry| {
            let name = entry.file_name();
            let (id, _) = name.to_str()?.split_once('-')?;
            let (index, round) = id.split_once('.')?;
            Some((entry.path(), (index.parse().ok()?, round.parse().ok()?)))
        };
        entries.filter_map(Result::ok).filter_map(parse).collect()
    }

    /// Removes the bag's part folder, with everything in it: when every task is decided.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn remove(&self) -> io::Result<()> {
        remove_folder(&self.folder).map(drop)
    }
}

/// The folder of a bag's part files, if its outputs' root is `root`.
#[must_use]
pub fn part_folder(root: &Path, bag: &BagId) -> PathBuf {
    root.join(PART_DIR).join(bag.as_str())
}

/// Removes what `bag` has of part files below `root`, and counts the files. Other bags keep theirs.
///
/// # Errors
///
/// What the system said.
pub fn remove_parts(root: &Path, bag: &BagId) -> io::Result<u64> {
    remove_folder(&part_folder(root, bag))
}

/// Makes a bag's `folder`, and `around` it the one of all bags, which another bag may remove between the
/// two steps, as it is empty then.
fn make_folder(around: &Path, folder: &Path) -> io::Result<()> {
    let make = |path| match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    };
    let mut tries = 0;
    loop {
        tries += 1;
        make(around)?;
        match make(folder) {
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && tries < limits::PART_FOLDER_TRIES => {
            }
            done => return done,
        }
    }
}

/// Removes a bag's folder, counts its files, and removes the folder around it if no other bag is there.
fn remove_folder(folder: &Path) -> io::Result<u64> {
    let unless_gone = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(0),
        _ => Err(error),
    };
    let files = fs::read_dir(folder).map(|entries| entries.count() as u64).or_else(unless_gone)?;
    fs::remove_dir_all(folder).or_else(|error| unless_gone(error).map(drop))?;
    let around = folder.parent().map_or(Ok(()), fs::remove_dir);
    around.map(|()| 0).or_else(|error| match error.kind() {
        // Some file systems say of a folder that has something in it that it exists.
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => Ok(0),
        _ => unless_gone(error),
    })?;
    Ok(files)
}

/// Opens the part file of an execution anew.
///
/// # Errors
///
/// What the system said.
pub fn create_part(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).open(path)
}

/// Writes a whole part file.
///
/// # Errors
///
/// What the system said.
pub(super) fn write_part(path: &Path, bytes: &[u8]) -> io::Result<()> {
    create_part(path)?.write_all(bytes)
}

/// Digest and size of a file.
///
/// # Errors
///
/// What the system said.
pub fn hash_file(path: &Path) -> io::Result<(Digest, u64)> {
    hash(File::open(path)?, || {})
}

/// The same, which says again and again that it goes on.
pub(super) fn hash_file_beside(path: &Path, goes_on: impl FnMut()) -> io::Result<(Digest, u64)> {
    hash(File::open(path)?, goes_on)
}

/// Digest of an open file, from its start.
pub(super) fn digest_of(file: File) -> io::Result<Digest> {
    hash(file, || {}).map(|(digest, _)| digest)
}

fn hash(mut file: File, mut goes_on: impl FnMut()) -> io::Result<(Digest, u64)> {
    let (mut hasher, mut bytes) = (Hasher::new(), 0);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hasher.finish(), bytes));
        }
        hasher.update(&buffer[..read]);
        bytes += read as u64;
        goes_on();
    }
}

/// Removes a file; that it is not there is fine.
///
/// # Errors
///
/// What the system said.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Modification time of a file, ns since 1970.
#[must_use]
pub fn mtime_ns(metadata: &fs::Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}
