//! One connection to a broker, with a name, and with errors that reach the caller.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{
    Auth, AuthError, Client, ConnectError, ConnectOptions, Event, RequestErrorKind, ServerError,
    jetstream,
};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::retry::Retry;
use crate::{
    Address, Error, Login, SERVER_VERSION_MIN, Secret, Tls, limits, machine, quote, subjects, tls,
};

/// Authorization failures in a row after which a connection gives up: the client itself never does.
const DENIED_MAX: u32 = 5;

/// Who connects: it is in the connection's name, `bagpress-<role>/<host>/<pid>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Submits and gathers.
    Producer,
    /// Compresses. Waits for ever for its broker, also at first.
    Worker,
    /// Makes streams.
    Admin,
    /// Looks, and changes nothing.
    Observer,
}

impl Role {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Worker => "worker",
            Self::Admin => "admin",
            Self::Observer => "observer",
        }
    }
}

/// A connection to a broker. Cheap to clone; the last clone closes it.
#[derive(Debug, Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    context: jetstream::Context,
    url: String,
    role: Role,
    state: watch::Receiver<State>,
}

#[derive(Debug, Clone)]
struct State {
    /// Times that the connection was made.
    connects: u64,
    connected: bool,
    since: Instant,
    fatal: Option<String>,
}

impl Broker {
    /// Connects, and checks the server's version.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] when nobody answers within [`limits::CONNECT_TIMEOUT`] (a worker waits
    /// instead), [`Error::Denied`], [`Error::TooOld`].
    pub async fn connect(address: &Address, role: Role) -> Result<Self, Error> {
        Self::connect_within(address, role, limits::CONNECT_TIMEOUT).await
    }

    /// As [`connect`](Self::connect), with one try that lasts for `within` at most.
    pub(crate) async fn connect_within(
        address: &Address,
        role: Role,
        within: Duration,
    ) -> Result<Self, Error> {
        let began = Instant::now();
        let (sender, state) = watch::channel(State {
            connects: 0,
            connected: false,
            since: Instant::now(),
            fatal: None,
        });
        let options = options(address, role, sender)?;
        let unreachable = |cause: &dyn std::fmt::Display| Error::Unreachable {
            url: address.url().to_owned(),
            waited: began.elapsed(),
            cause: cause.to_string(),
        };
        let connecting = first_connect(options, address, role);
        let client = if role == Role::Worker {
            connecting.await
        } else {
            let connected = tokio::time::timeout(within, connecting).await;
            connected.unwrap_or_else(|_| Err(Refusal::Passing("no answer".to_owned())))
        };
        let client = client.map_err(|refusal| match refusal {
            Refusal::Passing(cause) => unreachable(&cause),
            Refusal::Denied(text) => {
                let (url, login) = (address.url(), address.login().named());
                Error::Denied(format!("{text} (at {url}, {login})"))
            }
            Refusal::ForGood(error) => error,
        })?;
        let context = jetstream::ContextBuilder::new()
            .timeout(Duration::from_secs(5))
            .max_ack_inflight(65_536)
            .build(client.clone());
        let inner = Inner { client, context, url: address.url().to_owned(), role, state };
        let broker = Self { inner: Arc::new(inner) };
        broker.connected().await?;
        broker.check_version()?;
        Ok(broker)
    }

    /// Waits until the connection is there.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if the server refuses us for good.
    pub async fn connected(&self) -> Result<(), Error> {
        let mut state = self.inner.state.clone();
        let reached = state.wait_for(|s| s.connected || s.fatal.is_some()).await;
        match reached {
            Ok(state) => state.fatal.clone().map_or(Ok(()), |why| Err(Error::Denied(why))),
            Err(_) => Err(Error::Lost { what: "connect", cause: "connection closed".to_owned() }),
        }
    }

    fn check_version(&self) -> Result<(), Error> {
        let found = self.inner.client.server_info().version;
        if version_at_least(&found, SERVER_VERSION_MIN) {
            return Ok(());
        }
        Err(Error::TooOld { found, place: self.inner.url.clone() })
    }

