//! How a connection is made.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use async_nats::{Auth, AuthError, Client, ConnectError, ConnectOptions};
use tokio::sync::watch;

use super::address::{Address, Login, Tls};
use super::link::{DENIED_MAX, Link, denied, on_event};
use super::role::Role;
use super::tls;
use crate::retry::Retry;
use crate::{Error, Secret, limits, machine, subjects};

pub(super) fn options(
    address: &Address,
    role: Role,
    state: watch::Sender<Link>,
) -> Result<ConnectOptions, Error> {
    let host = machine::host();
    let name = format!("bagpress-{}/{host}/{}", role.as_str(), std::process::id());
    let denials = Arc::new(AtomicU32::new(0));
    let mut options = match address.login() {
        Login::TokenFile(path) => {
            let path = path.clone();
            ConnectOptions::with_auth_callback(move |_| token_of(path.clone()))
        }
        _ => ConnectOptions::new(),
    };
    options = options
        .name(name)
        .custom_inbox_prefix(subjects::inbox(role.as_str()))
        .request_timeout(Some(limits::REQUEST_TIMEOUT))
        .subscription_capacity(8_192)
        .event_callback(move |event| {
            on_event(&event, &state, &denials);
            std::future::ready(())
        });
    if address.requires_tls() {
        options = options.require_tls(true);
    }
    let Tls { ca, client, first } = address.tls();
    if let Some(ca) = ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let Some((certificate, key)) = client {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    if *first {
        options = options.tls_first();
    }
    let secret = |secret: &Secret| secret.reveal().to_owned();
    Ok(match address.login() {
        Login::None | Login::TokenFile(_) => options,
        Login::User { name, password } => options.user_and_password(name.clone(), secret(password)),
        Login::Token(token) => options.token(secret(token)),
        Login::Nkey(seed) => options.nkey(secret(seed)),
        Login::Credentials(text) => options.credentials(text.reveal()).map_err(|_| {
            // What is wrong with it may show it.
            Error::Denied("the credentials contain no user JWT with its seed".to_owned())
        })?,
    })
}

async fn token_of(path: PathBuf) -> Result<Auth, AuthError> {
    let read = tokio::task::spawn_blocking(move || Secret::read(&path));
    let token = read.await.map_err(AuthError::new)?;
    let token = token.map_err(|unfit| AuthError::new(format!("authentication: {unfit}")))?;
    let mut auth = Auth::new();
    auth.token = Some(token.reveal().to_owned());
    Ok(auth)
}

/// Why there is no connection yet, or never will be.
pub(super) enum Refusal {
    Passing(String),
    Denied(String),
    ForGood(Error),
}

impl Refusal {
    fn of(error: &ConnectError, url: &str) -> Self {
        if let Some((why, hint)) = tls::trouble(error) {
            return Self::ForGood(Error::Untrusted { url: url.to_owned(), why, hint });
        }
        let text = error.to_string();
        if denied(&text) { Self::Denied(text) } else { Self::Passing(text) }
    }
}

/// Connects for the first time. A worker tries until it is there or was refused for good: the client's own
/// tries tell nobody that a certificate is not believed. `see` is shown why each try failed behind which another follows.
pub(super) async fn first_connect(
    options: ConnectOptions,
    address: &Address,
    role: Role,
    mut see: impl FnMut(&str),
) -> Result<Client, Refusal> {
    let urls: Vec<_> = address.url().split(',').collect();
    let once = || async {
        let connected = options.clone().connect(&urls[..]).await;
        connected.map_err(|error| Refusal::of(&error, address.url()))
    };
    let mut denials = 0;
    let passes = |refusal: &Refusal| {
        denials += u32::from(matches!(refusal, Refusal::Denied(_)));
        if let Refusal::Passing(why) | Refusal::Denied(why) = refusal {
            see(why);
        }
        let is_final = matches!(refusal, Refusal::ForGood(_)) || denials >= DENIED_MAX;
        role == Role::Worker && !is_final
    };
    Retry::unbounded().every(limits::CONNECT_AGAIN).run(once, passes).await
}
