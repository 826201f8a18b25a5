//! Waiting for a broker that is just starting: for the server, and for the streams on it.

use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::broker::NO_ANSWER;
use crate::quote::words;
use crate::retry::Retry;
use crate::{Address, Broker, Error, Role, limits, subjects};

/// How long a command waits until a server answers and has the streams, from when this is made.
///
/// What waiting cannot cure, a refusal or a server that is too old, is returned at once.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    began: Instant,
    within: Duration,
    /// Says to a person what is waited for.
    say: fn(&str),
}

impl Patience {
    /// Waits for `within`, and tells `say` once what for. With zero there is one try.
    #[must_use]
    pub fn new(within: Duration, say: fn(&str)) -> Self {
        Self { began: Instant::now(), within, say }
    }

    /// Connects, as [`Broker::connect`] does, as soon as somebody answers.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] with how long was waited, [`Error::Denied`], [`Error::TooOld`].
    pub async fn connect(&self, address: &Address, role: Role) -> Result<Broker, Error> {
        let one_try = || {
            let left = self.within.saturating_sub(self.began.elapsed());
            let within = if self.within.is_zero() { limits::CONNECT_TIMEOUT } else { left };
            Broker::connect_within(address, role, within, |_| {})
        };
        let refused = Mutex::new(None);
        let refused = || refused.lock().unwrap_or_else(PoisonError::into_inner);
        let see = |error: &Error| {
            if let Some(cause) = told(error) {
                *refused() = Some(cause.to_owned());
            }
        };
        let mut connecting = pin!(self.retry(one_try, see));
        let soon = timeout(limits::CONNECT_NOTICE, &mut connecting).await;
        let connected = if let Ok(connected) = soon {
            connected
        } else {
            // Refused again and again, or not even answered.
            let why =
                refused().as_ref().map_or_else(String::new, |why| format!(": {}", words(why)));
            (self.say)(&format!("waiting for a NATS server at {}{why}", words(address.url())));
            connecting.await
        };
        match connected {
            Err(error @ Error::Unreachable { .. }) => {
                // The last try may have had no time to be refused as those before it were.
                let before = if told(&error).is_none() { refused().take() } else { None };
                let Error::Unreachable { url, cause, .. } = error else { return Err(error) };
                let (waited, cause) = (self.began.elapsed(), before.unwrap_or(cause));
                Err(Error::Unreachable { url, waited, cause }.naming_host(address).await)
            }
            connected => connected,
        }
    }

    /// Asks `look` again as long as the server lacks something that its operator is about to make.
    ///
    /// # Errors
    ///
    /// What `look` says at the end.
    pub async fn streams<T, Look: Future<Output = Result<T, Error>>>(
        &self,
        broker: &Broker,
        look: impl Fn() -> Look,
    ) -> Result<T, Error> {
        let mut said = false;
        let say = |error: &Error| {
            if let Error::Missing { what } = error
                && self.began.elapsed() >= limits::CONNECT_NOTICE
                && !std::mem::replace(&mut said, true)
            {
                let url = words(broker.url());
                (self.say)(&format!("waiting for the streams at {url}: it has no {what} yet"));
            }
        };
        self.retry(look, say).await
    }

    /// Waits for the streams, and the lines of all bags.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] if one is not there in the end.
    pub async fn all_streams(&self, broker: &Broker) -> Result<(), Error> {
        let lines = &subjects::lines();
        let look = || async move {
            for name in [subjects::TASKS, subjects::RESULTS, subjects::ATTEMPTS, lines] {
                broker.stream(name).await?;
            }
            Ok(())
        };
        self.streams(broker, look).await
    }

    /// Tries again while somebody may be just starting what is missing; `see` is shown each error.
    async fn retry<T, Once: Future<Output = Result<T, Error>>>(
        &self,
        once: impl Fn() -> Once,
        mut see: impl FnMut(&Error),
    ) -> Result<T, Error> {
        let left = self.within.saturating_sub(self.began.elapsed());
        let passes = |error: &Error| {
            if error.is_of_a_start() {
                see(error);
            }
            error.is_of_a_start()
        };
        Retry::within(left).every(limits::CONNECT_AGAIN).run(once, passes).await
    }
}

/// What the client said of why there is no connection, if it said anything.
fn told(error: &Error) -> Option<&str> {
    match error {
        Error::Unreachable { cause, .. } if cause != NO_ANSWER => Some(cause),
        _ => None,
    }
}