    /// Waits for an error that no retry can cure: a refused permission, or credentials that are no
    /// longer good. Never returns otherwise.
    pub async fn fatal(&self) -> Error {
        let mut state = self.inner.state.clone();
        let why = state.wait_for(|s| s.fatal.is_some()).await.ok().and_then(|s| s.fatal.clone());
        match why {
            Some(why) => Error::Denied(why),
            None => std::future::pending().await,
        }
    }

    /// Does `work`, unless the server refuses us something meanwhile: nothing would answer then, and the work
    /// would wait for its time to be over.
    ///
    /// # Errors
    ///
    /// As `work`, or [`Error::Denied`].
    pub async fn unless_denied<T, E: From<Error>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::select! {
            biased;
            error = self.fatal() => Err(error.into()),
            done = work => done,
        }
    }

    /// As whom it is connected.
    #[must_use]
    pub fn role(&self) -> Role {
        self.inner.role
    }

    /// Waits for the next reconnect.
    pub async fn reconnected(&self) {
        let mut state = self.inner.state.clone();
        let connects = state.borrow().connects;
        if state.wait_for(|s| s.connects > connects).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// How many times the connection was made.
    #[must_use]
    pub fn connects(&self) -> u64 {
        self.inner.state.borrow().connects
    }

    /// For how long the connection has been up; none while it is down.
    #[must_use]
    pub fn up_for(&self) -> Option<Duration> {
        let state = self.inner.state.borrow();
        state.connected.then(|| state.since.elapsed())
    }

    /// Where it is connected to.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// Largest message that the server takes, in bytes.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.inner.client.server_info().max_payload
    }

    /// The client underneath, for `objstore`.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// An owned client, for a caller that hands it to `objstore` without naming its type.
    #[must_use]
    pub fn client_handle(&self) -> Client {
        self.inner.client.clone()
    }

    /// An owned context, likewise.
    #[must_use]
    pub fn context_handle(&self) -> jetstream::Context {
        self.inner.context.clone()
    }

    /// The JetStream context underneath, for `objstore`.
    #[must_use]
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.inner.context
    }

    /// Waits until everything published so far has reached the server.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] if the broker is out of reach.
    pub async fn flush(&self) -> Result<(), Error> {
        // The client's own flush only writes. A server reads a connection in order: its answer, even
        // that there is no JetStream, means that it has read everything before.
        let asking = self.inner.client.request("$JS.API.INFO", "".into());
        match tokio::time::timeout(limits::REQUEST_TIMEOUT, asking).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => Ok(()),
            Ok(Err(error)) => Err(Error::lost("flush")(&error)),
            Err(_) => Err(Error::lost("flush")(&"timed out")),
        }
    }
}

