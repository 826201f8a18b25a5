//! Part files: outputs on the file system of their final name, not yet decided about.

use std::fs::{self, File};
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
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::attributes::{Attributes, is_unsupported};
use super::closed::Closed;
use crate::beneath::Dir;
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
    /// What it takes from the file that it was made from.
    pub attributes: Option<Attributes>,
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
    /// The root, held: outputs get their names beneath it.
    outputs: Dir,
    /// The bag's own: other bags may have the same root.
    folder: PathBuf,
    /// The same, held, and open to nobody else: what is in it was put there by us.
    private: Dir,
    nonce: String,
    under_way: Arc<Mutex<Vec<Instant>>>,
    /// Outputs without their source's mode or time: how many, and the first.
    without_metadata: Mutex<Option<(u64, String)>>,
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
    /// Uses `root`, which is made if it is not there, for the outputs of `bag`, and writes a new nonce. Links that lead
    /// to the root are followed; behind it none is.
    ///
    /// # Errors
    ///
    /// What the system said; `EPERM` if the bag's part folder is another user's.
    pub fn open(root: &Path, bag: &BagId) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        // As workers look for it, who follow no link.
        let root = root.canonicalize()?;
        let outputs = Dir::open(&root)?;
        let private = private_folder(&outputs, bag)?;
        let nonce = random_base32::<15>();
        private.remove_file(Path::new(NONCE))?;
        let mut file = private.create(Path::new(NONCE))?;
        // What we make is ours, whoever that is to this file system: over a network it need not be our own number.
        if file.metadata()?.uid() != private.itself()?.metadata()?.uid() {
            return Err(Errno::PERM.into());
        }
        file.write_all(nonce.as_bytes())?;
        let folder = part_folder(&root, bag);
        let (under_way, without_metadata) = (Arc::default(), Mutex::default());
        let closed = Closed::default();
        Ok(Self { root, outputs, folder, private, nonce, under_way, without_metadata, closed })
    }

    pub(super) fn closed(&self) -> &Closed {
        &self.closed
    }

    /// The outputs' root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The same, held.
    #[must_use]
    pub fn outputs(&self) -> &Dir {
        &self.outputs
    }

    /// The bag's folder of part files, held.
    pub(super) fn private(&self) -> &Dir {
        &self.private
    }

    /// The nonce file and what it holds.
    #[must_use]
    pub fn nonce(&self) -> (PathBuf, &str) {
        (self.folder.join(NONCE), &self.nonce)
    }

    /// The part file of one execution.
    #[must_use]
    pub fn part(&self, index: u32, round: u32, execution: &Execution) -> PathBuf {
        self.folder.join(part_name(index, round, execution))
    }

    /// Makes the part file of an execution, for its owner alone, in the place of one that it left.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn create(&self, part: &Path) -> io::Result<File> {
        self.remove_part(part)?;
        self.closed().forget(name_of(part)?);
        self.private.create(name_of(part)?)
    }

    /// Opens the part file of an execution where it ends, or begins it.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(super) fn resume(&self, part: &Path) -> io::Result<File> {
        match self.private.write(name_of(part)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create(part),
            opened => {
                self.closed().forget(name_of(part)?);
                opened
            }
        }
    }

    /// Writes a whole part file.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(super) fn write_part(&self, part: &Path, bytes: &[u8]) -> io::Result<()> {
        self.create(part)?.write_all(bytes)
    }

    /// Digest and size of a part file; `goes_on` is called again and again meanwhile.
    ///
    /// # Errors
    ///
    /// What the system said; `NotFound` also for what is no file.
    pub(super) fn hash_part(
        &self,
        part: &Path,
        goes_on: impl FnMut(),
    ) -> io::Result<(Digest, u64)> {
        let file = self.private.file(name_of(part)?)?.ok_or(io::ErrorKind::NotFound)?;
        hash(file, goes_on)
    }

    /// Removes a part file; that it is not there is fine.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn remove_part(&self, part: &Path) -> io::Result<()> {
        self.private.remove_file(name_of(part)?)
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
        // By its path: a folder that has lost its name still lets itself be written to, as long as it is held.
        let error = rustix::fs::access(&self.folder, access).err()?;
        let passes = trouble(&error.into()) == Trouble::Passes;
        (!passes).then(|| {
            let (root, part) = (quote::name(&self.root), quote::name(&self.folder));
            format!("nothing can be written to the output folder {root} any more: {part}: {error}")
        })
    }

    /// Notes that an output could not have its source's mode or time.
    pub(super) fn note_without_metadata(&self, path: &Path, error: &io::Error) {
        let mut noted = self.without_metadata.lock().unwrap_or_else(PoisonError::into_inner);
        let first = noted.take().unwrap_or_else(|| (0, format!("{}: {error}", quote::name(path))));
        *noted = Some((first.0 + 1, first.1));
    }

    /// How many outputs could not have their source's mode or time, and what the system said of the first.
    #[must_use]
    pub fn without_metadata(&self) -> Option<(u64, String)> {
        self.without_metadata.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes everything that was written below the root durable.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn sync(&self) -> io::Result<()> {
        rustix::fs::syncfs(&self.outputs.itself()?).map_err(io::Error::from)
    }

    /// Removes the part files of a decided task: its own round's and earlier ones'.
    pub fn sweep(&self, index: u32, round: u32) {
        for (path, id) in self.listed() {
            if id.0 == index && id.1 <= round {
                let removed = self.remove_part(&path);
                tracing::debug!(part = %path.display(), ok = removed.is_ok(), "part file removed");
            }
        }
    }

    /// The bag's part files, with the index and round of each.
    #[must_use]
    pub fn listed(&self) -> Vec<(PathBuf, (u32, u32))> {
        let Ok(entries) = self.private.entries() else { return Vec::new() };
        let parse = |name: std::ffi::OsString| {
            let (id, _) = name.to_str()?.split_once('-')?;
            let (index, round) = id.split_once('.')?;
            Some((self.folder.join(&name), (index.parse().ok()?, round.parse().ok()?)))
        };
        entries.into_iter().filter_map(parse).collect()
    }

    /// Removes the bag's part folder, with everything in it: when every task is decided.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn remove(&self) -> io::Result<()> {
        // With one descriptor at a time: this process may have no more.
        self.private.empty()?;
        let bag = self.folder.file_name().unwrap_or_default();
        remove_emptied(&self.outputs, &Path::new(PART_DIR).join(bag))
    }
}

