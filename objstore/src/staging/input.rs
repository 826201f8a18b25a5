//! An input that is a file: read to its end, and unchanged until then.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use bagpress_broker::result::{Cause, Failed};
use bagpress_broker::{bounded, limits, quote};
use serde::{Deserialize, Serialize};

use super::parts::mtime_ns;
use crate::beneath::absolute_file;
use crate::trouble::input_failed;

/// A file that is a task's input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFile {
    /// Its absolute path, without links.
    pub path: PathBuf,
    /// Its size when the bag was made.
    pub bytes: u64,
    /// Its modification time then, ns since 1970.
    pub mtime_ns: i64,
    /// Its inode then.
    pub inode: u64,
    /// What of it the task takes; none: all of it.
    pub section: Option<Section>,
}

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// At which byte it begins.
    #[serde(deserialize_with = "bounded::input_bytes")]
    pub at: u64,
    /// How many bytes it has.
    #[serde(deserialize_with = "bounded::input_bytes")]
    pub bytes: u64,
}

impl InputFile {
    /// How many bytes the task takes.
    #[must_use]
    pub fn taken_bytes(&self) -> u64 {
        self.section.map_or(self.bytes, |section| section.bytes)
    }

    fn failed(&self, error: &io::Error) -> Failed {
        input_failed(&self.path, error)
    }

    fn changed(&self, how: &str) -> Failed {
        let text = format!("{} changed since the bag was made: {how}", quote::name(&self.path));
        Failed::new(Cause::InputChanged, text)
    }
}

/// An input that is being read: to its end, whatever size it was said to have, and unchanged until then.
#[derive(Debug)]
pub struct OpenInput {
    file: File,
    input: InputFile,
    /// Whether the size that the system says is that of the content. Of what the kernel makes up when it is read, as below
    /// `/proc` and `/sys`, it is not; no such file takes room on a disk.
    sized: bool,
}

impl OpenInput {
    /// Opens an input, and checks that it is the file that the bag was made of.
    ///
    /// # Errors
    ///
    /// [`Cause::InputMissing`], [`Cause::InputUnreadable`] or [`Cause::InputChanged`]: all permanent. [`Cause::Full`] for
    /// what passes, such as too many open files.
    pub fn open(input: InputFile) -> Result<Self, Failed> {
        // What is no regular file any more must not be waited for, and no link that came since be followed.
        let opened = absolute_file(&input.path);
        let Some((file, metadata)) = opened.map_err(|error| input.failed(&error))? else {
            let path = quote::name(&input.path);
            let text = format!(
                "{path} is not a file, or is behind a symbolic link; a new run takes what is there"
            );
            return Err(Failed::new(Cause::InputUnreadable, text));
        };
        let sized = input.bytes > 0 && metadata.blocks() > 0;
        let opened = Self { file, input, sized };
        if metadata.ino() != opened.input.inode || !opened.same(&metadata) {
            return Err(opened.input.changed("its size, time or inode differs"));
        }
        Ok(opened)
    }

    /// How many bytes will be read, by what the system says; not always known, and then [`said`](Self::said) may be right.
    pub(crate) fn bytes(&self) -> Option<u64> {
        (self.sized || self.input.section.is_some()).then(|| self.said())
    }

    /// How many bytes the bag was told of it.
    pub(crate) fn said(&self) -> u64 {
        self.input.taken_bytes()
    }

    /// Size and time are as they were. The times of what is made up when it is read are made up too.
    fn same(&self, metadata: &Metadata) -> bool {
        metadata.len() == self.input.bytes
            && (self.input.bytes == 0 || mtime_ns(metadata) == self.input.mtime_ns)
    }

