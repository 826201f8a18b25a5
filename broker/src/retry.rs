//! Trying again: one policy for every call that may work a moment later.
//!
//! Between two tries lies [`limits::RETRY_WAIT`], unless the caller says otherwise. Whether an error passes is the
//! caller's to say, mostly by [`Error::is_transient`](crate::Error::is_transient).

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::limits;

/// How often, how long and after which waits something is tried again.
///
/// ```
/// # use bagpress_broker::retry::Retry;
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let mut left = 2;
/// let once = || match std::mem::replace(&mut left, 0) {
///     0 => std::future::ready(Ok("done")),
///     left => std::future::ready(Err(left)),
/// };
/// assert_eq!(Retry::times(3).run(once, |_| true).await, Ok("done"));
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// How many times at most; 0 for any number.
    tries: u32,
    /// When no further try begins.
    deadline: Option<Instant>,
    wait: Duration,
    grows: bool,
}

impl Retry {
    /// Until it works, or an error does not pass: the caller's future is dropped to end it.
    #[must_use]
    pub const fn unbounded() -> Self {
        Self { tries: 0, deadline: None, wait: limits::RETRY_WAIT, grows: false }
    }

    /// At most `tries` times, and at least once.
    #[must_use]
    pub const fn times(tries: u32) -> Self {
        let tries = if tries == 0 { 1 } else { tries };
        Self { tries, ..Self::unbounded() }
    }

    /// Until `deadline`: the last try begins then, and there is at least one.
    #[must_use]
    pub const fn until(deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..Self::unbounded() }
    }

    /// As [`until`](Self::until), from now on.
    #[must_use]
    pub fn within(time: Duration) -> Self {
        Self { deadline: Instant::now().checked_add(time), ..Self::unbounded() }
    }

    /// Waits for `wait` between two tries.
    #[must_use]
    pub const fn every(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// Waits once as long after the first try, twice as long after the second, and so on.
    #[must_use]
    pub const fn growing(self) -> Self {
        Self { grows: true, ..self }
    }

    /// Calls `once` until it works, `passes` says that its error does not pass, or there is no try left.
    ///
    /// `passes` is asked only if another try would follow, so it can also say what is waited for. Cancel-safe between
    /// two tries; within one as far as `once` is.
    ///
    /// # Errors
    ///
    /// The last one of `once`.
    pub async fn run<T, E, Once: Future<Output = Result<T, E>>>(
        self,
        // No `AsyncFnMut`: a task that is spawned could not prove its futures `Send`.
        mut once: impl FnMut() -> Once,
        mut passes: impl FnMut(&E) -> bool,
    ) -> Result<T, E> {
        let mut tried = 0_u32;
        loop {
            let error = match once().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            tried = tried.saturating_add(1);
            let left = self.deadline.map(|deadline| deadline.duration_since(Instant::now()));
            let is_last = tried == self.tries || left.is_some_and(|left| left.is_zero());
            if is_last || !passes(&error) {
                return Err(error);
            }
            let wait = self.wait * if self.grows { tried } else { 1 };
            sleep(left.map_or(wait, |left| left.min(wait))).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(4);

    /// How many tries there are of what never works, if so many errors pass, and that they take `at_least`.
    async fn tries(retry: Retry, passing: u32, at_least: Duration) -> u32 {
        let (mut tries, mut asked) = (0, 0);
        let began = Instant::now();
        let once = || {
            tries += 1;
            std::future::ready(Err::<(), _>(tries))
        };
        let passes = |_: &u32| {
            asked += 1;
            asked <= passing
        };
        let failed = retry.every(WAIT).run(once, passes).await;
        assert_eq!(failed, Err(tries), "the last error is returned");
        assert!(began.elapsed() >= at_least, "{retry:?}");
        tries
    }

    #[tokio::test]
    async fn it_ends_with_the_tries_the_deadline_or_an_error_that_does_not_pass() {
        assert_eq!(tries(Retry::unbounded(), 0, Duration::ZERO).await, 1);
        assert_eq!(tries(Retry::unbounded(), 2, WAIT * 2).await, 3);
        assert_eq!(tries(Retry::times(0), u32::MAX, Duration::ZERO).await, 1);
        assert_eq!(tries(Retry::times(3), u32::MAX, WAIT * 2).await, 3);
        assert_eq!(tries(Retry::times(3).growing(), u32::MAX, WAIT * 3).await, 3);
        assert_eq!(tries(Retry::within(Duration::ZERO), u32::MAX, Duration::ZERO).await, 1);
        let cut_short = Retry::within(WAIT / 4);
        assert_eq!(
            tries(cut_short, u32::MAX, WAIT / 4).await,
            2,
            "the last try is at the deadline"
        );
    }

    #[tokio::test]
    async fn a_task_of_its_own_can_try_again() {
        let names = ["one".to_owned()];
        let trying = async move {
            let look = async |name: &str| if name == "one" { Ok(()) } else { Err(()) };
            Retry::times(2).run(|| look(&names[0]), |()| true).await
        };
        assert_eq!(tokio::spawn(trying).await.unwrap(), Ok(()));
    }
}
