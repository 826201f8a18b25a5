//! What a server of ours asks for: a token, new at each start unless somebody keeps one.

use std::fmt;
use std::io;
use std::path::Path;

use data_encoding::HEXLOWER;

use super::store::{self, Store};
use crate::{Error, limits};

/// Name of the file with the token, in the store.
pub(super) const FILE: &str = "token";

/// Who may use a server of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Access {
    /// Who knows a token that is drawn at each start.
    #[default]
    NewToken,
    /// Who knows the token of this file, which is made if it is not there.
    TokenOf(std::path::PathBuf),
    /// Everybody who reaches its port.
    Everybody,
}

/// A token: 22 to 256 printable characters without blanks. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Draws one of 256 bits.
    pub(super) fn draw() -> io::Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self(HEXLOWER.encode(&bytes)))
    }

    /// Reads one that somebody keeps. Fewer characters than 128 bits take can be guessed.
    fn parse(text: &str) -> io::Result<Self> {
        let text = text.trim_end();
        let fits = (limits::TOKEN_CHARS_MIN..=limits::TOKEN_CHARS_MAX).contains(&text.len());
        if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self(text.to_owned()));
        }
        Err(io::Error::other(format!(
            "a token has {} to {} printable characters without blanks",
            limits::TOKEN_CHARS_MIN,
            limits::TOKEN_CHARS_MAX
        )))
    }

    /// The secret itself.
    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl Access {
    /// The token that a start asks for; none if everybody is let in.
    pub(super) fn token(&self) -> Result<Option<Token>, Error> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { what, path, source }
        };
        match self {
            Self::Everybody => Ok(None),
            Self::NewToken => Token::draw().map(Some).map_err(io("draw", Path::new("a token"))),
            Self::TokenOf(path) => kept(path).map(Some).map_err(io("use the token in", path)),
        }
    }
}

/// The token of a file that only we can read, made if it is not there.
fn kept(path: &Path) -> io::Result<Token> {
    if let Some(text) = store::read_secret(path, limits::TOKEN_CHARS_MAX + 2)? {
        return Token::parse(&text);
    }
    let token = Token::draw()?;
    store::create_secret(path, format!("{}\n", token.secret()).as_bytes())?;
    Ok(token)
}

/// Puts the token into the store, for processes of ours; without one, what an earlier server left there goes.
pub(super) fn leave(store: &Store, token: Option<&Token>) -> Result<(), Error> {
    match token {
        Some(token) => store.replace(FILE, format!("{}\n", token.secret()).as_bytes()),
        None => store.remove(FILE),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn every_token_is_drawn_anew_and_none_is_shown() {
        let (one, other) = (Token::draw().unwrap(), Token::draw().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.secret().len(), 64);
        assert_eq!(format!("{one:?}"), "Token");
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
        assert!(why.contains("chmod 600"), "{why}");
    }

    #[test]
    fn a_token_that_can_be_guessed_or_is_none_is_refused() {
        for text in ["", "secret", "0123456789abcdef 0123456789abcdef", &"x".repeat(257)] {
            assert!(Token::parse(text).is_err(), "{text}");
        }
        assert!(Token::parse(&format!("{}\n", "x".repeat(22))).is_ok());
    }
}
