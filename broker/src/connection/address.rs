//! The address of a broker and the login for it, kept apart: one may be shown, the other may not.

use std::path::{Path, PathBuf};

use async_nats::ServerAddr;
use async_nats::rustls::pki_types::pem::PemObject;
use async_nats::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use percent_encoding::percent_decode_str;

use crate::secret::{self, Secret, UnfitFile};

/// Where a broker is, and how to get in. Its `Debug` and its URL have nothing secret.
#[derive(Debug, Clone, Default)]
pub struct Address {
    url: String,
    login: Login,
    tls: Tls,
}

/// The identity that we claim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Login {
    /// Nobody.
    #[default]
    None,
    /// A user of the server's configuration.
    User {
        /// Its name.
        name: String,
        /// Its password.
        password: Secret,
    },
    /// Clients that know the token.
    Token(Secret),
    /// Clients that know the token in this file, which is read for each connection: it may have a new one.
    TokenFile(PathBuf),
    /// A client that has the seed; made by [`Login::nkey`].
    Nkey(Secret),
    /// A client that has the seed of a JWT; made by [`Login::credentials`].
    Credentials(Secret),
}

/// How the connection is encrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Authorities to believe, in place of the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Encrypt before the server has said a word.
    pub first: bool,
}

impl Address {
    /// One or more URLs, separated by commas. What they have of a user, password or token is the login.
    ///
    /// # Errors
    ///
    /// What is wrong with them, in words that show nothing of a login.
    ///
    /// # Examples
    ///
    /// ```
    /// use bagpress_broker::Address;
    /// let address = Address::parse("nats://me:hunter2@n1:4222,tls://n2").unwrap();
    /// assert_eq!(address.url(), "nats://n1:4222,tls://n2");
    /// assert!(address.has_login());
    /// assert!(Address::parse("http://n1:4222").is_err());
    /// ```
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut login = Login::None;
        let mut urls = Vec::new();
        for one in text.split(',').map(str::trim) {
            let (url, own) = parse_one(one)?;
            if own != Login::None && login != Login::None && own != login {
                return Err("its URLs have different credentials".to_owned());
            }
            if own != Login::None {
                login = own;
            }
            urls.push(url);
        }
        Ok(Self { url: urls.join(","), login, tls: Tls::default() })
    }

    /// The address of a server of our own.
    #[must_use]
    pub fn plain(url: &str) -> Self {
        // One that is none is refused by the client, and shown without a login as any other.
        Self::parse(url).unwrap_or_else(|_| Self { url: Self::shown(url), ..Self::default() })
    }

    /// What may be shown of a text that is no address, whatever is wrong with it.
    #[must_use]
    pub fn shown(text: &str) -> String {
        match text.rfind('@') {
            Some(at) => format!("…@{}", &text[at + 1..]),
            None => text.to_owned(),
        }
    }

    /// Logs in by `login`, in place of what it has.
    #[must_use]
    pub fn with_login(self, login: Login) -> Self {
        Self { login, ..self }
    }

    /// Encrypts by `tls`.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        Self { tls, ..self }
    }

    /// One or more URLs, separated by commas, without a login.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The identity that we claim.
    #[must_use]
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// Whether we say who we are.
    #[must_use]
    pub fn has_login(&self) -> bool {
        self.login != Login::None
    }

    /// How it is encrypted.
    #[must_use]
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Whether nothing may be said in clear, whatever the server offers.
    pub(crate) fn requires_tls(&self) -> bool {
        self.tls != Tls::default() || self.url.split(',').any(|url| url.starts_with("tls://"))
    }
}

/// One URL without its login, and the login.
fn parse_one(one: &str) -> Result<(String, Login), String> {
    if one.is_empty() {
        return Err("it is empty".to_owned());
    }
    let address: ServerAddr = one.parse().map_err(|e: std::io::Error| e.to_string())?;
    if address.is_websocket() {
        // The client of this build would speak to it in clear.
        return Err("websockets are not supported".to_owned());
    }
    if address.host().is_empty() {
        return Err("it has no host".to_owned());
    }
    if address.port() == 0 {
        return Err("port 0 is not a port".to_owned());
    }
    let url = address.into_inner();
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(
            "it has more than host and port; in a password, write / as %2F, ? as %3F and # as %23"
                .to_owned(),
        );
    }
    // Nothing but the login can have an `@` now.
    let stripped = match (one.split_once("://"), one.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        (_, None) => one.to_owned(),
    };
    if stripped.contains(|c: char| !c.is_ascii_graphic()) {
        return Err("it has a character that is not allowed in an address".to_owned());
    }
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8();
        text.map(String::from).map_err(|_| "its user or password is not UTF-8".to_owned())
    };
    let login = match (url.username(), url.password()) {
        ("", None) => Login::None,
        ("", Some(_)) => return Err("it has a password and no user".to_owned()),
        // As every client of NATS reads it.
        (token, None) => Login::Token(Secret::new(decoded(token)?)),
        (name, Some(password)) => {
            Login::User { name: decoded(name)?, password: Secret::new(decoded(password)?) }
        }
    };
    Ok((stripped, login))
}

