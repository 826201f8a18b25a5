//! Reading a held file by an offset of its own, so that several can read it at once: what was opened and believed is read.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::os::unix::fs::FileExt;

/// A file that is read from its start, by an offset of its own.
#[derive(Debug)]
pub(crate) struct FromStart<F> {
    file: F,
    at: u64,
}

impl<F: Deref<Target = File>> FromStart<F> {
    pub(crate) fn of(file: F) -> Self {
        Self::behind(file, 0)
    }

    /// The same, of what lies behind the first `at` bytes.
    pub(crate) fn behind(file: F, at: u64) -> Self {
        Self { file, at }
    }
}

impl<F: Deref<Target = File>> Read for FromStart<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
