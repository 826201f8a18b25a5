//! Files that a worker reads and writes in place: where it may, and which folder its gatherer really sees.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bagpress_broker::ids::Execution;
use bagpress_broker::{limits, quote};
use rustix::process::geteuid;
use tracing::debug;

use crate::beneath::{Dir, below_root};
use crate::staging::messages::{Share, SharedInput};
use crate::staging::parts::part_name;

/// Where a worker may read inputs and write outputs in place. Nowhere, unless it is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Files, and folders below which files may be read; absolute, without links.
    pub read: Vec<PathBuf>,
    /// Folders below which outputs may be written; likewise.
    pub write: Vec<PathBuf>,
}

impl Allowed {
    /// Everything below these folders, which are absolute and without links.
    #[must_use]
    pub fn below(folders: Vec<PathBuf>) -> Self {
        Self { read: folders.clone(), write: folders }
    }

    /// Whether anything is.
    pub(super) fn anything(&self) -> bool {
        !self.write.is_empty()
    }
}

/// A folder that worker and gatherer see, held.
#[derive(Debug, Clone)]
pub struct SharedFolder {
    folder: Dir,
    /// Set once a file that this worker made there was the folder's owner's: then all are.
    is_owner: Arc<OnceLock<()>>,
    /// Where the output is to be written.
    pub part: PathBuf,
    /// Whether both run on one kernel, so that one `syncfs` covers what both wrote.
    pub same_kernel: bool,
    /// The input, if it is a file.
    pub input: Option<SharedInput>,
}

impl SharedFolder {
    fn of(proved: Proved, path: &Path, share: &Share, part: &str) -> Self {
        let (same_kernel, input) = (share.same_kernel, share.input.clone());
        let Proved { folder, is_owner, .. } = proved;
        Self { folder, is_owner, part: path.join(part), same_kernel, input }
    }

    /// The same folder, with the part file of another execution.
    pub(crate) fn with_part(&self, index: u32, round: u32, execution: &Execution) -> Self {
        let part = self.part.with_file_name(part_name(index, round, execution));
        Self { part, ..self.clone() }
    }

    fn part_name(&self) -> &Path {
        self.part.file_name().map_or(Path::new(""), Path::new)
    }

    /// Makes the part file, for its folder's owner alone.
    ///
    /// # Errors
    ///
    /// What the system said; `EEXIST` if anything has its name.
    pub fn create_part(&self) -> io::Result<File> {
        let file = self.folder.create(self.part_name())?;
        if self.is_owner.get().is_some() {
            return Ok(file);
        }
        let (uid, gid) = self.folder.owner()?;
        if file.metadata()?.uid() == uid.as_raw() {
            self.is_owner.get_or_init(|| ());
        } else if let Err(error) = rustix::fs::fchown(&file, Some(uid), Some(gid)) {
            // A worker of root's, or of a user with rights of the folder's own: the gatherer is to read it.
            self.remove_part();
            return Err(error.into());
        }
        Ok(file)
    }

    /// Free bytes where the part file is, if the system says it.
    pub(crate) fn free(&self) -> Option<u64> {
        let stat = rustix::fs::fstatvfs(&self.folder).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Removes the part file, as far as that can be done; how many bytes it had.
    pub(crate) fn remove_part(&self) -> u64 {
        let name = self.part_name();
        let bytes = self.folder.metadata(name).map_or(0, |metadata| metadata.len());
        if let Err(error) = self.folder.remove_file(name) {
            debug!(%error, part = %self.part.display(), "part file left behind");
        }
        bytes
    }
}

/// Folders that were proved.
#[derive(Debug, Default)]
pub(super) struct Proofs(Mutex<HashMap<PathBuf, Proved>>);

#[derive(Debug, Clone)]
struct Proved {
    /// What was read in it.
    nonce: String,
    folder: Dir,
    is_owner: Arc<OnceLock<()>>,
}

impl Proofs {
    /// The folder of a share that was proved before. Asks no disk.
    pub(super) fn recall(
        &self,
        allowed: &Allowed,
        share: &Share,
        part: &str,
    ) -> Option<SharedFolder> {
        let path = allowed_folder(allowed, share)?;
        let known = self.lock().get(path).filter(|proved| proved.nonce == share.nonce).cloned();
        Some(SharedFolder::of(known?, path, share, part))
    }

    /// Holds the folder of a share, if it is allowed, closed to others, and the very one that the gatherer sees: then its
    /// nonce is in it. Blocks.
    pub(super) fn prove(
        &self,
        allowed: &Allowed,
        share: &Share,
        part: &str,
    ) -> Option<SharedFolder> {
        let path = allowed_folder(allowed, share)?;
        Some(SharedFolder::of(self.hold(path, share)?, path, share, part))
    }

    /// Holds a folder that is proved, and remembers it.
    fn hold(&self, path: &Path, share: &Share) -> Option<Proved> {
        let held = hold(path, share);
        if let Err(error) = &held {
            debug!(%error, folder = %quote::name(path), "not by path");
        }
        let (folder, nonce) = (held.ok()??, share.nonce.clone());
        let proved = Proved { nonce, folder, is_owner: Arc::default() };
        let mut proofs = self.lock();
        if proofs.len() >= limits::OPEN_INPUTS_MAX {
            proofs.clear();
        }
        proofs.insert(path.to_owned(), proved.clone());
        Some(proved)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Proved>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The folder of a share, if all that it names is allowed. What its gatherer calls the part file is for those who read
/// messages; a worker gives it its own name.
fn allowed_folder<'share>(allowed: &Allowed, share: &'share Share) -> Option<&'share Path> {
    let path = share.part.parent()?;
    let mut inputs = share.input.iter().chain(share.inputs.iter().flatten());
    let readable = inputs.all(|input| is_below(&input.path, &allowed.read));
    let one_folder = share.nonce_file.parent() == Some(path);
    (readable && one_folder && is_below(path, &allowed.write)).then_some(path)
}

/// Whether a path leads below one of the roots, as far as its text tells; opening it follows no link.
fn is_below(path: &Path, roots: &[PathBuf]) -> bool {
    below_root(path).is_ok() && roots.iter().any(|root| path.starts_with(root))
}

/// Holds a folder of part files, if it has the nonce and nobody but its owner may write to it, who must be us, unless
/// we are root.
fn hold(path: &Path, share: &Share) -> io::Result<Option<Dir>> {
    let folder = Dir::root()?.dir(&below_root(path)?)?;
    let owner = folder.itself()?.metadata()?;
    let (me, theirs) = (geteuid(), owner.uid());
    if owner.mode() & 0o022 != 0 || !me.is_root() && theirs != me.as_raw() {
        return Ok(None);
    }
    let name = share.nonce_file.file_name().unwrap_or_default();
    let Some(file) = folder.file(Path::new(name))? else { return Ok(None) };
    let mut found = Vec::new();
    file.take(limits::NONCE_BYTES_MAX as u64 + 1).read_to_end(&mut found)?;
    let same = !found.is_empty()
        && found.len() <= limits::NONCE_BYTES_MAX
        && found == share.nonce.as_bytes();
    Ok(same.then_some(folder))
}
