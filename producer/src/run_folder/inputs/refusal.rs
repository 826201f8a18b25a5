//! Why a file is not run at all, in a message of bounded length.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bagpress_broker::result::{Cause, Failed};
use bagpress_broker::{limits, quote};

/// Room that a message keeps for the reason, in bytes.
const REASON_BYTES: usize = 160;

/// A refusal that names a path, and why.
pub(crate) fn refused(cause: Cause, path: &Path, why: &str) -> Failed {
    Failed::new(cause, format!("{}: {why}", shortened(path)))
}

/// The refusal of an input that the system let nobody look at.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Failed {
    let cause = match error.kind() {
        io::ErrorKind::NotFound => Cause::InputMissing,
        _ => Cause::InputUnreadable,
    };
    refused(cause, path, &error.to_string())
}

/// A path as it is printed, without its beginning if it is long: a file is known by its end.
fn shortened(path: &Path) -> String {
    let most = limits::FAILURE_BYTES_MAX - REASON_BYTES;
    let bytes = path.as_os_str().as_bytes();
    let mut from = bytes.len().saturating_sub(most);
    loop {
        // Not within a character.
        let end = bytes.len();
        while from < end && from > 0 && (bytes[from] & 0xC0) == 0x80 {
            from += 1;
        }
        let name = quote::name(OsStr::from_bytes(&bytes[from..]));
        if name.len() <= most || from == end {
            return if from == 0 { name } else { format!("…{name}") };
        }
        from += (end - from).div_ceil(4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_keeps_its_end_and_its_reason() {
        for part in ["directory/", "ü/", "\u{1b}[31m/"] {
            let path = format!("/{}last.txt", part.repeat(4_000 / part.len()));
            let failed = refused(Cause::InputUnreadable, Path::new(&path), "File name too long");
            assert!(failed.message.len() < limits::FAILURE_BYTES_MAX, "{}", failed.message.len());
            assert!(failed.message.starts_with('…') && failed.message.contains("last.txt"));
            assert!(failed.message.ends_with(": File name too long"), "{}", failed.message);
        }
        let failed = unreadable(Path::new("a"), &io::Error::from_raw_os_error(2));
        assert_eq!(failed.cause, Cause::InputMissing);
        assert_eq!(failed.message, "a: No such file or directory (os error 2)");
    }
}
