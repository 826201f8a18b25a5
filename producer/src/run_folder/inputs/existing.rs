//! Where outputs become files: whether they can have their names, and what has them already.

use std::borrow::Cow;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Result;
use bagpress_broker::quote;
use bagpress_broker::result::{Cause, Failed};
use bagpress_codec::{Codec, SEGMENT_BYTES};
use bagpress_objstore::staging::{Replaced, mtime_ns};

use super::left_out::Identity;
use super::refusal::refused;
use super::selection::Existing;
use crate::error::Usage;

/// Longest path that the system takes, in bytes, without the zero byte behind it.
const PATH_BYTES_MAX: usize = 4095;
/// Header and trailer of a gzip file, which nothing shorter can be.
const GZIP_BYTES_MIN: u64 = 18;

/// What helps where an output's name is taken.
const CHOOSE: &str = "--update skips what is up to date and replaces what changed, --overwrite replaces all; or choose an empty \
                      --out DIR";
/// The same where files are restored.
const CHOOSE_TO_RESTORE: &str =
    "--overwrite replaces all that have such a name; or choose an empty --out DIR";

/// The same for tasks of a list whose inputs are no files.
const CHOOSE_MADE: &str = "remove it, or choose an empty --out DIR";

/// What is said of a file whose output would be that file.
pub(crate) const ITSELF: &str = "it is the input itself";

/// The files that a bag's outputs become.
#[derive(Debug, Clone)]
pub(crate) struct Outputs {
    /// Their folder, absolute; it need not be there.
    root: PathBuf,
    codec: Codec,
    existing: Existing,
    /// Whether the bag goes on: what is there is its own.
    goes_on: bool,
    name_max: usize,
    /// What helps where a name is taken.
    choose: &'static str,
    /// The same for a task whose input is no file.
    choose_made: &'static str,
}

/// Why what has an output's name cannot be replaced, if it cannot.
fn in_the_way(there: &Metadata) -> Option<&'static str> {
    if there.is_file() {
        None
    } else if there.is_dir() {
        Some("a folder has the output's name, and is not replaced")
    } else if there.is_symlink() {
        Some("a symbolic link has the output's name, and is not replaced")
    } else {
        Some("a special file has the output's name, and is not replaced")
    }
}

/// A file that is to be replaced, if it is still this one then.
fn replaced(there: &Metadata) -> Replaced {
    Replaced { bytes: there.len(), mtime_ns: mtime_ns(there), inode: there.ino() }
}

/// What becomes of a file.
#[derive(Debug)]
pub(crate) enum Comparison {
    /// Its output is a new file.
    New,
    /// Its output replaces this one.
    Changed(Replaced),
    /// Its output is there.
    UpToDate,
    /// It can have no output.
    Refused(Failed),
}

impl Outputs {
    /// Outputs below `root`.
    pub(crate) fn new(root: PathBuf, codec: Codec, existing: Existing, goes_on: bool) -> Self {
        let there = root.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
        let name_max = rustix::fs::statvfs(there).map_or(0, |s| s.f_namemax);
        // A file system that says nothing gets the usual bound.
        let name_max = usize::try_from(name_max).ok().filter(|most| *most > 0).unwrap_or(255);
        Self { root, codec, existing, goes_on, name_max, choose: CHOOSE, choose_made: CHOOSE_MADE }
    }

    /// The same for files that are restored.
    pub(crate) fn restored(self) -> Self {
        Self { choose: CHOOSE_TO_RESTORE, choose_made: CHOOSE_TO_RESTORE, ..self }
    }

