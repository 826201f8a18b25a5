//! The files of a pack in one tar, which stock tools read: deterministic, and small enough to be held whole.
//!
//! A file has a header, its content, and a filling to whole blocks; a long name has the same before it, as GNU tar writes it.
//! Nothing in a tar tells when, where or by whom it was written, so that equal files give equal bytes.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use bagpress_broker::limits::{
    PACK_FILES_MAX, TAR_BLOCK_BYTES, TAR_BYTES_MAX, TAR_EACH_BYTES, TAR_END_BYTES,
    TAR_NAME_BYTES_MAX,
};
use bytes::Bytes;
use tar::{Archive, EntryType, Header};

/// Bytes of a block, to index memory by.
const BLOCK: usize = 512;
const _: () = assert!(BLOCK as u64 == TAR_BLOCK_BYTES && 2 * BLOCK as u64 == TAR_END_BYTES);
/// Longest name that a header itself has, in bytes.
const NAME_FIELD_BYTES: usize = 100;
/// What the header of a longer one is called.
const LONG_NAME: &[u8] = b"././@LongLink";

/// A file, as its header has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which file of the pack it is, from 0. In `devminor`, which means nothing for files.
    pub place: u32,
    /// Its name, relative, with plain components only, of at most [`TAR_NAME_BYTES_MAX`] bytes.
    pub name: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// Its modification time, in seconds since 1970; an earlier one is 1970.
    pub mtime: u64,
}

/// A tar that is being written.
#[derive(Debug, Default)]
pub struct Writer {
    tar: Vec<u8>,
    next: u32,
}

impl Writer {
    /// Whether a file of this name can be in a tar: a path that leads out of where it is extracted is none.
    #[must_use]
    pub fn takes(name: &Path) -> bool {
        let bytes = name.as_os_str().as_bytes();
        let plain = name.components().all(|part| matches!(part, Component::Normal(_)));
        // What the components leave out is in the name all the same.
        let whole = name.components().collect::<PathBuf>().as_os_str() == name.as_os_str();
        plain && whole && (1..=TAR_NAME_BYTES_MAX).contains(&bytes.len()) && !bytes.contains(&0)
    }

    /// Appends a file. Returns at which byte of the tar its content begins.
    ///
    /// # Errors
    ///
    /// If its name cannot be in a tar, its place is not behind that of the last one, or the tar would be longer than
    /// [`TAR_BYTES_MAX`].
    pub fn add(&mut self, member: &Member, content: &[u8]) -> io::Result<u64> {
        if !Self::takes(&member.name) || !(self.next..PACK_FILES_MAX).contains(&member.place) {
            return Err(io::Error::other("a file that cannot be in the tar of a pack"));
        }
        let (before, bytes) = (self.tar.len() as u64, content.len() as u64);
        if before.saturating_add(bytes) > TAR_BYTES_MAX - TAR_EACH_BYTES - TAR_END_BYTES {
            return Err(io::Error::other("a tar that is longer than those of packs are"));
        }
        self.tar.extend_from_slice(&head(member, bytes)?);
        let at = self.tar.len() as u64;
        push(&mut self.tar, content);
        self.next = member.place + 1;
        Ok(at)
    }

    /// Ends the tar.
    #[must_use]
    pub fn finish(mut self) -> Bytes {
        push(&mut self.tar, &[0; 2 * BLOCK]);
        self.tar.into()
    }
}

/// What is before the content of a file of so many bytes: its header, and before that its name if it is long.
///
/// # Errors
///
/// If the place is no place of a pack.
pub fn head(member: &Member, bytes: u64) -> io::Result<Vec<u8>> {
    let Member { place, name, mode, mtime } = member;
    let (name, mut head) = (name.as_os_str().as_bytes(), Vec::new());
    if name.len() > NAME_FIELD_BYTES {
        let long = [name, &[0]].concat();
        let mut header = header(EntryType::GNULongName, LONG_NAME, long.len() as u64);
        header.set_cksum();
        push(&mut head, header.as_bytes());
        push(&mut head, &long);
    }
    let mut header = header(EntryType::Regular, name, bytes);
    header.set_mode(mode & 0o777);
    header.set_mtime(*mtime);
    header.set_device_minor(*place)?;
    header.set_cksum();
    push(&mut head, header.as_bytes());
    Ok(head)
}

/// Appends bytes, and fills up to whole blocks.
fn push(tar: &mut Vec<u8>, bytes: &[u8]) {
    tar.extend_from_slice(bytes);
    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
}

/// A header with as much of a name as it takes; all else is 0.
fn header(kind: EntryType, name: &[u8], bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    let taken = name.len().min(NAME_FIELD_BYTES);
    header.as_old_mut().name[..taken].copy_from_slice(&name[..taken]);
    header.set_entry_type(kind);
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// A file in a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its header.
    pub member: Member,
    /// At which byte of the tar its content begins.
    pub at: u64,
    /// The content: a part of the tar.
    pub content: Bytes,
}

/// The files of a tar, in order. One that another program wrote is read only if it is as ours are.
///
/// # Errors
///
/// What is wrong with it: it is torn, too long, has something else than files, files that are out of order, or names that lead
/// elsewhere.
pub fn read(tar: &Bytes) -> Result<Vec<Found>, String> {
    if tar.len() as u64 > TAR_BYTES_MAX {
        return Err(format!("{} bytes; a tar of a pack has at most {TAR_BYTES_MAX}", tar.len()));
    }
    let mut archive = Archive::new(&tar[..]);
    let (mut found, mut next) = (Vec::new(), 0);
    let entries = archive.entries().map_err(|error| error.to_string())?;
    for entry in entries {
        let mut entry = entry.map_err(|error| error.to_string())?;
        let extended = entry.pax_extensions().map_err(|error| error.to_string())?.is_some();
        let header = entry.header();
        if header.entry_type() != EntryType::Regular || extended {
            return Err("it has something else than files".to_owned());
        }
        let number = |number: io::Result<u64>| number.map_err(|error| error.to_string());
        let (mtime, bytes) = (number(header.mtime())?, number(header.entry_size())?);
        let mode = header.mode().map_err(|error| error.to_string())? & 0o777;
        let place = header.device_minor().map_err(|error| error.to_string())?.unwrap_or(0);
        let name = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        if !(next..PACK_FILES_MAX).contains(&place) || !Writer::takes(&name) {
            return Err(
                "it has a file that is out of order, or whose name leads elsewhere".to_owned()
            );
        }
        next = place + 1;
        let at = entry.raw_file_position();
        let content = slice(tar, at, bytes).ok_or("it is torn")?;
        found.push(Found { member: Member { place, name, mode, mtime }, at, content });
    }
    Ok(found)
}

/// So many bytes of a tar from this one on, if it has them.
#[must_use]
pub fn slice(tar: &Bytes, at: u64, bytes: u64) -> Option<Bytes> {
    let from = usize::try_from(at).ok()?;
    let to = usize::try_from(at.checked_add(bytes)?).ok().filter(|to| *to <= tar.len())?;
    Some(tar.slice(from..to))
}

#[cfg(test)]
mod tests;
