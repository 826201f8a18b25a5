//! A part file that is being written, with its digest and offset so far.

use std::fs::File;
use std::io::{self, Read, Write};

use bagpress_codec::{Digest, Hasher};

use crate::staging::parts::PIECE_BYTES;

/// A part file that grows, and the digest of what it holds.
#[derive(Debug)]
pub(super) struct Incoming {
    file: File,
    hasher: Hasher,
    offset: u64,
}

impl Incoming {
    /// Takes up a part file where it ends.
    pub(super) fn resume(mut file: File) -> io::Result<Self> {
        let (mut hasher, mut offset) = (Hasher::new(), 0);
        let mut buffer = [0; PIECE_BYTES];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok(Self { file, hasher, offset });
            }
            hasher.update(&buffer[..read]);
            offset += read as u64;
        }
    }

    /// Bytes that are there.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends. After an error the file is as long as before it.
    pub(super) fn write(mut self, bytes: &[u8]) -> io::Result<Self> {
        if let Err(error) = self.file.write_all(bytes) {
            self.file.set_len(self.offset)?;
            return Err(error);
        }
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(self)
    }

    /// Checks that everything is there.
    pub(super) fn finish(self, bytes: u64, digest: &Digest) -> Result<(), String> {
        let (there, found) = (self.offset, self.hasher.finish());
        if there == bytes && found == *digest {
            return Ok(());
        }
        Err(format!("{there} bytes, {found} arrived; {bytes} bytes, {digest} announced"))
    }
}