fn options(
    address: &Address,
    role: Role,
    state: watch::Sender<State>,
) -> Result<ConnectOptions, Error> {
    let host = machine::host();
    let name = format!("bagpress-{}/{host}/{}", role.as_str(), std::process::id());
    let denials = Arc::new(std::sync::atomic::AtomicU32::new(0));
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
            Error::Denied("the credentials have no JWT of a user with its seed".to_owned())
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
enum Refusal {
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
/// tries tell nobody that a certificate is not believed.
async fn first_connect(
    options: ConnectOptions,
    address: &Address,
    role: Role,
) -> Result<Client, Refusal> {
    let urls: Vec<_> = address.url().split(',').collect();
    let once = || async {
        let connected = options.clone().connect(&urls[..]).await;
        connected.map_err(|error| Refusal::of(&error, address.url()))
    };
    let mut denials = 0;
    let passes = |refusal: &Refusal| {
        denials += u32::from(matches!(refusal, Refusal::Denied(_)));
        let is_final = matches!(refusal, Refusal::ForGood(_)) || denials >= DENIED_MAX;
        role == Role::Worker && !is_final
    };
    Retry::unbounded().every(limits::CONNECT_AGAIN).run(once, passes).await
}

fn denied(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("authorization")
        || text.contains("authentication")
        || text.contains("permissions")
}

const PUBLISH: &str = "publish to";

/// What a server did not let us do, and with which subject: `Permissions Violation for Publish to "a.b"`.
fn refused(text: &str) -> Option<(&'static str, String)> {
    let (what, subject) = text.split_once('"')?;
    let what = match what.to_ascii_lowercase() {
        what if what.contains("publish") => PUBLISH,
        what if what.contains("subscription") => "subscribe to",
        _ => return None,
    };
    let (subject, _) = subject.split_once('"')?;
    Some((what, quote::words(subject)))
}

/// Whether a subject is one that somebody waits on for an answer.
fn is_answer(subject: &str) -> bool {
    subject.starts_with("_R_.") || subject.starts_with(&subjects::inbox(""))
}

fn on_event(event: &Event, state: &watch::Sender<State>, denials: &std::sync::atomic::AtomicU32) {
    use std::sync::atomic::Ordering::Relaxed;
    match event {
        Event::Connected => {
            denials.store(0, Relaxed);
            debug!("connected to the broker");
            state.send_modify(|s| {
                s.connects += 1;
                s.connected = true;
                s.since = Instant::now();
            });
        }
        Event::Disconnected => {
            info!("connection to the broker lost, reconnecting");
            state.send_modify(|s| s.connected = false);
        }
        // The client reports a refused publish or subscribe here and nowhere else.
        Event::ServerError(ServerError::Other(text)) if denied(text) => match refused(text) {
            // Who asked may have waited too long, or asked before the connection was made anew.
            Some((PUBLISH, subject)) if is_answer(&subject) => {
                debug!(subject, "answer not permitted");
            }
            refused => state.send_modify(|s| {
                let why = refused.map_or_else(
                    || text.clone(),
                    |(what, on)| format!("to {what} {on} is not among the rights of this role"),
                );
                // What comes behind the first one may follow from it.
                s.fatal.get_or_insert(why);
            }),
        },
        Event::ServerError(ServerError::AuthorizationViolation) => {
            state.send_modify(|s| s.fatal = Some("authorization violation".to_owned()));
        }
        Event::ClientError(error) if denied(&error.to_string()) => {
            if denials.fetch_add(1, Relaxed) + 1 >= DENIED_MAX {
                state.send_modify(|s| s.fatal = Some(error.to_string()));
            }
        }
        Event::LameDuckMode => info!("the broker is shutting down, moving"),
        Event::SlowConsumer(_) => warn!("messages dropped: this process reads too slowly"),
        other => debug!(event = %other, "connection event"),
    }
}

/// Whether `found` (such as `2.12.1` or `2.15.0-dev`) is `wanted` or newer.
#[must_use]
pub fn version_at_least(found: &str, wanted: &str) -> bool {
    let parse = |text: &str| -> Option<(u32, u32, u32)> {
        let core = text.trim_start_matches('v').split(['-', '+']).next()?;
        let mut parts = core.split('.').map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?, parts.next().unwrap_or(Ok(0)).ok()?))
    };
    match (parse(found), parse(wanted)) {
        (Some(found), Some(wanted)) => found >= wanted,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_what_was_refused() {
        for (text, wanted) in [
            (r#"Permissions Violation for Publish to "a.b""#, Some(("publish to", "a.b"))),
            (r#"Permissions Violation for Subscription to "a.>""#, Some(("subscribe to", "a.>"))),
            (
                r#"Permissions Violation for Subscription to "a" using queue "q""#,
                Some(("subscribe to", "a")),
            ),
            ("Authorization Violation", None),
        ] {
            let wanted = wanted.map(|(what, subject)| (what, subject.to_owned()));
            assert_eq!(refused(text), wanted, "{text}");
        }
    }

    #[test]
    fn versions_compare_by_number() {
        for (found, fits) in [
            ("2.9.10", false),
            ("2.10.29", false),
            ("2.11.0", true),
            ("v2.15.1", true),
            ("3.0.0-dev", true),
            ("?", false),
        ] {
            assert_eq!(version_at_least(found, "2.11.0"), fits, "{found}");
        }
    }
}
