//! Inputs that are files, read for who compresses them.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bagpress_broker::limits;
use bagpress_broker::result::{Cause, Failed};

use super::messages::InputRequest;
use super::parts::mtime_ns;
use super::receiver::Plan;

/// A file that is a task's input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFile {
    /// Its absolute path.
    pub path: PathBuf,
    /// Its size when the bag was made.
    pub bytes: u64,
    /// Its modification time then, ns since 1970.
    pub mtime_ns: i64,
    /// Its inode then.
    pub inode: u64,
}

/// The input files that are open, the one used last at the end.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    open: Mutex<Vec<(u32, Arc<File>)>>,
}

impl Inputs {
    /// Reads what is asked for.
    ///
    /// # Errors
    ///
    /// As [`open_unchanged`]: all permanent.
    pub(super) fn read(&self, plan: &dyn Plan, request: &InputRequest) -> Result<Vec<u8>, Failed> {
        let unreadable =
            |error: std::io::Error| Failed::new(Cause::InputUnreadable, error.to_string());
        let input = plan.input(request.index).map_err(unreadable)?;
        let file = self.open(request.index, &input)?;
        let left = input.bytes.saturating_sub(request.offset);
        let wanted = request.bytes.min(left).min(limits::CHUNK_BYTES as u64);
        let mut buffer = vec![0; usize::try_from(wanted).unwrap_or(0)];
        let shorter = |_| changed(&input, "it became shorter");
        file.read_exact_at(&mut buffer, request.offset).map_err(shorter)?;
        // After the read: what was read before a change is what the bag was made of.
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.len() != input.bytes || mtime_ns(&metadata) != input.mtime_ns {
            return Err(changed(&input, "its size or time is another"));
        }
        Ok(buffer)
    }

    fn open(&self, index: u32, input: &InputFile) -> Result<Arc<File>, Failed> {
        let mut inputs = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = inputs.iter().position(|(i, _)| *i == index) {
            let entry = inputs.remove(at);
            let file = entry.1.clone();
            inputs.push(entry);
            return Ok(file);
        }
        let file = open_unchanged(input)?;
        if inputs.len() >= limits::OPEN_INPUTS_MAX {
            inputs.remove(0);
        }
        inputs.push((index, Arc::new(file)));
        Ok(inputs[inputs.len() - 1].1.clone())
    }
}

fn changed(input: &InputFile, how: &str) -> Failed {
    let text = format!(
        "{} changed since the bag was made: {how}",
        bagpress_broker::quote::name(&input.path)
    );
    Failed::new(Cause::InputChanged, text)
}

/// Opens an input, and checks that it is the file that the bag was made of.
///
/// # Errors
///
/// [`Cause::InputMissing`], [`Cause::InputUnreadable`] or [`Cause::InputChanged`]: all permanent.
pub fn open_unchanged(input: &InputFile) -> Result<File, Failed> {
    let cause = |error: &std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Cause::InputMissing,
        _ => Cause::InputUnreadable,
    };
    let failed = |error: std::io::Error| {
        Failed::new(
            cause(&error),
            format!("{}: {error}", bagpress_broker::quote::name(&input.path)),
        )
    };
    let file = File::open(&input.path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.len() != input.bytes
        || mtime_ns(&metadata) != input.mtime_ns
        || metadata.ino() != input.inode
    {
        return Err(changed(input, "its size, time or inode is another"));
    }
    Ok(file)
}
