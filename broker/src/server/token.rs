//! The token that a server of ours requires: new at each start unless it is kept.

use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;

use super::store::{self, Store};
use crate::{Error, Secret, limits};

/// Name of the file with the token, in the store.
pub(super) const FILE: &str = "token";

/// Which clients may use a server of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Access {
    /// Clients that know the token that is drawn at each start.
    #[default]
    NewToken,
    /// Clients that know the token in this file, which is created if missing.
    TokenOf(PathBuf),
    /// Everybody who reaches its port.
    Everybody,
}

impl Access {
    /// The token that a start asks for; none if everybody is let in.
    pub(super) fn token(&self) -> Result<Option<Secret>, Error> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { what, path, source }
        };
        match self {
            Self::Everybody => Ok(None),
            Self::NewToken => draw().map(Some).map_err(io("draw", Path::new("a token"))),
            Self::TokenOf(path) => kept(path).map(Some).map_err(io("use", path)),
        }
    }
}

/// Draws a token of 256 bits.
pub(super) fn draw() -> io::Result<Secret> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Secret::new(HEXLOWER.encode(&bytes)))
}

/// The token of a file that only we can read, made if it is not there.
fn kept(path: &Path) -> io::Result<Secret> {
    if path.symlink_metadata().is_err() {
        let token = draw()?;
        store::create_secret(path, line(&token).as_bytes())?;
        return Ok(token);
    }
    let token = Secret::read(path).map_err(io::Error::other)?;
    check(token.reveal()).map_err(io::Error::other)?;
    Ok(token)
}

/// Refuses a token that can be guessed: fewer characters have less than 128 bits.
fn check(token: &str) -> Result<(), String> {
    let (min, max) = (limits::TOKEN_CHARS_MIN, limits::TOKEN_CHARS_MAX);
    if (min..=max).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(format!("a token has {min} to {max} printable characters and no blanks"))
}

fn line(token: &Secret) -> String {
    format!("{}\n", token.reveal())
}

/// Puts the token into the store, for processes of ours; without one, what an earlier server left there goes.
pub(super) fn leave(store: &Store, token: Option<&Secret>) -> Result<(), Error> {
    match token {
        Some(token) => store.replace(FILE, line(token).as_bytes()),
        None => store.remove(FILE),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn every_token_is_drawn_anew() {
        let (one, other) = (draw().unwrap(), draw().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.reveal().len(), 64);
    }

    #[test]
    fn a_token_that_is_kept_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept");
        let access = Access::TokenOf(path.clone());
        let made = access.token().unwrap();
        assert_eq!(access.token().unwrap(), made);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let why = access.token().unwrap_err().to_string();
        assert!(why.contains("others can read"), "{why}");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &link).unwrap();
        assert!(Access::TokenOf(link).token().is_err(), "nothing is made where a link leads");
        assert!(!folder.path().join("elsewhere").exists());
    }

    #[test]
    fn a_token_that_can_be_guessed_or_is_none_is_refused() {
        for text in ["", "secret", "0123456789abcdef 0123456789abcdef", &"x".repeat(257)] {
            assert!(check(text).is_err(), "{text}");
        }
        assert!(check(&"x".repeat(22)).is_ok());
    }
}
