//! How to get in: which of the typed and exported credentials count, and what is in the files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bagpress_broker::quote::{self, name};
use bagpress_broker::{Address, Login, Secret, Tls, UnfitFile};
use bagpress_producer::{Usage, message};

use crate::cli::broker::{AccessArgs, BrokerAt};
use crate::given::{Given, long, variable};

/// Kinds of credentials, by their flags. A server takes one.
const LOGINS: [&[&str]; 4] = [&["creds"], &["nkey"], &["user", "password_file"], &["token_file"]];
/// A URL may have them in itself.
const OF_URL: &[&str] = &["server"];
/// One does nothing without the other.
const PAIRS: [[&str; 2]; 2] = [["user", "password_file"], ["tls_cert", "tls_key"]];

/// Drops what is exported where what is typed says otherwise, and refuses two kinds of credentials and halves of
/// pairs.
///
/// What is typed goes before what is exported; a context that is typed has its own of everything.
pub(crate) fn settle(at: &mut BrokerAt, given: Given<'_>) -> Result<()> {
    let typed = |id: &&str| given.is_typed(id);
    let context_typed = at.context.is_some() && typed(&"context");
    let exported = |id: &&str| {
        let is_dropped = context_typed && AccessArgs::FLAGS.contains(id);
        given.is_exported(id) && !is_dropped
    };
    let url = at.server.as_ref().map(|url| parse_url(url.reveal(), at.from)).transpose()?;
    let of_url = url.as_ref().is_some_and(Address::has_login).then_some(OF_URL);
    if at.server.is_none() && at.context.is_none() {
        // All of it is for a server that is named.
        at.access = AccessArgs::default();
        return Ok(());
    }
    let kinds = || LOGINS.into_iter().chain(of_url);
    let chosen: Vec<_> = kinds().filter(|kind| kind.iter().any(typed)).collect();
    let others: Vec<_> =
        kinds().filter(|k| !chosen.contains(k) && k.iter().any(exported)).collect();
    match (&chosen[..], &others[..]) {
        ([one, other, ..], _) => {
            return Err(two_kinds([one, other].map(|k| first(k, typed, long))));
        }
        ([], [one, other, ..]) => {
            return Err(two_kinds([one, other].map(|k| first(k, exported, variable))));
        }
        _ => {}
    }
    let is_dropped = |id: &&str| !chosen.is_empty() && others.iter().any(|kind| kind.contains(id));
    let counts = |id: &&str| typed(id) || exported(id) && !is_dropped(id);
    at.access.keep(counts);
    for [one, other] in PAIRS.into_iter().flat_map(|[one, other]| [[one, other], [other, one]]) {
        if counts(&one) && !counts(&other) {
            let named = if typed(&one) { long } else { variable };
            let (one, other) = (named(one), named(other));
            let hint = format!("give {other} too, or leave {one} out");
            return Err(Usage::error(format!("{one} does nothing without {other}"), hint));
        }
    }
    at.typed = typed_again(at, given)?;
    Ok(())
}

/// The flags that were typed, for the next command. What is exported is exported for that too.
fn typed_again(at: &BrokerAt, given: Given<'_>) -> Result<String> {
    let mut values = vec![("context", at.context.clone().map(OsString::from))];
    if let Some(url) = &at.server {
        let url = parse_url(url.reveal(), at.from)?.url().to_owned();
        values.insert(0, ("server", Some(url.into())));
    }
    values.extend(at.access.values());
    let typed = values.into_iter().filter(|(id, _)| given.is_typed(id));
    let flag =
        |(id, value): (&str, Option<OsString>)| Some(format!(" {} {}", long(id), name(value?)));
    Ok(typed.filter_map(flag).collect())
}

fn two_kinds([one, other]: [String; 2]) -> anyhow::Error {
    Usage::error(format!("{one} and {other} both have credentials"), "leave one of them out")
}

/// The flag or variable that made a kind one.
fn first(kind: &[&str], made: impl Fn(&&str) -> bool, named: fn(&str) -> String) -> String {
    named(kind.iter().find(|id| made(id)).unwrap_or(&kind[0]))
}

