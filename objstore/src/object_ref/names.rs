//! The names of ADR-20: a bucket's stream, its subjects, and which names may become part of them.

use bagpress_broker::limits;
use bagpress_broker::subjects::BESIDE;
use data_encoding::BASE64URL;

use super::error::Error;

/// Longest object name, in bytes: its subject must fit in a protocol line.
const NAME_BYTES_MAX: usize = 512;
/// Longest bucket name and longest chunk token, in bytes.
const TOKEN_BYTES_MAX: usize = 128;
/// Largest object, in bytes: an output of the largest input, with room to spare.
pub(super) const OBJECT_BYTES_MAX: u64 = 2 * limits::INPUT_BYTES_MAX;

/// Checks a bucket's name or a chunk token: `a-z`, `A-Z`, `0-9`, `-` and `_`, one subject token.
pub(super) fn check_token(what: &'static str, text: &str) -> Result<(), Error> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if (1..=TOKEN_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(());
    }
    Err(Error::BadName { what, name: text.chars().take(80).collect() })
}

pub(super) fn check_chunk_token(token: &str) -> Result<(), Error> {
    check_token("a chunk token", token)
}

pub(super) fn check_object(name: &str) -> Result<(), Error> {
    if (1..=NAME_BYTES_MAX).contains(&name.len()) {
        return Ok(());
    }
    Err(Error::BadName { what: "an object", name: name.chars().take(80).collect() })
}

/// The name of an object whose name another object with other bytes has.
pub(super) fn beside(name: &str, token: &str) -> String {
    format!("{name}{BESIDE}{token}")
}

pub(super) fn stream(bucket: &str) -> String {
    format!("OBJ_{bucket}")
}

pub(super) fn all_chunks(bucket: &str) -> String {
    format!("$O.{bucket}.C.>")
}

pub(super) fn all_metadata(bucket: &str) -> String {
    format!("$O.{bucket}.M.>")
}

pub(super) fn chunks_subject(bucket: &str, token: &str) -> String {
    format!("$O.{bucket}.C.{token}")
}

pub(super) fn metadata_subject(bucket: &str, name: &str) -> String {
    format!("$O.{bucket}.M.{}", BASE64URL.encode(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_those_of_adr_20() {
        assert_eq!(metadata_subject("b", "out_7.bin"), "$O.b.M.b3V0XzcuYmlu");
        assert_eq!(metadata_subject("b", "a?>"), "$O.b.M.YT8-");
        assert_eq!(metadata_subject("b", "a"), "$O.b.M.YQ==");
    }
}
