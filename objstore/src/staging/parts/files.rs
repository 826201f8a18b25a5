//! Part files: outputs on the file system of their final name, not yet decided about.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bagpress_broker::ids::{BagId, Execution, random_base32};
use bagpress_broker::{limits, quote};
use bagpress_codec::Digest;
use rustix::fs::{Access, FileType};
use rustix::io::Errno;

use super::digests::Digests;
use super::folder::{PART_DIR, part_folder, private_folder, remove_emptied};
use super::hash::{hash, hash_file};
use super::waits::{UnderWay, Waits};
use crate::beneath::Dir;
use crate::trouble::{Trouble, trouble};

const NONCE: &str = "nonce";

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
    waits: Waits,
    /// Outputs without their source's mode or time: how many, and the first.
    without_metadata: Mutex<Option<(u64, String)>>,
    digests: Digests,
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
        // What we make is ours, under whatever owner this file system shows: over a network it need not be our own number.
        if file.metadata()?.uid() != private.owner()?.0.as_raw() {
            return Err(Errno::PERM.into());
        }
        file.write_all(nonce.as_bytes())?;
        let folder = part_folder(&root, bag);
        let (waits, digests) = (Waits::default(), Digests::default());
        let without_metadata = Mutex::default();
        Ok(Self { root, outputs, folder, private, nonce, waits, without_metadata, digests })
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
        self.digests.forget(name_of(part)?);
        self.private.create(name_of(part)?)
    }

    /// Opens the part file of an execution where it ends, or begins it.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn resume(&self, part: &Path) -> io::Result<File> {
        match self.private.write(name_of(part)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create(part),
            opened => {
                self.digests.forget(name_of(part)?);
                opened
            }
        }
    }

    /// Writes a whole part file.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn write_part(&self, part: &Path, bytes: &[u8]) -> io::Result<()> {
        self.create(part)?.write_all(bytes)
    }

    /// Digest and size of a part file; `goes_on` is called again and again meanwhile.
    ///
    /// # Errors
    ///
    /// What the system said; `NotFound` also for what is no file.
    pub(crate) fn hash_part(
        &self,
        part: &Path,
        goes_on: impl FnMut(),
    ) -> io::Result<(Digest, u64)> {
        let file = self.private.file(name_of(part)?)?.ok_or(io::ErrorKind::NotFound)?;
        hash(file, goes_on)
    }

    /// Notes what a part file holds, which was complete when that was found.
    pub fn note_closed(&self, index: u32, round: u32, execution: &Execution, digest: Digest) {
        self.digests.note(part_name(index, round, execution), digest);
    }

    /// Whether the part file of an execution holds `bytes` of this digest: a result says so, and its worker need not have
    /// closed what it began. One that is not there may have its name already.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn holds(
        &self,
        (index, round): (u32, u32),
        execution: &Execution,
        bytes: u64,
        digest: &Digest,
    ) -> io::Result<bool> {
        let name = part_name(index, round, execution);
        let part = Path::new(&name);
        match self.private.stat(part) {
            Ok(found)
                if !FileType::from_raw_mode(found.st_mode).is_file()
                    || found.st_size.cast_unsigned() != bytes =>
            {
                return Ok(false);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        }
        match self.digests.take(&name) {
            Some(found) => Ok(found == *digest),
            None => Ok(hash_file(&self.private, part)?.0 == *digest),
        }
    }

    /// Whether the part file of an execution is there.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn is_there(&self, (index, round): (u32, u32), execution: &Execution) -> io::Result<bool> {
        match self.private.stat(Path::new(&part_name(index, round, execution))) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
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
        self.waits.begin()
    }

    /// Why the disk is not to be asked for more now, if it hangs: it has had something to do for
    /// [`limits::DISK_HANGS_AFTER`]. Asks no disk.
    #[must_use]
    pub fn hangs(&self) -> Option<String> {
        let longest = self.waits.longest()?;
        (longest >= limits::DISK_HANGS_AFTER).then(|| self.unanswered(longest))
    }

    /// That the disk has not answered for so long, for people.
    #[must_use]
    pub(crate) fn unanswered(&self, wait: Duration) -> String {
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
        let (free, kept) = self.free_and_kept()?;
        let needed = bytes.saturating_add(kept);
        (free < needed).then_some((free, needed))
    }

    /// Whether so many free bytes are so few that nothing is begun: what then finds no room lacks bytes, and no inodes.
    pub(crate) fn is_short(&self, free: u64) -> bool {
        self.free_and_kept().is_some_and(|(_, kept)| free < kept)
    }

    /// Free bytes on the outputs' file system, and how many are to stay free.
    fn free_and_kept(&self) -> Option<(u64, u64)> {
        let stat = rustix::fs::statvfs(&self.root).ok()?;
        let (free, total) = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
        Some((free, limits::DISK_FREE_MIN.min(total / limits::DISK_FREE_SHARE)))
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

    /// Removes the part file of a decided task, as far as it can: it goes with the bag's folder otherwise.
    pub(crate) fn remove_decided(&self, part: &Path) {
        let removed = self.remove_part(part);
        tracing::debug!(part = %part.display(), ok = removed.is_ok(), "part file removed");
    }

    /// Removes the part files of decided tasks, each given by index and round: that round's and earlier ones'.
    pub fn sweep(&self, decided: &[(u32, u32)]) {
        let mut last_rounds = HashMap::new();
        for (index, round) in decided {
            let last = last_rounds.entry(*index).or_insert(*round);
            *last = (*last).max(*round);
        }
        for (path, (index, round)) in self.listed() {
            if last_rounds.get(&index).is_some_and(|last| round <= *last) {
                self.remove_decided(&path);
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

/// What the part file of an execution is called.
pub(crate) fn part_name(index: u32, round: u32, execution: &Execution) -> String {
    format!("{index}.{round}-{execution}")
}

/// What a part file is called in its folder.
pub(super) fn name_of(part: &Path) -> io::Result<&Path> {
    part.file_name().map(Path::new).ok_or_else(|| Errno::INVAL.into())
}