impl Login {
    /// By the seed of an nkey, plain or decorated.
    ///
    /// # Errors
    ///
    /// If `text` has none, in words that show nothing of it.
    pub fn nkey(text: &Secret) -> Result<Self, &'static str> {
        let mut lines = text.reveal().lines().map(str::trim);
        let seed = lines.find(|line| nkeys::KeyPair::from_seed(line).is_ok());
        let seed = seed.ok_or("it contains no nkey seed")?;
        Ok(Self::Nkey(Secret::new(seed.to_owned())))
    }

    /// By the text of a credentials file: a JWT and its seed.
    ///
    /// # Errors
    ///
    /// As [`nkey`](Self::nkey).
    pub fn credentials(text: &Secret) -> Result<Self, &'static str> {
        // The client wants the last line to have an end.
        let text = Secret::new(format!("{}\n", text.reveal()));
        match async_nats::ConnectOptions::with_credentials(text.reveal()) {
            Ok(_) => Ok(Self::Credentials(text)),
            Err(_) => Err("it contains no user JWT with its seed"),
        }
    }

    /// By what we log in, for an error.
    pub(crate) fn named(&self) -> String {
        match self {
            Self::None => "without credentials".to_owned(),
            Self::User { name, .. } => format!("as user {}", crate::quote::name(name)),
            Self::Token(_) => "by a token".to_owned(),
            Self::TokenFile(path) => format!("by the token in {}", crate::quote::name(path)),
            Self::Nkey(_) => "by an nkey".to_owned(),
            Self::Credentials(_) => "by a credentials file".to_owned(),
        }
    }
}

impl Tls {
    /// Checks that the files are there and what they should be. They are read again by every connection.
    ///
    /// # Errors
    ///
    /// [`UnfitFile`] for the first that is not, or for a key that others can read.
    pub fn check(&self) -> Result<(), UnfitFile> {
        for path in self.ca.iter().chain(self.client.iter().map(|(certificate, _)| certificate)) {
            let (file, _) = secret::open(path)?;
            let mut found = CertificateDer::pem_reader_iter(file);
            if !matches!(found.next(), Some(Ok(_))) {
                return Err(UnfitFile::new(path, "it contains no PEM certificate"));
            }
        }
        match &self.client {
            Some((_, key)) => check_key(key),
            None => Ok(()),
        }
    }
}

fn check_key(path: &Path) -> Result<(), UnfitFile> {
    secret::check_own(path)?;
    match PrivateKeyDer::from_pem_file(path) {
        Ok(_) => Ok(()),
        Err(_) => Err(UnfitFile::new(path, "it contains no unencrypted PEM private key")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, password: &str) -> Login {
        Login::User { name: name.to_owned(), password: Secret::new(password.to_owned()) }
    }

    fn token(text: &str) -> Login {
        Login::Token(Secret::new(text.to_owned()))
    }

    #[test]
    fn an_address_is_shown_without_its_login() {
        for (text, url, login) in [
            ("nats://h:1", "nats://h:1", Login::None),
            ("h", "h", Login::None),
            ("nats://u:p@h:1", "nats://h:1", user("u", "p")),
            ("u:p@h", "h", user("u", "p")),
            ("tls://tok@h", "tls://h", token("tok")),
            ("nats://u:p@h,nats://i", "nats://h,nats://i", user("u", "p")),
            ("nats://h, nats://u:p@i , u:p@j", "nats://h,nats://i,j", user("u", "p")),
            ("nats://u:a%2Fb%40c%2Cd@h", "nats://h", user("u", "a/b@c,d")),
            ("nats://u:p@q@h", "nats://h", user("u", "p@q")),
            ("nats://u:p@[::1]:4222", "nats://[::1]:4222", user("u", "p")),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((address.url(), address.login()), (url, &login), "{text}");
        }
    }

    #[test]
    fn no_error_about_an_address_and_no_debug_output_shows_its_login() {
        let hidden = "hunter2";
        for text in [
            "nats://u:hunter2@h:99999",
            "nats://u:hunter2@h:port",
            "http://u:hunter2@h",
            "nats://u:hunter2@",
            "nats://u:1/hunter2@h",
            "nats://u:hunter2/x@h",
            "nats://hunter2?x@h",
            "nats://hunter2#x@h",
            "nats://u:hunter2,x@h",
            "nats://:hunter2@h",
            "nats://u:hunter2@h\u{1b}[1m",
            "nats://u:hunter2@h,nats://u:other@i",
            "nats://hunter2%ff@h",
            "wss://u:hunter2@h",
        ] {
            let why = Address::parse(text).unwrap_err();
            assert!(!why.contains(hidden), "{text}: {why}");
            assert!(!Address::shown(text).contains(hidden), "{text}: {}", Address::shown(text));
        }
        for text in ["nats://u:hunter2@h", "nats://hunter2@h"] {
            let address = Address::parse(text).unwrap();
            assert!(!format!("{address:?}").contains(hidden), "{address:?}");
            assert!(!address.login().named().contains(hidden));
        }
    }

    #[test]
    fn an_address_that_was_asked_for_tls_never_speaks_in_clear() {
        let ca = Tls { ca: Some("ca.pem".into()), ..Tls::default() };
        assert!(Address::plain("nats://h").with_tls(ca).requires_tls());
        assert!(Address::plain("nats://h,tls://i").requires_tls());
        assert!(!Address::plain("nats://h").requires_tls());
    }

    #[test]
    fn a_seed_is_found_plain_or_decorated() {
        let seed = nkeys::KeyPair::new_user().seed().unwrap();
        let decorated = format!("-----BEGIN USER NKEY SEED-----\r\n{seed}\r\n------END------\n");
        for text in [seed.clone(), format!("  {seed}\n"), decorated] {
            let login = Login::nkey(&Secret::new(text)).unwrap();
            assert_eq!(login, Login::Nkey(Secret::new(seed.clone())));
        }
        let public = nkeys::KeyPair::new_user().public_key();
        for text in [String::new(), "SUAsecret".to_owned(), public] {
            assert!(Login::nkey(&Secret::new(text)).is_err());
        }
        assert!(Login::credentials(&Secret::new(seed)).is_err());
    }
}
