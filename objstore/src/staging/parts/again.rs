//! An output that is there already becomes that of another task, whose input has the same content.

use std::io;
use std::path::Path;

use bagpress_broker::ids::Execution;
use bagpress_codec::Digest;

use super::files::{Parts, name_of};
use super::hash::hash_file;
use super::target::Target;

impl Parts {
    /// Makes the part file of an execution of the first round of task `index`, for an output that belongs at `to`, with the bytes of
    /// the output that lies at `from`: sharing its blocks where the file system can do that (`FICLONE`); as another name of the same
    /// file if both are to have equal mode, time and owner; or as a copy. Durable when it returns. Whether what is there has this
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
        from: &Target,
        to: &Target,
        digest: &Digest,
    ) -> io::Result<bool> {
        let part = self.part(index, 0, execution);
        let made = self.clone_link_or_copy(&part, from, to);
        let right = made.and_then(|()| {
            let (found, _) = hash_file(self.private(), name_of(&part)?)?;
            Ok(found == *digest)
        });
        if !matches!(right, Ok(true)) {
            self.remove_part(&part)?;
        }
        right
    }

    fn clone_link_or_copy(&self, part: &Path, from: &Target, to: &Target) -> io::Result<()> {
        let source = self.outputs().file(&from.path)?.ok_or(io::ErrorKind::NotFound)?;
        let mut copy = self.create(part)?;
        if rustix::fs::ioctl_ficlone(&copy, &source).is_ok() {
            return copy.sync_all();
        }
        let alike = match (&from.attributes, &to.attributes) {
            (Some(from), Some(to)) => {
                (from.mode, from.mtime_ns, from.owner) == (to.mode, to.mtime_ns, to.owner)
            }
            _ => false,
        };
        if alike {
            self.remove_part(part)?;
            // Not everywhere, not across file systems, and not more often than the file system counts.
            if self.outputs().link(&from.path, self.private(), name_of(part)?).is_ok() {
                return Ok(());
            }
            copy = self.create(part)?;
        }
        let mut source = source;
        io::copy(&mut source, &mut copy)?;
        copy.sync_all()
    }
}