    /// The same for a task that has a codec of its `own`, if it has one.
    pub(super) fn of_codec(&self, own: Option<Codec>) -> Cow<'_, Self> {
        match own {
            Some(codec) => Cow::Owned(Self { codec, ..self.clone() }),
            None => Cow::Borrowed(self),
        }
    }

    /// What becomes of a task whose input is no file: there is nothing that its output could be compared with.
    ///
    /// # Errors
    ///
    /// [`Usage`] if its output's name is taken and nothing was said about that.
    pub(crate) fn judge_made(&self, target: &Path) -> Result<Comparison> {
        let name = self.name_of(target);
        let output = self.root.join(&name);
        let cannot = |cause, why: &str| Comparison::Refused(refused(cause, &output, why));
        if self.is_too_long(&name, &output) {
            let why = io::Error::from(rustix::io::Errno::NAMETOOLONG).to_string();
            return Ok(cannot(Cause::OutputUnwritable, &why));
        }
        match output.symlink_metadata() {
            Ok(_) if self.goes_on => Ok(Comparison::New),
            Ok(there) if self.existing == Existing::Overwrite => Ok(match in_the_way(&there) {
                Some(why) => cannot(Cause::OutputExists, why),
                None => Comparison::Changed(replaced(&there)),
            }),
            Ok(_) => Err(Usage::error(
                format!("the output {} already exists", quote::name(&output)),
                self.choose_made,
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Comparison::New),
            Err(error) => Ok(cannot(Cause::OutputUnwritable, &error.to_string())),
        }
    }

    /// Their folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The output of the file with this target, below the outputs' folder.
    pub(crate) fn name_of(&self, target: &Path) -> PathBuf {
        let mut name = target.as_os_str().to_owned();
        name.push(self.codec.extension());
        name.into()
    }

    /// Whether the file at `path` is what this bag would make, or has made, of a file in the same folder.
    pub(crate) fn is_ours(&self, path: &Path, target: &Path, metadata: &Metadata) -> bool {
        let extension = self.codec.extension().as_bytes();
        let bytes = path.as_os_str().as_bytes();
        let Some(source) = bytes.strip_suffix(extension) else { return false };
        if extension.is_empty() || source.ends_with(b"/") {
            return false;
        }
        let source = Path::new(std::ffi::OsStr::from_bytes(source));
        source.symlink_metadata().is_ok_and(|source| source.is_file())
            && Identity::at(&self.root.join(target)) == Some(Identity::of(metadata))
    }

    /// What becomes of a file, as far as its output's name tells.
    ///
    /// # Errors
    ///
    /// [`Usage`] if the name is taken and nothing was said about that.
    pub(crate) fn judge(
        &self,
        path: &Path,
        target: &Path,
        metadata: &Metadata,
    ) -> Result<Comparison> {
        let name = self.name_of(target);
        let output = self.root.join(&name);
        if self.is_too_long(&name, &output) {
            let why = io::Error::from(rustix::io::Errno::NAMETOOLONG).to_string();
            return Ok(Comparison::Refused(refused(Cause::OutputUnwritable, &output, &why)));
        }
        let there = match output.symlink_metadata() {
            Ok(there) => there,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Comparison::New),
            Err(error) => {
                let failed = refused(Cause::OutputUnwritable, &output, &error.to_string());
                return Ok(Comparison::Refused(failed));
            }
        };
        if self.goes_on {
            return Ok(Comparison::New);
        }
        if self.existing == Existing::Refuse {
            return Err(Usage::error(
                format!("the output {} already exists", quote::name(&output)),
                self.choose,
            ));
        }
        let itself = Identity::of(&there) == Identity::of(metadata);
        let in_the_way = if itself { Some(ITSELF) } else { in_the_way(&there) };
        let update = matches!(self.existing, Existing::Update { .. });
        let in_the_way = in_the_way.or_else(|| {
            let strange = update && !self.looks_made(&output).unwrap_or(false);
            strange.then_some("it is not an output of this codec; --overwrite replaces any file")
        });
        Ok(match (in_the_way, self.existing) {
            (Some(why), _) => Comparison::Refused(refused(Cause::OutputExists, &output, why)),
            (None, Existing::Update { checksum })
                if self.is_up_to_date(checksum, (path, metadata), (&output, &there)) =>
            {
                Comparison::UpToDate
            }
            (None, _) => Comparison::Changed(replaced(&there)),
        })
    }

    /// Whether a file begins as an output of the codec does, as far as its format has a beginning: what an update replaces
    /// was made by somebody who compressed that file before.
    fn looks_made(&self, output: &Path) -> io::Result<bool> {
        if self.codec.extension().is_empty() {
            return Ok(true); // a copy begins as anything may
        }
        let mut begin = [0; 2];
        match File::open(output)?.read_exact(&mut begin) {
            Ok(()) => Ok(self.codec.may_begin_with(&begin)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn is_too_long(&self, name: &Path, output: &Path) -> bool {
        output.as_os_str().len() > PATH_BYTES_MAX
            || name.iter().any(|part| part.len() > self.name_max)
    }

    fn is_up_to_date(
        &self,
        checksum: bool,
        (path, source): (&Path, &Metadata),
        (output, there): (&Path, &Metadata),
    ) -> bool {
        if checksum {
            return gives(&self.codec, output, path).unwrap_or(false);
        }
        same_time(source, there)
            && match self.codec.extension() {
                ".gz" => gzip_of(output, there.len(), source.len()).unwrap_or(false),
                "" => there.len() == source.len(),
                _ => self.is_made_with(output).unwrap_or(false),
            }
    }
}

impl Outputs {
    /// Whether an output was made with the parameters of this bag's codec, where it says with which: another error may be
    /// allowed now, or none.
    fn is_made_with(&self, output: &Path) -> io::Result<bool> {
        let mut begin = Vec::new();
        File::open(output)?.take(Codec::BEGIN_BYTES as u64).read_to_end(&mut begin)?;
        Ok(self.codec.may_have_made(&begin))
    }
}

/// Whether an output has its source's time. A file system may keep whole seconds only.
fn same_time(source: &Metadata, output: &Metadata) -> bool {
    source.mtime() == output.mtime()
        && (source.mtime_nsec() == output.mtime_nsec() || output.mtime_nsec() == 0)
}

/// Whether a gzip file's trailer says that it was made of so many bytes.
fn gzip_of(output: &Path, output_bytes: u64, source_bytes: u64) -> io::Result<bool> {
    if output_bytes < GZIP_BYTES_MIN {
        return Ok(false);
    }
    let mut trailer = [0; 4];
    File::open(output)?.read_exact_at(&mut trailer, output_bytes - 4)?;
    Ok(u64::from(u32::from_le_bytes(trailer)) == source_bytes & u64::from(u32::MAX))
}

/// Whether `output` decompresses to `source`, byte for byte.
fn gives(codec: &Codec, output: &Path, source: &Path) -> io::Result<bool> {
    let (mut output, mut source) = (File::open(output)?, File::open(source)?);
    let mut decoder = codec.decoder();
    let (mut piece, mut wanted) = (Vec::new(), Vec::new());
    let mut unpacked = vec![0; SEGMENT_BYTES];
    loop {
        piece.clear();
        output.by_ref().take(SEGMENT_BYTES as u64).read_to_end(&mut piece)?;
        let mut rest = &piece[..];
        loop {
            let progress = decoder.read_into(rest, &mut unpacked).map_err(io::Error::other)?;
            rest = &rest[progress.consumed..];
            wanted.clear();
            source.by_ref().take(progress.produced as u64).read_to_end(&mut wanted)?;
            if wanted != unpacked[..progress.produced] {
                return Ok(false);
            }
            if progress.consumed == 0 && progress.produced == 0 {
                break;
            }
        }
        if !rest.is_empty() {
            return Ok(false);
        }
        if piece.is_empty() {
            break;
        }
    }
    let ended = source.read(&mut [0])? == 0;
    Ok(ended && decoder.finish().is_ok())
}

/// What a path leads to when everything is made that is missing: the dry run's `canonicalize`.
///
/// # Errors
///
/// What the system said.
pub(crate) fn canonical_if_made(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let mut missing = Vec::new();
    let mut there = absolute.as_path();
    loop {
        match (fs::canonicalize(there), there.parent(), there.file_name()) {
            (Ok(found), ..) => return Ok(missing.iter().rev().fold(found, |path, n| path.join(n))),
            (Err(error), Some(parent), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
                missing.push(name);
                there = parent;
            }
            (Err(error), ..) => return Err(error),
        }
    }
}
