//! What an error of the file system means: decided here for every crate.

use std::io;
use std::path::Path;

use bagpress_broker::quote;
use bagpress_broker::result::{Cause, Failed};
use rustix::io::Errno;

/// What is to be done about an error of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It passes by itself, or when somebody makes room: wait, say so, spend nothing.
    Passes,
    /// It is that one file's: its task fails, and the rest goes on.
    Own,
    /// Nothing of the run can be written any more: the run ends.
    Run,
}

/// What `error` means, as far as the error alone tells. Below a folder of outputs [`Parts`](crate::staging::Parts) knows more.
///
/// ```
/// use bagpress_objstore::{Trouble, trouble};
/// let of = |errno| trouble(&std::io::Error::from_raw_os_error(errno));
/// assert_eq!(of(28), Trouble::Passes); // ENOSPC
/// assert_eq!(of(36), Trouble::Own); // ENAMETOOLONG
/// assert_eq!(of(30), Trouble::Run); // EROFS
/// ```
#[must_use]
pub fn trouble(error: &io::Error) -> Trouble {
    use io::ErrorKind as Kind;
    match Errno::from_io_error(error) {
        Some(
            Errno::NOSPC
            | Errno::DQUOT
            | Errno::MFILE
            | Errno::NFILE
            | Errno::NOMEM
            | Errno::INTR
            | Errno::BUSY
            | Errno::TIMEDOUT,
        ) => Trouble::Passes,
        Some(Errno::ROFS | Errno::NODEV | Errno::NXIO) => Trouble::Run,
        Some(_) => Trouble::Own,
        // One of our own making has a kind, and no number.
        None => match error.kind() {
            Kind::StorageFull | Kind::QuotaExceeded | Kind::TimedOut | Kind::OutOfMemory => {
                Trouble::Passes
            }
            Kind::ReadOnlyFilesystem => Trouble::Run,
            _ => Trouble::Own,
        },
    }
}

/// Why an input cannot be had: what passes is given back, and spends no attempt if that is certain.
#[must_use]
pub(crate) fn input_failed(path: &Path, error: &io::Error) -> Failed {
    let cause = match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Cause::Full,
        // Another try may help, and tries end.
        Some(Errno::BUSY | Errno::TIMEDOUT) => Cause::TransferError,
        Some(Errno::NOENT) => Cause::InputMissing,
        _ => Cause::InputUnreadable,
    };
    Failed::new(cause, format!("{}: {}", quote::name(path), said(error)))
}

/// Why an output cannot be written. `what` names it.
#[must_use]
pub fn output_failed(what: &str, error: &io::Error) -> Failed {
    let cause = match (trouble(error), Errno::from_io_error(error)) {
        (Trouble::Passes, _) => Cause::Full,
        // Of a folder that is gone its gatherer knows more; a disk that fails once may not do so twice.
        (_, None | Some(Errno::NOENT | Errno::IO)) | (Trouble::Run, _) => Cause::TransferError,
        (Trouble::Own, Some(_)) => Cause::OutputUnwritable,
    };
    Failed::new(cause, format!("{what}: {}", said(error)))
}

/// An error for people. For a link that is not followed, the system reports a loop.
#[must_use]
pub fn said(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::LOOP) => {
            "there is a symbolic link in its path, and links are not followed".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Whether this process, or the machine, has as many files open as it may.
#[must_use]
pub fn is_too_many(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Whether there is no room on a disk.
#[must_use]
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The same error once more, for another caller that waits for it.
pub(crate) fn copy(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(
        || io::Error::new(error.kind(), error.to_string()),
        io::Error::from_raw_os_error,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(errno: Errno) -> io::Error {
        errno.into()
    }

    #[test]
    fn what_passes_is_waited_for_and_what_does_not_is_the_files_own() {
        for passes in [Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::NFILE, Errno::NOMEM] {
            assert_eq!(trouble(&of(passes)), Trouble::Passes, "{passes}");
            assert_eq!(trouble(&copy(&of(passes))), Trouble::Passes, "{passes}");
        }
        let own = [
            Errno::NAMETOOLONG,
            Errno::NOTDIR,
            Errno::ISDIR,
            Errno::LOOP,
            Errno::ACCESS,
            Errno::PERM,
            Errno::FBIG,
            Errno::INVAL,
            Errno::EXIST,
            Errno::IO,
        ];
        for own in own {
            assert_eq!(trouble(&of(own)), Trouble::Own, "{own}");
        }
        assert_eq!(trouble(&of(Errno::ROFS)), Trouble::Run);
        assert_eq!(trouble(&io::ErrorKind::StorageFull.into()), Trouble::Passes);
    }

    #[test]
    fn a_failure_names_what_and_why() {
        let failed = output_failed("write out/x", &of(Errno::FBIG));
        assert_eq!(failed.cause, Cause::OutputUnwritable);
        assert!(failed.message.contains("out/x: File too large"), "{}", failed.message);
        let failed = input_failed(Path::new("a b"), &of(Errno::MFILE));
        assert_eq!(failed.cause, Cause::Full);
        assert!(failed.message.starts_with("'a b': Too many open files"), "{}", failed.message);
        assert_eq!(input_failed(Path::new("a"), &of(Errno::NOENT)).cause, Cause::InputMissing);
    }
}