    /// Reads `most` bytes from `offset` on into `into`, which is cleared; fewer only at the end. Returns whether that is
    /// the end.
    ///
    /// # Errors
    ///
    /// [`Cause::InputUnreadable`], or [`Cause::InputChanged`] if the file was written to meanwhile.
    pub fn read_at(&self, offset: u64, most: usize, into: &mut Vec<u8>) -> Result<bool, Failed> {
        let (from, left) = match self.input.section {
            Some(Section { at, bytes }) => (at, bytes.saturating_sub(offset)),
            None => (0, self.input.bytes.saturating_sub(offset)),
        };
        let is_whole = self.input.section.is_none();
        // One byte more than there should be tells whether that is the end.
        let room = match (is_whole, self.sized) {
            (true, true) => left.saturating_add(1).min(most as u64),
            (true, false) => most as u64,
            (false, _) => left.min(most as u64),
        };
        into.resize(usize::try_from(room).unwrap_or(most), 0);
        let (mut filled, offset) = (0, from.saturating_add(offset));
        while filled < into.len() {
            match self.file.read_at(&mut into[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.input.failed(&error)),
            }
        }
        let ended = filled < into.len();
        into.truncate(filled);
        // After the read: what was read before a change is what the bag was made of.
        let metadata = self.file.metadata().map_err(|error| self.input.failed(&error))?;
        if !self.same(&metadata) {
            return Err(self.input.changed("its size or time differs"));
        }
        let end = offset + filled as u64;
        if !is_whole {
            // It was that long when the bag was made, and nothing of it has changed.
            return if ended {
                Err(self.input.changed("its size differs"))
            } else {
                Ok(filled as u64 == left)
            };
        }
        if self.sized && (end > self.input.bytes || ended && end < self.input.bytes) {
            return Err(self.input.changed("its size differs"));
        }
        if end > limits::INPUT_BYTES_MAX {
            let text = format!("{} does not end", quote::name(&self.input.path));
            return Err(Failed::new(Cause::InputUnreadable, text));
        }
        Ok(ended)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn input(path: &Path) -> InputFile {
        let (metadata, path) = (fs::metadata(path).unwrap(), path.canonicalize().unwrap());
        let (bytes, mtime_ns) = (metadata.len(), mtime_ns(&metadata));
        InputFile { path, bytes, mtime_ns, inode: metadata.ino(), section: None }
    }

    fn read(opened: &OpenInput, most: usize) -> Result<Vec<u8>, Failed> {
        let (mut all, mut piece) = (Vec::new(), Vec::new());
        loop {
            let ended = opened.read_at(all.len() as u64, most, &mut piece)?;
            all.extend_from_slice(&piece);
            if ended {
                return Ok(all);
            }
        }
    }

    #[test]
    fn a_file_is_read_to_its_end_in_pieces_of_any_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for size in [0_u8, 1, 7, 8, 16, 17] {
            let bytes: Vec<u8> = (0..size).collect();
            fs::write(&path, &bytes).unwrap();
            for most in [1, 7, 8, 100] {
                let opened = OpenInput::open(input(&path)).unwrap();
                assert_eq!(read(&opened, most).unwrap(), bytes, "{size} {most}");
            }
        }
    }

    #[test]
    fn a_section_is_read_to_its_end_and_no_further() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..100).collect();
        fs::write(&path, &bytes).unwrap();
        for (at, length) in [(0_u8, 100_u8), (0, 7), (50, 50), (99, 1), (30, 16), (100, 0)] {
            let section = Some(Section { at: at.into(), bytes: length.into() });
            let end = usize::from(at) + usize::from(length);
            for most in [1, 7, 8, 100, 200] {
                let opened = OpenInput::open(InputFile { section, ..input(&path) }).unwrap();
                assert_eq!(read(&opened, most).unwrap(), bytes[at.into()..end], "{at} {most}");
            }
        }
        let behind = Some(Section { at: 90, bytes: 20 });
        let opened = OpenInput::open(InputFile { section: behind, ..input(&path) }).unwrap();
        assert_eq!(read(&opened, 100).unwrap_err().cause, Cause::InputChanged);
        let section = Some(Section { at: 10, bytes: 20 });
        let opened = OpenInput::open(InputFile { section, ..input(&path) }).unwrap();
        fs::write(&path, b"another").unwrap();
        assert_eq!(read(&opened, 5).unwrap_err().cause, Cause::InputChanged);
    }

    #[test]
    fn what_has_no_size_and_content_gives_that_content() {
        for path in ["/proc/version", "/proc/self/status"].map(Path::new) {
            let opened = OpenInput::open(input(path)).unwrap();
            let bytes = read(&opened, 512 * 1024).unwrap();
            assert!(bytes.len() > 16, "{}", path.display());
        }
        // 4,096 bytes by what the system says.
        let path = Path::new("/sys/kernel/mm/transparent_hugepage/enabled");
        if path.exists() {
            let opened = OpenInput::open(input(path)).unwrap();
            assert_eq!(read(&opened, 8).unwrap(), fs::read(path).unwrap());
        }
    }

    #[test]
    fn a_file_that_is_written_to_while_it_is_read_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut piece = Vec::new();
        for after in [&b"longer than it was"[..], b"shrt", b""] {
            fs::write(&path, b"as it was").unwrap();
            let opened = OpenInput::open(input(&path)).unwrap();
            assert!(!opened.read_at(0, 4, &mut piece).unwrap());
            fs::write(&path, after).unwrap();
            let failed = opened.read_at(4, 100, &mut piece).unwrap_err();
            assert_eq!(failed.cause, Cause::InputChanged);
        }
        fs::write(&path, b"").unwrap();
        let empty = OpenInput::open(input(&path)).unwrap();
        fs::write(&path, b"no longer").unwrap();
        assert_eq!(empty.read_at(0, 9, &mut piece).unwrap_err().cause, Cause::InputChanged);
    }
}