impl AccessArgs {
    /// Keeps what `counts`, by the names of the fields.
    fn keep(&mut self, counts: impl Fn(&&str) -> bool) {
        let Self { creds, nkey, user, password_file, token_file, tls_ca, tls_cert, tls_key } = self;
        let files = [
            ("creds", creds),
            ("nkey", nkey),
            ("password_file", password_file),
            ("token_file", token_file),
            ("tls_ca", tls_ca),
            ("tls_cert", tls_cert),
            ("tls_key", tls_key),
        ];
        for (id, file) in files {
            if !counts(&id) {
                *file = None;
            }
        }
        if !counts(&"user") {
            *user = None;
        }
    }

    /// What is given, by the names of the fields.
    fn values(&self) -> [(&'static str, Option<OsString>); 8] {
        let Self { creds, nkey, user, password_file, token_file, tls_ca, tls_cert, tls_key } = self;
        let of = |path: &Option<PathBuf>| path.clone().map(PathBuf::into_os_string);
        [
            ("creds", of(creds)),
            ("nkey", of(nkey)),
            ("user", user.clone().map(OsString::from)),
            ("password_file", of(password_file)),
            ("token_file", of(token_file)),
            ("tls_ca", of(tls_ca)),
            ("tls_cert", of(tls_cert)),
            ("tls_key", of(tls_key)),
        ]
    }

    /// What is said of credentials.
    pub(crate) fn login(&self) -> Result<Option<Login>> {
        if let Some(path) = &self.creds {
            return credentials(path).map(Some);
        }
        if let Some(path) = &self.nkey {
            return nkey(path).map(Some);
        }
        if let (Some(name), Some(path)) = (&self.user, &self.password_file) {
            return Ok(Some(Login::User { name: name.clone(), password: secret(path)? }));
        }
        let Some(path) = &self.token_file else { return Ok(None) };
        // Read again for each connection, and made by a broker that may be just starting.
        if path.symlink_metadata().is_err() {
            message(&format!("note: {} is not there yet", name(path)));
        } else {
            secret(path)?;
        }
        Ok(Some(Login::TokenFile(path.clone())))
    }

    /// What is said of certificates, in place of `own`.
    pub(crate) fn tls(&self, own: &Tls) -> Tls {
        let pair = |(cert, key): (&PathBuf, &PathBuf)| (cert.clone(), key.clone());
        let client = self.tls_cert.as_ref().zip(self.tls_key.as_ref()).map(pair);
        Tls {
            ca: self.tls_ca.clone().or_else(|| own.ca.clone()),
            client: client.or_else(|| own.client.clone()),
            first: own.first,
        }
    }
}

/// Logs in by a credentials file.
pub(crate) fn credentials(path: &Path) -> Result<Login> {
    Login::credentials(&secret(path)?).map_err(|why| no_use(path, why))
}

/// Logs in by a file with a seed.
pub(crate) fn nkey(path: &Path) -> Result<Login> {
    Login::nkey(&secret(path)?).map_err(|why| no_use(path, why))
}

fn secret(path: &Path) -> Result<Secret> {
    Secret::read(path).map_err(refused)
}

fn no_use(path: &Path, why: &str) -> anyhow::Error {
    Usage::error(format!("{}: {why}", name(path)), ANOTHER)
}

const ANOTHER: &str = "name another file, or correct this one";

/// A file that cannot be used is a usage error.
pub(crate) fn refused(unfit: UnfitFile) -> anyhow::Error {
    let text = unfit.to_string();
    Usage::error(text, unfit.hint.unwrap_or_else(|| ANOTHER.to_owned()))
}

/// The address of a NATS server; `from` is the flag or variable that it came from.
pub(crate) fn parse_url(url: &str, from: &str) -> Result<Address> {
    Address::parse(url).map_err(|why| {
        let shown = quote::name(Address::shown(url));
        Usage::error(
            format!("{from}: {shown} is not the address of a NATS server: {}", quote::words(&why)),
            "give one such as nats://127.0.0.1:4222; schemes are nats and tls",
        )
    })
}