/// The folder of a bag's part files, if its outputs' root is `root`.
#[must_use]
pub fn part_folder(root: &Path, bag: &BagId) -> PathBuf {
    root.join(PART_DIR).join(bag.as_str())
}

/// What the part file of an execution is called.
pub(super) fn part_name(index: u32, round: u32, execution: &Execution) -> String {
    format!("{index}.{round}-{execution}")
}

/// What a part file is called in its folder.
pub(super) fn name_of(part: &Path) -> io::Result<&Path> {
    part.file_name().map(Path::new).ok_or_else(|| Errno::INVAL.into())
}

/// Makes a bag's folder and around it the one of all bags, which another bag may remove between the two steps, as it
/// is empty then. It is for us alone: an older one is made so, and that of another user is refused.
fn private_folder(root: &Dir, bag: &BagId) -> io::Result<Dir> {
    let around = Path::new(PART_DIR);
    let folder = around.join(bag.as_str());
    let there = |made: io::Result<()>| match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    };
    let make = || {
        if root.metadata(around).is_err() {
            there(root.make_dir(around))?;
            // Bags of other users may have theirs beside ours, where the outputs' folder lets them.
            let mode = root.itself()?.metadata()?.mode() & 0o1777;
            let opened = rustix::fs::fchmod(root.dir(around)?.itself()?, (mode | 0o700).into());
            opened.or_else(unless_refused)?;
        }
        there(root.make_dir(&folder))?;
        root.dir(&folder)
    };
    let mut tries = 0;
    let private = loop {
        tries += 1;
        match make() {
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && tries < limits::PART_FOLDER_TRIES => {
            }
            done => break done?,
        }
    };
    let itself = private.itself()?;
    if itself.metadata()?.mode() & 0o777 != 0o700 {
        // A file system without modes says by itself who may enter.
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
fn remove_emptied(root: &Dir, folder: &Path) -> io::Result<()> {
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

/// Digest and size of a regular file beneath a directory.
///
/// # Errors
///
/// What the system said; that it is something else.
pub fn hash_file(dir: &Dir, path: &Path) -> io::Result<(Digest, u64)> {
    let file = dir.file(path)?.ok_or_else(|| io::Error::other("it is no file"))?;
    hash(file, || {})
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

/// Modification time of a file, ns since 1970.
#[must_use]
pub fn mtime_ns(metadata: &fs::Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}
