//! An output that is there already becomes that of another task, whose input has the same content.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bagpress_broker::ids::Execution;
use bagpress_broker::result::FileId;
use bagpress_codec::Digest;

use super::attributes::Owner;
use super::files::{Parts, name_of};
use super::hash::hash_file;
use super::target::{Target, mtime_ns};

impl Parts {
    /// Makes the part file of an execution of the first round of task `index`, for an output that belongs at `to`, with the bytes of
    /// the output that lies at `from`: sharing its blocks where the file system can do that (`FICLONE`); as another name of the same
    /// file, if that is the one that the bag named, `file`, with the mode, time and owner that the output is to have; or as a copy. Durable when it returns. Whether what is there has this
    /// `digest`: if not, there is no part file.
    ///
    /// Blocks.
    ///
    /// # Errors
    ///
    /// What the system said; `NotFound` if no file lies at `from`.
    pub fn make_again(
        &self,
        index: u32,
        execution: &Execution,
        (from, file): (&Path, Option<FileId>),
        to: &Target,
        digest: &Digest,
    ) -> io::Result<bool> {
        let part = self.part(index, 0, execution);
        let made = self.clone_link_or_copy(&part, (from, file), to);
        let right = made.and_then(|()| {
            let (found, _) = hash_file(self.private(), name_of(&part)?)?;
            Ok(found == *digest)
        });
        if !matches!(right, Ok(true)) {
            self.remove_part(&part)?;
        }
        right
    }

    fn clone_link_or_copy(
        &self,
        part: &Path,
        (from, file): (&Path, Option<FileId>),
        to: &Target,
    ) -> io::Result<()> {
        let source = self.outputs().file_and_metadata(from)?;
        let (mut source, there) = source.ok_or(io::ErrorKind::NotFound)?;
        let mut copy = self.create(part)?;
        if rustix::fs::ioctl_ficlone(&copy, &source).is_ok() {
            return copy.sync_all();
        }
        let is_own = file.is_some() && file == FileId::of(&there);
        if is_own && is_alike(&there, to) {
            self.remove_part(part)?;
            // Not everywhere, not across file systems, and not more often than the file system counts.
            if self.outputs().link(from, self.private(), name_of(part)?).is_ok() {
                return Ok(());
            }
            copy = self.create(part)?;
        }
        io::copy(&mut source, &mut copy)?;
        copy.sync_all()
    }
}

/// Whether a file has already what an output is to have: as a second name of it, the output changes nothing of it.
fn is_alike(there: &Metadata, to: &Target) -> bool {
    to.attributes.as_ref().is_some_and(|to| {
        let owner = Owner::of(there);
        mtime_ns(there) == to.mtime_ns
            && there.mode() & 0o7777 == to.mode & 0o777
            && to.owner.is_none_or(|wanted| wanted == owner)
    })
}
