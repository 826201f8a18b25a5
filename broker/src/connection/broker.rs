//! One connection to a broker, with a name, and with errors that reach the caller.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Client, RequestErrorKind, jetstream};
use tokio::sync::watch;

use super::address::Address;
use super::dial::{Refusal, first_connect, options};
use super::link::Link;
use super::role::Role;
use crate::{Error, SERVER_VERSION_MIN, limits, version_at_least};

/// Why there is no connection, where nothing is known but that time is over.
pub(super) const NO_ANSWER: &str = "no answer";

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
    state: watch::Receiver<Link>,
}

impl Broker {
    /// Connects, and checks the server's version.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] when nobody answers within [`limits::CONNECT_TIMEOUT`] (a worker waits
    /// instead), [`Error::Denied`], [`Error::TooOld`].
    pub async fn connect(address: &Address, role: Role) -> Result<Self, Error> {
        Self::connect_seeing(address, role, |_| {}).await
    }

    /// As [`connect`](Self::connect), and shows `see` why each try of a worker failed behind which another follows.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_seeing(
        address: &Address,
        role: Role,
        see: impl FnMut(&str),
    ) -> Result<Self, Error> {
        let connected = Self::connect_within(address, role, limits::CONNECT_TIMEOUT, see).await;
        match connected {
            Err(error) => Err(error.naming_host(address).await),
            connected => connected,
        }
    }

    /// As [`connect`](Self::connect), with one try that lasts for `within` at most.
    pub(crate) async fn connect_within(
        address: &Address,
        role: Role,
        within: Duration,
        see: impl FnMut(&str),
    ) -> Result<Self, Error> {
        let began = Instant::now();
        let (sender, state) = watch::channel(Link::down());
        let options = options(address, role, sender)?;
        let unreachable = |cause: &dyn std::fmt::Display| Error::Unreachable {
            url: address.url().to_owned(),
            waited: began.elapsed(),
            cause: cause.to_string(),
        };
        let connecting = first_connect(options, address, role, see);
        let client = if role == Role::Worker {
            connecting.await
        } else {
            let connected = tokio::time::timeout(within, connecting).await;
            connected.unwrap_or_else(|_| Err(Refusal::Passing(NO_ANSWER.to_owned())))
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
            Err(_) => Err(Error::during("connect").lost("connection closed")),
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
            Ok(Err(error)) => Err(Error::during("flush").lost(error)),
            Err(_) => Err(Error::during("flush").lost("timed out")),
        }
    }
}
