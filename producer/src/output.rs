//! An output as it lies in its folder: opened beneath it, whatever others have put there.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bagpress_codec::{Digest, Hasher, SEGMENT_BYTES};
use bagpress_objstore::beneath::Dir;

use crate::from_start::FromStart;

/// Opens an output beneath the outputs' folder. No link is followed, and nothing but a file is waited for.
///
/// # Errors
///
/// What the system said; that it is no file.
pub(crate) fn open(root: &Dir, target: &Path) -> io::Result<File> {
    let file = root.file(target)?;
    file.ok_or_else(|| io::Error::other("it is no file"))
}

/// Digest and size of what was opened.
///
/// # Errors
///
/// What the system said.
pub(crate) fn hash(file: &File) -> io::Result<(Digest, u64)> {
    let (mut reader, mut hasher, mut bytes) = (FromStart::of(file), Hasher::new(), 0);
    let mut buffer = vec![0; SEGMENT_BYTES];
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            return Ok((hasher.finish(), bytes));
        }
        hasher.update(&buffer[..read]);
        bytes += read as u64;
    }
}
