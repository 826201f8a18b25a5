//! SHA-256 of files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bagpress_codec::{Digest, Hasher};

use crate::beneath::Dir;

/// On the stack: most files are small, and a buffer from the heap costs more than their digest.
pub(crate) const PIECE_BYTES: usize = 16 * 1024;

/// Digest and size of a regular file beneath a directory.
///
/// # Errors
///
/// What the system said; that it is something else.
pub fn hash_file(dir: &Dir, path: &Path) -> io::Result<(Digest, u64)> {
    let file = dir.file(path)?.ok_or_else(|| io::Error::other("it is not a file"))?;
    hash(file, || {})
}

/// Digest of an open file, from its start.
pub(super) fn digest_of(file: File) -> io::Result<Digest> {
    hash(file, || {}).map(|(digest, _)| digest)
}

/// Digest and size of an open file, from its start; `goes_on` is called again and again meanwhile.
pub(super) fn hash(mut file: File, mut goes_on: impl FnMut()) -> io::Result<(Digest, u64)> {
    let (mut hasher, mut bytes) = (Hasher::new(), 0);
    let mut buffer = [0; PIECE_BYTES];
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
