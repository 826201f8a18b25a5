//! One connection to a broker, with a name, and with errors that reach the caller.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{
    Auth, AuthError, Client, ConnectOptions, Event, RequestErrorKind, ServerAddr, ServerError,
    jetstream,
};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::{Error, SERVER_VERSION_MIN, limits, machine};

/// Authorization failures in a row after which a connection gives up: the client itself never does.
const DENIED_MAX: u32 = 5;

/// Where a broker is, and how to get in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Address {
    /// One or more URLs, separated by commas.
    pub url: String,
    /// A credentials file.
    pub credentials: Option<PathBuf>,
    /// User name and password.
    pub user: Option<(String, String)>,
    /// A token.
    pub token: Option<String>,
    /// A file with a token, read for each connection: a server of ours that was started again has a new one.
    pub token_file: Option<PathBuf>,
    /// Seed of an nkey.
    pub nkey_seed: Option<String>,
}

impl Address {
    /// An address that needs no credentials, or has them in its URL.
    #[must_use]
    pub fn plain(url: &str) -> Self {
        Self { url: url.to_owned(), ..Self::default() }
    }

    /// Says why `url` names no servers, if it does not: one or more URLs, separated by commas.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    ///
    /// # Examples
    ///
    /// ```
    /// use bagpress_broker::Address;
    /// assert!(Address::check("nats://n1:4222,tls://n2").is_ok());
    /// assert!(Address::check("http://n1:4222").is_err());
    /// ```
    pub fn check(url: &str) -> Result<(), String> {
        for one in url.split(',').map(str::trim) {
            if one.is_empty() {
                return Err("it is empty".to_owned());
            }
            let address: ServerAddr = one.parse().map_err(|e: std::io::Error| e.to_string())?;
            if address.host().is_empty() {
                return Err("it has no host".to_owned());
            }
            if address.port() == 0 {
                return Err("port 0 is none".to_owned());
            }
        }
        Ok(())
    }
}

/// Who connects: it is in the connection's name, `bagpress-<role>/<host>/<pid>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Submits and gathers.
    Producer,
    /// Compresses. Waits for ever for its broker, also at first.
    Worker,
    /// Makes streams.
    Admin,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Worker => "worker",
            Self::Admin => "admin",
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
        let urls: Vec<_> = address.url.split(',').map(str::trim).collect();
        let unreachable = |cause: &dyn std::fmt::Display| Error::Unreachable {
            url: address.url.clone(),
            waited: began.elapsed(),
            cause: cause.to_string(),
        };
        let connecting = options.connect(urls);
        let client = if role == Role::Worker {
            connecting.await.map_err(|e| unreachable(&e))?
        } else {
            match tokio::time::timeout(within, connecting).await {
                Ok(Ok(client)) => client,
                Ok(Err(error)) if denied(&error.to_string()) => {
                    return Err(Error::Denied(error.to_string()));
                }
                Ok(Err(error)) => return Err(unreachable(&error)),
                Err(_) => return Err(unreachable(&"no answer")),
            }
        };
        let context = jetstream::ContextBuilder::new()
            .timeout(Duration::from_secs(5))
            .max_ack_inflight(65_536)
            .build(client.clone());
        let inner = Inner { client, context, url: address.url.clone(), state };
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
    let mut options = match address.token_file.clone() {
        Some(file) => ConnectOptions::with_auth_callback(move |_| token_of(file.clone())),
        None => ConnectOptions::new(),
    };
    options = options
        .name(name)
        .custom_inbox_prefix(format!("_INBOX_{}", role.as_str()))
        .request_timeout(Some(limits::REQUEST_TIMEOUT))
        .subscription_capacity(8_192)
        .event_callback(move |event| {
            on_event(&event, &state, &denials);
            std::future::ready(())
        });
    if role == Role::Worker {
        options = options.retry_on_initial_connect();
    }
    if let Some((user, password)) = &address.user {
        options = options.user_and_password(user.clone(), password.clone());
    }
    if let Some(token) = &address.token {
        options = options.token(token.clone());
    }
    if let Some(seed) = &address.nkey_seed {
        options = options.nkey(seed.clone());
    }
    if let Some(path) = &address.credentials {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io {
            what: "read the credentials",
            path: path.clone(),
            source,
        })?;
        options = options.credentials(&text).map_err(|source| Error::Io {
            what: "use the credentials",
            path: path.clone(),
            source,
        })?;
    }
    Ok(options)
}

async fn token_of(file: PathBuf) -> Result<Auth, AuthError> {
    let read = tokio::task::spawn_blocking({
        let file = file.clone();
        move || std::fs::read_to_string(file)
    });
    let text = read.await.map_err(AuthError::new)?;
    let text = text.map_err(|error| {
        AuthError::new(format!("authentication: {}: {error}", crate::quote::name(&file)))
    })?;
    let mut auth = Auth::new();
    auth.token = Some(text.trim().to_owned());
    Ok(auth)
}

fn denied(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("authorization")
        || text.contains("authentication")
        || text.contains("permissions")
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
        Event::ServerError(ServerError::Other(text)) if denied(text) => {
            state.send_modify(|s| s.fatal = Some(text.clone()));
        }
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
