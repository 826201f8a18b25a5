//! Secrets: passwords, tokens, seeds, and the files that contain them.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::limits;
use crate::quote::name;

/// A password, token, seed or credentials file's text.
///
/// It has no `Display` and its `Debug` tells nothing, so what holds one may derive `Debug`.
///
/// ```
/// use bagpress_broker::Secret;
/// assert_eq!(format!("{:?}", Secret::new("hunter2".to_owned())), "Secret");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Keeps `text` to itself.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the server and nobody else.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Reads one from a file that only its owner can read, at most [`limits::SECRET_BYTES_MAX`]. A line's end
    /// at its end is not part of it.
    ///
    /// # Errors
    ///
    /// [`UnfitFile`] if it cannot be read, is empty or no text, or if others can read it.
    pub fn read(path: &Path) -> Result<Self, UnfitFile> {
        let file = open_own(path)?;
        let text = read(file, path)?;
        let text = text.strip_suffix('\n').map_or(&*text, |t| t.strip_suffix('\r').unwrap_or(t));
        if text.is_empty() {
            return Err(UnfitFile::new(path, "it is empty"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A file that cannot be used, why, and what helps.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", name(.path))]
pub struct UnfitFile {
    path: PathBuf,
    why: String,
    /// What helps, if that is more than to look at it.
    pub hint: Option<String>,
}

impl UnfitFile {
    pub(crate) fn new(path: &Path, why: impl Into<String>) -> Self {
        Self { path: path.to_owned(), why: why.into(), hint: None }
    }

    fn with_hint(self, hint: String) -> Self {
        Self { hint: Some(hint), ..self }
    }
}

/// Checks that a file of secrets is one that only its owner can read.
///
/// # Errors
///
/// [`UnfitFile`], as [`Secret::read`].
pub fn check_own(path: &Path) -> Result<(), UnfitFile> {
    open_own(path).map(drop)
}

/// Opens a file and checks what was opened, not what has its name later.
fn open_own(path: &Path) -> Result<File, UnfitFile> {
    let (file, metadata) = open(path)?;
    match exposure(&metadata, rustix::process::geteuid().as_raw()) {
        None => Ok(file),
        Some(Exposure::Others) => {
            let mode = metadata.mode() & 0o7777;
            let unfit =
                UnfitFile::new(path, format!("others can read or write it (mode {mode:04o})"));
            Err(unfit.with_hint(format!("chmod 600 {}", name(path))))
        }
        Some(Exposure::Owner) => {
            let unfit = UnfitFile::new(
                path,
                format!("it belongs to another user (uid {})", metadata.uid()),
            );
            let hint = format!("use a copy of your own: install -m 600 {} COPY", name(path));
            Err(unfit.with_hint(hint))
        }
    }
}

/// A file that is one: a pipe would be waited for.
pub(crate) fn open(path: &Path) -> Result<(File, Metadata), UnfitFile> {
    let unfit = |error: io::Error| UnfitFile::new(path, error.to_string());
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(unfit)?;
    let metadata = file.metadata().map_err(unfit)?;
    if !metadata.is_file() {
        return Err(UnfitFile::new(path, "it is not a file"));
    }
    Ok((file, metadata))
}

fn read(file: File, path: &Path) -> Result<String, UnfitFile> {
    let mut bytes = Vec::new();
    let read = file.take(limits::SECRET_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| UnfitFile::new(path, error.to_string()))?;
    if bytes.len() as u64 > limits::SECRET_BYTES_MAX {
        let why = format!("it has more than {} bytes", limits::SECRET_BYTES_MAX);
        return Err(UnfitFile::new(path, why));
    }
    // What it contains instead may be secret.
    String::from_utf8(bytes).map_err(|_| UnfitFile::new(path, "it is not text"))
}

/// Who else can access a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exposure {
    /// Its group or everybody.
    Others,
    /// A user who is neither root nor us.
    Owner,
}

fn exposure(metadata: &Metadata, us: u32) -> Option<Exposure> {
    exposed(metadata.uid(), metadata.mode(), us)
}

/// As `ssh` judges keys: ours alone. What root gives to a service is read through the group.
fn exposed(owner: u32, mode: u32, us: u32) -> Option<Exposure> {
    let for_others = if owner == us { 0o077 } else { 0o027 };
    if owner != us && owner != 0 {
        Some(Exposure::Owner)
    } else if mode & for_others != 0 {
        Some(Exposure::Others)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_its_owners_alone_or_what_root_gives_to_a_group() {
        for (owner, mode, us, judged) in [
            (7, 0o600, 7, None),
            (7, 0o400, 7, None),
            (7, 0o640, 7, Some(Exposure::Others)),
            (7, 0o604, 7, Some(Exposure::Others)),
            (7, 0o620, 7, Some(Exposure::Others)),
            (0, 0o640, 0, Some(Exposure::Others)),
            (0, 0o640, 7, None),
            (0, 0o440, 7, None),
            (0, 0o644, 7, Some(Exposure::Others)),
            (0, 0o660, 7, Some(Exposure::Others)),
            (8, 0o600, 7, Some(Exposure::Owner)),
            (8, 0o600, 0, Some(Exposure::Owner)),
        ] {
            assert_eq!(exposed(owner, mode, us), judged, "{owner} {mode:o} {us}");
        }
    }

    fn file(bytes: &[u8], mode: u32) -> tempfile::TempPath {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        file.into_temp_path()
    }

    #[test]
    fn a_secret_is_its_files_text_without_the_end_of_its_line() {
        for (bytes, text) in [("a b\n", "a b"), ("x\r\n", "x"), ("x", "x"), ("x\n\n", "x\n")] {
            let read = Secret::read(&file(bytes.as_bytes(), 0o600)).unwrap();
            assert_eq!(read.reveal(), text);
            assert!(!format!("{read:?}").contains(text));
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_shown() {
        let max = usize::try_from(limits::SECRET_BYTES_MAX).unwrap();
        for (bytes, why) in [
            (b"".to_vec(), "empty"),
            (b"\n".to_vec(), "empty"),
            (b"hidden\xff".to_vec(), "not text"),
            (vec![b'x'; max + 1], "more than"),
        ] {
            let refused = Secret::read(&file(&bytes, 0o600)).unwrap_err().to_string();
            assert!(refused.contains(why) && !refused.contains("hidden"), "{refused}");
        }
        let refused = Secret::read(Path::new("/dev/null")).unwrap_err().to_string();
        assert!(refused.contains("not a file"), "{refused}");
        let open = file(b"x", 0o644);
        let refused = Secret::read(&open).unwrap_err();
        assert!(refused.to_string().contains("mode 0644"), "{refused}");
        assert_eq!(refused.hint, Some(format!("chmod 600 {}", open.display())));
        assert!(check_own(&open).is_err());
    }
}
